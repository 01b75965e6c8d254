//! One X.509 certificate: the bytes that are signed are the bytes that were received, and those are then read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::CN;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE};
use const_oid::db::rfc5912::{ID_RSASSA_PSS, RSA_ENCRYPTION};
use der::asn1::{Any, BitStringRef, UintRef};
use der::{Decode as _, Reader as _, SliceReader};
use spki::AlgorithmIdentifierOwned;
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::collateral::MAX_CERTIFICATE_BYTES;
use crate::error::{Role, VerifyError};

/// RSASSA-PSS-params for SHA-384, MGF1 with SHA-384, salt of 48 bytes (RFC 4055), contents of the SEQUENCE.
const PSS_SHA384: &[u8] = &[
    0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05,
    0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2,
    0x03, 0x02, 0x01, 0x30,
];
/// The trailer field that DER leaves out and AMD's roots spell out.
const DEFAULT_TRAILER: &[u8] = &[0xa3, 0x03, 0x02, 0x01, 0x01];

const RSA_BITS: &str = "rsa with 4096 bits and exponent 65537";

/// A signed structure taken apart: what is signed, and the signature.
pub(crate) struct Signed {
    /// DER of the part that is signed, as received.
    pub(crate) content: Vec<u8>,
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    signature: Vec<u8>,
}

impl Signed {
    /// SEQUENCE of content, algorithm and signature, and nothing behind it.
    pub(crate) fn read(der: &[u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let signed = reader.sequence(|inner| {
            let content = inner.tlv_bytes()?.to_vec();
            let algorithm = AlgorithmIdentifierOwned::decode(inner)?;
            let signature = BitStringRef::decode(inner)?;
            let signature = signature.as_bytes().ok_or(der::Tag::BitString.value_error())?;
            Ok(Self { content, algorithm, signature: signature.to_vec() })
        })?;
        reader.finish(signed)
    }

    /// True for RSASSA-PSS with SHA-384 and a salt of 48 bytes, the only algorithm that AMD signs certificates with.
    pub(crate) fn is_pss_sha384(&self) -> bool {
        let parameters = self.algorithm.parameters.as_ref().map(Any::value).unwrap_or_default();
        self.algorithm.oid == ID_RSASSA_PSS
            && parameters.strip_suffix(DEFAULT_TRAILER).unwrap_or(parameters) == PSS_SHA384
    }

    /// True if the key of `issuer` signed the content.
    pub(crate) fn verifies(&self, issuer: &Certificate) -> bool {
        let Ok(key) = issuer.rsa_key() else { return false };
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(&self.content, &self.signature)
            .is_ok()
    }
}

/// A certificate in AMD's form, not yet believed.
pub(crate) struct Certificate {
    role: Role,
    signed: Signed,
    pub(crate) tbs: TbsCertificate,
}

impl Certificate {
    pub(crate) fn parse(role: Role, der: &[u8]) -> Result<Self, VerifyError> {
        let (found, limit) = (der.len(), MAX_CERTIFICATE_BYTES);
        if found > limit {
            return Err(VerifyError::TooLarge { what: "certificate", found, limit });
        }
        let malformed = |source| VerifyError::Certificate { role, source };
        let signed = Signed::read(der).map_err(malformed)?;
        let tbs = TbsCertificate::from_der(&signed.content).map_err(malformed)?;
        let certificate = Self { role, signed, tbs };
        certificate.check_form()?;
        Ok(certificate)
    }

    fn check_form(&self) -> Result<(), VerifyError> {
        let form = |what| Err(VerifyError::CertificateForm { role: self.role, what });
        if self.tbs.version != Version::V3 {
            return form("version");
        }
        if !self.signed.is_pss_sha384() {
            return form("signature algorithm");
        }
        if self.tbs.signature != self.signed.algorithm {
            return form("second signature algorithm");
        }
        if self.tbs.issuer_unique_id.is_some() || self.tbs.subject_unique_id.is_some() {
            return form("unique identifier");
        }
        self.check_unique_extensions()
    }

    fn check_unique_extensions(&self) -> Result<(), VerifyError> {
        let mut seen = Vec::new();
        for extension in self.extensions() {
            if seen.contains(&extension.extn_id) {
                let oid = extension.extn_id.to_string();
                return Err(VerifyError::DuplicateExtension { role: self.role, oid });
            }
            seen.push(extension.extn_id);
        }
        Ok(())
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        self.tbs.extensions.as_deref().unwrap_or_default()
    }

    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Option<&Extension> {
        self.extensions().iter().find(|extension| extension.extn_id == oid)
    }

