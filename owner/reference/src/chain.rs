//! A certificate chain that came with a message: each link signed by the next, the last one by itself, all valid at one time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_digest::Sha256;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE};
use const_oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1,
    SECP_384_R_1, SHA_256_WITH_RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION,
    SHA_512_WITH_RSA_ENCRYPTION,
};
use der::asn1::BitStringRef;
use der::{Decode as _, Reader as _, SliceReader};
use spki::AlgorithmIdentifierOwned;
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

/// Largest certificate, bytes.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Why a chain is not believed. Links are counted from the leaf, which is 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Too short for a leaf and its authority.
    #[error("chain has {found} certificates, expected at least 2")]
    Length {
        /// How many.
        found: usize,
    },
    /// Not a certificate, or bytes behind it.
    #[error("certificate {link} of the chain is not an x.509 certificate")]
    Encoding {
        /// Which.
        link: usize,
    },
    /// A part that does not belong at its place.
    #[error("certificate {link} of the chain has an unexpected {what}")]
    Form {
        /// Which.
        link: usize,
        /// Which part.
        what: &'static str,
    },
    /// The issuer is not the next certificate.
    #[error("certificate {link} of the chain is issued by {found:?}, expected {expected:?}")]
    Issuer {
        /// Which.
        link: usize,
        /// Issuer found.
        found: String,
        /// Subject of the next.
        expected: String,
    },
    /// The next certificate's key did not sign it.
    #[error("certificate {link} of the chain is not signed by its issuer")]
    Signature {
        /// Which.
        link: usize,
    },
    /// Not valid at the time that counts.
    #[error("certificate {link} of the chain was not valid at the time of signing")]
    Validity {
        /// Which.
        link: usize,
    },
    /// The leaf is not made for this use.
    #[error("leaf certificate is not made for key usage {expected}")]
    KeyUsage {
        /// Usage that was needed.
        expected: String,
    },
    /// A kind of key or signature that is not taken.
    #[error("certificate {link} of the chain has an unknown kind of key or signature")]
    Algorithm {
        /// Which.
        link: usize,
    },
}

struct Link {
    der: Vec<u8>,
    content: Vec<u8>,
    algorithm: AlgorithmIdentifierOwned,
    signature: Vec<u8>,
    tbs: TbsCertificate,
}

/// A chain of which every link was checked.
pub(crate) struct Chain {
    links: Vec<Link>,
}

/// The public key of a leaf, of one of two kinds.
pub(crate) enum LeafKey {
    /// RSAPublicKey of RFC 8017.
    Rsa(Vec<u8>),
    /// Point on P-384.
    P384(Vec<u8>),
}

impl Chain {
    /// Reads and checks a chain, leaf first, for what was signed at `at`.
    pub(crate) fn check(ders: &[Vec<u8>], at: SystemTime) -> Result<Self, ChainError> {
        if ders.len() < 2 {
            return Err(ChainError::Length { found: ders.len() });
        }
        let links = ders.iter().enumerate().map(|(link, der)| Link::read(link, der));
        let links = links.collect::<Result<Vec<_>, _>>()?;
        for (index, link) in links.iter().enumerate() {
            link.check_form(index, links.len())?;
            link.check_validity(index, at)?;
            // The last one is its own issuer.
            let issuer = links.get(index.saturating_add(1)).unwrap_or(link);
            link.check_issuer(index, issuer)?;
        }
        Ok(Self { links })
    }

    /// SHA-256 of the leaf.
    pub(crate) fn leaf_digest(&self) -> Option<Sha256> {
        self.links.first().map(|leaf| Sha256::of(&leaf.der))
    }

    /// SHA-256 of the last certificate.
    pub(crate) fn root_digest(&self) -> Option<Sha256> {
        self.links.last().map(|root| Sha256::of(&root.der))
    }

    /// The leaf names this extended key usage.
    pub(crate) fn check_key_usage(&self, expected: ObjectIdentifier) -> Result<(), ChainError> {
        let usages = self.links.first().and_then(|leaf| {
            leaf.extension(ID_CE_EXT_KEY_USAGE)
                .and_then(|value| ExtendedKeyUsage::from_der(value).ok())
        });
        match usages.is_some_and(|usages| usages.0.contains(&expected)) {
            true => Ok(()),
            false => Err(ChainError::KeyUsage { expected: expected.to_string() }),
        }
    }

    pub(crate) fn leaf_key(&self) -> Result<LeafKey, ChainError> {
        let unknown = ChainError::Algorithm { link: 0 };
        let leaf = self.links.first().ok_or(unknown.clone())?;
        let key = leaf.public_key().ok_or(unknown.clone())?.to_vec();
        let algorithm = &leaf.tbs.subject_public_key_info.algorithm;
        match algorithm.oid {
            RSA_ENCRYPTION => Ok(LeafKey::Rsa(key)),
            ID_EC_PUBLIC_KEY if leaf.curve() == Some(SECP_384_R_1) => Ok(LeafKey::P384(key)),
            _ => Err(unknown),
        }
    }
}

