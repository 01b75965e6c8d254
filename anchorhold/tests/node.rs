//! `anchorhold node …` as people type it, on a node that is a folder.

mod support;

use std::fs;
use std::path::Path;

use support::{Desk, Ran};

const PLACES: &str = "--containerd-config etc/containerd/config.toml --config-dir etc/anchorhold --containerd run/c.sock";

/// `anchorhold node …` with the places of the desk.
fn node(desk: &Desk, words: &str) -> Ran {
    desk.run(&format!("node {words} {PLACES}"))
}

fn install(desk: &Desk, options: &str) -> Ran {
    node(desk, &format!("install --containerd-version 1.6.20 {options}"))
}

/// Every file below a folder with its text.
fn tree(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(tree(&path)),
            false => found.push((path.display().to_string(), fs::read_to_string(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_node_is_installed_again_and_given_back() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("etc/containerd")).unwrap();
    desk.write("etc/containerd/config.toml", "version = 2 # theirs\n");
    let before = tree(&desk.path("etc"));
    let options =
        "--alias kata-cc --alias kata-cc-isolation=anchorhold --key-service unix:/run/k.sock";
    install(&desk, options)
        .ends(0)
        .says("anchorhold-cc.toml")
        .says("restart containerd")
        .says("not confidential");
    let containerd = desk.read("etc/containerd/config.toml");
    let document: toml_edit::DocumentMut = containerd.parse().unwrap();
    let runtimes = &document["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"];
    for (handler, file, confidential) in [
        ("anchorhold-cc", "anchorhold-cc", true),
        ("kata-cc", "anchorhold-cc", true),
        ("anchorhold", "anchorhold", false),
        ("kata-cc-isolation", "anchorhold", false),
    ] {
        let path = runtimes[handler]["options"]["ConfigPath"].as_str().unwrap();
        assert_eq!(path, desk.path(&format!("etc/anchorhold/{file}.toml")).to_str().unwrap());
        let config: toml_edit::DocumentMut = fs::read_to_string(path).unwrap().parse().unwrap();
        assert_eq!(config["confidential"].as_bool(), Some(confidential));
        assert_eq!(config.get("key_service").is_some(), confidential);
    }
    let installed = tree(&desk.path("etc"));
    install(&desk, options).ends(0).says("is as it should be");
    assert_eq!(tree(&desk.path("etc")), installed);
    node(&desk, "uninstall").ends(0).says("uninstalled");
    assert_eq!(tree(&desk.path("etc")), before);
    assert!(!desk.path("etc/anchorhold").exists());
}

#[test]
fn a_file_that_somebody_has_changed_is_kept_and_told() {
    let desk = Desk::new();
    install(&desk, "").ends(0);
    let file = "etc/anchorhold/anchorhold-cc.toml";
    let theirs = desk.read(file).replace("vcpus = 1", "vcpus = 4");
    desk.write(file, &theirs);
    install(&desk, "--guest other").ends(0).says("kept: ").says("--print");
    assert_eq!(desk.read(file), theirs);
    // what nobody has changed follows
    assert!(desk.read("etc/anchorhold/anchorhold.toml").contains("/other\""));
    node(&desk, "uninstall").ends(0).says("remove it by hand");
    assert_eq!(tree(&desk.path("etc")).len(), 1);
}

#[test]
fn what_is_refused_changes_nothing() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("etc/containerd")).unwrap();
    desk.write("etc/containerd/config.toml", "version = 1\n");
    let before = tree(&desk.path("etc"));
    install(&desk, "").ends(1).says("has version 1, expected 2 or 3").says("hint: ");
    assert_eq!(tree(&desk.path("etc")), before);
    desk.write("etc/containerd/config.toml", "version = 2\n");
    install(&desk, "--alias anchorhold-cc").ends(1).says("a handler of this name");
    install(&desk, "--alias kata_cc").ends(2).says("lower case letters");
    install(&desk, "--alias kata-cc=runc").ends(2).says("anchorhold-cc or anchorhold");
    install(&desk, "--key-service keys.example:1031")
        .ends(2)
        .says("expected unix:/PATH or tcp:HOST:PORT");
    let printed = install(&desk, "--print").ends(0);
    assert!(printed.out.contains("ConfigPath") && printed.out.contains("overhead_mib"));
    assert_eq!(tree(&desk.path("etc")).len(), 1);
}