    /// The issuer's name and signature.
    pub(crate) fn check_issued_by(&self, issuer: &Certificate) -> Result<(), VerifyError> {
        if self.tbs.issuer != issuer.tbs.subject {
            return Err(VerifyError::Name {
                role: self.role,
                what: "issuer",
                found: self.tbs.issuer.to_string(),
                expected: issuer.tbs.subject.to_string(),
            });
        }
        match self.signed.verifies(issuer) {
            true => Ok(()),
            false => Err(VerifyError::CertificateSignature { role: self.role }),
        }
    }

    pub(crate) fn check_validity(&self, role: Role, now: SystemTime) -> Result<(), VerifyError> {
        let now = since_epoch(now);
        if now < seconds(&self.tbs.validity.not_before) {
            return Err(VerifyError::NotYetValid { role });
        }
        match now > seconds(&self.tbs.validity.not_after) {
            true => Err(VerifyError::Expired { role }),
            false => Ok(()),
        }
    }

    /// May sign certificates, and asks for nothing that this verifier does not know.
    pub(crate) fn check_authority(&self) -> Result<(), VerifyError> {
        let role = self.role;
        let known = [ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE];
        for extension in self.extensions() {
            if extension.critical && !known.contains(&extension.extn_id) {
                let oid = extension.extn_id.to_string();
                return Err(VerifyError::UnexpectedExtension { role, oid });
            }
        }
        let constraints: BasicConstraints = self.decoded(ID_CE_BASIC_CONSTRAINTS)?;
        let usage: KeyUsage = self.decoded(ID_CE_KEY_USAGE)?;
        match constraints.ca && usage.key_cert_sign() {
            true => self.rsa_key().map(drop),
            false => Err(VerifyError::CertificateForm { role, what: "purpose" }),
        }
    }

    fn decoded<'d, T: der::Decode<'d>>(&'d self, oid: ObjectIdentifier) -> Result<T, VerifyError> {
        let missing = || VerifyError::MissingExtension { role: self.role, oid: oid.to_string() };
        let value = self.extension(oid).ok_or_else(missing)?.extn_value.as_bytes();
        T::from_der(value)
            .map_err(|_| VerifyError::MalformedExtension { role: self.role, oid: oid.to_string() })
    }

    /// The RSA-4096 key, as RSAPublicKey of RFC 8017.
    fn rsa_key(&self) -> Result<&[u8], VerifyError> {
        let wrong = || VerifyError::PublicKey { role: self.role, expected: RSA_BITS };
        let spki = &self.tbs.subject_public_key_info;
        if spki.algorithm.oid != RSA_ENCRYPTION {
            return Err(wrong());
        }
        let key = spki.subject_public_key.as_bytes().ok_or_else(wrong)?;
        match is_rsa_4096(key) {
            Ok(true) => Ok(key),
            _ => Err(wrong()),
        }
    }

    /// The common name of the subject, if there is exactly one.
    pub(crate) fn common_name(&self) -> Option<String> {
        let mut names = self.tbs.subject.0.iter().flat_map(|rdn| rdn.0.iter());
        let mut names = names.by_ref().filter(|attribute| attribute.oid == CN);
        let name = names.next()?;
        match names.next() {
            Some(_) => None,
            None => std::str::from_utf8(name.value.value()).ok().map(str::to_owned),
        }
    }

    pub(crate) fn check_common_name(&self, expected: &str) -> Result<(), VerifyError> {
        let found = self.common_name().unwrap_or_default();
        match found == expected {
            true => Ok(()),
            false => Err(VerifyError::Name {
                role: self.role,
                what: "common name",
                found,
                expected: expected.to_owned(),
            }),
        }
    }

    /// All of the subject but the common name is the same as in `root`: one organisation from root to key.
    pub(crate) fn check_same_organization(&self, root: &Name) -> Result<(), VerifyError> {
        match without_common_name(&self.tbs.subject) == without_common_name(root) {
            true => Ok(()),
            false => Err(VerifyError::Name {
                role: self.role,
                what: "subject",
                found: self.tbs.subject.to_string(),
                expected: format!("the organisation of {root}"),
            }),
        }
    }
}

fn without_common_name(name: &Name) -> Vec<&x509_cert::name::RelativeDistinguishedName> {
    name.0.iter().filter(|rdn| rdn.0.iter().all(|attribute| attribute.oid != CN)).collect()
}

fn is_rsa_4096(key: &[u8]) -> der::Result<bool> {
    let mut reader = SliceReader::new(key)?;
    let fits = reader.sequence(|inner| {
        let modulus = UintRef::decode(inner)?;
        let exponent = UintRef::decode(inner)?;
        let high = modulus.as_bytes().first().is_some_and(|byte| byte & 0x80 != 0);
        Ok(modulus.as_bytes().len() == 512 && high && exponent.as_bytes() == [1, 0, 1])
    })?;
    reader.finish(fits)
}

/// Before 1970 is no time for any certificate.
pub(crate) fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub(crate) fn seconds(time: &Time) -> Duration {
    time.to_unix_duration()
}
