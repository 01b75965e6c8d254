//! The host's own facts about one run of a pod: the identifiers that it chooses.

use std::{collections::BTreeMap, fs::File, io::Read};

use ah_digest::Sha256;
use ah_pod::{HostValues, Pod};

use crate::SandboxError;

const NODE: &str = "localhost";

/// Fresh values for one run: random identifiers, the addresses of QEMU's user-mode network.
///
/// # Errors
/// [`SandboxError::Io`] when the machine has no random numbers.
pub fn host_values(
    pod: &Pod,
    pci_paths: BTreeMap<Sha256, String>,
) -> Result<HostValues, SandboxError> {
    let mut random = Random::open()?;
    let values = HostValues::for_user_network(pod, &random.hex::<32>()?, &random.uuid()?, NODE);
    Ok(HostValues { pci_paths, ..values })
}

struct Random(File);

impl Random {
    fn open() -> Result<Self, SandboxError> {
        File::open("/dev/urandom").map(Self).map_err(SandboxError::io("opening /dev/urandom"))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SandboxError> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).map_err(SandboxError::io("reading /dev/urandom"))?;
        Ok(bytes)
    }

    fn hex<const N: usize>(&mut self) -> Result<String, SandboxError> {
        Ok(self.bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// RFC 9562, version 4.
    fn uuid(&mut self) -> Result<String, SandboxError> {
        let bytes = u128::from_be_bytes(self.bytes()?);
        let bits = bytes & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let hex = format!("{bits:032x}");
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4() {
        let uuid = Random::open().unwrap().uuid().unwrap();
        let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]));
    }
}
