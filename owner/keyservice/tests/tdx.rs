//! TDX quotes of real machines at the key service. Skipped, with a line that says so, where the recordings are not beside this checkout.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ah_evidence::{Evidence, Tee};
use ah_keyservice::{KeyService, Options};
use ah_release_api::{PublicKey, RefusedBy, ReleaseRequest, Request, Response, RuntimeData};
use ah_verifier::{QuoteCollateral, TrustedRoots};
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
    options.quotes = collateral.map(|json| -> ah_keyservice::QuoteCollateralSource {
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
