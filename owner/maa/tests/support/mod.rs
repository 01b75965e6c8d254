//! A guest under a software root, the bodies that clients send, and a service with a clock of its own.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use ah_collateral::RevocationLists;
use ah_digest::{Digest, Sha256, Sha384};
use ah_evidence::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo, Product,
    RawReport, ReportData, ReportSignature, SigningKey, SnpReport, TcbParts, Version,
};
use ah_maa::{
    Algorithm, AttestationService, KeyRing, MemoryKeys, RingOptions, Settings, SigningKeys, router,
};
use ah_verifier::TrustedRoots;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// 2026-12-01T00:00:00Z: all certificates are valid.
pub const START_S: u64 = 1_796_083_200;
pub const ISSUER: &str = "https://maa.example:8443";
pub const HOUR: Duration = Duration::from_secs(3600);

pub const ARK: &[u8] = include_bytes!("../../../keyservice/tests/fixtures/a/ark.der");
const ASK: &[u8] = include_bytes!("../../../keyservice/tests/fixtures/a/ask.der");
const VCEK: &[u8] = include_bytes!("../../../keyservice/tests/fixtures/a/vcek.der");
const VCEK_KEY: &[u8] = include_bytes!("../../../keyservice/tests/fixtures/a/vcek.pk8");

pub fn padded(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

pub fn unpadded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The test chain as the sidecar sends it: PEM, endorsement key first.
pub fn chain_pem() -> String {
    let pem = |der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    [VCEK, ASK, ARK].map(pem).concat()
}

/// A guest's report with this REPORT_DATA, signed by the test's processor.
pub fn report(report_data: ReportData, host_data: Sha256) -> Vec<u8> {
    report_with(report_data, host_data, GuestPolicy::STRICT)
}

pub fn report_with(report_data: ReportData, host_data: Sha256, policy: GuestPolicy) -> Vec<u8> {
    // hwID, 1.3.6.1.4.1.3704.1.4: the 64 bytes behind its OID and two headers.
    let oid = [0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01, 0x04, 0x04, 0x40];
    let at = VCEK.windows(oid.len()).position(|window| window == oid).unwrap() + oid.len();
    let tcb = TcbParts { fmc: 0, boot_loader: 10, tee: 0, snp: 27, microcode: 88 };
    let tcb = tcb.version(Product::Genoa).unwrap();
    let firmware = FirmwareVersion { major: 1, minor: 58, build: 1 };
    let signing_key = SigningKey::Vcek;
    let report = SnpReport {
        version: Version::V5(
            Cpuid { family: 0x19, model: 0x11, stepping: 1 },
            MitigationVectors { launch: 0, current: 0 },
        ),
        guest_svn: 2,
        policy,
        family_id: [1; 16],
        image_id: [2; 16],
        vmpl: 0,
        current_tcb: tcb,
        platform_info: PlatformInfo(1 << 2 | 1 << 5),
        key_info: KeyInfo { author_key: false, mask_chip_key: false, signing_key },
        report_data,
        measurement: Sha384::of(b"kernel initrd cmdline"),
        host_data,
        id_key_digest: Digest::new([0; 48]),
        author_key_digest: Digest::new([0; 48]),
        report_id: [3; 32],
        report_id_ma: [0xff; 32],
        reported_tcb: tcb,
        chip_id: ChipId(VCEK[at..at + 64].try_into().unwrap()),
        committed_tcb: tcb,
        current_firmware: firmware,
        committed_firmware: firmware,
        launch_tcb: tcb,
    };
    let signed = report.signed_bytes();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, VCEK_KEY).unwrap();
    let fixed = key.sign(&SystemRandom::new(), &signed).unwrap();
    let (r, s) = fixed.as_ref().split_at(48);
    let signature = ReportSignature { r: r.try_into().unwrap(), s: s.try_into().unwrap() };
    RawReport::assemble(&signed, &signature).as_bytes().to_vec()
}

pub const RUNTIME_DATA: &[u8] =
    br#"{"keys":[{"e":"AQAB","key_ops":["encrypt"],"kid":"k","kty":"RSA","n":"AQ"}]}"#;

/// The sidecar's body over `report`.
pub fn body(report: &[u8], runtime_data: &[u8]) -> Value {
    let inner =
        json!({"SnpReport": padded(report), "VcekCertChain": padded(chain_pem().as_bytes())});
    json!({
        "report": padded(inner.to_string().as_bytes()),
        "runtimeData": {"data": padded(runtime_data), "dataType": "JSON"},
        "initTimeData": {"data": "", "dataType": ""},
        "nonce": 17_476_102_382_410_498_000_u64,
    })
}

pub fn honest_body() -> Value {
    let report = report(ReportData::for_runtime_data(RUNTIME_DATA), Sha256::of(b"initdata"));
    body(&report, RUNTIME_DATA)
}

#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START_S)))
    }

    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
    }
}

/// RSA keys take long to make, so the tests of a program share one set.
static RSA_KEYS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let store = Arc::new(MemoryKeys::default());
    ring(Shared(store.clone()), Algorithm::Rs256);
    store.read().unwrap().unwrap().to_vec()
});

pub struct Shared(pub Arc<MemoryKeys>);

impl SigningKeys for Shared {
    fn read(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, ah_maa::StoreError> {
        self.0.read()
    }

    fn write(&self, document: &[u8]) -> Result<(), ah_maa::StoreError> {
        self.0.write(document)
    }
}

fn ring(store: impl SigningKeys + 'static, algorithm: Algorithm) -> KeyRing {
    let options = RingOptions { algorithm, grace: 9 * HOUR, issuer: ISSUER.to_owned() };
    KeyRing::open(Box::new(store), options, SystemTime::UNIX_EPOCH).unwrap()
}

pub fn memory_ring(algorithm: Algorithm) -> KeyRing {
    let store = MemoryKeys::default();
    if algorithm == Algorithm::Rs256 {
        store.write(&RSA_KEYS).unwrap();
    }
    ring(store, algorithm)
}

/// A ring over keys that are kept elsewhere.
pub fn kept_ring(store: &Arc<MemoryKeys>) -> Result<KeyRing, ah_maa::RingError> {
    let options =
        RingOptions { algorithm: Algorithm::Es256, grace: HOUR, issuer: ISSUER.to_owned() };
    KeyRing::open(Box::new(Shared(store.clone())), options, SystemTime::UNIX_EPOCH)
}

pub fn settings(clock: &TestClock, roots: TrustedRoots, algorithm: Algorithm) -> Settings {
    let clock = clock.clone();
    Settings {
        keys: memory_ring(algorithm),
        roots,
        lists: RevocationLists::default(),
        lifetime: 8 * HOUR,
        endorsements: None,
        quotes: None,
        clock: Arc::new(move || clock.now()),
    }
}

/// A service that was told to trust the test's software root.
pub fn software_service(clock: &TestClock, algorithm: Algorithm) -> Arc<AttestationService> {
    let roots = TrustedRoots::amd().danger_with_software_root(ARK).unwrap();
    Arc::new(AttestationService::new(settings(clock, roots, algorithm)).unwrap())
}

/// Status and JSON of an answer of the routes.
pub async fn call(
    service: &Arc<AttestationService>,
    method: &str,
    path: &str,
    body: Vec<u8>,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
    let answer = router(service.clone()).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub fn part(token: &str, index: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
