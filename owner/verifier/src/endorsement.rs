//! The certificate of the key that signs reports: VCEK Certificate and KDS Interface Specification (AMD document 57230),
//! table 8 and following.

use std::time::SystemTime;

use ah_evidence::{ChipId, Product, SigningKey, TcbParts};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, SECP_384_R_1};
use der::Decode as _;
use der::asn1::{Ia5StringRef, OctetStringRef};

use crate::certificate::Certificate;
use crate::error::{Role, VerifyError};

const ROLE: Role = Role::Endorsement;

const fn amd(oid: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(oid)
}

const STRUCT_VERSION: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.1");
const PRODUCT_NAME: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.2");
const BOOT_LOADER: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.3");
const RESERVED: [ObjectIdentifier; 4] = [
    amd("1.3.6.1.4.1.3704.1.3.4"),
    amd("1.3.6.1.4.1.3704.1.3.5"),
    amd("1.3.6.1.4.1.3704.1.3.6"),
    amd("1.3.6.1.4.1.3704.1.3.7"),
];
const MICROCODE: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.5");

/// What a verified endorsement certificate says.
pub(crate) struct Endorsement {
    pub(crate) kind: SigningKey,
    pub(crate) product: Product,
    /// The TCB that the key was derived for.
    pub(crate) tcb: TcbParts,
    /// The chip of a VCEK; short ids are filled up with zeros, as in reports. None for a VLEK.
    pub(crate) chip_id: Option<ChipId>,
    /// The provider that a VLEK is leased to.
    pub(crate) provider: Option<String>,
    /// Uncompressed point on P-384.
    pub(crate) public_key: Vec<u8>,
}

impl Endorsement {
    /// Checks names, validity, issuer and extensions.
    pub(crate) fn check(
        certificate: &Certificate,
        intermediate: &Certificate,
        kind: SigningKey,
        product: Product,
        now: SystemTime,
    ) -> Result<Self, VerifyError> {
        certificate.check_validity(ROLE, now)?;
        certificate.check_common_name(&format!("SEV-{kind}"))?;
        certificate.check_same_organization(&intermediate.tbs.subject)?;
        certificate.check_issued_by(intermediate)?;
        let extensions = Extensions { certificate, product };
        extensions.check_known()?;
        extensions.check_product()?;
        let tcb = extensions.tcb()?;
        let (chip_id, provider) = match kind {
            SigningKey::Vlek => (None, Some(extensions.provider()?)),
            SigningKey::Vcek | SigningKey::None => (Some(extensions.chip_id()?), None),
        };
        let public_key = public_key(certificate)?;
        Ok(Self { kind, product, tcb, chip_id, provider, public_key })
    }
}

/// What an endorsement certificate says it is for. Nothing of it is verified: it serves to file certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementFacts {
    /// VCEK or VLEK.
    pub kind: SigningKey,
    /// Product line.
    pub product: Product,
    /// The TCB that the key was derived for.
    pub tcb: TcbParts,
    /// The chip of a VCEK.
    pub chip_id: Option<ChipId>,
}

/// Reads what an endorsement certificate says it is for.
///
/// # Errors
/// [`VerifyError`] where names or extensions are not as AMD writes them.
pub fn endorsement_facts(der: &[u8]) -> Result<EndorsementFacts, VerifyError> {
    let certificate = Certificate::parse(ROLE, der)?;
    let found = certificate.common_name().unwrap_or_default();
    let kind = match found.as_str() {
        "SEV-VCEK" => SigningKey::Vcek,
        "SEV-VLEK" => SigningKey::Vlek,
        _ => {
            let (what, expected) = ("common name", "SEV-VCEK or SEV-VLEK".to_owned());
            return Err(VerifyError::Name { role: ROLE, what, found, expected });
        }
    };
    let product = product_of(&certificate)?;
    let extensions = Extensions { certificate: &certificate, product };
    let tcb = extensions.tcb()?;
    let chip_id = match kind {
        SigningKey::Vlek => None,
        SigningKey::Vcek | SigningKey::None => Some(extensions.chip_id()?),
    };
    Ok(EndorsementFacts { kind, product, tcb, chip_id })
}

fn product_of(certificate: &Certificate) -> Result<Product, VerifyError> {
    let lines = [Product::Milan, Product::Genoa, Product::Turin, Product::Venice];
    let of = |line: &Product| {
        let extensions = Extensions { certificate, product: *line };
        extensions.check_product().is_ok()
    };
    lines.into_iter().find(of).ok_or_else(|| malformed(PRODUCT_NAME))
}

struct Extensions<'a> {
    certificate: &'a Certificate,
    product: Product,
}

