//! A guest's release socket, a cloud (attestation service, vault, token services, certificate service) and an application, all on loopback.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

mod cloud;
mod guest;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ah_sidecar::options::Options;
use ah_sidecar::{Service, http};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use cloud::{Answer, Cloud};
#[allow(unused_imports, reason = "each test program uses a part")]
pub use guest::{Guest, REPORTED_TCB};

pub fn standard(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A sidecar in a pod, and an application that knows nothing but its address.
pub struct Scene {
    pub folder: TempDir,
    pub cloud: Cloud,
    pub guest: Option<Guest>,
    pub service: Arc<Service>,
    sidecar: SocketAddr,
    client: reqwest::Client,
}

#[derive(Default)]
pub struct Setup<'a> {
    pub without_socket: bool,
    pub without_table: bool,
    pub settings: Option<Value>,
    pub env: Vec<(&'a str, String)>,
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(|_, _| Setup::default()).await
    }

    /// `setup` is told the pod's folder and the cloud's address.
    pub async fn with<'a>(setup: impl FnOnce(&Path, &str) -> Setup<'a>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::start(folder.path()).await;
        let setup = setup(folder.path(), &cloud.endpoint());
        let socket = folder.path().join("release.sock");
        let guest = match setup.without_socket {
            true => None,
            false => Some(Guest::start(&socket, !setup.without_table)),
        };
        let mut args = vec![
            "-port=0".to_owned(),
            format!("-ca_file={}", folder.path().join("ca.pem").display()),
            format!("-release_socket={}", socket.display()),
        ];
        let settings = setup.settings.unwrap_or_else(|| json!({}));
        args.push(format!("-base64={}", standard(settings.to_string().as_bytes())));
        let env = setup.env;
        let find =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let options = Options::parse(args, find).unwrap();
        let service = Arc::new(Service::new(&options, &find).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sidecar = listener.local_addr().unwrap();
        let app = http::router(service.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        Self { folder, cloud, guest, service, sidecar, client }
    }

    pub async fn send(&self, method: &str, path: &str, body: String) -> (u16, String) {
        let url = format!("http://{}{path}", self.sidecar);
        let method = method.parse().unwrap();
        let answer = self.client.request(method, url).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Status and the one JSON document of the answer.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.send("POST", path, body.to_string()).await;
        let document = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        (status, document)
    }

    pub async fn release(&self, access_token: Option<&str>) -> (u16, Value) {
        let mut body = json!({
            "maa_endpoint": self.cloud.endpoint(),
            "akv_endpoint": self.cloud.endpoint(),
            "kid": "k1",
        });
        if let Some(token) = access_token {
            body["access_token"] = token.into();
        }
        self.post("/key/release", body).await
    }

    pub async fn maa(&self, runtime_data: &[u8]) -> (u16, Value) {
        let data = standard(runtime_data);
        let body = json!({"maa_endpoint": self.cloud.endpoint(), "runtime_data": data});
        self.post("/attest/maa", body).await
    }
}
