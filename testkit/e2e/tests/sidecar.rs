//! A client that this project wrote for the API of AKS' sidecar, in a pod with our sidecar: its key comes from our service, by our attestation.

use std::path::Path;

use ah_evidence::{ReportData, SnpReport};
use ah_keyserver::{Config, start};
use ah_release_api::policy::SOFTWARE_TEE;
use ah_testkit_e2e::{Scene, software_root, static_program};
use ah_testkit_images::{program, sidecar};
use anyhow::{Context, Result};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use der::Encode as _;
use pkcs8::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The service's name: the pod's /etc/hosts leads it to the host's loopback.
const NAME: &str = "keys.test";
const KEY: [u8; 32] = [0x5a; 32];
const RUNTIME_DATA: &[u8] = br#"{"nonce":"of the client"}"#;

/// Attestation service and vault on the host's loopback.
struct Service {
    port: u16,
    ca_pem: String,
    token: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Service {
    async fn start(folder: &Path) -> Result<Self> {
        let root = folder.join("software-root.der");
        std::fs::write(&root, software_root()?)?;
        let state = folder.join("state");
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            url: Some(format!("https://{NAME}")),
            state: state.clone(),
            danger_software_root: Some(root),
            ..Config::default()
        };
        let started = start(&config).await?;
        let port = started.server.address()?.port();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(started.server.serve(async move { drop(stopped.await) }));
        let ca_pem = std::fs::read_to_string(state.join("ca.pem"))?;
        let token = std::fs::read_to_string(state.join("first-token"))?.trim().to_owned();
        Ok(Self { port, ca_pem, token, stop, served })
    }

    /// Imports the key as an importer of Azure does; released to a guest with this HOST_DATA only.
    async fn import(&self, host_data: &str) -> Result<()> {
        let policy = json!({"version":"1.0.0","anyOf":[{"authority":format!("https://{NAME}"),"allOf":[
            {"claim":"x-ms-attestation-type","equals":"sevsnpvm"},
            {"claim":"x-ms-sevsnpvm-hostdata","equals":host_data},
            {"claim":"x-ms-sevsnpvm-is-debuggable","equals":"false"},
            {"claim":"x-anchorhold-tee","equals":SOFTWARE_TEE}]}]});
        let body = json!({
            "key": {"kty":"oct-HSM","k":URL_SAFE_NO_PAD.encode(KEY),"key_size":256},
            "hsm": true,
            "attributes": {"exportable": true},
            "release_policy": {"data":URL_SAFE_NO_PAD.encode(policy.to_string())},
        });
        self.ask(reqwest::Method::PUT, "demo", &body).await.map(drop)
    }

