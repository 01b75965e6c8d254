use ah_evidence::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo,
    ReportData, TcbVersion, Version,
};

use super::*;

fn report(family: u8, model: u8, tcb: u64, chip: [u8; 64]) -> SnpReport {
    let firmware = FirmwareVersion { major: 1, minor: 58, build: 1 };
    let tcb = TcbVersion(tcb);
    let signing_key = SigningKey::Vcek;
    SnpReport {
        version: Version::V5(
            Cpuid { family, model, stepping: 1 },
            MitigationVectors { launch: 0, current: 0 },
        ),
        guest_svn: 0,
        policy: GuestPolicy::STRICT,
        family_id: [0; 16],
        image_id: [0; 16],
        vmpl: 0,
        current_tcb: tcb,
        platform_info: PlatformInfo(0),
        key_info: KeyInfo { author_key: false, mask_chip_key: false, signing_key },
        report_data: ReportData::new([0; 64]),
        measurement: "00".repeat(48).parse().unwrap(),
        host_data: "00".repeat(32).parse().unwrap(),
        id_key_digest: "00".repeat(48).parse().unwrap(),
        author_key_digest: "00".repeat(48).parse().unwrap(),
        report_id: [0; 32],
        report_id_ma: [0xff; 32],
        reported_tcb: tcb,
        chip_id: ChipId(chip),
        committed_tcb: tcb,
        current_firmware: firmware,
        committed_firmware: firmware,
        launch_tcb: tcb,
    }
}

fn thim(tcbm: &str) -> Result<Certified, String> {
    let json = serde_json::json!({
        "vcekCert": "leaf\n", "tcbm": tcbm, "certificateChain": "rest\n", "cacheControl": "86400"
    });
    Certified::of_thim(json.to_string().as_bytes())
}

#[test]
fn both_byte_orders_of_the_platform_are_read() {
    let milan = report(0x19, 1, 0x7308_0000_0000_0003, [1; 64]);
    assert!(thim("7308000000000003").unwrap().fits(&milan));
    assert!(thim("0300000000000873").unwrap().fits(&milan));
    assert!(!thim("7308000000000004").unwrap().fits(&milan));
    assert!(thim("73080000000000031").is_err());
    assert!(thim("").is_err());
    assert_eq!(thim("1").unwrap().pem(), "leaf\nrest\n");
}

#[test]
fn addresses_at_amd_by_product_line() {
    // Microcode 219 of a patched Milan: more than 127.
    let milan = report(0x19, 1, 0xdb17_0000_0000_0004, [0xab; 64]);
    let expect = format!("{}?blSPL=04&teeSPL=00&snpSPL=23&ucodeSPL=219", "ab".repeat(64));
    assert_eq!(amd_path(&milan, "Milan").unwrap(), expect);
    let mut chip = [0; 64];
    chip[..8].fill(0xcd);
    let turin = report(0x1a, 2, 0x4f00_0000_0401_0101, chip);
    let expect = "cdcdcdcdcdcdcdcd?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=79";
    assert_eq!(amd_path(&turin, "Turin").unwrap(), expect);
    assert!(amd_path(&milan, "Rome").is_err());
    assert!(amd_path(&turin, "Milan").is_err(), "a tcb that is none of the line's");
}
