//! A key service on loopback with its callers, an attestation service that it believes, and clients of both kinds.

#![allow(unreachable_pub)]

use std::net::SocketAddr;
use std::path::Path;

use ah_digest::Sha256;
use ah_keyserver::{Config, Started, start};
use ah_keyservice::{decode_base64, encode_base64url};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

/// Who signs attestation tokens in these tests.
pub const AUTHORITY: &str = "https://attest.example";
/// The guest that policies of these tests expect.
pub const HOST_DATA: &str = "cadd74f71ebb8fbf9782baab649612520f3c416bc5ce9ac768808ddc8d9b031c";

/// Signs tokens, as an attestation service or an identity provider does.
pub struct Issuer {
    pub key: KeyPair,
    pub name: String,
}

impl Issuer {
    pub fn new(name: &str) -> Self {
        Self { key: KeyPair::generate(KeySize::Rsa2048).unwrap(), name: name.to_owned() }
    }

    pub fn jwks(&self) -> String {
        json!({"keys":[{"kid":"k","kty":"RSA","n":modulus(&self.key),"e":"AQAB"}]}).to_string()
    }

    pub fn token(&self, claims: &Value) -> String {
        let header = encode_base64url(json!({"alg":"RS256","kid":"k","typ":"JWT"}).to_string());
        let mut claims = claims.clone();
        claims["iss"] = self.name.clone().into();
        if claims.get("exp").is_none() {
            claims["exp"] = 32_503_680_000u64.into();
        }
        let text = format!("{header}.{}", encode_base64url(claims.to_string()));
        let mut signature = vec![0; 256];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .unwrap();
        format!("{text}.{}", encode_base64url(signature))
    }
}

fn modulus(key: &KeyPair) -> String {
    encode_base64url(key.public_key().modulus().big_endian_without_leading_zero())
}

/// The key pair that a guest put into its token.
pub struct GuestKey(KeyPair);

impl GuestKey {
    pub fn new() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub fn claims(&self, host_data: &str) -> Value {
        json!({
            "x-ms-attestation-type": "sevsnpvm",
            "x-ms-sevsnpvm-hostdata": host_data,
            "x-ms-sevsnpvm-is-debuggable": false,
            "x-ms-runtime": {"keys":[{"e":"AQAB","key_ops":["encrypt"],"kid":"w","kty":"RSA","n":modulus(&self.0)}]},
        })
    }

    /// What an answer gives to whoever has this key: all checks that clients of vaults make are made here.
    pub fn open(&self, answer: &Value, enc: &str, ca_pem: &str) -> Result<Vec<u8>, String> {
        let payload = verified_payload(answer["value"].as_str().unwrap(), ca_pem);
        assert_eq!(payload["request"]["enc"], enc);
        let key = &payload["response"]["key"]["key"];
        assert_eq!(key["kid"], payload["request"]["kid"]);
        let hsm = decode_base64(key["key_hsm"].as_str().unwrap()).unwrap();
        let hsm: Value = serde_json::from_slice(&hsm).unwrap();
        assert!(hsm["schema_version"].is_string() && hsm["header"].is_object());
        let ciphertext = decode_base64(hsm["ciphertext"].as_str().unwrap()).unwrap();
        let der: Pkcs8V1Der<'_> = self.0.as_der().unwrap();
        let private =
            OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(der.as_ref()).unwrap())
                .unwrap();
        let algorithm = match enc {
            "CKM_RSA_AES_KEY_WRAP" => &OAEP_SHA1_MGF1SHA1,
            "RSA_AES_KEY_WRAP_256" => &OAEP_SHA256_MGF1SHA256,
            _ => &OAEP_SHA384_MGF1SHA384,
        };
        let mut kek = [0; 256];
        let kek = private
            .decrypt(algorithm, &ciphertext[..256], &mut kek, None)
            .map_err(|error| error.to_string())?;
        let mut plain = vec![0; ciphertext.len()];
        let plain =
            AesKek::new(&AES_256, kek).unwrap().unwrap_with_padding(&ciphertext[256..], &mut plain);
        Ok(plain.map_err(|error| error.to_string())?.to_vec())
    }
}