    async fn ask(&self, method: reqwest::Method, key: &str, body: &Value) -> Result<Value> {
        let root = reqwest::Certificate::from_pem(self.ca_pem.as_bytes())?;
        let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().build()?;
        let url = format!("https://localhost:{}/keys/{key}?api-version=7.4", self.port);
        let request = client.request(method, url).bearer_auth(&self.token).json(body);
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        anyhow::ensure!(status.is_success(), "{status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Has an RSA key made that goes to guests of which the claim has this value, and wraps data to it.
    async fn wrapped(&self, claim: &str, value: &str, data: &[u8]) -> Result<Vec<u8>> {
        let policy = json!({"version":"1.0.0","anyOf":[{"authority":format!("https://{NAME}"),"allOf":[
            {"claim":"x-anchorhold-tee","equals":SOFTWARE_TEE}, {"claim":claim,"equals":value}]}]});
        let body = json!({
            "kty": "RSA-HSM", "key_size": 3072, "attributes": {"exportable": true},
            "key_ops": ["wrapKey", "unwrapKey"],
            "release_policy": {"data":URL_SAFE_NO_PAD.encode(policy.to_string())},
        });
        let made = self.ask(reqwest::Method::POST, "image/create", &body).await?;
        let modulus = made["key"]["n"].as_str().context("no modulus")?;
        wrap_to(&URL_SAFE_NO_PAD.decode(modulus)?, data)
    }

    async fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        Ok(self.served.await?)
    }

    /// The pod: the client, and the sidecar with its socket and the service's root.
    fn pod(&self) -> String {
        let endpoint = format!("{NAME}:{}", self.port);
        let ca_pem: String = self.ca_pem.lines().map(|line| format!("    {line}\n")).collect();
        let token = &self.token;
        let settings = STANDARD.encode(json!({"maaconfig": {"user_agent": "client"}}).to_string());
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: roots}}\ndata:\n  ca.pem: |\n{ca_pem}---\n\
             apiVersion: v1\nkind: Pod\nmetadata:\n  name: skr\n  annotations: {{anchorhold.dev/release-socket: skr-sidecar}}\nspec:\n  restartPolicy: Never\n  \
             hostAliases: [{{ip: 10.0.2.2, hostnames: [{NAME}]}}]\n  \
             volumes:\n  - {{name: roots, configMap: {{name: roots}}}}\n  \
             initContainers:\n  - name: skr-sidecar\n    restartPolicy: Always\n    image: localhost/anchorhold-sidecar:latest\n    \
             env:\n    - {{name: SkrSideCarArgs, value: {settings}}}\n    - {{name: SSL_CERT_FILE, value: /roots/ca.pem}}\n    - {{name: LogLevel, value: info}}\n    \
             volumeMounts: [{{name: roots, mountPath: /roots}}]\n  \
             containers:\n  - name: client\n    image: localhost/skr-client:1\n    \
             env:\n    - {{name: MAA_ENDPOINT, value: \"{endpoint}\"}}\n    - {{name: AKV_ENDPOINT, value: \"{endpoint}\"}}\n    - {{name: KID, value: demo}}\n    - {{name: ACCESS_TOKEN, value: {token}}}\n"
        )
    }
}

/// RSA-OAEP with SHA-256 to the public key of this modulus.
fn wrap_to(modulus: &[u8], data: &[u8]) -> Result<Vec<u8>> {
    let form = |error: der::Error| anyhow::anyhow!("{error}");
    let number = |bytes| pkcs1::UintRef::new(bytes).map_err(form);
    let (modulus, public_exponent) = (number(modulus)?, number(&[1, 0, 1])?);
    let key = pkcs1::RsaPublicKey { modulus, public_exponent }.to_der().map_err(form)?;
    let algorithm = AlgorithmIdentifierOwned {
        oid: pkcs8::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
        parameters: Some(der::asn1::Null.into()),
    };
    let subject_public_key = der::asn1::BitString::from_bytes(&key).map_err(form)?;
    let key = SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().map_err(form)?;
    let key = PublicEncryptingKey::from_der(&key).map_err(|e| anyhow::anyhow!("{e}"))?;
    let oaep = OaepPublicEncryptingKey::new(key).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut block = vec![0; oaep.ciphertext_size()];
    let done = oaep.encrypt(&OAEP_SHA256_MGF1SHA256, data, &mut block, None);
    done.map_err(|_| anyhow::anyhow!("wrapping failed"))?;
    Ok(block)
}

/// The metadata service of the pod's machine: whoever asks is who has this token.
async fn metadata_service(token: String) -> Result<(u16, JoinHandle<()>)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let body = json!({"access_token": token, "expires_in": "3600"}).to_string();
    let served = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((port, served))
}

/// What the client printed, by the route that it asked.
struct Answers(Vec<String>);

impl Answers {
    #[track_caller]
    fn of(&self, what: &str) -> (u16, Value) {
        let line = self.0.iter().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        let (code, json) = line.and_then(|line| line.split_once(' ')).unwrap_or_default();
        let answer = serde_json::from_str(json);
        (
            code.parse().unwrap_or_default(),
            answer.unwrap_or_else(|e| panic!("{what}: {e}: {:?}", self.0)),
        )
    }
}

