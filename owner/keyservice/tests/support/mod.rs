//! A guest and its host, played: reports signed by one of two software roots, and a key service with a clock of its own.

#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ah_digest::{Digest, Sha256, Sha384};
use ah_evidence::{
    CertKind, CertTable, ChipId, Cpuid, Evidence, FirmwareVersion, GuestPolicy, KeyInfo,
    MitigationVectors, PlatformInfo, Product, RawReport, ReportData, ReportSignature, SigningKey,
    SnpReport, TcbParts, Tee, Version,
};
use ah_keyservice::{
    Environment, KekSource, KeyService, Location, OnExisting, Options, RandomError,
    SystemEnvironment,
};
use ah_release_api::policy::{PodFacts, TeeKind};
use ah_release_api::{
    GuestKey, KeyId, KeyKind, Nonce, Refusal, RefusedBy, ReleasePolicy, ReleaseRequest, Released,
    Request, Response, RuntimeData, Secret, Seed, WrapContext,
};
use ah_verifier::TrustedRoots;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

/// 2026-12-01T00:00:00Z: all certificates are valid.
pub const START_S: u64 = 1_796_083_200;
pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub fn key_id() -> KeyId {
    "demo/message".parse().unwrap()
}

/// A root, and the processor that signs under it.
pub struct Processor {
    pub ark: &'static [u8],
    table: CertTable,
    key: EcdsaKeyPair,
    chip_id: ChipId,
}

macro_rules! processor {
    ($folder:literal) => {
        Processor::new(
            include_bytes!(concat!("../fixtures/", $folder, "/ark.der")),
            include_bytes!(concat!("../fixtures/", $folder, "/ask.der")),
            include_bytes!(concat!("../fixtures/", $folder, "/vcek.der")),
            include_bytes!(concat!("../fixtures/", $folder, "/vcek.pk8")),
        )
    };
}

impl Processor {
    /// The one whose root the service is told to trust.
    pub fn a() -> Self {
        processor!("a")
    }

    /// Another.
    pub fn b() -> Self {
        processor!("b")
    }

    fn new(ark: &'static [u8], ask: &[u8], vcek: &[u8], key: &[u8]) -> Self {
        let entries = vec![
            (CertKind::Vcek, vcek.to_vec()),
            (CertKind::Ask, ask.to_vec()),
            (CertKind::Ark, ark.to_vec()),
        ];
        // hwID, 1.3.6.1.4.1.3704.1.4: the 64 bytes behind its OID and two headers stand last in the certificate's body.
        let oid = [0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01, 0x04, 0x04, 0x40];
        let at = vcek.windows(oid.len()).position(|window| window == oid).unwrap() + oid.len();
        Self {
            ark,
            table: CertTable::new(entries).unwrap(),
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key).unwrap(),
            chip_id: ChipId(vcek[at..at + 64].try_into().unwrap()),
        }
    }

    fn sign(&self, report: &SnpReport) -> Vec<u8> {
        let signed = report.signed_bytes();
        let fixed = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        let (r, s) = fixed.as_ref().split_at(48);
        let signature = ReportSignature { r: r.try_into().unwrap(), s: s.try_into().unwrap() };
        RawReport::assemble(&signed, &signature).as_bytes().to_vec()
    }
}

/// What a guest is launched with.
#[derive(Clone)]
pub struct Guest {
    pub measurement: Sha384,
    pub host_data: Sha256,
    pub policy: GuestPolicy,
    pub vmpl: u8,
}

impl Guest {
    /// The one that the policy of the tests is made for.
    pub fn expected() -> Self {
        Self {
            measurement: Sha384::of(b"kernel initrd cmdline"),
            host_data: Sha256::of(b"initdata"),
            policy: GuestPolicy::STRICT,
            vmpl: 0,
        }
    }

    fn report(&self, chip_id: ChipId, report_data: ReportData) -> SnpReport {
        let tcb = TcbParts { fmc: 0, boot_loader: 10, tee: 0, snp: 27, microcode: 88 };
        let tcb = tcb.version(Product::Genoa).unwrap();
        let firmware = FirmwareVersion { major: 1, minor: 58, build: 1 };
        let cpuid = Cpuid { family: 0x19, model: 0x11, stepping: 1 };
        SnpReport {
            version: Version::V5(cpuid, MitigationVectors { launch: 0, current: 0 }),
            guest_svn: 0,
            policy: self.policy,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: self.vmpl,
            current_tcb: tcb,
            platform_info: PlatformInfo(1 << 2 | 1 << 5),
            key_info: KeyInfo {
                author_key: false,
                mask_chip_key: false,
                signing_key: SigningKey::Vcek,
            },
            report_data,
            measurement: self.measurement,
            host_data: self.host_data,
            id_key_digest: Digest::new([0; 48]),
            author_key_digest: Digest::new([0; 48]),
            report_id: [3; 32],
            report_id_ma: [0xff; 32],
            reported_tcb: tcb,
            chip_id,
            committed_tcb: tcb,
            current_firmware: firmware,
            committed_firmware: firmware,
            launch_tcb: tcb,
        }
    }
}

/// Evidence of `guest` on `processor` over `runtime_data`.
pub fn evidence(processor: &Processor, guest: &Guest, runtime_data: Vec<u8>) -> Evidence {
    let report_data = ReportData::for_runtime_data(&runtime_data);
    Evidence {
        tee: Tee::Software,
        report: processor.sign(&guest.report(processor.chip_id, report_data)),
        auxblob: processor.table.encode(),
        runtime_data,
        initdata: None,
    }
}

