//! What a real sidecar and a real key importer sent, word for word, answered by our service. Skipped, with a line that says so, where the
//! recordings are not beside this checkout.

use crate::support::*;
use ah_keyservice::{decode_base64, encode_base64url};
use reqwest::Method;
use serde_json::{Value, json};

const TRACE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/reference/vectors/wire/skr-importkey-http-trace.jsonl"
);

fn recorded() -> Option<Vec<Value>> {
    match std::fs::read_to_string(TRACE) {
        Ok(text) => Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()),
        Err(_) => {
            eprintln!("skipped: {TRACE} is not there");
            None
        }
    }
}

/// The recorded policies ask for other claims than the recorded tokens make, and the tokens were signed by nobody: what is replayed is the
/// form of every request, with a token of our own attestation service in the place of theirs.
#[tokio::test]
async fn recorded_requests_are_answered() {
    let Some(trace) = recorded() else { return };
    let world = World::with(|config, _| {
        config.attestation[0].issuer = "https://localhost:18443".to_owned();
        config.url = Some("https://localhost:18444".to_owned());
    })
    .await;
    let url = format!("https://localhost:{}", world.address.port());
    let send = async |record: &Value, role: &str, body: String| {
        let method: Method = record["m"].as_str().unwrap().parse().unwrap();
        let request = world
            .client
            .request(method, format!("{url}{}", record["p"].as_str().unwrap()))
            .bearer_auth(world.token(role))
            .header("user-agent", record["h"]["User-Agent"].as_str().unwrap())
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (mut imports, mut releases) = (0, 0);
    for record in &trace {
        let (method, path, body) = (
            record["m"].as_str().unwrap(),
            record["p"].as_str().unwrap(),
            record["b"].as_str().unwrap(),
        );
        if method == "PUT" {
            let (status, answer) = send(record, "importer", body.to_owned()).await;
            let sent: Value = serde_json::from_str(body).unwrap();
            assert_eq!(status, 200, "{answer}");
            assert!(
                answer["key"]["kid"]
                    .as_str()
                    .unwrap()
                    .starts_with("https://localhost:18444/keys/k")
            );
            assert_eq!(answer["release_policy"], sent["release_policy"]);
            imports += 1;
        } else if path.contains("/release") {
            // Their token: nobody that we trust signed it.
            let (status, answer) = send(record, "releaser", body.to_owned()).await;
            assert_eq!(
                (status, answer["error"]["code"].as_str()),
                (403, Some("Forbidden")),
                "{answer}"
            );
            let guest = GuestKey::new();
            let claims = guest.claims("aa");
            let attest =
                Issuer { key: clone(&world.attest), name: "https://localhost:18443".to_owned() };
            let ours = json!({"target":attest.token(&claims)}).to_string();
            let (status, answer) = send(record, "releaser", ours).await;
            assert_eq!(status, 200, "{answer}");
            let secret = guest.open(&answer, "CKM_RSA_AES_KEY_WRAP", &world.ca_pem).unwrap();
            assert!(was_imported(&trace, path, &secret), "{path}");
            releases += 1;
        }
    }
    assert_eq!((imports, releases), (2, 4));
    world.stop().await;
}

fn clone(issuer: &Issuer) -> aws_lc_rs::rsa::KeyPair {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let der: Pkcs8V1Der<'_> = issuer.key.as_der().unwrap();
    aws_lc_rs::rsa::KeyPair::from_pkcs8(der.as_ref()).unwrap()
}

/// Whether the secret is the one of the recorded import of this name: the bytes, or PKCS#8 of the numbers.
fn was_imported(trace: &[Value], path: &str, secret: &[u8]) -> bool {
    use aws_lc_rs::signature::KeyPair as _;
    let name = path.split('/').nth(2).unwrap();
    let import = trace
        .iter()
        .find(|record| record["p"].as_str().unwrap().starts_with(&format!("/keys/{name}?")));
    let body: Value = serde_json::from_str(import.unwrap()["b"].as_str().unwrap()).unwrap();
    match body["key"]["k"].as_str() {
        Some(k) => decode_base64(k).unwrap() == secret,
        None => {
            let pair = aws_lc_rs::rsa::KeyPair::from_pkcs8(secret).unwrap();
            let n = encode_base64url(pair.public_key().modulus().big_endian_without_leading_zero());
            body["key"]["n"] == n
        }
    }
}