impl Link {
    fn read(link: usize, der: &[u8]) -> Result<Self, ChainError> {
        let wrong = |_| ChainError::Encoding { link };
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(ChainError::Encoding { link });
        }
        let mut reader = SliceReader::new(der).map_err(wrong)?;
        let (content, algorithm, signature) = reader
            .sequence(|inner| {
                let content = inner.tlv_bytes()?.to_vec();
                let algorithm = AlgorithmIdentifierOwned::decode(inner)?;
                let signature = BitStringRef::decode(inner)?;
                let signature = signature.as_bytes().ok_or(der::Tag::BitString.value_error())?;
                Ok((content, algorithm, signature.to_vec()))
            })
            .map_err(wrong)?;
        reader.finish(()).map_err(wrong)?;
        let tbs = TbsCertificate::from_der(&content).map_err(wrong)?;
        Ok(Self { der: der.to_vec(), content, algorithm, signature, tbs })
    }

    fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let mut extensions = self.tbs.extensions.as_deref().unwrap_or_default().iter();
        extensions.find(|found| found.extn_id == oid).map(|found| found.extn_value.as_bytes())
    }

    fn check_form(&self, link: usize, links: usize) -> Result<(), ChainError> {
        let form = |what| Err(ChainError::Form { link, what });
        if self.tbs.version != Version::V3 || self.tbs.signature != self.algorithm {
            return form("version or second algorithm");
        }
        let known = [ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_CE_EXT_KEY_USAGE];
        let mut seen = Vec::new();
        for extension in self.tbs.extensions.iter().flatten() {
            let unknown = extension.critical && !known.contains(&extension.extn_id);
            if unknown || seen.contains(&extension.extn_id) {
                return form("extension");
            }
            seen.push(extension.extn_id);
        }
        let constraints = self.extension(ID_CE_BASIC_CONSTRAINTS);
        let constraints = constraints.map(BasicConstraints::from_der).transpose();
        let constraints = constraints.map_err(|_| ChainError::Encoding { link })?;
        let usage = self.extension(ID_CE_KEY_USAGE).map(KeyUsage::from_der).transpose();
        let usage = usage.map_err(|_| ChainError::Encoding { link })?;
        let is_authority = constraints.as_ref().is_some_and(|constraints| constraints.ca);
        if link == 0 {
            let signs = usage.is_none_or(|usage| usage.digital_signature());
            return if is_authority || !signs { form("purpose") } else { Ok(()) };
        }
        // How many authorities may follow towards the leaf, which does not count (RFC 5280, section 4.2.1.9).
        let below = link.saturating_sub(1);
        let limit = constraints.and_then(|constraints| constraints.path_len_constraint);
        let within = limit.is_none_or(|limit| below <= usize::from(limit)) && link < links;
        match is_authority && within && usage.is_some_and(|usage| usage.key_cert_sign()) {
            true => Ok(()),
            false => form("purpose"),
        }
    }

    fn check_validity(&self, link: usize, at: SystemTime) -> Result<(), ChainError> {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let validity = &self.tbs.validity;
        let from = validity.not_before.to_unix_duration();
        match (from..=validity.not_after.to_unix_duration()).contains(&at) {
            true => Ok(()),
            false => Err(ChainError::Validity { link }),
        }
    }

    fn check_issuer(&self, link: usize, issuer: &Self) -> Result<(), ChainError> {
        if self.tbs.issuer != issuer.tbs.subject {
            return Err(ChainError::Issuer {
                link,
                found: self.tbs.issuer.to_string(),
                expected: issuer.tbs.subject.to_string(),
            });
        }
        let unknown = || ChainError::Algorithm { link };
        let key = issuer.public_key().ok_or_else(unknown)?;
        let algorithm = self.algorithm_of(issuer).ok_or_else(unknown)?;
        UnparsedPublicKey::new(algorithm, key)
            .verify(&self.content, &self.signature)
            .map_err(|_| ChainError::Signature { link })
    }

    fn public_key(&self) -> Option<&[u8]> {
        self.tbs.subject_public_key_info.subject_public_key.as_bytes()
    }

    fn curve(&self) -> Option<ObjectIdentifier> {
        let parameters = self.tbs.subject_public_key_info.algorithm.parameters.as_ref()?;
        parameters.decode_as().ok()
    }

    /// The signature's algorithm, if it is one for the issuer's kind of key.
    fn algorithm_of(&self, issuer: &Self) -> Option<&'static dyn VerificationAlgorithm> {
        let key = issuer.tbs.subject_public_key_info.algorithm.oid;
        match (self.algorithm.oid, key, issuer.curve()) {
            (SHA_256_WITH_RSA_ENCRYPTION, RSA_ENCRYPTION, _) => Some(&RSA_PKCS1_2048_8192_SHA256),
            (SHA_384_WITH_RSA_ENCRYPTION, RSA_ENCRYPTION, _) => Some(&RSA_PKCS1_2048_8192_SHA384),
            (SHA_512_WITH_RSA_ENCRYPTION, RSA_ENCRYPTION, _) => Some(&RSA_PKCS1_2048_8192_SHA512),
            (ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY, Some(SECP_384_R_1)) => {
                Some(&ECDSA_P384_SHA384_ASN1)
            }
            (ECDSA_WITH_SHA_256, ID_EC_PUBLIC_KEY, Some(SECP_256_R_1)) => {
                Some(&ECDSA_P256_SHA256_ASN1)
            }
            _ => None,
        }
    }
}
