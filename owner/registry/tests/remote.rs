//! Images from a registry that speaks the distribution protocol on loopback.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use ah_digest::Sha256;
use ah_registry::{Images, Places, RegistryError, TemporaryFiles};
use ah_testkit_images::{BuiltImage, Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing};

const REPOSITORY: &str = "team/app";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the registry answers, by path: media type and body.
type Contents = Arc<Mutex<HashMap<String, (String, Vec<u8>)>>>;

struct Registry {
    host: String,
    contents: Contents,
    built: BuiltImage,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = LayoutBuilder::create(folder.path()).unwrap();
        let passwd = [Entry::file("etc/passwd", "app:x:7:8::/:\n")];
        let image = ImageSpec { cmd: vec!["/app".into()], ..ImageSpec::default() }
            .with_layer(LayerSpec::of(Packing::Gzip, passwd))
            .with_layer(LayerSpec::of(Packing::Plain, [Entry::file("app", vec![7; 300_000])]));
        let built = builder.add("app:1", &image).unwrap();
        builder.finish().unwrap();
        let contents = Contents::default();
        fill(&contents, folder.path(), &built);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let served = Arc::clone(&contents);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || answer(stream, &served));
            }
        });
        Self { host, contents, built }
    }

    fn set(&self, path: &str, media_type: &str, body: Vec<u8>) {
        self.contents.lock().unwrap().insert(path.into(), (media_type.into(), body));
    }

    fn body(&self, path: &str) -> Vec<u8> {
        self.contents.lock().unwrap()[path].1.clone()
    }

    fn manifest_path(&self) -> String {
        format!("/v2/{REPOSITORY}/manifests/{}", self.built.manifest_digest.to_oci())
    }

    fn blob_path(digest: &Sha256) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", digest.to_oci())
    }

    async fn facts(&self, tag: &str) -> Result<ah_pod::ImageFacts, RegistryError> {
        let places = Places { plain_http: vec![self.host.clone()], ..Places::default() };
        let images = Images::open(&places)?;
        let image = images.resolve(&format!("{}/{REPOSITORY}{tag}", self.host)).await?;
        images.facts(&image, Arc::new(TemporaryFiles)).await
    }
}

fn fill(contents: &Contents, folder: &Path, built: &BuiltImage) {
    let mut contents = contents.lock().unwrap();
    for entry in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let digest = format!("sha256:{}", path.file_name().unwrap().to_str().unwrap());
        let body = fs::read(&path).unwrap();
        if digest == built.manifest_digest.to_oci() {
            for name in ["1", digest.as_str()] {
                let path = format!("/v2/{REPOSITORY}/manifests/{name}");
                contents.insert(path, (MANIFEST_TYPE.into(), body.clone()));
            }
        }
        let blob = format!("/v2/{REPOSITORY}/blobs/{digest}");
        contents.insert(blob, ("application/octet-stream".into(), body));
    }
}

