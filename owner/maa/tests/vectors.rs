//! Real evidence and recorded requests of the reference vectors.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use ah_maa::{
    Algorithm, AttestError, AttestationService, EndorsementVerifier, QuoteVerifier, Settings,
    TdxVerifier, UvmVerifier, verify_token,
};
use ah_verifier::TrustedRoots;
use base64::Engine as _;
use serde_json::{Value, json};
use support::{body as body_of, *};

fn vectors() -> Option<PathBuf> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors"));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

/// A service that trusts AMD's roots, Intel's and Azure's endorsements, and nothing else.
fn service(clock: &TestClock) -> Arc<AttestationService> {
    let settings = settings(clock, TrustedRoots::amd(), Algorithm::Rs256);
    let endorsements: Option<Box<dyn EndorsementVerifier>> = Some(Box::new(UvmVerifier::azure(0)));
    let settings = Settings { endorsements, ..settings };
    Arc::new(AttestationService::new(settings).unwrap())
}

/// A report of a real Milan machine in Azure, which binds the SHA-256 of a wrapping key's PEM text.
#[tokio::test]
async fn real_evidence_gets_a_token() {
    let Some(vectors) = vectors() else { return };
    let sample = vectors.join("snp/ms-privacy-sandbox");
    let read = |name: &str| std::fs::read(sample.join(name)).unwrap();
    let wrap_key = read("publicWrapKey.pem");
    let endorsed = |runtime_data: &[u8], uvm: &[u8]| {
        let uvm = json!({"Uvm": [padded(uvm)]}).to_string();
        let inner = json!({
            "SnpReport": padded(&read("report.bin")),
            "VcekCertChain": padded(&read("chain.pem")),
            "Endorsements": padded(uvm.as_bytes()),
        });
        let data = json!({"data": padded(runtime_data), "dataType": "Binary"});
        json!({"report": padded(inner.to_string().as_bytes()), "runtimeData": data})
            .to_string()
            .into_bytes()
    };
    let uvm = read("uvm_endorsements.cose");
    let body = |runtime_data: &[u8]| endorsed(runtime_data, &uvm);
    let clock = TestClock::new();
    let service = service(&clock);
    let path = "/attest/SevSnpVm?api-version=2022-08-01";
    let (status, answer) = call(&service, "POST", path, body(&wrap_key)).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["token"].as_str().unwrap();
    let (_, keys) = call(&service, "GET", "/certs", vec![]).await;
    let keys = serde_json::from_value(keys).unwrap();
    let token = verify_token(token, &keys, clock.now(), ISSUER, HOUR / 60).unwrap();
    for (name, value) in [
        ("x-anchorhold-tee", json!("sevsnpvm")),
        ("x-ms-sevsnpvm-guestsvn", json!(2)),
        ("x-ms-sevsnpvm-bootloader-svn", json!(3)),
        ("x-ms-sevsnpvm-microcode-svn", json!(115)),
        ("x-ms-sevsnpvm-chip-family", json!("Milan")),
        ("x-ms-compliance-status", json!("azure-compliant-uvm")),
        ("x-ms-runtime", json!(unpadded(&wrap_key))),
    ] {
        assert_eq!(token.claims()[name], value, "{name}");
    }

    let (status, answer) = call(&service, "POST", path, body(&wrap_key[1..])).await;
    assert_eq!(status, 400);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("runtimeData is not what the report binds"), "{message}");

    let mut altered = uvm.clone();
    *altered.last_mut().unwrap() ^= 1;
    // A genuine endorsement, of another image.
    let other = std::fs::read(vectors.join("snp/ms-aci-context/reference-info-base64")).unwrap();
    let other = base64::engine::general_purpose::STANDARD.decode(other.trim_ascii()).unwrap();
    for (uvm, expect) in
        [(altered, "Endorsements do not verify"), (other, "they endorse measurement")]
    {
        let (status, answer) = call(&service, "POST", path, endorsed(&wrap_key, &uvm)).await;
        assert_eq!(status, 400);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(expect), "{message}");
    }
}

