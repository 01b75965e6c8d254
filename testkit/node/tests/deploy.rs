//! deploy/: the chart with its defaults makes the plain files, and each of its values does something.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use gtmpl::{Context, Template, Value};

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Nil,
        Json::Bool(found) => (*found).into(),
        Json::Number(found) => found.as_i64().unwrap().into(),
        Json::String(found) => found.clone().into(),
        Json::Array(found) => Value::Array(found.iter().map(value).collect()),
        Json::Object(found) => {
            Value::Map(found.iter().map(|(name, json)| (name.clone(), value(json))).collect())
        }
    }
}

/// A template of the chart, with its values or others.
fn rendered(template: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut values: serde_json::Value =
        serde_norway::from_str(&deploy("chart/values.yaml")).unwrap();
    change(&mut values);
    let context = Value::Map(HashMap::from([("Values".to_owned(), value(&values))]));
    let mut parsed = Template::default();
    parsed.parse(deploy(&format!("chart/templates/{template}"))).unwrap();
    parsed.render(&Context::from(context)).unwrap()
}

/// What a text says, document by document.
fn documents(text: &str) -> Vec<serde_json::Value> {
    let parts = text.split("\n---\n");
    parts.map(|part| serde_norway::from_str(part).unwrap()).collect()
}

#[test]
fn the_plain_files_are_the_chart_with_its_defaults() {
    for (template, file) in
        [("node.yaml", "node.yaml"), ("runtimeclasses.yaml", "runtimeclass.yaml")]
    {
        let made = documents(&rendered(template, |_| ()));
        assert_eq!(made, documents(&deploy(file)), "{file}");
        assert!(made.len() > 1);
    }
}

#[test]
fn every_value_is_used() {
    let node = rendered("node.yaml", |values| {
        values["image"] = "registry.example/node:2".into();
        values["keyService"] = "unix:/run/k.sock".into();
        values["tee"] = "snp".into();
        values["otlp"] = "http://127.0.0.1:4317".into();
        values["aliases"] = serde_json::json!([{ "name": "kata-cc", "of": "anchorhold-cc" }]);
    });
    let [_, set] = &documents(&node)[..] else { panic!("{node}") };
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/node:2");
    let options = "--alias kata-cc=anchorhold-cc --tee snp --otlp http://127.0.0.1:4317 --key-service unix:/run/k.sock";
    assert_eq!(container["env"][0]["value"], options);

    let classes = rendered("runtimeclasses.yaml", |values| {
        values["overheadMemory"] = "300Mi".into();
        values["aliases"] = serde_json::json!([{ "name": "kata-cc", "of": "anchorhold-cc" }]);
    });
    let classes = documents(&classes);
    let names: Vec<_> = classes.iter().map(|class| class["handler"].as_str().unwrap()).collect();
    assert_eq!(names, ["anchorhold-cc", "anchorhold", "kata-cc"]);
    assert!(classes.iter().all(|class| class["overhead"]["podFixed"]["memory"] == "300Mi"));
}

