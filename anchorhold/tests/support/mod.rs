//! A desk: images, files, folders of its own, and the command as people type it.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ah_testkit_images::{Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing};
use tempfile::TempDir;

pub(crate) const COMMAND: &str = env!("CARGO_BIN_EXE_anchorhold");

/// A pod, a service and a deployment, with a comment that must stay.
pub(crate) const SHOP: &str = r#"# the shop
apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    anchorhold.dev/exec: '{"web": [["/bin/check", "--now"]]}'
spec:
  containers:
    - name: web
      image: localhost/web:1   # pinned by generate
      env:
        - {name: MODE, value: quiet}
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: login, key: password}}
      args: ["--login=$(PASSWORD)"]
    - name: db
      image: localhost/db:1
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {password: hush-hush}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: back}
spec:
  selector: {matchLabels: {app: back}}
  template:
    metadata: {labels: {app: back}}
    spec:
      runtimeClassName: kata-cc
      containers:
        - {name: db, image: "localhost/db:1"}
"#;

/// One container.
pub(crate) const PLAIN: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: plain\nspec:\n  containers:\n  - name: web\n    image: localhost/web:1\n    env:\n    - name: MODE\n      value: quiet\n";

pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        desk.make_images("images", "first");
        desk
    }

    /// The images `web:1` and `db:1` in a layout; another `release` gives other layers under the same names.
    pub(crate) fn make_images(&self, folder: &str, release: &str) {
        let image = |name: &str| ImageSpec {
            layers: vec![
                LayerSpec::of(Packing::Gzip, [Entry::dir("./"), Entry::file("base", "base")]),
                LayerSpec::of(
                    Packing::Zstd,
                    [Entry::dir("bin/"), Entry::file(format!("bin/{name}"), release).mode(0o755)],
                ),
            ],
            entrypoint: vec![format!("/bin/{name}")],
            env: vec!["PATH=/bin".into()],
            user: Some("1000:1000".into()),
            ..ImageSpec::default()
        };
        let mut layout = LayoutBuilder::create(self.path(folder)).unwrap();
        for name in ["web", "db"] {
            layout.add(&format!("localhost/{name}:1"), &image(name)).unwrap();
        }
        layout.finish().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The command in this desk's folder, with folders of its own.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("ANCHORHOLD_DATA", self.path("data"))
            .env("ANCHORHOLD_CACHE", self.path("cache"));
        command
    }

    /// Runs a line of words; `IMAGES` stands for `--images` with the desk's layout.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_with(line, "", &[])
    }

    pub(crate) fn run_with(&self, line: &str, input: &str, env: &[(&str, &str)]) -> Ran {
        let images = format!("--images {}", self.path("images").display());
        let line = line.replace("IMAGES", &images);
        let mut command = self.command(COMMAND);
        command.args(line.split_whitespace()).envs(env.iter().copied());
        Ran::of(line, command, input)
    }

    /// Runs words that may have spaces in them.
    pub(crate) fn run_words(&self, words: &[String]) -> Ran {
        let mut command = self.command(COMMAND);
        command.args(words);
        Ran::of(words.join(" "), command, "")
    }

    /// The policy of a text, generated into a file.
    pub(crate) fn generated(&self, name: &str, text: &str) -> PathBuf {
        let input = self.write(&format!("in/{name}"), text);
        let line = format!("policy generate -f {} IMAGES -o {name}", input.display());
        self.run(&line).ends(0);
        self.path(name)
    }
}

/// What a command said.
pub(crate) struct Ran {
    line: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(line: String, mut command: Command, input: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing closes its end first.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Self {
            line,
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}\n{}", self.line, self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let all = format!("{}{}", self.out, self.err);
        assert!(all.contains(text), "{}\n{all}\ndoes not say {text:?}", self.line);
        self
    }

    #[track_caller]
    pub(crate) fn does_not_say(self, text: &str) -> Self {
        let all = format!("{}{}", self.out, self.err);
        assert!(!all.contains(text), "{}\n{all}\nsays {text:?}", self.line);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// Names of the files of a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