/// The payload of a signed answer, after its signature and its chain to the service's root are verified.
pub fn verified_payload(jws: &str, ca_pem: &str) -> Value {
    let parts: Vec<&str> = jws.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { panic!("not three parts") };
    let json =
        |part: &str| -> Value { serde_json::from_slice(&decode_base64(part).unwrap()).unwrap() };
    let header = json(header);
    let chain: Vec<Vec<u8>> = header["x5c"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| decode_base64(one.as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(header["alg"], "RS256");
    assert!(header["kid"].is_string());
    let leaf = Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(header["x5t#S256"], encode_base64url(Sha256::of(&chain[0]).as_bytes()));
    let info = leaf.tbs_certificate.subject_public_key_info.to_der().unwrap();
    let text = format!("{}.{payload}", parts[0]);
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, info)
        .verify(text.as_bytes(), &decode_base64(signature).unwrap())
        .expect("the answer's signature");
    let root: String = ca_pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(
        chain.last().unwrap(),
        &decode_base64(&root).unwrap(),
        "the chain ends at the service's root"
    );
    let root = Certificate::from_der(chain.last().unwrap()).unwrap();
    assert_eq!(leaf.tbs_certificate.issuer, root.tbs_certificate.subject);
    json(payload)
}

/// A clock that stands still until it is moved, and real randomness.
pub struct TestClock(pub std::sync::atomic::AtomicU64);

impl TestClock {
    pub fn at(unix_s: u64) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(unix_s.into()))
    }

    pub fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds, std::sync::atomic::Ordering::SeqCst);
    }
}

impl ah_keyservice::Environment for TestClock {
    fn now(&self) -> std::time::SystemTime {
        let seconds = self.0.load(std::sync::atomic::Ordering::SeqCst);
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), ah_keyservice::RandomError> {
        ah_keyservice::SystemEnvironment.random(bytes)
    }
}

/// Everything of one test.
pub struct World {
    pub address: SocketAddr,
    pub url: String,
    pub ca_pem: String,
    pub attest: Issuer,
    pub tokens: [String; 4],
    pub client: Client,
    pub folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

pub const ROLES: [&str; 4] = ["importer", "releaser", "auditor", "admin"];

/// Writes files of a service into `folder`: callers with one role each, and an attestation service that is believed.
pub fn configure(folder: &Path, attest: &Issuer) -> (Config, [String; 4]) {
    let tokens = ROLES.map(|role| format!("token of {role}"));
    let callers: String = ROLES
        .iter()
        .zip(&tokens)
        .map(|(role, token)| {
            format!(
                "[[caller]]\nname = \"{role}\"\ntoken_sha256 = \"{}\"\nroles = [\"{role}\"]\n",
                Sha256::of(token)
            )
        })
        .collect();
    std::fs::write(folder.join("callers.toml"), callers).unwrap();
    std::fs::write(folder.join("jwks.json"), attest.jwks()).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nstate = {state:?}\ncallers = {callers:?}\n[[attestation]]\nissuer = {issuer:?}\njwks_file = {jwks:?}\n",
        state = folder.join("state"),
        callers = folder.join("callers.toml"),
        issuer = attest.name,
        jwks = folder.join("jwks.json"),
    );
    std::fs::write(folder.join("config.toml"), text).unwrap();
    (Config::read(&folder.join("config.toml")).unwrap(), tokens)
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let attest = Issuer::new(AUTHORITY);
        let (mut config, tokens) = configure(folder.path(), &attest);
        change(&mut config, folder.path());
        let started = start(&config).await.unwrap();
        Self::serve(started, attest, tokens, folder)
    }

    pub fn serve(
        started: Started,
        attest: Issuer,
        tokens: [String; 4],
        folder: tempfile::TempDir,
    ) -> Self {
        let ca_pem = std::fs::read_to_string(folder.path().join("state/ca.pem")).unwrap();
        let (address, url) = (started.server.address().unwrap(), started.url);
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(started.server.serve(async move { drop(stopped.await) }));
        let client = client(&ca_pem).build().unwrap();
        Self { address, url, ca_pem, attest, tokens, client, folder, stop: Some(stop), served }
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.served).await.unwrap();
    }

    pub fn token(&self, role: &str) -> &str {
        &self.tokens[ROLES.iter().position(|name| *name == role).unwrap()]
    }

    /// One request with the token of a role; an empty role is nobody.
    pub async fn call(
        &self,
        role: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if !role.is_empty() {
            request = request.bearer_auth(self.token(role));
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn import_oct(&self, name: &str, secret: &[u8]) -> Value {
        let body = json!({
            "key": {"kty":"oct-HSM","k":encode_base64url(secret),"key_size":secret.len() * 8},
            "hsm": true,
            "attributes": {"exportable": true},
            "release_policy": policy(AUTHORITY, HOST_DATA),
        });
        let (status, answer) = self
            .call("importer", Method::PUT, &format!("/keys/{name}?api-version=7.4"), Some(body))
            .await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn release(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call("releaser", Method::POST, &format!("{path}?api-version=7.4"), Some(body)).await
    }
}

pub fn client(ca_pem: &str) -> reqwest::ClientBuilder {
    let root = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
    Client::builder().tls_certs_only([root]).no_proxy()
}

pub fn policy(authority: &str, host_data: &str) -> Value {
    let text = json!({"version":"1.0.0","anyOf":[{"authority":authority,"allOf":[
        {"claim":"x-ms-sevsnpvm-hostdata","equals":host_data}]}]});
    json!({"contentType":"application/json; charset=utf-8","data":encode_base64url(text.to_string())})
}
