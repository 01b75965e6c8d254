//! Certificates in the shape of AMD's: VCEK Certificate and KDS Interface Specification (AMD document 57230), chapter 3.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use ah_evidence::{ChipId, Product, TcbParts};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, RSA_PSS_SHA384};
use const_oid::ObjectIdentifier;
use der::asn1::{Any, BitString, Ia5StringRef, Null, OctetString};
use der::{Decode as _, Encode as _};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::{CertificateInner, TbsCertificateInner, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

use crate::SoftwareTeeError;

/// Organisation in every name: no reader of a certificate can take it for AMD's.
pub const ORGANIZATION: &str = "Anchorhold software TEE (not confidential)";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_YEARS: u32 = 25;
const VCEK_YEARS: u32 = 7;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// RSASSA-PSS-params of RFC 4055: SHA-384, MGF1 with SHA-384, salt of 48 bytes.
const PSS_SHA384: [u8; 54] = [
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
    0x02, 0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01,
    0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05,
    0x00, 0xa2, 0x03, 0x02, 0x01, 0x30,
];

/// Root and intermediate, used once: their keys are dropped when the VCEK is made.
pub(crate) struct Authority {
    key: RsaKeyPair,
    name: Name,
    /// DER.
    pub(crate) certificate: Vec<u8>,
}

impl Authority {
    /// A self-signed root for `product`.
    pub(crate) fn root(
        key: RsaKeyPair,
        product: Product,
        now: SystemTime,
    ) -> Result<Self, SoftwareTeeError> {
        let name = name(&format!("ARK-{product}"))?;
        let usages = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
        let tbs = Tbs {
            serial: 1,
            issuer: &name,
            subject: &name,
            key: rsa_public_key(&key)?,
            years: AUTHORITY_YEARS,
            extensions: authority_extensions(usages, None)?,
        };
        let certificate = tbs.sign(&key, now)?;
        Ok(Self { key, name, certificate })
    }

    /// The intermediate for `product`, signed by this root.
    pub(crate) fn intermediate(
        &self,
        key: RsaKeyPair,
        product: Product,
        now: SystemTime,
    ) -> Result<Self, SoftwareTeeError> {
        let name = name(&format!("SEV-{product}"))?;
        let tbs = Tbs {
            serial: 2,
            issuer: &self.name,
            subject: &name,
            key: rsa_public_key(&key)?,
            years: AUTHORITY_YEARS,
            extensions: authority_extensions(KeyUsages::KeyCertSign.into(), Some(0))?,
        };
        let certificate = tbs.sign(&self.key, now)?;
        Ok(Self { key, name, certificate })
    }

    /// The VCEK certificate of `key`, signed by this intermediate.
    pub(crate) fn vcek(
        &self,
        key: &EcdsaKeyPair,
        product: Product,
        tcb: TcbParts,
        chip_id: &ChipId,
        now: SystemTime,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        let public: PublicKeyX509Der<'_> = key
            .public_key()
            .as_der()
            .map_err(|_| SoftwareTeeError::Crypto { what: "encode a public key" })?;
        let tbs = Tbs {
            serial: 0,
            issuer: &self.name,
            subject: &name("SEV-VCEK")?,
            key: SubjectPublicKeyInfoOwned::from_der(public.as_ref())?,
            years: VCEK_YEARS,
            extensions: vcek_extensions(product, tcb, chip_id)?,
        };
        tbs.sign(&self.key, now)
    }
}

/// The chip that a VCEK certificate names in its hwID extension.
pub(crate) fn chip_id(vcek: &[u8]) -> Option<ChipId> {
    let certificate: CertificateInner = CertificateInner::from_der(vcek).ok()?;
    let extensions = certificate.tbs_certificate.extensions?;
    let oid = amd("4")?;
    let hwid = extensions.iter().find(|extension| extension.extn_id == oid)?;
    hwid.extn_value.as_bytes().try_into().ok().map(ChipId)
}

struct Tbs<'a> {
    serial: u8,
    issuer: &'a Name,
    subject: &'a Name,
    key: SubjectPublicKeyInfoOwned,
    years: u32,
    extensions: Vec<Extension>,
}