/// Runs the pod; `host_data` makes the HOST_DATA that the key's policy asks for out of the pod's own.
async fn run(host_data: impl Fn(String) -> String) -> Result<(Scene, Answers)> {
    let folder = tempfile::tempdir()?;
    let service = Service::start(folder.path()).await?;
    let scene = Scene::new(&service.pod(), |images| {
        let client = static_program("skr-client");
        images.add("localhost/skr-client:1", &program(&client, "/skr-client")?)?;
        let built = static_program("anchorhold-sidecar");
        images.add("localhost/anchorhold-sidecar:latest", &sidecar(&built)?)?;
        Ok(())
    })?;
    let prepared = scene.prepared().await?;
    service.import(&host_data(prepared.document.host_data_snp()?.to_string())).await?;
    let outcome = scene.start(scene.launch(prepared).await?).await?;
    assert_eq!(outcome.exit_code, 0, "{}", scene.heard.everything());
    service.end().await?;
    let answers = Answers(scene.heard.stdout("client"));
    Ok((scene, answers))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_known_api_gets_report_token_and_key_through_the_sidecar() -> Result<()> {
    let (scene, answers) = run(|own| own).await?;
    assert_eq!(answers.of("status"), (200, json!({"message": "Status OK"})));

    let (code, raw) = answers.of("raw");
    assert_eq!(code, 200, "{}", scene.heard.everything());
    let bytes = hex::decode(raw["report"].as_str().context("no report")?)?;
    let report = SnpReport::parse(&bytes.as_slice().try_into()?)?;
    assert_eq!(report.report_data, ReportData::for_runtime_data(RUNTIME_DATA));

    let (code, combined) = answers.of("combined");
    assert_eq!(code, 200, "{combined}");
    let evidence = STANDARD.decode(combined["evidence"].as_str().context("no evidence")?)?;
    assert_eq!(evidence.len(), bytes.len());
    assert!(combined["endorsements_chars"].as_u64() > Some(1000), "{combined}");

    let (code, token) = answers.of("maa");
    assert_eq!(code, 200, "{token}");
    let token = token["token"].as_str().context("no token")?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).context("no claims")?)?;
    let claims: Value = serde_json::from_slice(&claims)?;
    assert_eq!(claims["x-ms-runtime"]["nonce"], "of the client");
    assert_eq!(claims["x-anchorhold-tee"], SOFTWARE_TEE);

    let (code, release) = answers.of("release");
    assert_eq!(code, 200, "{release}\n{}", scene.heard.everything());
    let jwk: Value = serde_json::from_str(release["key"].as_str().context("no key")?)?;
    assert_eq!(jwk["kty"], "oct");
    assert_eq!(URL_SAFE_NO_PAD.decode(jwk["k"].as_str().context("no k")?)?, KEY);
    Ok(())
}

/// What the client of the gRPC service prints in this pod, which ends well.
async fn client_over_grpc(yaml: &str) -> Result<Vec<String>> {
    let scene = Scene::new(yaml, |images| {
        let client = static_program("examples/skr_grpc");
        images.add("localhost/skr-grpc:1", &program(&client, "/skr-grpc")?)?;
        let built = static_program("anchorhold-sidecar");
        images.add("localhost/anchorhold-sidecar:latest", &sidecar(&built)?)?;
        Ok(())
    })?;
    let outcome = scene.run().await?;
    assert_eq!(outcome.exit_code, 0, "{}", scene.heard.everything());
    Ok(scene.heard.stdout("client"))
}

/// The same sidecar as gRPC server, spoken to by a client of its service.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_reports_over_grpc() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: grpc\n  annotations: {anchorhold.dev/release-socket: skr-sidecar}\nspec:\n  restartPolicy: Never\n  \
         initContainers:\n  - {name: skr-sidecar, restartPolicy: Always, image: \"localhost/anchorhold-sidecar:latest\", args: [-server_type, grpc, -port, \"50000\"]}\n  \
         containers:\n  - {name: client, image: \"localhost/skr-grpc:1\"}\n";
    let lines = client_over_grpc(yaml).await?;
    let value = |what: &str| -> Value {
        let line = lines.iter().find_map(|line| line.strip_prefix(what));
        serde_json::from_str(line.unwrap_or_default()).unwrap_or_default()
    };
    assert_eq!(value("hello "), "Hello pod");
    let report = hex::decode(value("report ").as_str().context("no report")?)?;
    let report = SnpReport::parse(&report.as_slice().try_into()?)?;
    // As the known sidecar has it: over the characters.
    assert_eq!(report.report_data, ReportData::for_runtime_data(b"00ff"));
    let data = value("data ");
    assert!(data["certs_chars"].as_u64() > Some(1000), "{data}");
    assert!(data["report"].as_str().is_some_and(|report| report.len() > 1000), "{data}");
    Ok(())
}

