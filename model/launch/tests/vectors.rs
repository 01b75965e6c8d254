//! Launch digests of public vectors, and properties that hold for any input.

use std::path::PathBuf;

use ah_digest::{Sha256, Sha384};
use ah_launch::{
    BSP_RESET_VECTOR, DirectBoot, Firmware, HashTable, Launch, LaunchDigest, LaunchError,
    LaunchInputs, PAGE_BYTES, Vmm, measure, measure_launch, save_area,
};
use proptest::prelude::*;
use serde_json::Value;

/// What the vectors' source takes where a row names no processor model.
const EPYC_V4: u32 = 0x80_0F12;

struct Row {
    vmm: Vmm,
    firmware: Vec<u8>,
    kernel: bool,
    cmdline: String,
    vcpus: u32,
    vcpu_sig: u32,
    sev_features: u64,
}

impl Row {
    fn read(row: &Value, firmware: Vec<u8>) -> Self {
        let number = |key: &str| row[key].as_u64().and_then(|n| u32::try_from(n).ok());
        Self {
            vmm: match row["vmm"].as_str().unwrap() {
                "QEMU" => Vmm::Qemu,
                "ec2" => Vmm::Ec2,
                "gce" => Vmm::Gce,
                other => panic!("vmm {other}"),
            },
            firmware,
            kernel: row["kernel"].is_string(),
            cmdline: row["append"].as_str().unwrap_or_default().to_owned(),
            vcpus: number("vcpus").unwrap(),
            vcpu_sig: number("vcpu_sig").unwrap_or(EPYC_V4),
            sev_features: row["guest_features"].as_u64().unwrap(),
        }
    }

    fn boot(&self) -> Option<DirectBoot<'_>> {
        self.kernel.then_some(DirectBoot { kernel: &[], initrd: &[], cmdline: &self.cmdline })
    }

    fn snp(&self) -> Result<String, LaunchError> {
        let digest = measure_launch(&Launch {
            vmm: self.vmm,
            firmware: &self.firmware,
            boot: self.boot(),
            vcpus: self.vcpus,
            vcpu_sig: self.vcpu_sig,
            sev_features: self.sev_features,
        })?;
        Ok(digest.to_string())
    }

    /// SEV and SEV-ES launches are not supported; their rows check hash table and save area by themselves.
    fn sev(&self, encrypted_state: bool) -> Option<String> {
        let firmware = Firmware::parse(&self.firmware).unwrap();
        let mut bytes = self.firmware.clone();
        if let Some(DirectBoot { kernel, initrd, cmdline }) = self.boot() {
            firmware.hash_table_gpa.filter(|gpa| *gpa != 0)?;
            bytes.extend(HashTable::of(kernel, initrd, cmdline).bytes());
        }
        if encrypted_state {
            let area = |eip| save_area(self.vmm, eip, self.vcpu_sig, 0);
            bytes.extend(area(BSP_RESET_VECTOR));
            let others = area(firmware.ap_reset_vector.unwrap());
            (1..self.vcpus).for_each(|_| bytes.extend(others));
        }
        Some(Sha256::of(bytes).to_string())
    }
}

#[test]
fn public_vectors() {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/reference/vectors/launch-digest"
    ));
    let Ok(text) = std::fs::read_to_string(folder.join("vectors.json")) else {
        println!("skipped: no vectors at {}", folder.display());
        return;
    };
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let (mut digests, mut refusals) = (0, 0);
    for row in vectors["vectors"].as_array().unwrap() {
        let name = row["test"].as_str().unwrap();
        let path = folder.join(row["ovmf"]["path"].as_str().unwrap());
        let Ok(firmware) = std::fs::read(&path) else {
            println!("skipped: {name} needs {}", path.display());
            continue;
        };
        let row_inputs = Row::read(row, firmware);
        let found = match row["mode"].as_str().unwrap() {
            "SEV_SNP" => row_inputs.snp().ok(),
            "SEV" => row_inputs.sev(false),
            "SEV_ES" => row_inputs.sev(true),
            other => panic!("mode {other}"),
        };
        assert_eq!(found.as_deref(), row["digest"].as_str(), "{name}");
        match found {
            Some(_) => digests += 1,
            None => refusals += 1,
        }
    }
    println!("{digests} digests, {refusals} refusals");
    assert_eq!((digests, refusals), (21, 3));
    for (file, expect) in vectors["ovmf_hash"].as_object().unwrap() {
        let image = std::fs::read(folder.join(file)).unwrap();
        let mut digest = LaunchDigest::default();
        digest.normal((1 << 32) - 4096, image.as_slice().try_into().unwrap());
        assert_eq!(digest.value().to_string(), expect.as_str().unwrap());
    }
}

fn inputs(firmware: &[u8]) -> LaunchInputs<'_> {
    LaunchInputs {
        firmware,
        kernel: b"kernel",
        initrd: b"initrd",
        cmdline: "console=ttyS0",
        vcpus: 2,
        vcpu_sig: EPYC_V4,
        sev_features: 1,
    }
}

fn plain() -> Vec<u8> {
    vec![0x90; 4 * PAGE_BYTES]
}

