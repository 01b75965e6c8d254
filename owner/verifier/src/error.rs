//! Why a report is not believed, and who is to blame.

use std::fmt;

use ah_evidence::{ChipId, Product, ReportError, SigningKey, TcbParts};

/// A certificate's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// ARK.
    Root,
    /// ASK or ASVK.
    Intermediate,
    /// VCEK or VLEK.
    Endorsement,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root certificate (ark)",
            Self::Intermediate => "intermediate certificate (ask or asvk)",
            Self::Endorsement => "endorsement certificate (vcek or vlek)",
        })
    }
}

/// Where to look first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The report itself: whoever presented it made it up, changed it, or runs a machine that is not fit.
    Evidence,
    /// Certificates or revocation list: wrong, stale, or of another machine. Another source may have right ones.
    Collateral,
    /// The relying party's own settings.
    Configuration,
}

/// Why a report is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a report, or not one that sticks to the specification.
    #[error("report is malformed")]
    Report(#[source] ReportError),
    /// MASK_CHIP_KEY: the firmware writes zeros in place of a signature.
    #[error("report is not signed: its platform masks the chip key")]
    ChipKeyMasked,
    /// The report names another signing key than the certificate is for.
    #[error("report names signing key {found}, expected {expected} as the certificate")]
    SigningKey {
        /// Named in the report.
        found: SigningKey,
        /// Kind of the certificate.
        expected: SigningKey,
    },
    /// R or S is zero or not below the order of the curve.
    #[error("report signature is out of range")]
    SignatureRange,
    /// The signature is not one of the endorsement key over this report.
    #[error("report signature does not verify")]
    ReportSignature,
    /// CPUID in the report names no known product line.
    #[error("report names processor family {family:#x} model {model:#x}, which is unknown")]
    UnknownProcessor {
        /// Family found.
        family: u8,
        /// Model found.
        model: u8,
    },
    /// CPUID in the report is of another product line than the chain.
    #[error("report is of a {found} processor, expected {expected} as the certificates")]
    Product {
        /// Line of the report.
        found: Product,
        /// Line of the chain.
        expected: Product,
    },
    /// A TCB version with a part that the product line does not have.
    #[error("report's {field} tcb has parts that {product} does not know")]
    TcbLayout {
        /// Which TCB version.
        field: &'static str,
        /// Line of the chain.
        product: Product,
    },
    /// REPORTED_TCB is not the TCB that the certificate is for.
    #[error("report's tcb is {found}, expected {expected} as the certificate")]
    Tcb {
        /// REPORTED_TCB.
        found: TcbParts,
        /// TCB of the certificate.
        expected: TcbParts,
    },
    /// REPORTED_TCB or COMMITTED_TCB has a part above CURRENT_TCB.
    #[error("report's {field} tcb is {found}, expected no part above the current {current}")]
    TcbOrder {
        /// Which TCB version.
        field: &'static str,
        /// That version.
        found: TcbParts,
        /// CURRENT_TCB.
        current: TcbParts,
    },
    /// CHIP_ID is not the chip that the certificate is for.
    #[error("report's chip id is {found}, expected {expected} as the certificate")]
    ChipId {
        /// CHIP_ID.
        found: ChipId,
        /// hwID of the certificate.
        expected: ChipId,
    },
    /// CHIP_ID has not the length of the product line's: a VLEK names no chip, but its line's chips have ids of one length.
    #[error("report's chip id is {found}, expected {expected} bytes as {product} has them")]
    ChipIdLength {
        /// CHIP_ID.
        found: ChipId,
        /// Length, bytes.
        expected: usize,
        /// Line of the chain.
        product: Product,
    },

    /// The root is none of the trusted ones.
    #[error("root certificate is not trusted: its sha-256 is {sha256}")]
    UntrustedRoot {
        /// SHA-256 of the certificate found.
        sha256: ah_digest::Sha256,
    },
    /// Larger than a certificate or list may be.
    #[error("{what} has {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// Length found, bytes.
        found: usize,
        /// Limit, bytes.
        limit: usize,
    },
    /// Not an X.509 certificate, or bytes behind it.
    #[error("{role} is not an x.509 certificate")]
    Certificate {
        /// Which.
        role: Role,
        /// Cause.
        #[source]
        source: der::Error,
    },
    /// A part of a certificate that is not as AMD's certificates are.
    #[error("{role} has an unexpected {what}")]
    CertificateForm {
        /// Which.
        role: Role,
        /// Which part.
        what: &'static str,
    },
    /// A name that is not the expected one.
    #[error("{role} has {what} {found:?}, expected {expected:?}")]
    Name {
        /// Which.
        role: Role,
        /// Subject or issuer.
        what: &'static str,
        /// Name found.
        found: String,
        /// Name expected.
        expected: String,
    },
    /// `now` is before the certificate's validity.
    #[error("{role} is not valid yet")]
    NotYetValid {
        /// Which.
        role: Role,
    },
    /// `now` is behind the certificate's validity.
    #[error("{role} has expired")]
    Expired {
        /// Which.
        role: Role,
    },
    /// The issuer did not sign it.
    #[error("{role} is not signed by its issuer")]
    CertificateSignature {
        /// Which.
        role: Role,
    },
    /// A public key of another kind or size than AMD uses there.
    #[error("{role} has an unexpected public key, expected {expected}")]
    PublicKey {
        /// Which.
        role: Role,
        /// Kind of key expected.
        expected: &'static str,
    },
    /// The same extension twice.
    #[error("{role} has extension {oid} twice")]
    DuplicateExtension {
        /// Which.
        role: Role,
        /// Object identifier.
        oid: String,
    },
    /// A critical or AMD extension that this verifier does not know, or one that does not belong there.
    #[error("{role} has extension {oid}, which is not expected there")]
    UnexpectedExtension {
        /// Which.
        role: Role,
        /// Object identifier.
        oid: String,
    },
    /// An extension is missing.
    #[error("{role} lacks extension {oid}")]
    MissingExtension {
        /// Which.
        role: Role,
        /// Object identifier.
        oid: String,
    },
    /// An extension's value is not of its type.
    #[error("{role} has a malformed extension {oid}")]
    MalformedExtension {
        /// Which.
        role: Role,
        /// Object identifier.
        oid: String,
    },
    /// The certificate names another product line than its root.
    #[error("endorsement certificate is for product {found:?}, expected {expected}")]
    CertificateProduct {
        /// Product found.
        found: String,
        /// Line of the root.
        expected: Product,
    },
    /// Not a revocation list, or bytes behind it.
    #[error("revocation list is not an x.509 crl")]
    Crl(#[source] der::Error),
    /// A part of the list that is not as AMD's lists are.
    #[error("revocation list has an unexpected {what}")]
    CrlForm {
        /// Which part.
        what: &'static str,
    },
    /// The root did not sign the list.
    #[error("revocation list is not signed by the root")]
    CrlSignature,
    /// `now` is outside the list's time.
    #[error("revocation list is not fresh")]
    CrlStale,
    /// The certificate is on the list.
    #[error("{role} was revoked")]
    Revoked {
        /// Which.
        role: Role,
    },

    /// A root that was to be trusted cannot serve as one.
    #[error("certificate cannot be trusted as a root")]
    UnusableRoot(#[source] Box<VerifyError>),
}

impl VerifyError {
    /// Where to look first.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Report(_)
            | Self::ChipKeyMasked
            | Self::SigningKey { .. }
            | Self::SignatureRange
            | Self::ReportSignature
            | Self::UnknownProcessor { .. }
            | Self::Product { .. }
            | Self::TcbLayout { .. }
            | Self::Tcb { .. }
            | Self::TcbOrder { .. }
            | Self::ChipId { .. }
            | Self::ChipIdLength { .. } => Blame::Evidence,
            Self::UnusableRoot(_) => Blame::Configuration,
            _ => Blame::Collateral,
        }
    }
}