#[test]
fn the_doctor_names_what_is_missing_and_says_no() {
    let desk = Desk::new();
    install(&desk, "--guest guest").ends(0);
    let ran = node(&desk, "doctor --json").ends(1);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&ran.out).unwrap();
    let of = |name: &str| -> Vec<&serde_json::Value> {
        checks.iter().filter(|check| check["name"] == name).collect()
    };
    assert_eq!(of("containerd")[0]["finding"], "missing");
    assert_eq!(of("configuration")[0]["finding"], "good");
    let handlers = of("handler");
    assert_eq!(handlers.len(), 2);
    assert!(handlers[0]["found"].as_str().unwrap().contains("vmlinuz"), "{handlers:?}");
    for file in ["vmlinuz", "initrd", "cmdline.software"] {
        fs::create_dir_all(desk.path("guest")).unwrap();
        desk.write(&format!("guest/{file}"), "");
    }
    let ran = node(&desk, "doctor").ends(1);
    assert!(ran.out.contains("MISSING  containerd"), "{}", ran.out);
    assert!(ran.out.contains("good     handler        anchorhold: "), "{}", ran.out);
    let confidential = ran.out.lines().find(|line| line.contains("anchorhold-cc: ")).unwrap();
    assert!(confidential.starts_with("limited"), "{confidential}");
    assert!(confidential.ends_with("tee: software (not confidential)"), "{confidential}");
}

/// The hardware is for pods with a policy, and nothing falls back to software where it is not there.
#[test]
fn a_node_of_snp_asks_for_it_in_the_confidential_handler_only() {
    let desk = Desk::new();
    let ran = install(&desk, "--guest guest --tee snp").ends(0).says("tee: snp");
    assert!(!ran.err.contains("tee: software"), "{}", ran.err);
    for (name, tee) in [("anchorhold-cc", "snp"), ("anchorhold", "software")] {
        let told = fs::read_to_string(desk.path(&format!("etc/anchorhold/{name}.toml"))).unwrap();
        assert!(told.contains(&format!("\ntee = \"{tee}\"\n")), "{name}: {told}");
    }
    for file in ["vmlinuz", "initrd", "cmdline.software", "cmdline.snp"] {
        fs::create_dir_all(desk.path("guest")).unwrap();
        desk.write(&format!("guest/{file}"), "");
    }
    if ah_vmm::host_tee::find().is_ok() {
        println!("skipped: what the doctor says where there is no SEV-SNP, since there is");
        return;
    }
    let ran = node(&desk, "doctor").ends(1);
    let confidential = ran.out.lines().find(|line| line.contains("anchorhold-cc: ")).unwrap();
    assert!(confidential.starts_with("MISSING"), "{confidential}");
    assert!(confidential.contains("tee: snp: "), "{confidential}");
}

#[test]
fn a_collector_is_named_to_the_snapshotter_or_refused() {
    let desk = Desk::new();
    for wrong in ["https://collector:4317", "collector:4317", "http://", "http://c:1/v1/traces"] {
        let ran = install(&desk, &format!("--guest guest --otlp {wrong}")).ends(2);
        ran.says("http://HOST:PORT");
        assert!(tree(&desk.path("etc")).len() <= 1, "nothing is written");
    }
    let told = || fs::read_to_string(desk.path("etc/anchorhold/snapshotter.toml")).unwrap();
    install(&desk, "--guest guest --otlp http://127.0.0.1:4317").ends(0);
    assert!(told().contains("\notlp = \"http://127.0.0.1:4317\"\n"), "{}", told());
    install(&desk, "--guest guest").ends(0);
    assert!(told().contains("\n# otlp = "), "{}", told());
}
