//! Evidence to tokens: what clients of MAA send, and what a hostile one does.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use ah_collateral::CheckError;
use ah_digest::Sha256;
use ah_evidence::{GuestPolicy, ReportData, SnpReport};
use ah_maa::{
    Algorithm, AttestError, AttestationService, EndorsementVerifier, QuoteVerifier, Settings,
    SettingsError, VerifiedQuote, verify_token,
};
use ah_verifier::{TrustedRoots, Verified, VerifyError};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use support::{report as report_of, *};
use tower::ServiceExt as _;

fn service() -> Arc<AttestationService> {
    software_service(&TestClock::new(), Algorithm::Rs256)
}

fn attest(service: &AttestationService, body: &Value) -> Result<Value, AttestError> {
    service.attest_snp(body.to_string().as_bytes()).map(|token| part(&token, 1))
}

#[track_caller]
fn refused(body: &Value, expect: &str) {
    let error = attest(&service(), body).unwrap_err();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    assert!(words.contains(expect), "{words}");
}

#[test]
fn a_token_says_what_the_report_says() {
    let clock = TestClock::new();
    let service = software_service(&clock, Algorithm::Rs256);
    let token = service.attest_snp(honest_body().to_string().as_bytes()).unwrap();
    let header = part(&token, 0);
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["typ"], "JWT");
    assert_eq!(header["jku"], "https://maa.example:8443/certs");
    assert_eq!(header["kid"], service.jwks().keys[0].kid.clone().unwrap());
    let claims = part(&token, 1);
    for (name, value) in [
        ("iss", json!(ISSUER)),
        ("iat", json!(START_S)),
        ("nbf", json!(START_S)),
        ("exp", json!(START_S + 28_800)),
        ("nonce", json!("17476102382410498000")),
        ("x-ms-ver", json!("1.0")),
        ("x-ms-attestation-type", json!("sevsnpvm")),
        ("x-anchorhold-tee", json!("software (not confidential)")),
        ("x-anchorhold-revocation", json!("not checked")),
        ("x-ms-runtime", serde_json::from_slice(RUNTIME_DATA).unwrap()),
        ("x-ms-sevsnpvm-hostdata", json!(Sha256::of(b"initdata").to_string())),
        ("x-ms-sevsnpvm-is-debuggable", json!(false)),
        ("x-ms-sevsnpvm-vmpl", json!(0)),
        ("x-ms-sevsnpvm-guestsvn", json!(2)),
        ("x-ms-sevsnpvm-snpfw-svn", json!(27)),
        ("x-ms-sevsnpvm-microcode-svn", json!(88)),
        ("x-ms-sevsnpvm-chip-family", json!("Genoa")),
        ("x-ms-sevsnpvm-familyId", json!("01".repeat(16))),
        ("x-ms-sevsnpvm-singlesocket", json!(false)),
    ] {
        assert_eq!(claims[name], value, "{name}");
    }
    assert_eq!(claims["jti"].as_str().unwrap().len(), 64);
    assert_eq!(claims["x-ms-policy-hash"].as_str().unwrap().len(), 43);
    assert_eq!(claims.get("x-ms-compliance-status"), None);
    assert_eq!(claims.get("x-ms-inittime"), None);
    verify_token(&token, &service.jwks(), clock.now(), ISSUER, HOUR / 60).unwrap();
}

#[test]
fn attack_runtime_data_that_the_report_does_not_bind() {
    let bound = report(ReportData::for_runtime_data(RUNTIME_DATA), Sha256::of(b""));
    assert!(attest(&service(), &body(&bound, RUNTIME_DATA)).is_ok());
    let other = String::from_utf8(RUNTIME_DATA.to_vec()).unwrap().replace("AQ\"", "Ag\"");
    let refusal = attest(&service(), &body(&bound, other.as_bytes()));
    assert!(matches!(refusal, Err(AttestError::RuntimeData { .. })), "{refusal:?}");

    let mut long = *ReportData::for_runtime_data(RUNTIME_DATA).as_bytes();
    long[63] = 1;
    let refusal =
        attest(&service(), &body(&report(ReportData::new(long), Sha256::of(b"")), RUNTIME_DATA));
    assert!(matches!(refusal, Err(AttestError::RuntimeData { .. })), "{refusal:?}");
}

