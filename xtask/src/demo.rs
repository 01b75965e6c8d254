//! The main job, shown: policy, key, run, release, and two attacks that are refused.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd::{Done, root, step, target};
use crate::setup;

const POD: &str = "examples/sealed-message/pod.yaml";
const MESSAGE: &str = "Meet me at the old mill at noon.";
const KEY: &str = "demo/message";
const SOFTWARE: [&str; 3] = ["--tee", "software", "--danger-accept-software-tee"];

#[derive(clap::Args)]
pub(crate) struct Options {}

/// The `demo` command.
pub(crate) fn run(_options: &Options) -> Result<()> {
    setup::run()?;
    step("hostile host", || {
        setup::programs(&["demo-images", "hostile-host"])?;
        Ok(Done::Did("demo-images and hostile-host, for this demo and the tests only".into()))
    })?;
    Stage::new()?.show()
}

/// The demo's own folder: nothing of the user's is touched.
struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn new() -> Result<Self> {
        let dir = target().join("demo");
        // Layers stay cached between demos; keys and pods are fresh.
        for part in ["data/keys", "images", "pod.yaml", "key"] {
            let path = dir.join(part);
            let gone =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = gone
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
        }
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn show(&self) -> Result<()> {
        let pod = self.shown("pod.yaml");
        let images = self.shown("images");
        let key = self.shown("key");

        title("0. images: a sealed message, and the key that opens it, both made now");
        self.testkit("demo-images", &["--out", &images, "--key-out", &key, "--message", MESSAGE])?;

        title("1. policy: images pinned, layers converted, policy generated");
        let (from, to) = (["-f", POD, "--images", &images], ["--runs-on", "machine", "-o", &pod]);
        self.anchorhold(&[&["policy", "generate"], &from[..], &to[..]].concat())?;
        self.anchorhold(&["policy", "show", "-f", &pod])?;

        title("2. key: imported under a release policy that names this pod and this guest");
        self.anchorhold(&with(&["key", "import", KEY, "--for", &pod, "--from", &key], &SOFTWARE))?;
        self.anchorhold(&["key", "list"])?;

        title(
            "3. run and 4. release: a real VM, the policy enforced, the key released, the message opened",
        );
        let run = with(&["run", "-f", &pod, "--images", &images, "--stages"], &SOFTWARE);
        self.anchorhold(&run)?;

        title("5. attack: the host changes one byte of a layer");
        let attack = |name| with(&[name, "-f", &pod, "--images", &images], &[]);
        self.testkit("hostile-host", &attack("flip-layer-byte"))?;

        title("5. attack: the host hands over another policy");
        self.testkit("hostile-host", &attack("other-policy"))?;

        println!(
            "\nDone: the message was printed once, by the pod that its key was released to; both attacks were refused."
        );
        println!(
            "Everything above ran with tee: software (not confidential): a stand-in signs the reports here."
        );
        Ok(())
    }

    fn anchorhold(&self, args: &[&str]) -> Result<()> {
        self.command(&setup::anchorhold(), args)
    }

    fn testkit(&self, name: &str, args: &[&str]) -> Result<()> {
        self.command(&target().join("debug").join(name), args)
    }

    fn command(&self, program: &Path, args: &[&str]) -> Result<()> {
        let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
        println!("$ {name} {}", args.join(" "));
        let mut command = Command::new(program);
        command.args(args).current_dir(root()).env("PATH", setup::path_with_tools()?);
        command.env("ANCHORHOLD_DATA", self.dir.join("data"));
        command.env("ANCHORHOLD_CACHE", self.dir.join("cache"));
        command.env("ANCHORHOLD_GUEST", setup::guest_dir());
        let status = command.status().with_context(|| format!("could not start {name}"))?;
        if !status.success() {
            bail!("{name} {} ended with {status}", args.first().copied().unwrap_or_default());
        }
        Ok(())
    }

    /// A path of the demo's folder, short where it lies in the checkout.
    fn shown(&self, name: &str) -> String {
        let path = self.dir.join(name);
        path.strip_prefix(root()).unwrap_or(&path).display().to_string()
    }
}

fn with<'a>(first: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    first.iter().chain(more).copied().collect()
}

fn title(text: &str) {
    println!("\n== {text}");
}
