//! TDX quotes at the key service: of a platform that is made up, and of real machines; the latter are skipped, with a line that says so, where
//! the recordings are not beside this checkout.

#[path = "support/intel.rs"]
mod intel;
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ah_evidence::{Evidence, Tee};
use ah_keyservice::{KeyService, OnExisting, Options, QuoteCollateralSource, verified_at_once};
use ah_release_api::{
    GuestKey, KeyKind, PublicKey, RefusedBy, ReleasePolicy, ReleaseRequest, Request, Response,
    RuntimeData, Secret, Seed, WrapContext,
};
use ah_verifier::{QuoteCollateral, TrustedRoots};
use intel::{Platform, SOUND, Td};
use support::*;

/// Within the time of the collateral, which was issued 2025-06-19.
const THEN_S: u64 = 1_750_400_000;

fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/reference/vectors/tdx"
    ));
    let bytes = std::fs::read(folder.join(name)).ok();
    if bytes.is_none() {
        eprintln!("skipped: {} is not there", folder.join(name).display());
    }
    bytes
}

async fn service(
    folder: &tempfile::TempDir,
    collateral: Option<Vec<u8>>,
    now_s: u64,
) -> KeyService {
    let mut options = Options::new(TrustedRoots::amd());
    options.environment = Arc::new(TestClock(AtomicU64::new(now_s)));
    options.quotes = collateral.map(|json| -> QuoteCollateralSource {
        Arc::new(move || {
            let read = QuoteCollateral::from_json(&json);
            read.map(|one| Arc::new(vec![one])).map_err(|error| error.to_string())
        })
    });
    KeyService::open(&folder.path().join("keys"), options).await.unwrap()
}

/// The answer to a request with this quote and an honest statement for a fresh challenge.
async fn ask(service: &KeyService, quote: &[u8]) -> Response {
    let nonce = service.challenge().unwrap().nonce;
    let data = RuntimeData { nonce, key_id: key_id(), public_key: PublicKey::new([9; 32]) };
    let evidence = Evidence {
        tee: Tee::Tdx,
        report: quote.to_vec(),
        auxblob: Vec::new(),
        runtime_data: data.to_bytes(),
        initdata: None,
    };
    let request = ReleaseRequest { key_id: key_id(), evidence };
    let message = Request::Release(Box::new(request)).to_json().unwrap();
    Response::from_json(&service.handle(&message).await).unwrap()
}

/// A quote that Intel's root vouches for passes the verifier; what it binds is another statement than ours, so that is what is refused: a
/// recorded quote is not fresh.
#[tokio::test]
async fn attack_real_quote_replayed_for_a_fresh_challenge() {
    let Some(quote) = vector("dcapqvl-tdx.bin") else { return };
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder, vector("dcapqvl-tdx-collateral.json"), THEN_S).await;
    refused(ask(&service, &quote).await, RefusedBy::ReportData, "REPORT_DATA is not SHA-256");
    let mut altered = quote.clone();
    altered[48 + 136] ^= 1;
    refused(ask(&service, &altered).await, RefusedBy::Verifier, "quote does not verify");
    service.close().await;
}

#[tokio::test]
async fn attack_quote_without_collateral_or_with_what_is_too_old() {
    let Some(quote) = vector("dcapqvl-tdx.bin") else { return };
    let folder = tempfile::tempdir().unwrap();
    let without = service(&folder, None, THEN_S).await;
    refused(ask(&without, &quote).await, RefusedBy::Verifier, "tdx.collateral");
    without.close().await;
    let late = service(&folder, vector("dcapqvl-tdx-collateral.json"), 1_950_000_000).await;
    refused(ask(&late, &quote).await, RefusedBy::Verifier, "quote does not verify");
    late.close().await;
}

/// A key service that believes the made-up platform's root, with a key for guests of one MRTD.
struct Made {
    platform: Platform,
    service: KeyService,
    _folder: tempfile::TempDir,
}

