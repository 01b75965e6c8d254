//! UVM endorsements: a cloud's word that a launch measurement is one of its utility VM images.
//!
//! The issuer's leaf certificates live about a year and endorsements are used for longer, so validity is judged at the time of
//! signing, which the signer states and signs. It is no proof against a signer whose key got out later: a least SVN is.

use std::time::SystemTime;

use ah_digest::{Sha256, Sha384};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::{Deserialize, Deserializer};

use crate::chain::{Chain, ChainError, LeafKey};
use crate::cose::{CoseError, Sign1};
use crate::did::{DidError, DidX509};

/// Largest endorsement, bytes.
pub const MAX_UVM_BYTES: usize = 64 * 1024;

/// COSE algorithms (RFC 9053, section 2.1; RFC 8230, section 2).
const ES384: i64 = -35;
const PS256: i64 = -37;
const PS384: i64 = -38;
const PS512: i64 = -39;

const JSON: &str = "application/json";

/// Microsoft's supply chain root of 2022, by the digest in the issuers that its endorsements name.
const MICROSOFT: &str = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:";

/// Who is believed, for which images, and from which version on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UvmIssuer {
    /// Root of the chain and purpose of its leaf.
    pub did: DidX509,
    /// Kind of images.
    pub feed: String,
    /// Least version of the image.
    pub minimum_svn: u64,
}

impl UvmIssuer {
    /// The issuer of this identifier.
    ///
    /// # Errors
    /// [`DidError`].
    pub fn new(did: &str, feed: &str, minimum_svn: u64) -> Result<Self, DidError> {
        Ok(Self { did: did.parse()?, feed: feed.to_owned(), minimum_svn })
    }

    /// The utility VMs of Azure's confidential container instances.
    ///
    /// # Errors
    /// Never: the identifier is a constant.
    pub fn azure_container_instances(minimum_svn: u64) -> Result<Self, DidError> {
        let did = format!("{MICROSOFT}1.3.6.1.4.1.311.76.59.1.2");
        Self::new(&did, "ContainerPlat-AMD-UVM", minimum_svn)
    }

    /// The utility VMs of confidential pods in Azure's Kubernetes service.
    ///
    /// # Errors
    /// Never: the identifier is a constant.
    pub fn azure_kubernetes(minimum_svn: u64) -> Result<Self, DidError> {
        let did = format!("{MICROSOFT}1.3.6.1.4.1.311.76.59.1.5");
        Self::new(&did, "ConfAKS-AMD-UVM", minimum_svn)
    }
}

/// A verified endorsement. Only [`verify_uvm`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UvmEndorsement {
    measurement: Sha384,
    svn: u64,
    issuer: DidX509,
    feed: String,
    signed_at: SystemTime,
}

impl UvmEndorsement {
    /// The launch measurement that is endorsed.
    pub fn measurement(&self) -> Sha384 {
        self.measurement
    }

    /// Version of the image.
    pub fn svn(&self) -> u64 {
        self.svn
    }

    /// Who endorses.
    pub fn issuer(&self) -> &DidX509 {
        &self.issuer
    }

    /// Kind of image.
    pub fn feed(&self) -> &str {
        &self.feed
    }

    /// When, by the signer's own word.
    pub fn signed_at(&self) -> SystemTime {
        self.signed_at
    }
}

/// Why an endorsement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UvmError {
    /// Larger than endorsements are.
    #[error("uvm endorsement has {found} bytes, expected at most {MAX_UVM_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// Not a COSE_Sign1 message of this kind.
    #[error("uvm endorsement is malformed")]
    Cose(#[from] CoseError),
    /// The issuer is not such an identifier.
    #[error("uvm endorsement names no issuer")]
    Did(#[from] DidError),
    /// Nobody who is believed.
    #[error("uvm endorsement is issued by {issuer} for {feed:?}, which is not believed")]
    Issuer {
        /// Issuer found.
        issuer: String,
        /// Feed found.
        feed: String,
    },
    /// The chain is not right.
    #[error("uvm endorsement's certificate chain is not right")]
    Chain(#[from] ChainError),
    /// The chain ends elsewhere than the issuer says.
    #[error("uvm endorsement's chain ends in {found}, expected {expected} as its issuer")]
    Root {
        /// SHA-256 of the root found.
        found: Sha256,
        /// SHA-256 in the issuer.
        expected: Sha256,
    },
    /// The digest of the leaf in the headers is another.
    #[error("uvm endorsement's headers name another leaf certificate")]
    Thumbprint,
    /// An algorithm that is not taken, or not one for the leaf's key.
    #[error("uvm endorsement is signed with algorithm {found}, expected -35, -37, -38 or -39")]
    Algorithm {
        /// COSE algorithm found.
        found: i64,
    },
    /// The leaf's key did not sign it.
    #[error("uvm endorsement's signature does not verify")]
    Signature,
    /// Signed in the future.
    #[error("uvm endorsement says that it was signed later than now")]
    Future,
    /// A payload that says something else.
    #[error("uvm endorsement's payload is not as expected: {reason}")]
    Payload {
        /// What is wrong.
        reason: String,
    },
    /// An image that is too old.
    #[error("uvm endorsement is for image version {found}, expected at least {minimum}")]
    Svn {
        /// Version found.
        found: u64,
        /// Least version.
        minimum: u64,
    },
}

impl UvmError {
    /// Name of the check that was not passed.
    pub fn check(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } | Self::Cose(_) => "uvm.encoding",
            Self::Did(_) | Self::Issuer { .. } => "uvm.issuer",
            Self::Chain(_) | Self::Root { .. } | Self::Thumbprint => "uvm.chain",
            Self::Algorithm { .. } => "uvm.algorithm",
            Self::Signature => "uvm.signature",
            Self::Future => "uvm.signing_time",
            Self::Payload { .. } => "uvm.payload",
            Self::Svn { .. } => "uvm.svn",
        }
    }
}

