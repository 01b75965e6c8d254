//! Reports: strictness field by field, and the round trip that strictness promises.

use std::path::PathBuf;

use ah_digest::Digest;
use ah_evidence::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo,
    RawReport, ReportData, ReportError, ReportSignature, SIGNED_BYTES, SNP_REPORT_BYTES,
    SigningKey, SnpReport, TcbVersion, Version,
};
use proptest::prelude::*;

const GENOA: Cpuid = Cpuid { family: 0x19, model: 0x11, stepping: 1 };

fn report(version: Version) -> SnpReport {
    let tcb = TcbVersion(0x1B1B_0000_0000_000A);
    let firmware = FirmwareVersion { major: 1, minor: 55, build: 49 };
    SnpReport {
        version,
        guest_svn: 1,
        policy: GuestPolicy::STRICT,
        family_id: [1; 16],
        image_id: [2; 16],
        vmpl: 0,
        current_tcb: tcb,
        platform_info: PlatformInfo(0x25),
        key_info: KeyInfo {
            author_key: false,
            mask_chip_key: false,
            signing_key: SigningKey::Vcek,
        },
        report_data: ReportData::for_runtime_data(b"x"),
        measurement: Digest::new([3; 48]),
        host_data: Digest::new([4; 32]),
        id_key_digest: Digest::new([5; 48]),
        author_key_digest: Digest::new([6; 48]),
        report_id: [7; 32],
        report_id_ma: [0xFF; 32],
        reported_tcb: tcb,
        chip_id: ChipId([8; 64]),
        committed_tcb: tcb,
        current_firmware: firmware,
        committed_firmware: firmware,
        launch_tcb: tcb,
    }
}

fn raw(report: &SnpReport) -> RawReport {
    let signature = ReportSignature { r: [9; 48], s: [10; 48] };
    RawReport::assemble(&report.signed_bytes(), &signature)
}

fn changed(version: Version, offset: usize, value: u8) -> Result<(), ReportError> {
    let mut bytes = *raw(&report(version)).as_bytes();
    bytes[offset] = value;
    SnpReport::parse(&RawReport::try_from(bytes.as_slice()).unwrap()).map(drop)
}

fn v5() -> Version {
    Version::V5(GENOA, MitigationVectors { launch: 1, current: 3 })
}

#[test]
fn every_version_round_trips() {
    for version in [Version::V2, Version::V3(GENOA), Version::V4(GENOA), v5()] {
        let report = report(version);
        assert_eq!(SnpReport::parse(&raw(&report)), Ok(report));
    }
}

#[test]
fn attack_report_with_trailing_or_missing_bytes() {
    let raw = raw(&report(v5()));
    let bytes = raw.as_bytes().as_slice();
    assert_eq!(RawReport::try_from(bytes), Ok(raw.clone()));
    let longer = [bytes, &[0]].concat();
    for (bytes, found) in [(longer.as_slice(), 1185), (&bytes[..1183], 1183), (&[][..], 0)] {
        assert_eq!(RawReport::try_from(bytes), Err(ReportError::Length { found }));
    }
}

#[test]
fn reserved_ranges_must_be_zero() {
    let zero = |offset| Err(ReportError::MustBeZero { offset });
    let cases = [
        (Version::V2, 0x04C, zero(0x04C)),
        (v5(), 0x04F, zero(0x04C)),
        (Version::V2, 0x188, zero(0x188)),
        (v5(), 0x188, Ok(())),
        (v5(), 0x18B, zero(0x18B)),
        (v5(), 0x19F, zero(0x18B)),
        (v5(), 0x1EB, zero(0x1EB)),
        (v5(), 0x1EF, zero(0x1EF)),
        (Version::V3(GENOA), 0x1F8, zero(0x1F8)),
        (Version::V4(GENOA), 0x207, zero(0x1F8)),
        (v5(), 0x1F8, Ok(())),
        (v5(), 0x208, zero(0x208)),
        (v5(), 0x29F, zero(0x208)),
        (v5(), 0x2D0, zero(0x2D0)),
        (v5(), 0x2E7, zero(0x2D0)),
        (v5(), 0x318, zero(0x318)),
        (v5(), 0x330, zero(0x330)),
        (v5(), 0x49F, zero(0x330)),
    ];
    for (version, offset, expect) in cases {
        assert_eq!(changed(version, offset, 1), expect, "{version:?} {offset:#x}");
    }
}

