//! The requests that the host's own code makes of a pod pass the guest's checks; both sides are tested against each other here.

use std::path::Path;

use ah_agent::guest::checks::{Kind, plan};
use ah_agent_api::agent::CreateContainerRequest;
use ah_container::{ExecContext, Layout, SpecContext, SpecError, container_spec, exec_process};
use ah_pod::requests;

#[path = "../../container/tests/pod/mod.rs"]
mod pod;
use pod::{host, pod};

fn convert(request: &CreateContainerRequest) -> Result<serde_json::Value, SpecError> {
    let context = SpecContext {
        root: Path::new("/run/kata-containers").join(&request.container_id).join("rootfs"),
        cgroup: Path::new("/").join(&request.container_id),
        hostname: "web".into(),
        home: "/".into(),
        shared_pid: None,
    };
    container_spec(&request.OCI, &context)
}

#[test]
fn a_pod_s_containers_pass_the_checks() {
    let pod = pod();
    let host = host(&pod);
    let sandbox = requests::create_sandbox_container(&pod, &host).unwrap();
    assert_eq!(plan(&sandbox, &Layout::guest()).unwrap().kind, Kind::Sandbox);
    let request = requests::create_container(&pod, 0, &host).unwrap();
    let plan = plan(&request, &Layout::guest()).unwrap();
    assert_eq!(plan.kind, Kind::Workload);
    let hashes: Vec<u8> = plan.layers.iter().map(|l| l.verity.root_hash.as_bytes()[0]).collect();
    assert_eq!(hashes, [3, 2, 1], "top first");
    assert_eq!(plan.volumes[0].group, Some(2000));
    let value = convert(&request).unwrap();
    assert_eq!(value["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(value["linux"]["resources"]["memory"]["limit"], 64 << 20);
    assert_eq!(value["linux"]["cgroupsPath"], format!("/{}", request.container_id));
}

#[test]
fn the_settings_that_a_pod_may_have_are_those_that_the_guest_makes() {
    assert_eq!(ah_pod::SYSCTLS, ah_container::SETTINGS);
    let mut pod = pod();
    for name in ah_pod::SYSCTLS {
        pod.security.sysctls.insert(name.into(), "1".into());
    }
    let sandbox = requests::create_sandbox_container(&pod, &host(&pod)).unwrap();
    plan(&sandbox, &Layout::guest()).unwrap();
    let mut other = sandbox;
    let linux = other.OCI.as_mut().unwrap().Linux.as_mut().unwrap();
    linux.Sysctl.insert("kernel.core_pattern".into(), "1".into());
    assert!(plan(&other, &Layout::guest()).is_err());
}

#[test]
fn a_privileged_container_and_an_exec_pass_the_checks() {
    let mut pod = pod();
    pod.containers[0].security.privileged = true;
    let host = host(&pod);
    convert(&requests::create_container(&pod, 0, &host).unwrap()).unwrap();
    let exec = requests::exec_process(&pod, 0, &["ls".into()], "e1", &host).unwrap();
    exec_process(&exec.process, &ExecContext { home: "/".into() }).unwrap();
}

/// The guest has a list of its own, which no policy widens: it and the generator's name the same settings.
#[test]
fn the_guest_knows_the_kernel_settings_that_a_pod_may_have() {
    assert_eq!(ah_container::SETTINGS, ah_pod::SYSCTLS);
}
