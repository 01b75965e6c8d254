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
        values["aliases"] = serde_json::json!([{ "name": "kata-cc", "of": "anchorhold-cc" }]);
    });
    let [_, set] = &documents(&node)[..] else { panic!("{node}") };
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/node:2");
    let options = "--alias kata-cc=anchorhold-cc --key-service unix:/run/k.sock";
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
