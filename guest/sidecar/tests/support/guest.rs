//! The release socket as the guest serves it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ah_evidence::{
    CertKind, CertTable, ChipId, Cpuid, Evidence, FirmwareVersion, GuestPolicy, KeyInfo,
    MitigationVectors, PlatformInfo, RawReport, ReportData, ReportSignature, SigningKey, SnpReport,
    TcbVersion, Tee, Version,
};
use axum::body::Bytes;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::UnixListener;

pub const REPORTED_TCB: u64 = 0x7308_0000_0000_0003;

pub struct Guest {
    pub reports: Arc<AtomicU32>,
}

impl Guest {
    pub fn start(socket: &Path, with_table: bool) -> Self {
        let reports = Arc::new(AtomicU32::new(0));
        let count = reports.clone();
        let listener = UnixListener::bind(socket).unwrap();
        let evidence = move |body: Bytes| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let body: Value = serde_json::from_slice(&body).unwrap();
                let data = STANDARD.decode(body["runtime_data"].as_str().unwrap()).unwrap();
                evidence(data, with_table).to_json().unwrap()
            }
        };
        let app = axum::Router::new().route("/v1/evidence", post(evidence));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { reports }
    }
}

fn evidence(runtime_data: Vec<u8>, with_table: bool) -> Evidence {
    let report_data = ReportData::for_runtime_data(&runtime_data);
    let firmware = FirmwareVersion { major: 1, minor: 55, build: 1 };
    let tcb = TcbVersion(REPORTED_TCB);
    let signing_key = SigningKey::Vcek;
    let report = SnpReport {
        version: Version::V5(
            Cpuid { family: 0x19, model: 1, stepping: 1 },
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
        report_data,
        measurement: "ab".repeat(48).parse().unwrap(),
        host_data: "cd".repeat(32).parse().unwrap(),
        id_key_digest: "00".repeat(48).parse().unwrap(),
        author_key_digest: "00".repeat(48).parse().unwrap(),
        report_id: [0; 32],
        report_id_ma: [0xff; 32],
        reported_tcb: tcb,
        chip_id: ChipId([7; 64]),
        committed_tcb: tcb,
        current_firmware: firmware,
        committed_firmware: firmware,
        launch_tcb: tcb,
    };
    // Whether a signature is good is for the attestation service to say; the sidecar carries it.
    let signature = ReportSignature { r: [1; 48], s: [1; 48] };
    let report = RawReport::assemble(&report.signed_bytes(), &signature).as_bytes().to_vec();
    let table = CertTable::new(vec![
        (CertKind::Vcek, b"vcek of the table".to_vec()),
        (CertKind::Ask, b"ask".to_vec()),
        (CertKind::Ark, b"ark".to_vec()),
    ]);
    let auxblob = if with_table { table.unwrap().encode() } else { Vec::new() };
    Evidence { tee: Tee::Snp, report, auxblob, runtime_data, initdata: None }
}