const MR_TD: [u8; 48] = [0xAB; 48];

impl Made {
    /// Collateral rates the platform `status`; the policy has these comparisons beside those of MRTD and root.
    async fn new(status: &str, more: &[(&str, &str)]) -> Self {
        let (platform, folder) = (Platform::new(), tempfile::tempdir().unwrap());
        let document = QuoteCollateral::from_json(&platform.collateral(status)).unwrap();
        let documents = Arc::new(vec![document.danger_under_software_root(&platform.root())]);
        let mut options = Options::new(TrustedRoots::amd());
        options.environment = Arc::new(TestClock(AtomicU64::new(START_S)));
        let source: QuoteCollateralSource = Arc::new(move || Ok(documents.clone()));
        options.quotes = Some(source);
        let service = KeyService::open(&folder.path().join("keys"), options).await.unwrap();
        let secret = Secret::new(SECRET.to_vec()).unwrap();
        let mr_td = hex::encode(MR_TD);
        let software = ("x-anchorhold-tee", "software (not confidential)");
        let all = [("tdx_mrtd", mr_td.as_str()), software].into_iter().chain(more.iter().copied());
        let all: Vec<_> = all
            .map(|(claim, value)| serde_json::json!({"claim": claim, "equals": value}))
            .collect();
        let text = serde_json::json!({"version": "1.0.0", "anyOf": [
            {"authority": ah_release_api::policy::LOCAL_AUTHORITY, "allOf": all}]});
        let policy = ReleasePolicy::parse(&text.to_string()).unwrap();
        let refuse = OnExisting::Refuse;
        service.import(&key_id(), KeyKind::Opaque, &secret, policy, refuse).await.unwrap();
        Self { platform, service, _folder: folder }
    }

    /// Asks as an honest guest whose quote was changed so; opens what comes.
    async fn ask(&self, change: impl FnOnce(&mut Td)) -> Result<(), Response> {
        let guest = GuestKey::from_seed(&Seed::new([5; 32]));
        let nonce = self.service.challenge().unwrap().nonce;
        let data = RuntimeData { nonce, key_id: key_id(), public_key: guest.public() };
        let mut evidence = Evidence {
            tee: Tee::Tdx,
            report: Vec::new(),
            auxblob: Vec::new(),
            runtime_data: data.to_bytes(),
            initdata: None,
        };
        let report_data = *evidence.expected_report_data().as_bytes();
        let mut td = Td { attributes: SOUND, mr_td: MR_TD, service_td: None, report_data };
        change(&mut td);
        evidence.report = self.platform.quote(&td);
        let runtime_data = ah_digest::Sha256::of(&evidence.runtime_data);
        let request = ReleaseRequest { key_id: key_id(), evidence };
        let message = Request::Release(Box::new(request)).to_json().unwrap();
        match Response::from_json(&self.service.handle(&message).await).unwrap() {
            Response::Released(released) => {
                let context = WrapContext { key_id: key_id(), kind: released.kind, runtime_data };
                let identity = self.service.identity();
                let secret = guest.open(&released.wrapped, &context, &identity).unwrap();
                assert_eq!(secret.as_bytes(), SECRET);
                Ok(())
            }
            other => Err(other),
        }
    }

    async fn refuses(&self, change: impl FnOnce(&mut Td), by: RefusedBy, words: &str) {
        refused(self.ask(change).await.expect_err("refused"), by, words);
    }
}