#[test]
fn fields_with_few_values_are_strict() {
    assert_eq!(changed(v5(), 0, 1), Err(ReportError::Version { found: 1 }));
    assert_eq!(changed(v5(), 0, 6), Err(ReportError::Version { found: 6 }));
    assert_eq!(changed(v5(), 1, 1), Err(ReportError::Version { found: 0x105 }));
    assert_eq!(changed(v5(), 0x0A, 0), Err(ReportError::Policy { found: 0 }));
    assert_eq!(changed(v5(), 0x0B, 4), Err(ReportError::Policy { found: 0x0402_0000 }));
    assert_eq!(changed(v5(), 0x0B, 3), Ok(()));
    assert_eq!(changed(v5(), 0x30, 3), Ok(()));
    assert_eq!(changed(v5(), 0x30, 4), Err(ReportError::Vmpl { found: 4 }));
    assert_eq!(changed(v5(), 0x34, 2), Err(ReportError::SignatureAlgorithm { found: 2 }));
    assert_eq!(changed(v5(), 0x48, 8), Err(ReportError::KeyInfo { found: 8 }));
    assert_eq!(changed(v5(), 0x48, 0x1C), Ok(()));
    assert_eq!(changed(v5(), 0x48, 0x20), Err(ReportError::KeyInfo { found: 0x20 }));
    assert_eq!(changed(v5(), 0x40, 0x65), Ok(()), "real turin machines set platform bit 6");
}

#[test]
fn real_reports_encode_to_themselves() {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors"));
    let Ok(text) = std::fs::read_to_string(folder.join("snp/manifest.json")) else {
        println!("skipped: no vectors at {}", folder.display());
        return;
    };
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    for entry in manifest.as_array().unwrap() {
        let file = std::fs::read(folder.join(entry["report"].as_str().unwrap())).unwrap();
        let start = usize::try_from(entry["report_offset"].as_u64().unwrap()).unwrap();
        let raw = RawReport::try_from(&file[start..start + SNP_REPORT_BYTES]).unwrap();
        let report = SnpReport::parse(&raw).unwrap();
        assert_eq!(report.signed_bytes().as_slice(), raw.signed_bytes());
        let expect = &entry["expect"];
        assert_eq!(expect["version"].as_u64(), Some(report.version.number().into()));
        assert_eq!(expect["measurement"].as_str(), Some(&*report.measurement.to_string()));
        assert_eq!(expect["host_data"].as_str(), Some(&*report.host_data.to_string()));
        assert_eq!(expect["chip_id"].as_str(), Some(&*report.chip_id.to_string()));
        assert_eq!(expect["report_data"].as_str(), Some(&*report.report_data.to_string()));
        let policy = format!("{:#x}", report.policy.bits());
        assert_eq!(expect["policy"].as_str(), Some(&*policy));
    }
}

proptest! {
    /// What parses, encodes to the very bytes: no two byte strings say the same, none hides anything.
    #[test]
    fn parsed_reports_encode_to_their_bytes(
        changes in prop::collection::vec((0..SNP_REPORT_BYTES, any::<u8>()), 0..6),
        number in 2u8..=5,
    ) {
        let mut bytes = *raw(&report(v5())).as_bytes();
        bytes[0] = number;
        for (offset, value) in changes {
            bytes[offset] = value;
        }
        let raw = RawReport::try_from(bytes.as_slice()).unwrap();
        if let Ok(report) = SnpReport::parse(&raw) {
            let signature = raw.signature().unwrap();
            let signed: [u8; SIGNED_BYTES] = report.signed_bytes();
            prop_assert_eq!(RawReport::assemble(&signed, &signature), raw);
        }
    }
}
