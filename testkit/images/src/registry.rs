//! A folder as docker-registry stores images (its file system driver), and that registry on loopback.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ah_digest::Sha256;

use crate::layout::BuiltImage;

/// The program, from Debian's package of the same name.
const PROGRAM: &str = "docker-registry";
/// How long it may take to listen.
const START: Duration = Duration::from_secs(20);

/// Puts an image of a layout into a registry's folder as `<repository>:latest`.
///
/// # Errors
/// When a file cannot be linked or written.
pub fn store_image(
    folder: &Path,
    repository: &str,
    layout: &Path,
    image: &BuiltImage,
) -> io::Result<()> {
    let root = folder.join("docker/registry/v2");
    let own = root.join("repositories").join(repository);
    let layers = image.layers.iter().map(|layer| layer.digest);
    for digest in layers.chain([image.config_digest, image.manifest_digest]) {
        let hex = digest.to_string();
        let blob = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
        fs::create_dir_all(&blob)?;
        if !blob.join("data").exists() {
            fs::rename(layout.join("blobs/sha256").join(&hex), blob.join("data"))?;
        }
        link(&own.join("_layers/sha256").join(&hex), &digest)?;
    }
    let (manifests, hex) = (own.join("_manifests"), image.manifest_digest.to_string());
    link(&manifests.join("revisions/sha256").join(&hex), &image.manifest_digest)?;
    link(&manifests.join("tags/latest/current"), &image.manifest_digest)?;
    link(&manifests.join("tags/latest/index/sha256").join(&hex), &image.manifest_digest)
}

fn link(folder: &Path, digest: &Sha256) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("link"), digest.to_oci())
}

/// A running docker-registry; ends when it is dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    address: String,
    config: PathBuf,
}

impl DockerRegistry {
    /// Serves a folder in plain HTTP on a free port of loopback.
    ///
    /// # Errors
    /// When the program is not there or does not listen.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.join(format!("config-{}.yml", free.port()));
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage: {{ filesystem: {{ rootdirectory: {:?} }} }}\nhttp: {{ addr: {:?} }}\n",
            folder.display().to_string(),
            free.to_string(),
        );
        fs::write(&config, text)?;
        let child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{PROGRAM}: {error}")))?;
        let mut registry = Self { child, address: free.to_string(), config };
        let start = Instant::now();
        while TcpStream::connect(free).is_err() {
            if registry.child.try_wait()?.is_some() || start.elapsed() > START {
                return Err(io::Error::other(format!("{PROGRAM} does not listen on {free}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process, for what it costs.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // it keeps nothing that an orderly end would save
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}
