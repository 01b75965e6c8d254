//! One pod with its images, its owner and its host, in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ah_guest_image::GuestImage;
use ah_release_api::policy::{PodFacts, TeeKind};
use ah_release_api::{KeyKind, ReleasePolicy, Secret};
use ah_sandbox::{Outcome, SandboxError, Stop};
use ah_testkit_images::LayoutBuilder;
use anchorhold::cli::{Images, Source};
use anchorhold::dirs::Dirs;
use anchorhold::guest;
use anchorhold::keys::{self, Accept};
use anchorhold::prepare::{self, Prepared};
use anchorhold::run::{Launch, VCPUS};
use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::heard::Heard;

/// The key of the sealed message.
pub const KEY: &str = "demo/message";

/// Everything that one test needs; gone when it is dropped.
pub struct Scene {
    folder: TempDir,
    dirs: Dirs,
    source: Source,
    image: GuestImage,
    /// What was heard of the pod's runs.
    pub heard: Heard,
}

impl Scene {
    /// A pod from YAML and images.
    ///
    /// # Errors
    /// When the images cannot be made or there is no guest image.
    pub fn new(yaml: &str, images: impl FnOnce(&mut LayoutBuilder) -> Result<()>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let layout = folder.path().join("images");
        let mut builder = LayoutBuilder::create(&layout)?;
        images(&mut builder)?;
        builder.finish()?;
        let file = folder.path().join("pod.yaml");
        fs::write(&file, yaml)?;
        let images = Images { images: vec![layout], ..Images::default() };
        let dirs = shared_dirs().with_keys(folder.path().join("keys"));
        let dirs = dirs.with_layers(folder.path().join("layers"));
        let image = guest_image()?;
        Ok(Self { folder, dirs, source: Source { file, images }, image, heard: Heard::default() })
    }

    /// A pod of one busybox container that runs a shell script.
    ///
    /// # Errors
    /// As [`Scene::new`].
    pub fn shell(script: &str) -> Result<Self> {
        Self::new(&shell_pod(script, ""), |images| {
            images.add("localhost/busybox:1", &ah_testkit_images::busybox()?)?;
            Ok(())
        })
    }

    /// The example: an init container, and a workload that asks for its key.
    ///
    /// # Errors
    /// As [`Scene::new`]; the workload is built by `cargo xtask setup`.
    pub fn sealed_message(secret: &[u8; 32], message: &str) -> Result<Self> {
        let yaml = fs::read_to_string(checkout().join("examples/sealed-message/pod.yaml"))?;
        Self::new(&yaml, |images| crate::demo::add_images(images, secret, message))
    }

