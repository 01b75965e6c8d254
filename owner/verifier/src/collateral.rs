//! What a verifier needs beside a report. All of it may come from the untrusted side: only the pinned root is believed.

/// Largest certificate that is read, bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Largest revocation list that is read, bytes.
pub const MAX_CRL_BYTES: usize = 1024 * 1024;

/// Certificates and revocation list, DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collateral {
    /// VCEK or VLEK.
    pub endorsement: Vec<u8>,
    /// ASK for a VCEK, ASVK for a VLEK.
    pub intermediate: Vec<u8>,
    /// ARK.
    pub root: Vec<u8>,
    /// Whether the intermediate was revoked.
    pub revocation: Revocation,
}

/// Where the answer about revocation comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// AMD's list for the product line, DER.
    List(Vec<u8>),
    /// Nobody looked; the result says so, with this reason.
    NotChecked {
        /// Why, for people.
        reason: String,
    },
}