impl Tbs<'_> {
    fn sign(self, key: &RsaKeyPair, now: SystemTime) -> Result<Vec<u8>, SoftwareTeeError> {
        let algorithm = AlgorithmIdentifierOwned {
            oid: RSASSA_PSS,
            parameters: Some(Any::from_der(&PSS_SHA384)?),
        };
        let tbs: TbsCertificateInner = TbsCertificateInner {
            version: Version::V3,
            serial_number: SerialNumber::from(self.serial),
            signature: algorithm.clone(),
            issuer: self.issuer.clone(),
            validity: Validity {
                not_before: Time::try_from(now - DAY)?,
                not_after: Time::try_from(now + DAY * 365 * self.years)?,
            },
            subject: self.subject.clone(),
            subject_public_key_info: self.key,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions),
        };
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), &tbs.to_der()?, &mut signature)
            .map_err(|_| SoftwareTeeError::Crypto { what: "sign a certificate" })?;
        let certificate = CertificateInner {
            tbs_certificate: tbs,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(&signature)?,
        };
        Ok(certificate.to_der()?)
    }
}

/// A key for an authority; takes a while.
pub(crate) fn rsa_key() -> Result<RsaKeyPair, SoftwareTeeError> {
    RsaKeyPair::generate(KeySize::Rsa4096)
        .map_err(|_| SoftwareTeeError::Crypto { what: "make an rsa key" })
}

fn rsa_public_key(key: &RsaKeyPair) -> Result<SubjectPublicKeyInfoOwned, SoftwareTeeError> {
    Ok(SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Null.into()) },
        subject_public_key: BitString::from_bytes(key.public_key().as_ref())?,
    })
}

fn name(common_name: &str) -> Result<Name, SoftwareTeeError> {
    Ok(Name::from_str(&format!("CN={common_name},O={ORGANIZATION},OU=Software"))?)
}

fn authority_extensions(
    usages: der::flagset::FlagSet<KeyUsages>,
    path_len_constraint: Option<u8>,
) -> Result<Vec<Extension>, SoftwareTeeError> {
    let constraints = BasicConstraints { ca: true, path_len_constraint };
    Ok(vec![
        extension(BASIC_CONSTRAINTS, true, constraints.to_der()?)?,
        extension(KEY_USAGE, true, KeyUsage(usages).to_der()?)?,
    ])
}

/// Arcs below AMD's 1.3.6.1.4.1.3704.1.
fn vcek_extensions(
    product: Product,
    tcb: TcbParts,
    chip_id: &ChipId,
) -> Result<Vec<Extension>, SoftwareTeeError> {
    let TcbParts { boot_loader, tee, snp, microcode, .. } = tcb;
    let mut extensions = vec![
        amd_extension("1", 0u8.to_der()?)?,
        amd_extension("2", Ia5StringRef::new(product.name())?.to_der()?)?,
    ];
    let parts = [
        ("3.1", boot_loader),
        ("3.2", tee),
        ("3.4", 0),
        ("3.5", 0),
        ("3.6", 0),
        ("3.7", 0),
        ("3.3", snp),
        ("3.8", microcode),
    ];
    for (arc, value) in parts {
        extensions.push(amd_extension(arc, value.to_der()?)?);
    }
    extensions.push(amd_extension("4", chip_id.0.to_vec())?);
    Ok(extensions)
}

fn amd(arc: &str) -> Option<ObjectIdentifier> {
    ObjectIdentifier::new(&format!("1.3.6.1.4.1.3704.1.{arc}")).ok()
}

fn amd_extension(arc: &str, value: Vec<u8>) -> Result<Extension, SoftwareTeeError> {
    let oid = amd(arc).ok_or(SoftwareTeeError::Crypto { what: "name an extension" })?;
    extension(oid, false, value)
}

fn extension(
    extn_id: ObjectIdentifier,
    critical: bool,
    value: Vec<u8>,
) -> Result<Extension, SoftwareTeeError> {
    Ok(Extension { extn_id, critical, extn_value: OctetString::new(value)? })
}