#[tokio::test]
async fn attack_tdx_guest_that_is_not_the_one_of_the_policy() {
    let made = Made::new("UpToDate", &[]).await;
    made.ask(|_| {}).await.unwrap();
    made.ask(|td| td.service_td = Some([0; 48])).await.unwrap();
    made.ask(|td| td.attributes |= 1 << 63).await.unwrap();
    made.refuses(|td| td.mr_td[47] ^= 1, RefusedBy::ReleasePolicy, "not met").await;
    made.refuses(|td| td.report_data[0] ^= 1, RefusedBy::ReportData, "REPORT_DATA").await;
    let weak = RefusedBy::Appraisal;
    let other = "x-anchorhold-tdx-other-attributes";
    made.refuses(|td| td.attributes |= 1, weak, "tdx_td_attributes_debug").await;
    for bit in [4, 5, 6, 16, 27, 62] {
        made.refuses(|td| td.attributes |= 1 << bit, weak, other).await;
    }
    let service = |td: &mut Td| {
        let mut service_td = [0; 48];
        service_td[0] = 1;
        td.service_td = Some(service_td);
    };
    made.refuses(service, weak, "x-anchorhold-tdx-service-td").await;
    // No policy can allow these: the verifier takes no such quote.
    made.refuses(|td| td.attributes |= 1 << 29, RefusedBy::Verifier, "migration").await;
    made.refuses(|td| td.attributes |= 1 << 32, RefusedBy::Verifier, "eserved").await;
    made.refuses(|td| td.attributes = 0, RefusedBy::Verifier, "SEPT_VE_DISABLE").await;
}

#[tokio::test]
async fn a_policy_that_names_a_weakness_allows_that_one() {
    let profiled = ("x-anchorhold-tdx-other-attributes", "1000000000000000");
    let made = Made::new("OutOfDate", &[profiled, ("attester_tcb_status", "OutOfDate")]).await;
    made.ask(|td| td.attributes |= 1 << 4).await.unwrap();
    made.refuses(|td| td.attributes |= 1 << 5, RefusedBy::ReleasePolicy, "not met").await;
    made.refuses(|td| td.attributes |= 1 << 4 | 1, RefusedBy::Appraisal, "debug").await;
}

#[tokio::test]
async fn attack_tdx_platform_that_intel_rates_down() {
    let old = Made::new("OutOfDate", &[]).await;
    old.refuses(|_| {}, RefusedBy::Appraisal, "attester_tcb_status").await;
    // Keys of a revoked platform may be anybody's, whatever a policy says.
    let revoked = Made::new("Revoked", &[("attester_tcb_status", "Revoked")]).await;
    revoked.refuses(|_| {}, RefusedBy::Verifier, "evoked").await;
}

/// A root that is not Intel's is believed by nobody who was not told so.
#[tokio::test]
async fn attack_quote_of_a_made_up_platform() {
    let (platform, folder) = (Platform::new(), tempfile::tempdir().unwrap());
    let service = service(&folder, Some(platform.collateral("UpToDate")), START_S).await;
    let td = Td { attributes: SOUND, mr_td: MR_TD, service_td: None, report_data: [0; 64] };
    refused(ask(&service, &platform.quote(&td)).await, RefusedBy::Verifier, "does not verify");
}

/// Anybody may ask for a release, and each piece of evidence takes a thread while it is verified.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_more_evidence_at_once_than_there_are_processors() {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let counting: QuoteCollateralSource = Arc::new(move || {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(2));
        now.fetch_sub(1, Ordering::SeqCst);
        Err("counted".to_owned())
    });
    let (platform, folder) = (Platform::new(), tempfile::tempdir().unwrap());
    let mut options = Options::new(TrustedRoots::amd());
    options.environment = Arc::new(TestClock(AtomicU64::new(START_S)));
    options.quotes = Some(counting);
    let service = KeyService::open(&folder.path().join("keys"), options).await.unwrap();
    let service = Arc::new(service);
    let td = Td { attributes: SOUND, mr_td: MR_TD, service_td: None, report_data: [0; 64] };
    let quote = Arc::new(platform.quote(&td));
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..verified_at_once() * 8 {
        let (service, quote) = (service.clone(), quote.clone());
        requests.spawn(async move { ask(&service, &quote).await });
    }
    for answer in requests.join_all().await {
        refused(answer, RefusedBy::Service, "collateral of TDX quotes cannot be read");
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=verified_at_once()).contains(&most), "{most}");
    service.close().await;
}
