//! What the shim makes of containerd's specs is what the generated policy of the same pod allows.
//!
//! The specs are recorded: a real kubelet and containerd 1.6, 1.7 and 2.1 wrote them for the pods beside them
//! (`host/shim/tests/data`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ah_agent_api::agent::{CreateContainerRequest, StartContainerRequest};
use ah_agent_api::{PolicyRequest, Request};
use ah_digest::Sha256;
use ah_manifest::{NamedText, Platform, ReadOptions};
use ah_permit::{Denial, Policy, State, decide};
use ah_pod::{Accounts, GroupEntry, ImageFacts, Layer, PasswdEntry, Pod, Role, RuntimeHints};
use ah_policygen::{Options, generate};
use ah_shim::convert::{self, Copied, HostTree, MountInfo, Node, NodeKind, Sandbox, Spec};
use ah_verity::VerityInfo;
use serde_json::{Value, json};

const VERSIONS: [&str; 3] = ["containerd-1.6", "containerd-1.7", "containerd-2.1"];
const PODS: [&str; 4] = ["plain", "full", "imaged", "token"];

fn data(version: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../host/shim/tests/data")
        .join(version)
        .join(name)
}

/// One container as it was recorded.
struct Recorded {
    id: String,
    spec: Spec,
    trees: BTreeMap<String, HostTree>,
    mounted: MountInfo,
}

impl Recorded {
    fn read(version: &str, name: &str, hints: Option<&RuntimeHints>) -> Self {
        Self::new(&Self::value(version, name, hints))
    }

    fn value(version: &str, name: &str, hints: Option<&RuntimeHints>) -> Value {
        let text = fs::read_to_string(data(version, &format!("{name}.json"))).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        if let Some(hints) = hints {
            let hints = serde_json::to_string(hints).unwrap();
            value["config"]["annotations"][ah_pod::RUNTIME_HINTS_ANNOTATION] = hints.into();
        }
        value
    }

    fn new(value: &Value) -> Self {
        let bytes = serde_json::to_vec(&value["config"]).unwrap();
        let (spec, _) = convert::parse(&bytes).unwrap();
        let mut mounted = MountInfo::parse(value["mountinfo"].as_str().unwrap());
        let mut trees = BTreeMap::new();
        for (source, nodes) in value["trees"].as_object().unwrap() {
            let tree: HostTree = nodes
                .as_object()
                .unwrap()
                .iter()
                .map(|(path, n)| (path.clone(), node(n)))
                .collect();
            let top = &tree[""];
            if top.mode & 0o2000 != 0 {
                mounted = mounted.with_group(source, top.gid);
            }
            trees.insert(source.clone(), tree);
        }
        let id = value["id"].as_str().unwrap().to_owned();
        Self { id, spec, trees, mounted }
    }

    fn copies(&self, copied: &Copied) -> Vec<Request> {
        let tree = &self.trees[copied.source.to_str().unwrap()];
        convert::copy_requests(copied, tree).into_iter().map(Request::CopyFile).collect()
    }
}

fn node(value: &Value) -> Node {
    let number = |name: &str| u32::try_from(value[name].as_u64().unwrap()).unwrap();
    let kind = match (value["link"].as_str(), value["data"].as_str()) {
        (Some(target), _) => NodeKind::Link(target.into()),
        (None, Some(text)) => NodeKind::File(text.as_bytes().to_vec()),
        (None, None) => NodeKind::Folder,
    };
    Node { mode: number("mode"), uid: number("uid"), gid: number("gid"), kind }
}

/// The image that the recorded pods ran, and the one with a user and a volume.
fn image(reference: &str) -> ImageFacts {
    let with_user = reference.contains("bbuser");
    let path = if with_user { "PATH=/bin:/usr/bin" } else { ah_pod::shape::DEFAULT_PATH };
    let own = with_user.then(|| "A=1".to_owned());
    let entry = |name: &str, id| PasswdEntry { name: name.into(), uid: id, gid: id };
    let group = |name: &str, id| GroupEntry { name: name.into(), gid: id, members: vec![] };
    let root_hash = Sha256::of(format!("root of {reference}"));
    ImageFacts {
        reference: reference.into(),
        entrypoint: vec![],
        cmd: if with_user { vec!["sleep".into(), "3600".into()] } else { vec!["sh".into()] },
        env: std::iter::once(path.to_owned()).chain(own).collect(),
        working_dir: if with_user { "/tmp" } else { "/" }.into(),
        user: if with_user { "app" } else { "" }.into(),
        volumes: if with_user { vec!["/data".into()] } else { vec![] },
        stop_signal: None,
        accounts: Accounts {
            passwd: Some(vec![entry("root", 0), entry("app", 1000)]),
            group: Some(vec![group("root", 0), group("app", 1000)]),
        },
        layers: vec![Layer {
            diff_id: Sha256::of(reference),
            verity: VerityInfo { root_hash, data_blocks: 3, salt: [0; 32] },
        }],
    }
}