/// The options of the chart are options of the command.
#[test]
fn the_nodes_command_is_one_that_the_program_has() {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("anchorhold");
    let folder = tempfile::tempdir().unwrap();
    let mut install = std::process::Command::new(program);
    install.args(["node", "install", "--print", "--containerd-version", "1.7.0"]);
    install.args(["--alias", "kata-cc=anchorhold-cc", "--key-service", "unix:/run/k.sock"]);
    install.args(["--guest", "/opt/anchorhold/guest", "--containerd-config"]);
    let output = install.arg(folder.path().join("config.toml")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What the DaemonSet's container runs, in a folder in the place of the node, with programs that only write down their arguments.
struct NodeScript {
    folder: tempfile::TempDir,
    text: String,
}

impl NodeScript {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let documents = documents(&deploy("node.yaml"));
        let set = documents.iter().find(|one| one["kind"] == "DaemonSet").unwrap();
        let command = &set["spec"]["template"]["spec"]["containers"][0]["command"];
        assert_eq!((&command[0], &command[1]), (&"/bin/sh".into(), &"-euc".into()));
        let text = command[2].as_str().unwrap();
        assert!(text.ends_with("exec sleep infinity\n"), "{text}");
        let text = text
            .replace("exec sleep infinity", "exit 0")
            .replace("/node/", "NODE/")
            .replace("/opt/anchorhold", &format!("{at}/image"))
            .replace(&format!("NODE{at}/image"), &format!("{at}/node/opt/anchorhold"))
            .replace("NODE/", &format!("{at}/node/"))
            .replace(" /etc/", &format!(" {at}/node/etc/"))
            .replace("\"/usr/local/", &format!("\"{at}/node/usr/local/"));
        let this = Self { text, folder };
        for path in [
            "image/bin",
            "node/opt",
            "node/etc/systemd/system",
            "node/etc/anchorhold",
            "node/etc/containerd",
            "node/usr/local/bin",
            "stubs",
        ] {
            fs::create_dir_all(this.path(path)).unwrap();
        }
        for (program, does) in [
            ("nsenter", "while [ $1 != -- ]; do shift; done; shift; exec \"$@\""),
            ("systemctl", "echo \"$@\" >> LOG"),
            ("anchorhold", "echo \"$@\" >> LOG"),
        ] {
            let does = does.replace("LOG", &this.path("log").display().to_string());
            this.program(&format!("stubs/{program}"), format!("#!/bin/sh\n{does}\n").as_bytes());
        }
        let sleep = fs::read("/bin/sleep").unwrap();
        for program in ["anchorhold", "anchorhold-snapshotter", "containerd-shim-anchorhold-v2"] {
            this.program(&format!("image/bin/{program}"), &sleep);
        }
        fs::write(this.path("image/anchorhold-snapshotter.service"), "unit").unwrap();
        fs::write(this.path("node/etc/anchorhold/snapshotter.toml"), "1").unwrap();
        fs::write(this.path("node/etc/containerd/config.toml"), "1").unwrap();
        this
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    fn program(&self, path: &str, bytes: &[u8]) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(self.path(path), bytes).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs it; gives what it restarted.
    fn restarts(&self) -> Vec<String> {
        let _ = fs::remove_file(self.path("log"));
        let path = format!("{}:/usr/bin:/bin", self.path("stubs").display());
        let mut sh = std::process::Command::new("/bin/sh");
        let output =
            sh.args(["-euc", &self.text]).env("PATH", path).env("INSTALL_OPTIONS", "").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = fs::read_to_string(self.path("log")).unwrap();
        assert!(log.contains("node install --guest") && log.contains("node doctor"), "{log}");
        log.lines().filter_map(|line| line.strip_prefix("restart ").map(str::to_owned)).collect()
    }
}

#[test]
fn the_daemonsets_script_may_run_again_and_restarts_what_changed() {
    let script = NodeScript::new();
    assert_eq!(script.restarts(), ["anchorhold-snapshotter", "containerd"]);
    assert!(script.path("node/usr/local/bin/anchorhold").exists());
    // the program that it put there runs, as the snapshotter does
    let program = script.path("node/opt/anchorhold/bin/anchorhold-snapshotter");
    let mut running = std::process::Command::new(program).arg("1000").spawn().unwrap();
    let again = script.restarts();
    assert!(again.is_empty(), "{again:?}");
    fs::write(script.path("node/etc/containerd/config.toml"), "2").unwrap();
    assert_eq!(script.restarts(), ["containerd"]);
    fs::write(script.path("node/etc/anchorhold/snapshotter.toml"), "2").unwrap();
    assert_eq!(script.restarts(), ["anchorhold-snapshotter"]);
    running.kill().unwrap();
    running.wait().unwrap();
}