#[test]
fn plain_firmware_is_pinned() {
    let expect = "f33d09dc359a5e372faa4369ce829937502e748fccb778ddf16f192fc5dd352c260eb8449e94fb0fcf6d873d50c85e1d";
    assert_eq!(measure(&inputs(&plain())).unwrap().to_string(), expect);
}

/// The plain flow, written out a second time from its definition.
#[test]
fn plain_firmware_is_pages_then_table_then_processors() {
    let firmware = plain();
    let inputs = inputs(&firmware);
    let mut digest = LaunchDigest::default();
    for index in 0..4u64 {
        let page = [0x90; PAGE_BYTES];
        digest.normal((1 << 32) - 4 * 4096 + index * 4096, &page);
    }
    let table = HashTable::of(b"kernel", b"initrd", "console=ttyS0");
    digest.normal(0x80_0000, &table.page(0).unwrap());
    for _ in 0..2 {
        digest.vmsa(&save_area(Vmm::Qemu, BSP_RESET_VECTOR, EPYC_V4, 1));
    }
    assert_eq!(measure(&inputs), Ok(digest.value()));
}

fn refused(change: impl for<'a> FnOnce(&mut LaunchInputs<'a>), expect: LaunchError) {
    let firmware = plain();
    let mut inputs = inputs(&firmware);
    change(&mut inputs);
    assert_eq!(measure(&inputs), Err(expect));
}

#[test]
fn inputs_are_bounded() {
    refused(|inputs| inputs.vcpus = 0, LaunchError::Vcpus { found: 0 });
    refused(|inputs| inputs.vcpus = 1025, LaunchError::Vcpus { found: 1025 });
    refused(|inputs| inputs.firmware = &[], LaunchError::FirmwareSize { found: 0 });
    refused(|inputs| inputs.firmware = &[0; 4095], LaunchError::FirmwareSize { found: 4095 });
    refused(|inputs| inputs.firmware = b"IGVM....", LaunchError::Igvm);
    refused(|inputs| inputs.cmdline = "a\0b", LaunchError::CmdlineNul);
}

#[test]
fn a_large_initrd_is_one_pass() {
    let firmware = plain();
    let initrd = vec![7; 20 << 20];
    let start = std::time::Instant::now();
    measure(&LaunchInputs { initrd: &initrd, ..inputs(&firmware) }).unwrap();
    println!("20 MiB initrd measured in {:?}", start.elapsed());
}

fn base() -> Sha384 {
    measure(&inputs(&plain())).unwrap()
}

#[test]
fn attack_guest_kernel_initrd_cmdline_firmware_or_processors_changed() {
    let firmware = plain();
    let inputs = inputs(&firmware);
    let mut other = firmware.clone();
    other[0] ^= 1;
    assert_eq!(measure(&inputs), Ok(base()));
    let changed = [
        LaunchInputs { kernel: b"kernem", ..inputs },
        LaunchInputs { initrd: b"initre", ..inputs },
        LaunchInputs { cmdline: "console=ttyS1", ..inputs },
        LaunchInputs { cmdline: "console=ttyS0 ", ..inputs },
        LaunchInputs { firmware: &other, ..inputs },
        LaunchInputs { firmware: &firmware[PAGE_BYTES..], ..inputs },
        LaunchInputs { vcpus: 3, ..inputs },
        LaunchInputs { vcpu_sig: 0x80_0F13, ..inputs },
        LaunchInputs { sev_features: 0x21, ..inputs },
        LaunchInputs { kernel: b"initrd", initrd: b"kernel", ..inputs },
    ];
    for inputs in changed {
        assert_ne!(measure(&inputs), Ok(base()), "{inputs:?}");
    }
}

proptest! {
    /// One flipped bit anywhere in what the guest starts from is another digest.
    #[test]
    fn one_flipped_bit_is_another_digest(part in 0usize..4, at in any::<prop::sample::Index>(), bit in 0u8..7) {
        let mut parts = [plain(), b"kernel".to_vec(), b"initrd".to_vec(), b"console=ttyS0".to_vec()];
        let index = at.index(parts[part].len());
        parts[part][index] ^= 1 << bit;
        let [firmware, kernel, initrd, cmdline] = &parts;
        let Ok(cmdline) = std::str::from_utf8(cmdline) else { return Ok(()) };
        let changed = LaunchInputs { kernel, initrd, cmdline, ..inputs(firmware) };
        prop_assert_ne!(measure(&changed).ok(), Some(base()));
    }

    /// Whatever stands at a firmware's end, measuring answers and does not panic; the table is read within the image.
    #[test]
    fn any_firmware_end_is_answered(tail in prop::collection::vec(any::<u8>(), 0..200), length in any::<u16>()) {
        let mut firmware = vec![0; PAGE_BYTES];
        let footer = [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
        let end = PAGE_BYTES - 32;
        firmware[end - 16..end].copy_from_slice(&footer);
        firmware[end - 18..end - 16].copy_from_slice(&length.to_le_bytes());
        firmware[end - 18 - tail.len()..end - 18].copy_from_slice(&tail);
        let _ = measure(&inputs(&firmware));
    }
}
