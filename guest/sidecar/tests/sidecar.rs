//! The sidecar as an application of AKS sees it, and what a hostile network does to it.

mod support;

use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::*;

fn words(body: &Value) -> &str {
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap()
}

#[tokio::test]
async fn status_and_unknown_paths() {
    let scene = Scene::new().await;
    let (status, body) = scene.send("GET", "/status", String::new()).await;
    assert_eq!((status, body.as_str()), (200, r#"{"message":"Status OK"}"#));
    for (method, path) in [("GET", "/"), ("POST", "/status"), ("GET", "/attest/raw")] {
        let (status, body) = scene.send(method, path, String::new()).await;
        assert_eq!((status, body.as_str()), (404, "404 page not found"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_raw_report_binds_the_runtime_data() {
    let scene = Scene::new().await;
    let (status, body) = scene.post("/attest/raw", json!({"runtime_data": "YWJj"})).await;
    assert_eq!(status, 200, "{body}");
    let report = hex::decode(body["report"].as_str().unwrap()).unwrap();
    assert_eq!(report.len(), 1184);
    assert_eq!(&report[0x50..0x70], digest(&SHA256, b"abc").as_ref());
    assert_eq!(report[0x70..0x90], [0; 32]);
    let lines = json!({"runtime_data": "YW\r\nJj", "other": 1});
    assert_eq!(scene.post("/attest/raw", lines).await.1, body, "line ends are skipped");
}

#[tokio::test]
async fn wrong_requests_get_one_error_document_each() {
    let scene = Scene::new().await;
    let data = "YWJj";
    let release =
        |kid: &str, maa: &str| json!({"maa_endpoint": maa, "akv_endpoint": "h", "kid": kid});
    let cases: [(&str, Value, &str); 14] = [
        ("/attest/raw", json!({}), "runtime_data is missing"),
        ("/attest/raw", json!({"runtime_data": ""}), "runtime_data is missing"),
        ("/attest/raw", json!({"runtime_data": 1}), "not JSON of the expected shape"),
        ("/attest/raw", json!([]), "not JSON of the expected shape"),
        ("/attest/raw", json!({"runtime_data": "YW_j"}), "not standard base64"),
        ("/attest/raw", json!({"runtime_data": "YWI"}), "not standard base64"),
        ("/attest/raw", json!({"runtime_data": standard(&[0; 65_537])}), "has 65537 bytes"),
        ("/attest/combined", json!({}), "runtime_data is missing"),
        ("/attest/maa", json!({"runtime_data": data}), "maa_endpoint is missing"),
        (
            "/attest/maa",
            json!({"runtime_data": data, "maa_endpoint": "u@h"}),
            "endpoint is \"u@h\"",
        ),
        ("/key/release", json!({}), "maa_endpoint is missing"),
        ("/key/release", json!({"maa_endpoint": "h"}), "akv_endpoint is missing"),
        ("/key/release", json!({"maa_endpoint": "h", "akv_endpoint": "h"}), "kid is missing"),
        ("/key/release", release("k", "https://h"), "expected host[:port][/path]"),
    ];
    for (path, body, expect) in cases {
        let (status, answer) = scene.post(path, body).await;
        assert_eq!(status, 400, "{path}: {answer}");
        assert!(words(&answer).contains(expect), "{answer}");
    }
    let (status, _) = scene.send("POST", "/attest/raw", "x".repeat(200_000)).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn attack_pod_without_a_tee_gets_no_made_up_report() {
    let scene = Scene::with(|_, _| Setup { without_socket: true, ..Setup::default() }).await;
    let data = json!({"runtime_data": "YWJj"});
    for path in ["/attest/raw", "/attest/combined"] {
        let (status, body) = scene.post(path, data.clone()).await;
        assert_eq!(status, 503);
        assert!(words(&body).starts_with("no attestation report: "), "{body}");
    }
    assert_eq!(scene.maa(b"{}").await.0, 503);
    assert_eq!(scene.release(Some("t")).await.0, 503);
    assert_eq!(scene.cloud.count(""), 0, "nobody is told anything");
}

#[tokio::test]
async fn combined_evidence_has_the_certificates_beside_the_report() {
    let scene = Scene::new().await;
    let (status, body) = scene.post("/attest/combined", json!({"runtime_data": "YWJj"})).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["endorsed_tcb"], "7308000000000003");
    assert_eq!(body["uvm_endorsements"], "");
    assert_eq!(STANDARD.decode(body["evidence"].as_str().unwrap()).unwrap().len(), 1184);
    let chain = STANDARD.decode(body["endorsements"].as_str().unwrap()).unwrap();
    let chain = String::from_utf8(chain).unwrap();
    assert_eq!(chain.matches("-----BEGIN CERTIFICATE-----").count(), 3);
}

/// The folder as Azure mounts it, with certificates for `tcbm`.
fn security_context(folder: &std::path::Path, tcbm: &str) -> String {
    let context = folder.join("context");
    std::fs::create_dir(&context).unwrap();
    let thim = json!({
        "vcekCert": "platform vcek\n", "tcbm": tcbm, "certificateChain": "platform chain\n",
        "cacheControl": "86400",
    });
    std::fs::write(context.join("host-amd-cert-base64"), standard(thim.to_string().as_bytes()))
        .unwrap();
    std::fs::write(context.join("reference-info-base64"), standard(b"cose")).unwrap();
    context.display().to_string()
}

#[tokio::test]
async fn the_platforms_certificates_count_when_they_fit_the_report() {
    for (tcbm, expect) in [
        ("7308000000000003", "platform vcek\nplatform chain\n"),
        ("0300000000000873", "platform vcek\nplatform chain\n"),
        ("7308000000000004", "-----BEGIN CERTIFICATE-----\n"),
    ] {
        let scene = Scene::with(|folder, _| Setup {
            env: vec![("UVM_SECURITY_CONTEXT_DIR", security_context(folder, tcbm))],
            ..Setup::default()
        })
        .await;
        let (_, body) = scene.post("/attest/combined", json!({"runtime_data": "YWJj"})).await;
        let chain = STANDARD.decode(body["endorsements"].as_str().unwrap()).unwrap();
        assert!(chain.starts_with(expect.as_bytes()), "{tcbm}");
        assert_eq!(body["uvm_endorsements"], standard(b"cose"));
    }
}

#[tokio::test]
async fn certificates_are_fetched_once() {
    let scene = Scene::with(|_, cloud| Setup {
        without_table: true,
        settings: Some(
            json!({"certcache": {"endpoint_type": "AMD", "endpoint": format!("{cloud}/vcek/v1")}}),
        ),
        ..Setup::default()
    })
    .await;
    for _ in 0..3 {
        let (status, body) = scene.post("/attest/combined", json!({"runtime_data": "YWJj"})).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["endorsed_tcb"], format!("{REPORTED_TCB:016x}"));
    }
    let expect =
        format!("GET /vcek/v1/Milan/{}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115", "07".repeat(64));
    assert_eq!(scene.cloud.count(&expect), 1);
    assert_eq!(scene.cloud.count("GET /vcek/v1/Milan/cert_chain"), 1);
}

#[tokio::test]
async fn tokens_are_asked_for_as_the_known_sidecar_does() {
    let scene = Scene::with(|folder, _| Setup {
        settings: Some(json!({"maaconfig": {"user_agent": "test-agent/1.0"}})),
        env: vec![("UVM_SECURITY_CONTEXT_DIR", security_context(folder, "7308000000000003"))],
        ..Setup::default()
    })
    .await;
    let (status, body) = scene.maa(br#"{"a":1}"#).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["token"].as_str().unwrap().split('.').count(), 3);
    scene.cloud.last("POST /attest/", |asked| {
        assert_eq!(asked.line, "POST /attest/SevSnpVM?api-version=2020-10-01");
        assert_eq!(asked.headers["user-agent"], "test-agent/1.0");
        assert!(!asked.headers.contains_key("authorization"));
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(body["runtimeData"], json!({"data": "eyJhIjoxfQ==", "dataType": "JSON"}));
        assert_eq!(body["initTimeData"], json!({"data": "", "dataType": ""}));
        let decode = |value: &Value| {
            base64::engine::general_purpose::URL_SAFE.decode(value.as_str().unwrap()).unwrap()
        };
        let report: Value = serde_json::from_slice(&decode(&body["report"])).unwrap();
        assert_eq!(decode(&report["VcekCertChain"]), b"platform vcek\nplatform chain\n");
        let uvm: Value = serde_json::from_slice(&decode(&report["Endorsements"])).unwrap();
        assert_eq!(decode(&uvm["Uvm"][0]), b"cose");
    });
}

#[tokio::test]
async fn the_same_question_gets_the_kept_token() {
    let scene = Scene::new().await;
    let first = scene.maa(b"{}").await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(scene.maa(b"{}").await, first);
    assert_eq!(scene.cloud.count("POST /attest/"), 1);
    assert_eq!(scene.maa(b"bytes").await.0, 200);
    assert_eq!(scene.cloud.count("POST /attest/"), 2, "other data is another question");
}

#[tokio::test]
async fn a_refusal_of_the_attestation_service_is_told() {
    let scene = Scene::new().await;
    scene.cloud.maa_refuses();
    for (status, body) in [scene.maa(b"{}").await, scene.release(Some("t")).await] {
        assert_eq!(status, 403);
        assert!(words(&body).contains("AttestationFailed"), "{body}");
    }
}

#[tokio::test]
async fn keys_of_every_kind_and_wrapping_are_released() {
    let scene = Scene::new().await;
    let encs = [None, Some("RSA_AES_KEY_WRAP_256"), Some("RSA_AES_KEY_WRAP_384")];
    for kty in ["oct", "oct-HSM", "RSA", "RSA-HSM", "EC", "EC-HSM"] {
        for enc in encs {
            scene.cloud.answer(Answer::Key { kty, enc });
            let (status, body) = scene.release(Some("tok123")).await;
            assert_eq!(status, 200, "{kty} {enc:?}: {body}");
            let jwk: Value = serde_json::from_str(body["key"].as_str().unwrap()).unwrap();
            assert_eq!(jwk["kty"], kty.trim_end_matches("-HSM"));
            assert_eq!(jwk["key_ops"], json!(["encrypt"]));
        }
    }
    scene.cloud.answer(Answer::Key { kty: "oct-HSM", enc: None });
    let (_, body) = scene.release(Some("tok123")).await;
    let jwk: Value = serde_json::from_str(body["key"].as_str().unwrap()).unwrap();
    assert_eq!(jwk["k"], "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY");
    scene.cloud.last("POST /keys/", |asked| {
        assert_eq!(asked.line, "POST /keys/k1/release?api-version=7.4");
        assert_eq!(asked.headers["authorization"], "Bearer tok123");
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["target"]);
    });
    let reports = scene.guest.as_ref().unwrap().reports.load(Ordering::SeqCst);
    assert_eq!(reports, 19, "each release has a report of its own");
}

#[tokio::test]
async fn attack_released_key_of_somebody_elses() {
    let scene = Scene::new().await;
    assert_eq!(scene.release(Some("t")).await.0, 200);
    for (answer, expect) in [
        (Answer::OtherRoot, "certificate of the signed answer: "),
        (Answer::OtherName, "certificate of the signed answer: "),
        (Answer::AlteredPayload, "signature of the signed answer is not its certificate's"),
        (Answer::AlgorithmNone, "names algorithm \"none\""),
        (Answer::NoChain, "signed answer carries no certificate"),
        (Answer::ShortCiphertext, "shorter than an RSA block"),
        (Answer::OtherWrappingKey, "wrapped key does not open"),
        (Answer::Key { kty: "OKP", enc: None }, "has kty \"OKP\""),
        (Answer::Key { kty: "oct", enc: Some("XOR") }, "wrapped by \"XOR\""),
        (Answer::Refusal(403, r#"{"error":{"code":"Forbidden","message":"policy"}}"#), "policy"),
        (Answer::Refusal(302, ""), "answers 302"),
        (Answer::Refusal(200, "{}"), "answer is not a released key"),
    ] {
        scene.cloud.answer(answer.clone());
        let (status, body) = scene.release(Some("t")).await;
        assert_eq!(status, 403, "{answer:?}");
        assert!(words(&body).contains(expect), "{answer:?}: {body}");
    }
    for kid in ["../secrets/x", "k?x", "a/b/c", "", "k/", "%2e"] {
        let endpoint = scene.cloud.endpoint();
        let body = json!({"maa_endpoint": endpoint, "akv_endpoint": endpoint, "kid": kid, "access_token": "t"});
        assert_eq!(scene.post("/key/release", body).await.0, 400, "{kid}");
    }
}

#[tokio::test]
async fn workload_identity_reads_its_token_file_each_time() {
    let scene = Scene::with(|folder, cloud| Setup {
        env: vec![
            ("AZURE_CLIENT_ID", "client".to_owned()),
            ("AZURE_TENANT_ID", "tenant".to_owned()),
            ("AZURE_FEDERATED_TOKEN_FILE", folder.join("token").display().to_string()),
            ("AZURE_AUTHORITY_HOST", format!("https://{cloud}/")),
            ("AZURE_KEY_VAULT_HOSTS", format!("other.example, {cloud}")),
        ],
        ..Setup::default()
    })
    .await;
    let (status, body) = scene.release(None).await;
    assert_eq!(status, 403);
    assert!(words(&body).starts_with("access token for the vault: "), "{body}");
    for token in ["first", "second"] {
        std::fs::write(scene.folder.path().join("token"), format!("{token}\n")).unwrap();
        assert_eq!(scene.release(None).await.0, 200);
        scene.cloud.last("POST /tenant/oauth2/v2.0/token", |asked| {
            let body = String::from_utf8(asked.body.clone()).unwrap();
            assert!(body.contains(&format!("client_assertion={token}&")), "{body}");
            assert!(body.contains("scope=https%3A%2F%2Fvault.azure.net%2F.default"), "{body}");
            assert!(body.contains("grant_type=client_credentials"), "{body}");
        });
        scene.cloud.last("POST /keys/", |asked| {
            assert_eq!(asked.headers["authorization"], "Bearer federated");
        });
    }
}

#[tokio::test]
async fn the_machines_identity_is_asked_once_while_its_token_lives() {
    let scene = Scene::with(|_, cloud| Setup {
        settings: Some(json!({"identity": {"client_id": "id-1"}})),
        env: vec![
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("https://{cloud}")),
            ("AZURE_KEY_VAULT_HOSTS", cloud.to_owned()),
        ],
        ..Setup::default()
    })
    .await;
    for _ in 0..2 {
        assert_eq!(scene.release(None).await.0, 200);
    }
    let line = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net&client_id=id-1";
    assert_eq!(scene.cloud.count(line), 1);
    scene.cloud.last("GET /metadata/", |asked| assert_eq!(asked.headers["metadata"], "true"));
}

/// The endpoint is the caller's word, or an image's.
#[tokio::test]
async fn attack_the_pods_token_for_a_host_that_is_no_vault() {
    let scene = Scene::with(|_, cloud| Setup {
        env: vec![
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("https://{cloud}")),
            ("AZURE_KEY_VAULT_HOSTS", ".vault.azure.net".to_owned()),
        ],
        ..Setup::default()
    })
    .await;
    let (status, body) = scene.release(None).await;
    assert_eq!(status, 403, "{body}");
    assert!(words(&body).contains("no vault that may have this pod's token"), "{body}");
    let asked = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
    assert_eq!(
        (scene.cloud.count(asked), scene.cloud.count("POST /keys/k1/release?api-version=7.4")),
        (0, 0)
    );
    // a token of the caller's own goes where the caller says
    assert_eq!(scene.release(Some("t")).await.0, 200);
}