fn pod(version: &str, name: &str) -> Pod {
    let name = format!("{name}.yaml");
    let text = fs::read_to_string(data(version, &name)).unwrap();
    let options = ReadOptions { platform: Platform::Cluster, ..Default::default() };
    let set = ah_manifest::read_set(vec![NamedText { name, text }], &options).unwrap();
    let images = set.images().into_iter().map(|reference| {
        let facts = image(&reference);
        (reference, facts)
    });
    let (manifest, template) = set.pods().next().unwrap();
    manifest.to_pod(template, &images.collect()).unwrap()
}

/// A pod's policy, and what it has allowed so far.
struct Guest {
    policy: Policy,
    state: State,
}

impl Guest {
    fn new(pod: &Pod) -> Self {
        let policy = generate(pod, &Options::default()).unwrap().policy;
        Self { policy: Policy::compile(&policy).unwrap(), state: State::new() }
    }

    fn ask<R: PolicyRequest>(&mut self, request: R) -> Result<(), Denial> {
        let permit = decide(&self.policy, &self.state, request)?;
        self.state.commit(permit.into_parts().1).unwrap();
        Ok(())
    }
}

fn start(id: &str) -> Request {
    let container_id = id.to_owned();
    Request::StartContainer(StartContainerRequest { container_id, ..Default::default() })
}

fn layers(pod: &Pod, index: usize) -> (Vec<VerityInfo>, BTreeMap<Sha256, String>) {
    let layers = pod.containers[index].image.layers.iter().rev();
    let infos: Vec<VerityInfo> = layers.map(|layer| layer.verity).collect();
    let paths = infos.iter().map(|info| (info.root_hash, "03.1/00".to_owned())).collect();
    (infos, paths)
}

