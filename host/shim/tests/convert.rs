//! What cannot be in a VM is refused with its reason; each case is a recorded spec with one change.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ah_shim::convert::{self, ConvertError, MountInfo, Sandbox};
use serde_json::{Value, json};

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/containerd-1.6").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn sandbox(change: impl FnOnce(&mut Value)) -> Result<Sandbox, ConvertError> {
    let mut value = recorded("full-sandbox.json");
    change(&mut value["config"]);
    let (spec, _) = convert::parse(&serde_json::to_vec(&value["config"]).unwrap()).unwrap();
    convert::sandbox(value["id"].as_str().unwrap(), &spec)
}

fn workload(change: impl FnOnce(&mut Value)) -> Result<convert::Workload, ConvertError> {
    let mut value = recorded("full-app.json");
    change(&mut value["config"]);
    let (spec, _) = convert::parse(&serde_json::to_vec(&value["config"]).unwrap()).unwrap();
    let mounted = MountInfo::parse(value["mountinfo"].as_str().unwrap());
    let sandbox = sandbox(|_| ()).unwrap();
    convert::workload("0a", &spec, &sandbox, &[], &BTreeMap::new(), &mounted)
}

fn without_namespace(config: &mut Value, kind: &str) {
    let all = config["linux"]["namespaces"].as_array_mut().unwrap();
    all.retain(|namespace| namespace["type"] != kind);
}

fn error<T>(result: Result<T, ConvertError>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn namespaces_of_the_node_are_refused_by_their_name() {
    for (kind, expect) in [("network", "hostNetwork"), ("pid", "hostPID"), ("ipc", "hostIPC")] {
        let found = error(sandbox(|config| without_namespace(config, kind)));
        assert!(found.contains(expect), "{found}");
    }
    assert!(error(workload(|config| without_namespace(config, "pid"))).contains("hostPID"));
}

#[test]
fn a_path_of_the_node_is_refused_and_named() {
    let mount = |source: &str, kind: &str| {
        let options = json!(["rbind", "rprivate", "rw"]);
        let mount =
            json!({"destination": "/x", "type": kind, "source": source, "options": options});
        workload(|config| config["mounts"].as_array_mut().unwrap().push(mount))
    };
    let volumes = "/var/lib/kubelet/pods/u/volumes";
    assert!(mount(&format!("{volumes}/kubernetes.io~empty-dir/x"), "bind").is_ok());
    for source in ["/etc", "/", "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/x/mount"] {
        let found = error(mount(source, "bind"));
        assert!(found.contains(source) && found.contains("\"/x\""), "{found}");
    }
}

#[test]
fn mounts_of_other_file_systems_and_hooks_are_refused() {
    let tmpfs = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs"});
    let found = workload(|config| config["mounts"].as_array_mut().unwrap().push(tmpfs));
    assert!(matches!(found, Err(ConvertError::MountType { .. })));
    let found = workload(|config| config["hooks"] = json!({"prestart": [{"path": "/bin/x"}]}));
    assert!(matches!(found, Err(ConvertError::Unsupported { field: "hooks", .. })));
}

#[test]
fn hints_that_are_not_understood_are_refused() {
    let hints = |text: &str| {
        sandbox(|config| config["annotations"]["anchorhold.dev/runtime-hints"] = text.into())
    };
    assert!(
        hints("{\"share_process_namespace\":true}").unwrap().hints.runtime.share_process_namespace
    );
    assert!(error(hints("{\"other\":true}")).contains("runtime-hints"));
}

#[test]
fn fields_that_are_not_read_are_told() {
    let value = recorded("full-app.json");
    let (_, ignored) = convert::parse(&serde_json::to_vec(&value["config"]).unwrap()).unwrap();
    assert!(ignored.contains(&"linux.resources.devices".to_owned()), "{ignored:?}");
    let long = vec![b' '; (4 << 20) + 1];
    assert!(convert::parse(&long).unwrap_err().to_string().contains("at most"));
    assert!(convert::parse(b"{}x").is_err());
}

#[test]
fn a_systemd_driver_names_the_group_as_a_path() {
    let found = workload(|config| {
        config["linux"]["cgroupsPath"] = "kubepods-burstable-podx.slice:cri-containerd:0a".into();
    });
    let request = found.unwrap().request;
    assert_eq!(request.OCI.Linux.CgroupsPath, "/kubepods-burstable-podx.slice/0a");
}

#[test]
fn a_part_of_a_volume_in_memory_or_on_disk_stays_a_part() {
    let request = workload(|_| ()).unwrap().request;
    let source = |path: &str| {
        request.OCI.Mounts.iter().find(|mount| mount.destination == path).unwrap().source.clone()
    };
    assert_eq!(source("/scratch"), "/run/kata-containers/sandbox/ephemeral/scratch");
    assert_eq!(source("/scratch/part"), "/run/kata-containers/sandbox/ephemeral/scratch/part");
    assert!(source("/etc/one.txt").starts_with("/run/kata-containers/shared/containers/0a-"));
}