impl Extensions<'_> {
    /// An extension below AMD's arc that is not known may be a part of the TCB that nobody compares, so it is refused.
    fn check_known(&self) -> Result<(), VerifyError> {
        const KNOWN: [ObjectIdentifier; 8] =
            [STRUCT_VERSION, PRODUCT_NAME, BOOT_LOADER, TEE, SNP, MICROCODE, HARDWARE_ID, CSP_ID];
        for extension in self.certificate.extensions() {
            let oid = extension.extn_id;
            let known = KNOWN.contains(&oid)
                || RESERVED.contains(&oid)
                || (oid == FMC && self.product.has_fmc());
            let ours = oid.to_string().starts_with("1.3.6.1.4.1.3704.");
            if !known && (ours || extension.critical) {
                return Err(unexpected(oid));
            }
        }
        self.check_structure()
    }

    /// 0 where there is no FMC part, 1 where there is one.
    fn check_structure(&self) -> Result<(), VerifyError> {
        match self.integer(STRUCT_VERSION)? == u8::from(self.product.has_fmc()) {
            true => Ok(()),
            false => Err(malformed(STRUCT_VERSION)),
        }
    }

    /// "Milan-B0" on a VCEK of Milan, else the bare name.
    fn check_product(&self) -> Result<(), VerifyError> {
        let name = Ia5StringRef::from_der(self.value(PRODUCT_NAME)?);
        let name = name.map_err(|_| malformed(PRODUCT_NAME))?;
        let found = name.as_str();
        match found.split('-').next() == Some(self.product.name()) {
            true => Ok(()),
            false => Err(VerifyError::CertificateProduct {
                found: found.to_owned(),
                expected: self.product,
            }),
        }
    }

    fn tcb(&self) -> Result<TcbParts, VerifyError> {
        for oid in RESERVED {
            // Real certificates of Turin leave them out.
            if self.certificate.extension(oid).is_some() && self.integer(oid)? != 0 {
                return Err(malformed(oid));
            }
        }
        Ok(TcbParts {
            fmc: if self.product.has_fmc() { self.integer(FMC)? } else { 0 },
            boot_loader: self.integer(BOOT_LOADER)?,
            tee: self.integer(TEE)?,
            snp: self.integer(SNP)?,
            microcode: self.integer(MICROCODE)?,
        })
    }

    /// Raw bytes, or the same in an OCTET STRING; their lengths keep the two apart.
    fn chip_id(&self) -> Result<ChipId, VerifyError> {
        self.absent(CSP_ID)?;
        let value = self.value(HARDWARE_ID)?;
        let length = if self.product.has_fmc() { 8 } else { 64 };
        let raw = match value.len() == length {
            true => value,
            false => {
                OctetStringRef::from_der(value).map_err(|_| malformed(HARDWARE_ID))?.as_bytes()
            }
        };
        if raw.len() != length {
            return Err(malformed(HARDWARE_ID));
        }
        let mut id = [0; 64];
        id.iter_mut().zip(raw).for_each(|(slot, byte)| *slot = *byte);
        Ok(ChipId(id))
    }

    fn provider(&self) -> Result<String, VerifyError> {
        self.absent(HARDWARE_ID)?;
        let id = Ia5StringRef::from_der(self.value(CSP_ID)?);
        id.map(|id| id.as_str().to_owned()).map_err(|_| malformed(CSP_ID))
    }

    fn absent(&self, oid: ObjectIdentifier) -> Result<(), VerifyError> {
        match self.certificate.extension(oid) {
            None => Ok(()),
            Some(_) => Err(unexpected(oid)),
        }
    }

    fn value(&self, oid: ObjectIdentifier) -> Result<&[u8], VerifyError> {
        let extension = self.certificate.extension(oid);
        extension
            .map(|extension| extension.extn_value.as_bytes())
            .ok_or_else(|| VerifyError::MissingExtension { role: ROLE, oid: oid.to_string() })
    }

    /// INTEGER in 0..=255.
    fn integer(&self, oid: ObjectIdentifier) -> Result<u8, VerifyError> {
        u8::from_der(self.value(oid)?).map_err(|_| malformed(oid))
    }
}

fn public_key(certificate: &Certificate) -> Result<Vec<u8>, VerifyError> {
    let wrong = || VerifyError::PublicKey { role: ROLE, expected: "a point on p-384" };
    let spki = &certificate.tbs.subject_public_key_info;
    let curve = spki.algorithm.parameters.as_ref().ok_or_else(wrong)?;
    let curve = curve.decode_as::<ObjectIdentifier>().map_err(|_| wrong())?;
    let point = spki.subject_public_key.as_bytes().ok_or_else(wrong)?;
    let uncompressed = point.len() == 97 && point.first() == Some(&4);
    match spki.algorithm.oid == ID_EC_PUBLIC_KEY && curve == SECP_384_R_1 && uncompressed {
        true => Ok(point.to_vec()),
        false => Err(wrong()),
    }
}

fn malformed(oid: ObjectIdentifier) -> VerifyError {
    VerifyError::MalformedExtension { role: ROLE, oid: oid.to_string() }
}

fn unexpected(oid: ObjectIdentifier) -> VerifyError {
    VerifyError::UnexpectedExtension { role: ROLE, oid: oid.to_string() }
}