/// One request for each connection (RFC 9112).
fn answer(mut stream: TcpStream, contents: &Contents) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    reader.read_line(&mut request).unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = contents.lock().unwrap().get(path).cloned();
    let (status, media_type, body) = match found {
        Some((media_type, body)) => ("200 OK", media_type, body),
        None if path == "/v2/" => ("200 OK", "application/json".into(), b"{}".to_vec()),
        None => ("404 Not Found", "application/json".into(), b"{\"errors\":[]}".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // a client that went away is the test's own business
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn causes(error: &dyn std::error::Error) -> String {
    let rest = error.source().map(causes).unwrap_or_default();
    format!("{error}: {rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_by_tag_and_by_digest() {
    let registry = Registry::start();
    let by_tag = registry.facts(":1").await.unwrap();
    let digest = registry.built.manifest_digest.to_oci();
    assert_eq!(by_tag.reference, format!("{}/{REPOSITORY}@{digest}", registry.host));
    assert_eq!(by_tag.accounts.passwd.as_ref().unwrap()[0].uid, 7);
    assert_eq!(by_tag.layers.len(), 2);
    assert_eq!(registry.facts(&format!("@{digest}")).await.unwrap(), by_tag);
    assert_eq!(registry.facts(&format!(":1@{digest}")).await.unwrap(), by_tag);
}

/// What a containerd of one platform has pulled of an index lacks the others, and its layers may be discarded. The tag has moved since.
#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_lacks_comes_from_the_registry_by_its_digest() {
    let registry = Registry::start();
    registry.set(&format!("/v2/{REPOSITORY}/manifests/1"), MANIFEST_TYPE, b"{}".to_vec());
    let name = format!("{}/{REPOSITORY}:1", registry.host);
    let expect = registry.facts(&format!("@{}", registry.built.manifest_digest.to_oci())).await;
    let layer = registry.built.layers[0].digest;
    let documents = [registry.built.manifest_digest, registry.built.config_digest];
    for lacked in [None, Some(documents[1]), Some(layer)] {
        let store = tempfile::tempdir().unwrap();
        let blobs = store.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let all = registry.built.layers.iter().map(|layer| layer.digest).chain(documents);
        for digest in all.filter(|digest| lacked.is_some() && Some(*digest) != lacked) {
            let body = registry.body(&Registry::blob_path(&digest));
            fs::write(blobs.join(digest.to_string()), body).unwrap();
        }
        let names = vec![(name.clone(), registry.built.manifest_digest)];
        let places = Places {
            stores: vec![(store.path().into(), names)],
            plain_http: vec![registry.host.clone()],
            ..Places::default()
        };
        let images = Images::open(&places).unwrap();
        let image = images.resolve(&name).await.unwrap();
        let found = images.facts(&image, Arc::new(TemporaryFiles)).await.unwrap();
        assert_eq!(&found, expect.as_ref().unwrap(), "{lacked:?}");
        // without a registry it is not there
        let offline = Images::open(&Places { offline: true, ..places }).unwrap();
        assert!(offline.resolve(&name).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_manifest_of_the_platform() {
    let registry = Registry::start();
    let manifest = registry.body(&registry.manifest_path());
    let index = |size: usize| {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST_TYPE,
                "digest": registry.built.manifest_digest.to_oci(),
                "size": size,
                "platform": {"os": "linux", "architecture": "amd64"},
            }],
        })
        .to_string()
        .into_bytes()
    };
    let path = format!("/v2/{REPOSITORY}/manifests/multi");
    registry.set(&path, "application/vnd.oci.image.index.v1+json", index(manifest.len()));
    let found = registry.facts(":multi").await.unwrap();
    let index_digest = Sha256::of(index(manifest.len()));
    assert!(found.reference.ends_with(&index_digest.to_oci()));
    registry.set(&path, "application/vnd.oci.image.index.v1+json", index(manifest.len() + 1));
    let error = registry.facts(":multi").await.unwrap_err();
    assert!(matches!(error, RegistryError::Document { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_registry_gives_another_manifest_config_or_layer() {
    let altered = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.push(b' ');
        bytes
    };
    let registry = Registry::start();
    let path = registry.manifest_path();
    registry.set(&path, MANIFEST_TYPE, altered(&registry.body(&path)));
    let digest = registry.built.manifest_digest.to_oci();
    let error = registry.facts(&format!("@{digest}")).await.unwrap_err();
    assert!(causes(&error).contains("digest"), "{}", causes(&error));

    let registry = Registry::start();
    let path = Registry::blob_path(&registry.built.config_digest);
    registry.set(&path, "application/octet-stream", altered(&registry.body(&path)));
    let error = registry.facts(":1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Document { .. }), "{error:?}");

    let registry = Registry::start();
    let path = Registry::blob_path(&registry.built.layers[1].digest);
    let mut bytes = registry.body(&path);
    let last = bytes.len() - 2000;
    bytes[last] ^= 1;
    registry.set(&path, "application/octet-stream", bytes);
    let error = registry.facts(":1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Layer { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_says_where_it_was_looked_for() {
    let registry = Registry::start();
    let error = registry.facts(":none").await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::Registry { registry: host, .. } if *host == registry.host)
    );
    assert!(error.hint().unwrap().contains("docker login"));
}
