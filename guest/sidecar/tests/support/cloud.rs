//! One HTTPS server that is attestation service, vault, token service and certificate service, and remembers what it was asked.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair as RsaPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256,
    OAEP_SHA384_MGF1SHA384, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use der::Encode as _;
use pkcs8::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, RsaKeySize};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How the vault answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Key {
        kty: &'static str,
        enc: Option<&'static str>,
    },
    /// Signed under a root that nobody trusts.
    OtherRoot,
    /// Signed by a certificate for another name.
    OtherName,
    AlteredPayload,
    AlgorithmNone,
    NoChain,
    ShortCiphertext,
    /// Wrapped to a key of the host's.
    OtherWrappingKey,
    /// Status and body of a refusal.
    Refusal(u16, &'static str),
}

/// Who signs answers.
struct Signer {
    key: RsaKeyPair,
    chain: Vec<Vec<u8>>,
}

pub struct Asked {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

struct Inner {
    answer: Mutex<Answer>,
    maa_refuses: Mutex<bool>,
    asked: Mutex<Vec<Asked>>,
    secrets: Secrets,
    good: Signer,
    other_root: Signer,
    other_name: Signer,
}

struct Secrets {
    rsa: Vec<u8>,
    ec: Vec<u8>,
}

#[derive(Clone)]
pub struct Cloud {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl Cloud {
    pub async fn start(folder: &Path) -> Self {
        let (ca, ca_pem) = authority();
        let (other_ca, _) = authority();
        std::fs::write(folder.join("ca.pem"), ca_pem).unwrap();
        let (good, tls) = certified(&ca, "localhost");
        let inner = Inner {
            answer: Mutex::new(Answer::Key { kty: "oct-HSM", enc: None }),
            maa_refuses: Mutex::new(false),
            asked: Mutex::default(),
            secrets: Secrets { rsa: rsa_pkcs8(), ec: ec_pkcs8() },
            good,
            other_root: certified(&other_ca, "localhost").0,
            other_name: certified(&ca, "vault.example").0,
        };
        let inner = Arc::new(inner);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(serve).with_state(inner.clone());
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(tls)) };
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, inner }
    }

    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn answer(&self, answer: Answer) {
        *self.inner.answer.lock().unwrap() = answer;
    }

    pub fn maa_refuses(&self) {
        *self.inner.maa_refuses.lock().unwrap() = true;
    }

    /// How often an address that begins so was asked.
    pub fn count(&self, start: &str) -> usize {
        self.inner.asked.lock().unwrap().iter().filter(|one| one.line.starts_with(start)).count()
    }

    /// The last request to an address that begins so.
    pub fn last<T>(&self, start: &str, look: impl FnOnce(&Asked) -> T) -> T {
        let asked = self.inner.asked.lock().unwrap();
        look(asked.iter().rev().find(|one| one.line.starts_with(start)).unwrap())
    }

    /// RSA-OAEP with SHA-256 to the RSA key that the vault keeps.
    pub fn wrap_to_rsa_secret(&self, data: &[u8]) -> Vec<u8> {
        let pair = RsaPair::from_pkcs8(&self.inner.secrets.rsa).unwrap();
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        let public = pkcs1::RsaPublicKey::try_from(public.as_ref()).unwrap();
        let oaep = encrypting_key(public.modulus.as_bytes());
        let mut block = vec![0; oaep.ciphertext_size()];
        oaep.encrypt(&OAEP_SHA256_MGF1SHA256, data, &mut block, None).unwrap();
        block
    }
}

async fn serve(
    State(cloud): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let line = format!("{method} {uri}");
    let asked = Asked { line: line.clone(), headers, body: body.to_vec() };
    cloud.asked.lock().unwrap().push(asked);
    let path = uri.path();
    let json = |value: Value| (StatusCode::OK, value.to_string().into_bytes());
    if path == "/attest/SevSnpVM" {
        return match *cloud.maa_refuses.lock().unwrap() {
            true => {
                let error = br#"{"error":{"code":"AttestationFailed","message":"no"}}"#;
                (StatusCode::BAD_REQUEST, error.to_vec())
            }
            false => json(json!({"Token": attest(&body)})),
        };
    }
    if path.starts_with("/keys/") {
        let answer = cloud.answer.lock().unwrap().clone();
        return match answer {
            Answer::Refusal(status, body) => {
                (StatusCode::from_u16(status).unwrap(), body.as_bytes().to_vec())
            }
            answer => json(json!({"value": release(&cloud, &body, &answer)})),
        };
    }
    if path.ends_with("/oauth2/v2.0/token") {
        return json(json!({"access_token": "federated", "expires_in": 0, "token_type": "Bearer"}));
    }
    if path == "/metadata/identity/oauth2/token" {
        return json(json!({"access_token": "managed", "expires_in": "3600"}));
    }
    if path.ends_with("/cert_chain") {
        return (StatusCode::OK, b"chain of amd\n".to_vec());
    }
    if path.starts_with("/vcek/v1/") {
        return (StatusCode::OK, b"vcek of amd".to_vec());
    }
    (StatusCode::NOT_FOUND, Vec::new())
}

/// A token with the claims that a vault needs, if the report binds the runtime data.
fn attest(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let decode = |text: &Value| URL_SAFE.decode(text.as_str().unwrap()).unwrap();
    let report: Value = serde_json::from_slice(&decode(&body["report"])).unwrap();
    let data = decode(&body["runtimeData"]["data"]);
    let raw = decode(&report["SnpReport"]);
    assert_eq!(raw.len(), 1184);
    assert_eq!(&raw[0x50..0x70], digest(&SHA256, &data).as_ref());
    assert!(body["nonce"].is_u64());
    let runtime: Value = serde_json::from_slice(&data).unwrap_or(Value::Null);
    let claims = json!({"x-ms-runtime": runtime, "exp": 4_000_000_000_u64});
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(claims))
}