/// A quote of a real machine, within the time of its collateral.
#[test]
fn real_quote_gets_a_token() {
    let Some(vectors) = vectors() else { return };
    let read = |name: &str| std::fs::read(vectors.join("tdx").join(name)).unwrap();
    let collateral = read("dcapqvl-tdx-collateral.json");
    let clock = TestClock::new();
    // Within the time of the collateral, which was issued 2025-06-19.
    clock.set(1_750_400_000);
    let verifier = TdxVerifier::new(Box::new(move || {
        let read = ah_verifier::QuoteCollateral::from_json(&collateral);
        read.map(|one| Arc::new(vec![one])).map_err(|error| error.to_string())
    }));
    let quotes: Option<Box<dyn QuoteVerifier>> = Some(Box::new(verifier));
    let settings = settings(&clock, TrustedRoots::amd(), Algorithm::Es256);
    let service = AttestationService::new(Settings { quotes, ..settings }).unwrap();
    let quote = read("dcapqvl-tdx.bin");
    let body = |quote: &[u8]| json!({"quote": unpadded(quote)}).to_string().into_bytes();
    let claims = part(&service.attest_tdx(&body(&quote)).unwrap(), 1);
    assert_eq!(claims["x-ms-attestation-type"], "tdxvm");
    assert_eq!(claims["tdx_mrtd"], hex::encode(&quote[48 + 136..48 + 136 + 48]));
    assert_eq!(claims["tdx_report_data"], hex::encode(&quote[48 + 520..48 + 584]));
    assert_eq!(claims["attester_tcb_status"], "UpToDate");
    assert_eq!(claims.get("x-ms-runtime"), None);

    let mut altered = quote.clone();
    altered[48 + 136] ^= 1;
    let refusal = service.attest_tdx(&body(&altered));
    assert!(matches!(refusal, Err(AttestError::Quote(_))), "{refusal:?}");
    clock.set(1_950_000_000);
    assert!(service.attest_tdx(&body(&quote)).is_err(), "collateral is too old");
}

/// Requests of the real sidecar on a machine without a TEE. It then makes up a report of version 1 whose signature is nobody's: that every
/// part of the request is read, and exactly the report is what is refused, is the right answer.
#[tokio::test]
async fn recorded_requests_are_read_and_their_made_up_report_is_refused() {
    let Some(vectors) = vectors() else { return };
    let trace =
        std::fs::read_to_string(vectors.join("wire/skr-importkey-http-trace.jsonl")).unwrap();
    let service = service(&TestClock::new());
    let mut replayed = 0;
    for line in trace.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let path = line["p"].as_str().unwrap();
        if !path.starts_with("/attest/") {
            continue;
        }
        let body = line["b"].as_str().unwrap();
        let (status, answer) = call(&service, "POST", path, body.as_bytes().to_vec()).await;
        assert_eq!(status, 400);
        assert_eq!(answer["error"]["code"], "AttestationFailed", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("SnpReport is not verified: "), "{message}");
        assert!(message.contains("version"), "{message}");
        replayed += 1;

        // The same request with a report that is one: members, encodings and dataTypes are the recorded ones.
        let mut honest: Value = serde_json::from_str(body).unwrap();
        let data = honest["runtimeData"]["data"].as_str().unwrap();
        let data = base64_any(data);
        let report_data = ah_evidence::ReportData::for_runtime_data(&data);
        let report = report(report_data, ah_digest::Sha256::of(b"policy"));
        honest["report"] = body_of(&report, &data)["report"].clone();
        let software = software_service(&TestClock::new(), Algorithm::Rs256);
        let (status, answer) = call(&software, "POST", path, honest.to_string().into_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        let claims = part(answer["token"].as_str().unwrap(), 1);
        // The first of them attests runtime data of an application, the others the sidecar's wrapping key.
        assert!(claims["x-ms-runtime"].is_object());
    }
    assert!(replayed >= 4, "{replayed}");
}

fn base64_any(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::URL_SAFE.decode(text).unwrap()
}
