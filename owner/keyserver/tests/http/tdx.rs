//! TDX guests: a real quote becomes a token, and tokens about such guests become keys. What needs recordings is skipped, with a line that says
//! so, where they are not beside this checkout.

use std::path::Path;

use ah_keyserver::{StartError, TdxError, start, start_with};
use ah_keyservice::{decode_base64, encode_base64url};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors/tdx");
/// Within the time of the collateral, which was issued 2025-06-19.
const THEN_S: u64 = 1_750_400_000;

fn recorded(name: &str) -> Option<Vec<u8>> {
    let path = Path::new(VECTORS).join(name);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {} is not there", path.display());
    }
    bytes
}

#[tokio::test]
async fn a_real_quote_becomes_a_token_by_the_folders_collateral() {
    let (Some(quote), Some(collateral)) =
        (recorded("dcapqvl-tdx.bin"), recorded("dcapqvl-tdx-collateral.json"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let attest = Issuer::new(AUTHORITY);
    let (mut config, tokens) = configure(folder.path(), &attest);
    let collateral_dir = folder.path().join("collateral");
    config.tdx.collateral = Some(collateral_dir.clone());
    let empty = start(&config).await.err().unwrap();
    assert!(matches!(empty, StartError::Tdx(TdxError::Empty { .. })), "{empty}");
    assert!(empty.to_string().contains("\nhint: "), "{empty}");
    std::fs::create_dir_all(collateral_dir.join("intel")).unwrap();
    let document = collateral_dir.join("intel/platform.json");
    std::fs::write(&document, collateral).unwrap();

    let clock = TestClock::at(THEN_S);
    let started = start_with(&config, clock.clone()).await.unwrap();
    let world = World::serve(started, attest, tokens, folder);
    let attest = async |quote: &[u8]| {
        let body = json!({"quote": encode_base64url(quote)});
        let path = "/attest/TdxVm?api-version=2023-04-01-preview";
        let (status, answer) = world.call("", Method::POST, path, Some(body)).await;
        (status.as_u16(), answer)
    };
    let (status, answer) = attest(&quote).await;
    assert_eq!(status, 200, "{answer}");
    let payload = answer["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&decode_base64(&payload).unwrap()).unwrap();
    assert_eq!(claims["x-ms-attestation-type"], "tdxvm");
    assert_eq!(claims["tdx_mrtd"], hex::encode(&quote[48 + 136..48 + 136 + 48]));
    let mut altered = quote.clone();
    altered[48 + 136] ^= 1;
    assert_eq!(attest(&altered).await.0, 400);
    // What is in the folder counts at once: a document that is gone vouches for nobody.
    let other = std::fs::rename(&document, collateral_dir.join("intel/platform.old"));
    assert!(other.is_ok());
    let (status, answer) = attest(&quote).await;
    assert_eq!(status, 400, "{answer}");
    world.stop().await;
}

/// Claims of a token about a TDX guest, as the cloud's service makes them.
fn claims(guest: &GuestKey) -> Value {
    json!({
        "x-ms-attestation-type": "tdxvm",
        "tdx_mrtd": "aa",
        "tdx_td_attributes_debug": false,
        "tdx_td_attributes": "0000001000000000",
        "attester_tcb_status": "UpToDate",
        "x-ms-runtime": guest.claims(HOST_DATA)["x-ms-runtime"],
    })
}

#[tokio::test]
async fn attack_weak_tdx_guests_and_guests_of_unknown_kinds() {
    let world = World::new().await;
    let text = json!({"version":"1.0.0","anyOf":[{"authority":AUTHORITY,"allOf":[
        {"claim":"tdx_mrtd","equals":"aa"}]}]});
    let body = json!({
        "key": {"kty":"oct-HSM","k":encode_base64url([7; 32]),"key_size":256},
        "attributes": {"exportable": true},
        "release_policy": {"data": encode_base64url(text.to_string())},
    });
    let path = "/keys/k?api-version=7.4";
    assert_eq!(world.call("importer", Method::PUT, path, Some(body)).await.0, 200);
    let guest = GuestKey::new();
    let release = async |claims: &Value| {
        let target = json!({"target": world.attest.token(claims)});
        let (status, answer) = world.release("/keys/k/release", target).await;
        (status.as_u16(), answer)
    };
    let (status, answer) = release(&claims(&guest)).await;
    assert_eq!(status, 200, "{answer}");
    let opened = guest.open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem);
    assert_eq!(opened.unwrap(), [7; 32]);
    for (name, value) in [
        ("tdx_td_attributes_debug", json!(true)),
        ("attester_tcb_status", json!("OutOfDate")),
        ("tdx_td_attributes", json!("1000001000000000")),
        ("x-anchorhold-tdx-other-attributes", json!("1000000000000000")),
        ("tdx_mrtd", json!("ab")),
        ("x-ms-attestation-type", json!("sgx")),
        ("x-ms-attestation-type", json!(["tdxvm"])),
        ("tdx_td_attributes_debug", json!([true])),
    ] {
        let mut weak = claims(&guest);
        weak[name] = value;
        let (status, answer) = release(&weak).await;
        assert_eq!(status, 403, "{name}: {answer}");
        assert!(answer.to_string().contains(name), "{name}: {answer}");
    }
    let mut untold = claims(&guest);
    untold.as_object_mut().unwrap().remove("tdx_td_attributes");
    let (status, answer) = release(&untold).await;
    assert!(status == 403 && answer.to_string().contains("does not say"), "{answer}");
    world.stop().await;
}
