//! REPORT_DATA and HOST_DATA: what a guest and its host bind into a report.

use std::fmt;

use ah_digest::{Digest, Sha256};

/// HOST_DATA, 32 bytes that the host fixes at launch: SHA-256 of the initdata document (or of the AKS policy text).
pub type HostData = Digest<32>;

/// REPORT_DATA, 64 bytes that the guest chooses for each report.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReportData([u8; 64]);

impl ReportData {
    /// Wraps the 64 bytes as they stand in a report.
    pub const fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The one rule of this system: SHA-256 of the runtime data in bytes 0..32, zeros in 32..64.
    ///
    /// The same rule as the secure-key-release sidecar's and MAA's, so that their runtime data verifies unchanged.
    pub fn for_runtime_data(runtime_data: &[u8]) -> Self {
        let mut bytes = [0; 64];
        for (slot, byte) in bytes.iter_mut().zip(Sha256::of(runtime_data).as_bytes()) {
            *slot = *byte;
        }
        Self(bytes)
    }

    /// The 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for ReportData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest::<64>::new(self.0).fmt(f)
    }
}

impl fmt::Debug for ReportData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReportData({self})")
    }
}

impl serde::Serialize for ReportData {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest::<64>::new(self.0).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for ReportData {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::<64>::deserialize(deserializer).map(|digest| Self(*digest.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_data_is_sha256_then_zeros() {
        let data = ReportData::for_runtime_data(b"abc");
        assert!(data.to_string().starts_with("ba7816bf8f01cfea414140de5dae2223"));
        assert_eq!(data.as_bytes()[32..], [0; 32]);
        assert_ne!(data, ReportData::for_runtime_data(b"abd"));
    }
}