#[test]
fn without_runtime_data_a_token_has_no_runtime_claim() {
    let mut body = honest_body();
    body["runtimeData"] = json!({"data": "", "dataType": "JSON"});
    assert_eq!(attest(&service(), &body).unwrap().get("x-ms-runtime"), None);
    body.as_object_mut().unwrap().remove("runtimeData");
    assert_eq!(attest(&service(), &body).unwrap().get("x-ms-runtime"), None);
}

#[test]
fn attack_init_time_data_that_host_data_does_not_bind() {
    let mut body = honest_body();
    body["initTimeData"] = json!({"data": unpadded(b"initdata"), "dataType": "Binary"});
    assert_eq!(attest(&service(), &body).unwrap()["x-ms-inittime"], unpadded(b"initdata"));
    body["initTimeData"] = json!({"data": unpadded(b"initdatb"), "dataType": "Binary"});
    let refusal = attest(&service(), &body);
    assert!(matches!(refusal, Err(AttestError::InitTimeData { .. })), "{refusal:?}");
}

#[test]
fn attack_software_tee_where_only_hardware_is_trusted() {
    let settings = settings(&TestClock::new(), TrustedRoots::amd(), Algorithm::Es256);
    let refusal = attest(&AttestationService::new(settings).unwrap(), &honest_body());
    let expect = matches!(
        refusal,
        Err(AttestError::Report(CheckError::Verify(VerifyError::UntrustedRoot { .. })))
    );
    assert!(expect, "{refusal:?}");
}

#[test]
fn attack_report_altered_on_the_way() {
    let report_data = ReportData::for_runtime_data(RUNTIME_DATA);
    let honest = report(report_data, Sha256::of(b""));
    assert!(attest(&service(), &body(&honest, RUNTIME_DATA)).is_ok());
    for at in [0x90, 0xC0, 0x08, 0x188] {
        let mut altered = honest.clone();
        altered[at] ^= 1;
        let refusal = attest(&service(), &body(&altered, RUNTIME_DATA));
        assert!(matches!(refusal, Err(AttestError::Report(_))), "{at:#x}: {refusal:?}");
    }
}

#[test]
fn a_debuggable_guest_gets_a_token_that_says_so() {
    let policy = GuestPolicy::STRICT.with_debug();
    let report = report_with(ReportData::for_runtime_data(RUNTIME_DATA), Sha256::of(b""), policy);
    let claims = attest(&service(), &body(&report, RUNTIME_DATA)).unwrap();
    assert_eq!(claims["x-ms-sevsnpvm-is-debuggable"], true);
}

#[test]
fn bodies_are_read_with_and_without_padding() {
    let mut plain = honest_body();
    for pointer in ["/report", "/runtimeData/data"] {
        let member = plain.pointer_mut(pointer).unwrap();
        *member = member.as_str().unwrap().trim_end_matches('=').into();
    }
    assert!(attest(&service(), &plain).is_ok());
    plain["nonce"] = json!("of my own");
    assert_eq!(attest(&service(), &plain).unwrap()["nonce"], "of my own");
    plain.as_object_mut().unwrap().remove("nonce");
    assert_eq!(attest(&service(), &plain).unwrap().get("nonce"), None);
}