    /// The same images from one archive file instead of a folder.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn with_archive(mut self) -> Result<Self> {
        let Some(folder) = self.source.images.images.first() else { bail!("no images") };
        let archive = self.folder.path().join("images.tar");
        let status =
            Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(folder).arg(".").status()?;
        if !status.success() {
            bail!("tar ended with {status}");
        }
        self.source.images.images = vec![archive];
        Ok(self)
    }

    /// The owner's part: images resolved, layers converted, policy generated.
    ///
    /// # Errors
    /// As [`prepare::prepare`].
    pub async fn prepared(&self) -> Result<Prepared> {
        prepare::prepare(&self.dirs, &self.source).await
    }

    /// The owner's other part: a key that only this pod in this guest gets.
    ///
    /// # Errors
    /// When the key service refuses it.
    pub async fn import_key(&self, prepared: &Prepared, secret: &[u8]) -> Result<()> {
        let measurement = guest::measurement(&self.image, VCPUS, ah_evidence::Tee::Software)?;
        let policy = ReleasePolicy::for_pod(&PodFacts {
            tee: TeeKind::Software,
            launch_measurements: vec![measurement],
            host_data: prepared.document.host_data_snp()?,
        })?;
        let service = keys::open(&self.dirs, Accept::Hardware, None).await?;
        let secret = Secret::new(secret.to_vec())?;
        let id = KEY.parse()?;
        let on_existing = ah_keyservice::OnExisting::Refuse;
        service.import(&id, KeyKind::Oct, &secret, policy, on_existing).await?;
        service.close().await;
        Ok(())
    }

    /// What an honest host would start; the caller may be another kind of host.
    ///
    /// # Errors
    /// When this machine lacks something.
    pub async fn launch(&self, prepared: Prepared) -> Result<Launch> {
        self.launch_with(prepared, Accept::DangerSoftwareTee).await
    }

    /// As [`Scene::launch`], saying whose reports the key service believes.
    ///
    /// # Errors
    /// When this machine lacks something.
    pub async fn launch_with(&self, prepared: Prepared, accept: Accept) -> Result<Launch> {
        let observer = Some(self.heard.observer());
        let mut launch = Launch::new(
            &self.dirs,
            &self.image,
            ah_evidence::Tee::Software,
            prepared,
            accept,
            observer,
        )
        .await?;
        launch.sandbox.tools.supervisor = command("anchorhold")?;
        Ok(launch)
    }

    /// Prepares, launches and runs, as `anchorhold run` does.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub async fn run(&self) -> Result<Outcome> {
        let launch = self.launch(self.prepared().await?).await?;
        Ok(self.start(launch).await?)
    }

    /// Runs what was launched to its end.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub async fn start(&self, launch: Launch) -> Result<Outcome, SandboxError> {
        launch.start(Arc::new(self.heard.clone()), Stop::never()).await
    }

    /// The `anchorhold` command of this checkout.
    ///
    /// # Errors
    /// When it is not built.
    pub fn program(&self) -> Result<PathBuf> {
        command("anchorhold")
    }

    /// What to type for the same run: arguments of the `anchorhold` command.
    pub fn run_arguments(&self) -> Vec<std::ffi::OsString> {
        let mut arguments: Vec<std::ffi::OsString> = Vec::new();
        arguments.extend(["--data".into(), self.folder().join("data").into()]);
        arguments.extend(["--cache".into(), self.folder().join("cache").into()]);
        arguments.extend(["run".into(), "-f".into(), self.source.file.clone().into()]);
        for images in &self.source.images.images {
            arguments.extend(["--images".into(), images.clone().into()]);
        }
        arguments.extend(["--guest".into(), self.image.folder.clone().into()]);
        arguments.extend(["--tee", "software", "--danger-accept-software-tee"].map(Into::into));
        arguments
    }

    /// The scene's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The pod's YAML.
    pub fn file(&self) -> &Path {
        &self.source.file
    }

    /// The layout folder of its images.
    pub fn images(&self) -> PathBuf {
        self.folder().join("images")
    }

    /// The guest image that is booted.
    pub fn image(&self) -> &GuestImage {
        &self.image
    }
}

/// YAML of a pod of one busybox container that runs a shell script; `more` goes into the container, indented by 6.
pub(crate) fn shell_pod(script: &str, more: &str) -> String {
    let script = serde_json::Value::from(script);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: shell\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", {script}]\n{more}"
    )
}

/// The software TEE's keys and the accelerator's answer are the same for every test.
fn shared_dirs() -> Dirs {
    Dirs::below(&target().join("e2e"))
}

/// The root (DER) that reports of the tests' VMs lead to.
///
/// # Errors
/// When the software TEE's folder cannot be read or made.
pub fn software_root() -> Result<Vec<u8>> {
    let tee = ah_software_tee::SoftwareTee::open(shared_dirs().software_tee())?;
    Ok(tee.root_der().to_vec())
}

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Cargo's target folder: the one that this program was built into.
pub fn target() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let found = exe.ancestors().find(|path| path.join("CACHEDIR.TAG").is_file());
    found.map_or_else(|| checkout().join("target"), Path::to_path_buf)
}

/// A program of this workspace, built beside the tests.
///
/// # Errors
/// When it is not built.
pub fn command(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe().context("own program")?;
    let found = exe.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is not built; run `cargo build --workspace --bins`"),
    }
}

/// A static program that `cargo xtask setup` builds for containers of tests and demo.
pub fn static_program(name: &str) -> PathBuf {
    target().join("guest/x86_64-unknown-linux-gnu/guest").join(name)
}

fn guest_image() -> Result<GuestImage> {
    let folder = match std::env::var_os("ANCHORHOLD_GUEST") {
        Some(folder) => PathBuf::from(folder),
        None => target().join("guest-image"),
    };
    GuestImage::load(&folder)
        .with_context(|| format!("no guest image in {}; run `cargo xtask setup`", folder.display()))
}