/// A clock that stands still until it is moved, and real randomness.
pub struct TestClock(pub AtomicU64);

impl Environment for TestClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        SystemEnvironment.random(bytes)
    }
}

/// A key service with the key of the tests in it.
pub struct World {
    pub service: KeyService,
    pub clock: Arc<TestClock>,
    pub processor: Processor,
    pub guest: Guest,
    pub seen: Arc<Mutex<Vec<ah_keyservice::LogEntry>>>,
    folder: tempfile::TempDir,
}

pub fn policy(tee: TeeKind) -> ReleasePolicy {
    let guest = Guest::expected();
    ReleasePolicy::for_pod(&PodFacts {
        tee,
        launch_measurements: vec![guest.measurement],
        host_data: guest.host_data,
    })
    .unwrap()
}

impl World {
    /// The service trusts software root `a`, and the key's policy allows a software TEE.
    pub async fn new() -> Self {
        let roots = TrustedRoots::amd().danger_with_software_root(Processor::a().ark).unwrap();
        Self::with(roots, policy(TeeKind::Software)).await
    }

    pub async fn with(roots: TrustedRoots, policy: ReleasePolicy) -> Self {
        Self::with_options(Options::new(roots), policy).await
    }

    pub async fn with_options(options: Options, policy: ReleasePolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("keys/keys.sqlite3"));
        Self::set_up(&location, folder, options, policy).await
    }

    /// A service on any database; its key-encryption key is in `folder`.
    pub async fn at(
        location: &Location,
        folder: tempfile::TempDir,
        roots: TrustedRoots,
        policy: ReleasePolicy,
    ) -> Self {
        Self::set_up(location, folder, Options::new(roots), policy).await
    }

    async fn set_up(
        location: &Location,
        folder: tempfile::TempDir,
        options: Options,
        policy: ReleasePolicy,
    ) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(START_S)));
        let seen: Arc<Mutex<Vec<ah_keyservice::LogEntry>>> = Arc::default();
        let observed = seen.clone();
        let options = Options {
            environment: clock.clone(),
            observer: Some(Arc::new(move |entry| observed.lock().unwrap().push(entry.clone()))),
            ..options
        };
        ah_keyservice::files::private_dir(&folder.path().join("keys")).unwrap();
        let kek = KekSource::File(folder.path().join("keys/key-encryption-key"));
        let service = KeyService::connect(location, &kek, options).await.unwrap();
        let secret = Secret::new(SECRET.to_vec()).unwrap();
        service.import(&key_id(), KeyKind::Oct, &secret, policy, OnExisting::Refuse).await.unwrap();
        Self { service, clock, processor: Processor::a(), guest: Guest::expected(), seen, folder }
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// The log, an entry a line.
    pub async fn log_text(&self) -> String {
        let entries = self.service.entries(0, u64::MAX).await.unwrap();
        entries.into_iter().map(|entry| entry.body + "\n").collect()
    }

    pub async fn nonce(&self) -> Nonce {
        let message = Request::Challenge {}.to_json().unwrap();
        match Response::from_json(&self.service.handle(&message).await).unwrap() {
            Response::Challenge(challenge) => challenge.nonce,
            other => panic!("{other:?}"),
        }
    }

    /// An honest guest's request for a fresh challenge.
    pub async fn request(&self) -> (ReleaseRequest, GuestKey) {
        let key = GuestKey::from_seed(&Seed::new([42; 32]));
        let data =
            RuntimeData { nonce: self.nonce().await, key_id: key_id(), public_key: key.public() };
        let evidence = evidence(&self.processor, &self.guest, data.to_bytes());
        (ReleaseRequest { key_id: key_id(), evidence }, key)
    }

    pub async fn send(&self, request: &ReleaseRequest) -> Response {
        let message = Request::Release(Box::new(request.clone())).to_json().unwrap();
        Response::from_json(&self.service.handle(&message).await).unwrap()
    }

    /// Makes an honest request, lets `change` do its worst to it, sends it.
    pub async fn ask(&self, change: impl FnOnce(&mut ReleaseRequest)) -> Response {
        let (mut request, _) = self.request().await;
        change(&mut request);
        self.send(&request).await
    }

    /// The allowed case: an honest request is answered with the key.
    pub async fn assert_released(&self) {
        let (request, key) = self.request().await;
        let released = released(self.send(&request).await);
        let secret = open(&self.service, &request, &key, &released).unwrap();
        assert_eq!(secret.as_bytes(), SECRET);
    }
}

pub fn open(
    service: &KeyService,
    request: &ReleaseRequest,
    key: &GuestKey,
    released: &Released,
) -> Result<Secret, ah_release_api::WrapError> {
    let context = WrapContext {
        key_id: request.key_id.clone(),
        kind: released.kind,
        runtime_data: Sha256::of(&request.evidence.runtime_data),
    };
    key.open(&released.wrapped, &context, &service.identity())
}

#[track_caller]
pub fn released(response: Response) -> Released {
    match response {
        Response::Released(released) => released,
        other => panic!("expected a key: {other:?}"),
    }
}

#[track_caller]
pub fn refused(response: Response, by: RefusedBy, words: &str) -> Refusal {
    match response {
        Response::Refused(refusal) if refusal.by == by && refusal.to_string().contains(words) => {
            refusal
        }
        other => panic!("expected a refusal by {by:?} with {words:?}: {other:?}"),
    }
}