#[test]
fn bodies_that_cannot_be_read_are_refused_by_their_part() {
    let change = |pointer: &str, value: Value| {
        let mut body = honest_body();
        match body.pointer_mut(pointer) {
            Some(member) => *member = value,
            None => body[pointer.trim_start_matches('/')] = value,
        }
        body
    };
    let report = |text: &str| change("/report", padded(text.as_bytes()).into());
    refused(&change("/surprise", json!(1)), "unknown field `surprise`");
    refused(&change("/draftPolicyForAttestation", json!("version=1.0")), "is not supported");
    refused(&change("/report", json!("?")), "report is not base64url");
    refused(&change("/report", Value::Null), "report is missing");
    refused(&change("/quote", json!("AA")), "a quote is for /attest/TdxVm");
    refused(&json!([null, null, null, null, null, null]), "body is not a JSON object");
    refused(&report("[]"), "report is not a JSON object");
    refused(&report("{}"), "report is not JSON of the expected shape: missing field `SnpReport`");
    refused(&report(r#"{"SnpReport":"AAAA","VcekCertChain":""}"#), "SnpReport is not a report");
    refused(&change("/runtimeData/dataType", json!("Text")), "dataType of runtimeData is \"Text\"");
    refused(&change("/runtimeData/data", json!("W10=")), "runtimeData is not a JSON object");
    refused(&change("/nonce", json!(1.5)), "nonce is a number that is no whole one");
    refused(&change("/nonce", json!("n".repeat(513))), "nonce is a string of 513 bytes");
    let long = padded(&vec![b' '; 64 * 1024 + 1]);
    refused(&change("/runtimeData/data", long.into()), "runtimeData has 65537 bytes");
    let inner = json!({"SnpReport": padded(&report_of(ReportData::new([0; 64]), Sha256::of(b""))), "VcekCertChain": ""});
    refused(&report(&inner.to_string()), "VcekCertChain");
}

struct Uvm;

impl EndorsementVerifier for Uvm {
    fn verify(
        &self,
        documents: &[Vec<u8>],
        _: &Verified<SnpReport>,
        _: SystemTime,
    ) -> Result<String, String> {
        match documents {
            [document] if document == b"good" => Ok("azure-compliant-uvm".to_owned()),
            _ => Err("signature is not good".to_owned()),
        }
    }
}

fn with_endorsement(document: &[u8]) -> Value {
    let report_data = ReportData::for_runtime_data(RUNTIME_DATA);
    let uvm = json!({"Uvm": [padded(document)]}).to_string();
    let inner = json!({
        "SnpReport": padded(&report(report_data, Sha256::of(b""))),
        "VcekCertChain": padded(chain_pem().as_bytes()),
        "Endorsements": padded(uvm.as_bytes()),
    });
    let mut body = honest_body();
    body["report"] = padded(inner.to_string().as_bytes()).into();
    body
}

#[test]
fn attack_endorsement_that_does_not_verify() {
    let roots = TrustedRoots::amd().danger_with_software_root(ARK).unwrap();
    let settings = settings(&TestClock::new(), roots, Algorithm::Rs256);
    let endorsements: Option<Box<dyn EndorsementVerifier>> = Some(Box::new(Uvm));
    let service = AttestationService::new(Settings { endorsements, ..settings }).unwrap();
    let claims = attest(&service, &with_endorsement(b"good")).unwrap();
    assert_eq!(claims["x-ms-compliance-status"], "azure-compliant-uvm");
    let refusal = attest(&service, &with_endorsement(b"gooc"));
    assert!(matches!(refusal, Err(AttestError::Endorsements(_))), "{refusal:?}");
}

#[test]
fn an_endorsement_that_nobody_looked_at_proves_nothing_and_the_token_says_so() {
    let claims = attest(&service(), &with_endorsement(b"anything")).unwrap();
    assert_eq!(claims.get("x-ms-compliance-status"), None);
    assert_eq!(claims["x-anchorhold-uvm-endorsement"], "not checked");
}

struct Quotes;

impl QuoteVerifier for Quotes {
    fn verify(&self, quote: &[u8], _: SystemTime) -> Result<VerifiedQuote, String> {
        let claims = json!({"x-ms-attestation-type": "tdxvm"}).as_object().unwrap().clone();
        let report_data = ReportData::for_runtime_data(quote);
        Ok(VerifiedQuote { report_data, claims })
    }
}

#[test]
fn attack_quote_for_other_runtime_data() {
    let body = |quote: &[u8], data: &[u8]| {
        json!({"quote": unpadded(quote), "runtimeData": {"data": unpadded(data), "dataType": "Binary"}})
            .to_string()
    };
    let refusal = service().attest_tdx(body(b"x", b"x").as_bytes());
    assert!(matches!(refusal, Err(AttestError::NoQuoteVerifier)));
    let settings = settings(&TestClock::new(), TrustedRoots::amd(), Algorithm::Es256);
    let quotes: Option<Box<dyn QuoteVerifier>> = Some(Box::new(Quotes));
    let service = AttestationService::new(Settings { quotes, ..settings }).unwrap();
    let claims = part(&service.attest_tdx(body(b"x", b"x").as_bytes()).unwrap(), 1);
    assert_eq!(claims["x-ms-attestation-type"], "tdxvm");
    assert_eq!(claims["x-ms-runtime"], unpadded(b"x"));
    let refusal = service.attest_tdx(body(b"x", b"y").as_bytes());
    assert!(matches!(refusal, Err(AttestError::RuntimeData { .. })));
}

#[test]
fn settings_are_checked() {
    let with = |lifetime_s: u64| {
        let settings = settings(&TestClock::new(), TrustedRoots::amd(), Algorithm::Rs256);
        let lifetime = std::time::Duration::from_secs(lifetime_s);
        AttestationService::new(Settings { lifetime, ..settings }).map(|_| ())
    };
    assert_eq!(with(60), Ok(()));
    assert_eq!(with(59), Err(SettingsError::Lifetime { found_s: 59 }));
    assert_eq!(with(86_401), Err(SettingsError::Lifetime { found_s: 86_401 }));
}

#[tokio::test]
async fn routes_answer_in_maas_shapes() {
    let service = service();
    let good = honest_body().to_string().into_bytes();
    for path in ["/attest/SevSnpVM", "/attest/SevSnpVm", "/attest/sevsnpvm"] {
        let path = format!("{path}?api-version=2020-10-01");
        let (status, body) = call(&service, "POST", &path, good.clone()).await;
        assert_eq!((status, body["token"].is_string()), (200, true), "{path}");
    }
    let cases: [(&str, &str, Vec<u8>, u16, &str); 9] = [
        ("POST", "/attest/SevSnpVm", good.clone(), 400, "UnsupportedApiVersion"),
        (
            "POST",
            "/attest/SevSnpVm?api-version=2020-10-02",
            good.clone(),
            400,
            "UnsupportedApiVersion",
        ),
        ("POST", "/attest/SevSnpVm?api-version=2022-08-01", b"{".to_vec(), 400, "InvalidParameter"),
        (
            "POST",
            "/attest/TdxVm?api-version=2025-06-01",
            br#"{"quote":"AA"}"#.to_vec(),
            400,
            "NotSupported",
        ),
        ("POST", "/attest/SgxEnclave?api-version=2020-10-01", good.clone(), 400, "NotSupported"),
        ("POST", "/attest/x?api-version=2020-10-01", good.clone(), 404, "NotFound"),
        ("GET", "/attest/SevSnpVm?api-version=2020-10-01", vec![], 405, "MethodNotAllowed"),
        ("POST", "/certs", vec![], 405, "MethodNotAllowed"),
        (
            "POST",
            "/attest/SevSnpVm?api-version=2020-10-01",
            vec![b' '; 600 * 1024],
            413,
            "RequestTooLarge",
        ),
    ];
    for (method, path, body, status, code) in cases {
        let (found, answer) = call(&service, method, path, body).await;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{path}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn discovery_leads_to_the_keys() {
    let service = service();
    let (_, document) = call(&service, "GET", "/.well-known/openid-configuration", vec![]).await;
    assert_eq!(document["jwks_uri"], "https://maa.example:8443/certs");
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["RS256"]));
    let (status, keys) = call(&service, "GET", "/certs", vec![]).await;
    assert_eq!(status, 200);
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        for member in ["kid", "kty", "alg", "use", "n", "e"] {
            assert!(key[member].is_string(), "{member}");
        }
        assert!(key["x5c"][0].is_string());
    }
    let token = service.attest_snp(honest_body().to_string().as_bytes()).unwrap();
    let supported = document["claims_supported"].as_array().unwrap();
    for name in part(&token, 1).as_object().unwrap().keys() {
        assert!(supported.contains(&json!(name)), "{name}");
    }
}

/// Counts how many quotes are verified at a time.
struct Counting {
    now: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl QuoteVerifier for Counting {
    fn verify(&self, _: &[u8], _: SystemTime) -> Result<VerifiedQuote, String> {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.now.fetch_sub(1, Ordering::SeqCst);
        Err("counted".to_owned())
    }
}

/// Anybody may send evidence, and each piece takes a thread while it is verified.
#[tokio::test]
async fn attack_more_evidence_at_once_than_there_are_processors() {
    let most = Arc::new(AtomicUsize::new(0));
    let counting = Counting { now: AtomicUsize::new(0), most: most.clone() };
    let settings = settings(&TestClock::new(), TrustedRoots::amd(), Algorithm::Es256);
    let quotes: Option<Box<dyn QuoteVerifier>> = Some(Box::new(counting));
    let service = Arc::new(AttestationService::new(Settings { quotes, ..settings }).unwrap());
    let routes = ah_maa::router(service);
    let bound = ah_maa::verified_at_once();
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..bound * 8 {
        let body = json!({"quote": unpadded(b"x")}).to_string();
        let request = Request::builder()
            .method("POST")
            .uri("/attest/TdxVm?api-version=2023-04-01-preview")
            .body(Body::from(body))
            .unwrap();
        let routes = routes.clone();
        requests.spawn(async move { routes.oneshot(request).await.unwrap().status().as_u16() });
    }
    assert!(requests.join_all().await.iter().all(|status| *status == 400));
    let most = most.load(Ordering::SeqCst);
    assert!((1..=bound).contains(&most), "{most}");
}