/// Everything up to the containers.
fn sandbox(version: &str, name: &str, pod: &Pod, guest: &mut Guest) -> Sandbox {
    let recorded =
        Recorded::read(version, &format!("{name}-sandbox"), RuntimeHints::of(pod).as_ref());
    let sandbox = convert::sandbox(&recorded.id, &recorded.spec).unwrap();
    let copied = sandbox.resolv_conf.clone().unwrap();
    let resolv_conf = match &recorded.trees[copied.source.to_str().unwrap()][""].kind {
        NodeKind::File(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    guest.ask(Request::CreateSandbox(sandbox.create_request(&resolv_conf))).unwrap();
    for copy in recorded.copies(&copied) {
        guest.ask(copy).unwrap();
    }
    let create = Request::CreateContainer(sandbox.request.clone());
    guest.ask(create).unwrap_or_else(|denial| panic!("{version} {name}: {denial}"));
    guest.ask(start(&recorded.id)).unwrap();
    sandbox
}

/// One container up to its start; gives the request that made it.
fn container(
    version: &str,
    pod_name: &str,
    pod: &Pod,
    index: usize,
    sandbox: &Sandbox,
    guest: &mut Guest,
) -> CreateContainerRequest {
    let name = &pod.containers[index].name;
    let recorded = Recorded::read(version, &format!("{pod_name}-{name}"), None);
    let (layers, paths) = layers(pod, index);
    let workload = convert::workload(
        &recorded.id,
        &recorded.spec,
        sandbox,
        &layers,
        &paths,
        &recorded.mounted,
    )
    .unwrap();
    let about = format!("{version} {pod_name}/{name}");
    for copied in &workload.copies {
        for copy in recorded.copies(copied) {
            guest.ask(copy).unwrap_or_else(|denial| panic!("{about}: {denial}"));
        }
    }
    let create = Request::CreateContainer(workload.request.clone());
    guest.ask(create).unwrap_or_else(|denial| panic!("{about}: {denial}"));
    guest.ask(start(&recorded.id)).unwrap();
    if pod.containers[index].role == Role::Init {
        guest.state.note_exit(&recorded.id, 0);
    }
    workload.request
}

#[test]
fn the_policy_of_a_pod_allows_what_the_shim_makes_of_containerds_specs() {
    for version in VERSIONS {
        for name in PODS {
            let pod = pod(version, name);
            let mut guest = Guest::new(&pod);
            let sandbox = sandbox(version, name, &pod, &mut guest);
            for index in 0..pod.containers.len() {
                container(version, name, &pod, index, &sandbox, &mut guest);
            }
        }
    }
}

#[test]
fn a_probe_is_allowed_and_another_command_is_not() {
    for version in VERSIONS {
        let pod = pod(version, "full");
        let mut guest = Guest::new(&pod);
        let sandbox = sandbox(version, "full", &pod, &mut guest);
        let created: Vec<_> = (0..pod.containers.len())
            .map(|index| container(version, "full", &pod, index, &sandbox, &mut guest))
            .collect();
        let (index, _) = pod.container("app").unwrap();
        let bytes = fs::read(data(version, "full-app-exec.json")).unwrap();
        let probe = convert::parse_process(&bytes).unwrap();
        let request = convert::exec(&created[index], "probe", &probe);
        guest.ask(Request::ExecProcess(request)).unwrap();

        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        value["args"] = json!(["/bin/sh"]);
        let other = convert::parse_process(&serde_json::to_vec(&value).unwrap()).unwrap();
        let request = convert::exec(&created[index], "shell", &other);
        let denial = guest.ask(Request::ExecProcess(request)).unwrap_err();
        assert_eq!(denial.rule, "ExecProcessRequest");
    }
}

/// The kubelet keeps `limits.ephemeral-storage` to itself, so the shim has it from the owner's annotation.
#[test]
fn attack_another_limit_of_what_a_container_stores() {
    let limited = |bytes| {
        let mut pod = pod("containerd-1.6", "plain");
        pod.containers[0].resources.storage_limit_bytes = bytes;
        pod
    };
    let of_owner = limited(Some(8 << 20));
    for (pod, denied) in [
        (limited(Some(8 << 20)), None),
        (limited(Some(9 << 20)), Some("/storages/1/options/1")),
        (limited(None), Some("/storages/1/options")),
    ] {
        let mut guest = Guest::new(&of_owner);
        let sandbox = sandbox("containerd-1.6", "plain", &pod, &mut guest);
        let recorded = Recorded::read("containerd-1.6", "plain-app", None);
        let (layers, paths) = layers(&pod, 0);
        let (id, spec, mounted) = (&recorded.id, &recorded.spec, &recorded.mounted);
        let workload = convert::workload(id, spec, &sandbox, &layers, &paths, mounted).unwrap();
        for copied in &workload.copies {
            recorded.copies(copied).into_iter().for_each(|copy| guest.ask(copy).unwrap());
        }
        let asked = guest.ask(Request::CreateContainer(workload.request));
        match (asked, denied) {
            (Ok(()), None) => {}
            (Err(denial), Some(field)) => {
                assert!(denial.to_string().contains(field), "{field}: {denial}");
            }
            (asked, denied) => panic!("{asked:?}, expected {denied:?}"),
        }
    }
}

/// The node edits what containerd wrote: the policy sees it behind the conversion too.
#[test]
fn attack_a_spec_with_one_change_is_denied() {
    let changes: [(&str, &str, Value); 6] = [
        ("/process/args", "/OCI/Process/Args", json!(["/bin/sh"])),
        ("/process/cwd", "/OCI/Process/Cwd", json!("/data")),
        ("/process/user/uid", "/OCI/Process/User/UID", json!(1)),
        ("/root", "/OCI/Root/Readonly", json!({"path": "rootfs", "readonly": true})),
        ("/process/env/0", "/OCI/Process/Env", json!("PATH=/tmp")),
        ("/linux/maskedPaths", "/OCI/Linux/MaskedPaths", json!([])),
    ];
    for (pointer, field, value) in changes {
        let pod = pod("containerd-1.6", "plain");
        let mut guest = Guest::new(&pod);
        let sandbox = sandbox("containerd-1.6", "plain", &pod, &mut guest);
        let mut recorded = Recorded::value("containerd-1.6", "plain-app", None);
        *recorded["config"].pointer_mut(pointer).unwrap() = value;
        let recorded = Recorded::new(&recorded);
        let (layers, paths) = layers(&pod, 0);
        let (spec, mounted) = (&recorded.spec, &recorded.mounted);
        let workload =
            convert::workload(&recorded.id, spec, &sandbox, &layers, &paths, mounted).unwrap();
        for copied in &workload.copies {
            recorded.copies(copied).into_iter().for_each(|copy| guest.ask(copy).unwrap());
        }
        let denial = guest.ask(Request::CreateContainer(workload.request)).unwrap_err();
        assert!(denial.to_string().contains(field), "{field}: {denial}");
    }
}