/// What the client in the pod says to an image's key that is wrapped to a key of guests of which the claim has this value.
async fn unwrapped(claim: &str, value: &str) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let service = Service::start(folder.path()).await?;
    let wrapped = service.wrapped(claim, value, b"image key").await?;
    let (metadata, served) = metadata_service(service.token.clone()).await?;
    let endpoint = format!("{NAME}:{}", service.port);
    let annotation = json!({
        "kid": "image", "wrapped_data": STANDARD.encode(wrapped), "iv": "", "wrap_type": "rsa_3072",
        "kms_endpoint": endpoint, "attester_endpoint": endpoint,
    });
    let annotation = STANDARD.encode(annotation.to_string());
    let ca_pem: String = service.ca_pem.lines().map(|line| format!("    {line}\n")).collect();
    let yaml = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: roots}}\ndata:\n  ca.pem: |\n{ca_pem}---\n\
         apiVersion: v1\nkind: Pod\nmetadata:\n  name: grpc\n  annotations: {{anchorhold.dev/release-socket: skr-sidecar}}\nspec:\n  restartPolicy: Never\n  \
         hostAliases: [{{ip: 10.0.2.2, hostnames: [{NAME}]}}]\n  \
         volumes:\n  - {{name: roots, configMap: {{name: roots}}}}\n  \
         initContainers:\n  - name: skr-sidecar\n    restartPolicy: Always\n    image: localhost/anchorhold-sidecar:latest\n    \
         args: [-server_type, grpc, -port, \"50000\"]\n    \
         env:\n    - {{name: SSL_CERT_FILE, value: /roots/ca.pem}}\n    - {{name: AZURE_KEY_VAULT_HOSTS, value: \"{endpoint}\"}}\n    \
         - {{name: AZURE_POD_IDENTITY_AUTHORITY_HOST, value: \"http://10.0.2.2:{metadata}\"}}\n    \
         volumeMounts: [{{name: roots, mountPath: /roots}}]\n  \
         containers:\n  - name: client\n    image: localhost/skr-grpc:1\n    \
         env: [{{name: SKR_ANNOTATION, value: {annotation}}}]\n"
    );
    let lines = client_over_grpc(&yaml).await?;
    served.abort();
    service.end().await?;
    Ok(lines)
}

const ATTESTED: &str = "x-ms-attestation-type";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_key_is_unwrapped_over_grpc() -> Result<()> {
    let lines = unwrapped(ATTESTED, "sevsnpvm").await?;
    let document = lines.iter().find_map(|line| line.strip_prefix("unwrapped "));
    let document: Value = serde_json::from_str(document.with_context(|| format!("{lines:?}"))?)?;
    assert_eq!(document["keyunwrapresults"]["optsdata"], STANDARD.encode(b"image key"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_image_key_for_other_guests_is_not_unwrapped() -> Result<()> {
    let lines = unwrapped(ATTESTED, "sevsnpvn").await?;
    assert!(!lines.iter().any(|line| line.starts_with("unwrapped ")), "{lines:?}");
    let refused = lines.iter().find_map(|line| line.strip_prefix("refused "));
    assert!(refused.is_some_and(|words| words.contains(ATTESTED)), "{lines:?}");
    Ok(())
}

/// The key is another pod's: its policy asks for a HOST_DATA that differs in one digit.
#[tokio::test(flavor = "multi_thread")]
async fn attack_key_of_another_pod_through_the_sidecar() -> Result<()> {
    let other = |own: String| {
        let first = if own.starts_with('0') { "1" } else { "0" };
        format!("{first}{}", &own[1..])
    };
    let (_, answers) = run(other).await?;
    assert_eq!(answers.of("maa").0, 200, "the pod is attested");
    let (code, release) = answers.of("release");
    assert_eq!(code, 403, "{release}");
    assert!(release["key"].is_null(), "{release}");
    let words = release["error"].as_str().unwrap_or_default();
    assert!(words.contains("x-ms-sevsnpvm-hostdata"), "{words}");
    Ok(())
}
