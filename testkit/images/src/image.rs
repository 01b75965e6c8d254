use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::tar_writer::{Entry, TarBuilder};

const BUSYBOX: &str = "/bin/busybox";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// One layer: its tar, and how it is packed.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// The tar.
    pub tar: Vec<u8>,
    /// How the blob holds it.
    pub packing: Packing,
}

impl LayerSpec {
    /// A layer of these entries.
    pub fn of(packing: Packing, entries: impl IntoIterator<Item = Entry>) -> Self {
        Self { tar: TarBuilder::bytes(entries), packing }
    }
}

/// An image to make: layers, lowest first, and what its config says about the process.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// Layers, lowest first.
    pub layers: Vec<LayerSpec>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Env`, as `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// `User`.
    pub user: Option<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `ExposedPorts`, as `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// `Volumes`.
    pub volumes: Vec<String>,
}

impl ImageSpec {
    /// An image of one more layer on top.
    pub fn with_layer(mut self, layer: LayerSpec) -> Self {
        self.layers.push(layer);
        self
    }
}

/// Debian's static busybox with a link for each of its applets in `/bin`, and the few files that programs look for.
///
/// # Errors
/// When `/bin/busybox` (Debian package busybox-static) is not there or does not list its applets.
pub fn busybox() -> io::Result<ImageSpec> {
    let program = std::fs::read(BUSYBOX)?;
    let listed = Command::new(BUSYBOX).arg("--list").output()?;
    if !listed.status.success() {
        return Err(io::Error::other("busybox --list failed"));
    }
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut applets: Vec<&str> = text.lines().filter(|applet| *applet != "busybox").collect();
    applets.sort_unstable();
    let mut entries = base_files();
    entries.push(Entry::file("bin/busybox", program).mode(0o755));
    entries.extend(applets.iter().map(|name| Entry::symlink(format!("bin/{name}"), "busybox")));
    Ok(ImageSpec {
        layers: vec![LayerSpec::of(Packing::Gzip, entries)],
        cmd: vec!["sh".into()],
        env: vec![PATH.into()],
        ..ImageSpec::default()
    })
}

/// One static program at `path_in_image` (absolute), which is the entry point.
///
/// # Errors
/// When the program cannot be read.
pub fn program(file: &Path, path_in_image: &str) -> io::Result<ImageSpec> {
    let inside = path_in_image.trim_start_matches('/');
    let mut entries = base_files();
    let mut parents: Vec<&Path> =
        Path::new(inside).ancestors().skip(1).filter(|path| *path != Path::new("")).collect();
    parents.reverse();
    for parent in parents {
        let parent = parent.to_string_lossy();
        if !matches!(&*parent, "bin" | "etc" | "root" | "tmp" | "usr") {
            entries.push(Entry::dir(format!("{parent}/")));
        }
    }
    entries.push(Entry::file(inside, std::fs::read(file)?).mode(0o755));
    Ok(ImageSpec {
        layers: vec![LayerSpec::of(Packing::Gzip, entries)],
        entrypoint: vec![format!("/{inside}")],
        env: vec![PATH.into()],
        ..ImageSpec::default()
    })
}

/// The key-release sidecar, of its static program. Any user may use the release socket, so none with rights is needed.
///
/// # Errors
/// When the program cannot be read.
pub fn sidecar(file: &Path) -> io::Result<ImageSpec> {
    let image = program(file, "/anchorhold-sidecar")?;
    Ok(ImageSpec { user: Some("65534:65534".into()), ..image })
}

fn base_files() -> Vec<Entry> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    let group = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
    vec![
        Entry::dir("./"),
        Entry::dir("bin/"),
        Entry::dir("etc/"),
        Entry::file("etc/passwd", passwd),
        Entry::file("etc/group", group),
        Entry::dir("root/").mode(0o700),
        Entry::dir("tmp/").mode(0o1777),
        Entry::dir("usr/"),
    ]
}