/// Verifies that one of `trusted` endorses a measurement. No I/O, no clock.
///
/// # Errors
/// [`UvmError`], a variant per cause.
pub fn verify_uvm(
    cose: &[u8],
    trusted: &[UvmIssuer],
    now: SystemTime,
) -> Result<UvmEndorsement, UvmError> {
    if cose.len() > MAX_UVM_BYTES {
        return Err(UvmError::TooLarge { found: cose.len() });
    }
    let message = Sign1::read(cose)?;
    let issuer: DidX509 = message.issuer.parse()?;
    let trusted = trusted.iter().find(|one| one.did == issuer && one.feed == message.feed);
    let trusted = trusted.ok_or_else(|| UvmError::Issuer {
        issuer: issuer.to_string(),
        feed: message.feed.clone(),
    })?;
    if message.signing_time > now {
        return Err(UvmError::Future);
    }
    let chain = Chain::check(&message.chain, message.signing_time)?;
    check_issuer(&chain, &issuer, &message)?;
    check_signature(&message, &chain.leaf_key()?)?;
    let payload = Payload::read(&message)?;
    if payload.svn < trusted.minimum_svn {
        return Err(UvmError::Svn { found: payload.svn, minimum: trusted.minimum_svn });
    }
    Ok(UvmEndorsement {
        measurement: payload.measurement,
        svn: payload.svn,
        issuer,
        feed: message.feed,
        signed_at: message.signing_time,
    })
}

fn check_issuer(chain: &Chain, issuer: &DidX509, message: &Sign1) -> Result<(), UvmError> {
    let expected = issuer.authority;
    let found = chain.root_digest().unwrap_or(Sha256::new([0; 32]));
    if found != expected {
        return Err(UvmError::Root { found, expected });
    }
    chain.check_key_usage(issuer.key_usage)?;
    let leaf = chain.leaf_digest();
    let named = message.leaf_digest.as_deref();
    match named.is_none_or(|named| leaf.is_some_and(|leaf| leaf.as_bytes() == named)) {
        true => Ok(()),
        false => Err(UvmError::Thumbprint),
    }
}

fn check_signature(message: &Sign1, key: &LeafKey) -> Result<(), UvmError> {
    let (algorithm, key): (&dyn VerificationAlgorithm, _) = match (message.algorithm, key) {
        (PS256, LeafKey::Rsa(key)) => (&RSA_PSS_2048_8192_SHA256, key),
        (PS384, LeafKey::Rsa(key)) => (&RSA_PSS_2048_8192_SHA384, key),
        (PS512, LeafKey::Rsa(key)) => (&RSA_PSS_2048_8192_SHA512, key),
        (ES384, LeafKey::P384(key)) => (&ECDSA_P384_SHA384_FIXED, key),
        (found, _) => return Err(UvmError::Algorithm { found }),
    };
    UnparsedPublicKey::new(algorithm, key)
        .verify(&message.signed_bytes()?, &message.signature)
        .map_err(|_| UvmError::Signature)
}

/// The endorsed values. Keys that are not known are the issuer's own business: they are signed and endorse nothing here.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "x-ms-sevsnpvm-launchmeasurement")]
    measurement: Sha384,
    #[serde(rename = "x-ms-sevsnpvm-guestsvn", deserialize_with = "number_or_text")]
    svn: u64,
}

impl Payload {
    fn read(message: &Sign1) -> Result<Self, UvmError> {
        if message.content_type.as_deref() != Some(JSON) {
            let found = message.content_type.as_deref().unwrap_or("no content type");
            return Err(UvmError::Payload { reason: format!("found {found:?}, expected {JSON}") });
        }
        serde_json::from_slice(&message.payload)
            .map_err(|error| UvmError::Payload { reason: error.to_string() })
    }
}

fn number_or_text<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(from)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}