fn release(cloud: &Inner, body: &[u8], answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let token = body["target"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let n = claims["x-ms-runtime"]["keys"][0]["n"].as_str().unwrap();
    let mut modulus = URL_SAFE_NO_PAD.decode(n).unwrap();
    if *answer == Answer::OtherWrappingKey {
        let pair = RsaPair::generate(KeySize::Rsa2048).unwrap();
        let public = aws_lc_rs::signature::KeyPair::public_key(&pair);
        modulus =
            pkcs1::RsaPublicKey::try_from(public.as_ref()).unwrap().modulus.as_bytes().to_vec();
    }
    let (kty, enc) = match answer {
        Answer::Key { kty, enc } => (*kty, *enc),
        _ => ("oct-HSM", None),
    };
    let material = match kty {
        "RSA" | "RSA-HSM" => &cloud.secrets.rsa[..],
        "EC" | "EC-HSM" => &cloud.secrets.ec,
        _ => b"0123456789abcdef0123456789abcdef",
    };
    let mut ciphertext = wrap(&modulus, material, enc);
    if *answer == Answer::ShortCiphertext {
        ciphertext.truncate(100);
    }
    let hsm = json!({
        "schema_version": "1.0",
        "header": {},
        "ciphertext": URL_SAFE_NO_PAD.encode(&ciphertext),
    });
    let key = json!({
        "kid": "https://localhost/keys/k1/0", "kty": kty, "key_ops": ["encrypt"],
        "key_hsm": URL_SAFE_NO_PAD.encode(hsm.to_string()),
    });
    let payload = json!({
        "request": {"api-version": "7.4", "enc": enc.unwrap_or("CKM_RSA_AES_KEY_WRAP"), "kid": "k1"},
        "response": {"key": {"key": key, "attributes": {}, "release_policy": {}}},
    });
    sign(cloud, &payload, answer)
}

fn sign(cloud: &Inner, payload: &Value, answer: &Answer) -> String {
    let signer = match answer {
        Answer::OtherRoot => &cloud.other_root,
        Answer::OtherName => &cloud.other_name,
        _ => &cloud.good,
    };
    let x5c: Vec<String> = match answer {
        Answer::NoChain => Vec::new(),
        _ => signer.chain.iter().map(|der| STANDARD.encode(der)).collect(),
    };
    let alg = if *answer == Answer::AlgorithmNone { "none" } else { "RS256" };
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"alg": alg, "kid": "s", "x5c": x5c, "x5t#S256": "-"}));
    let message = format!("{header}.{}", part(payload));
    let mut signature = vec![0; signer.key.public_modulus_len()];
    let random = SystemRandom::new();
    signer.key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
    let message = match answer {
        Answer::AlteredPayload => {
            let mut payload = payload.clone();
            payload["response"]["key"]["key"]["kty"] = "oct".into();
            format!("{header}.{}", part(&payload))
        }
        _ => message,
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn encrypting_key(modulus: &[u8]) -> OaepPublicEncryptingKey {
    let number = |bytes| pkcs1::UintRef::new(bytes).unwrap();
    let key = pkcs1::RsaPublicKey { modulus: number(modulus), public_exponent: number(&[1, 0, 1]) };
    let key = key.to_der().unwrap();
    let spki = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: pkcs8::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
            parameters: Some(der::asn1::Null.into()),
        },
        subject_public_key: der::asn1::BitString::from_bytes(&key).unwrap(),
    };
    let public = PublicEncryptingKey::from_der(&spki.to_der().unwrap()).unwrap();
    OaepPublicEncryptingKey::new(public).unwrap()
}

fn wrap(modulus: &[u8], material: &[u8], enc: Option<&str>) -> Vec<u8> {
    let oaep = encrypting_key(modulus);
    let algorithm = match enc {
        Some("RSA_AES_KEY_WRAP_256") => &OAEP_SHA256_MGF1SHA256,
        Some("RSA_AES_KEY_WRAP_384") => &OAEP_SHA384_MGF1SHA384,
        _ => &OAEP_SHA1_MGF1SHA1,
    };
    let kek = [0x5a; 32];
    let mut block = vec![0; oaep.ciphertext_size()];
    oaep.encrypt(algorithm, &kek, &mut block, None).unwrap();
    let mut wrapped = vec![0; material.len() + 16];
    let kek = AesKek::new(&AES_256, &kek).unwrap();
    block.extend_from_slice(kek.wrap_with_padding(material, &mut wrapped).unwrap());
    block
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn certified(ca: &Issuer<'static, KeyPair>, name: &str) -> (Signer, ServerConfig) {
    let pkcs8 = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = params.signed_by(&pkcs8, ca).unwrap().der().to_vec();
    let der = pkcs8.serialize_der();
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(leaf.clone())],
            PrivateKeyDer::try_from(der.clone()).unwrap(),
        )
        .unwrap();
    (Signer { key: RsaKeyPair::from_pkcs8(&der).unwrap(), chain: vec![leaf] }, tls)
}

fn rsa_pkcs8() -> Vec<u8> {
    let pair = RsaPair::generate(KeySize::Rsa2048).unwrap();
    AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec()
}

fn ec_pkcs8() -> Vec<u8> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    pair.to_pkcs8v1().unwrap().as_ref().to_vec()
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
