//! Random pods, as people could write them: what any honest host asks for is allowed, and a change in one place that two honest
//! hosts agree about is denied. Nothing is listed here that the policy must look at: it must look at all of it.

use std::collections::BTreeMap;

use ah_agent_api::Request;
use ah_digest::Sha256;
use ah_manifest::{NamedText, Platform, ReadOptions, read_set};
use ah_permit::{Policy, State, decide};
use ah_pod::{Accounts, DnsFacts, HostValues, ImageFacts, Layer, Pod};
use ah_policygen::{Options, ends, generate, honest_requests};
use ah_verity::VerityInfo;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

/// Pods, and changes of each: what two busy cores decide in a few seconds.
const PODS: u32 = 16;
const CHANGES: usize = 64;

/// A set of the fields, each of them there or not.
fn fields(all: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Map<String, Value>> {
    let each: Vec<_> = all
        .into_iter()
        .map(|(name, value)| proptest::option::of(value).prop_map(move |value| (name, value)))
        .collect();
    let some = |fields: Vec<(&str, Option<Value>)>| -> Map<String, Value> {
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    };
    each.prop_map(some).boxed()
}

fn one_of(values: Value) -> BoxedStrategy<Value> {
    select(values.as_array().unwrap().clone()).boxed()
}

fn texts() -> BoxedStrategy<Value> {
    let text =
        prop_oneof!["[a-z/-]{1,12}", "[ -~]{0,20}", Just("$(NAME) $(UID) é \n'\"".to_owned())];
    proptest::collection::vec(text, 0..4).prop_map(Value::from).boxed()
}

fn env() -> BoxedStrategy<Value> {
    let field = |path: &str| json!({"valueFrom": {"fieldRef": {"fieldPath": path}}});
    let sources = [
        ("PLAIN", json!({"value": "quiet $$(X) $(NAME)"})),
        ("EMPTY", json!({})),
        ("NAME", field("metadata.name")),
        ("NAMESPACE", field("metadata.namespace")),
        ("UID", field("metadata.uid")),
        ("NODE", field("spec.nodeName")),
        ("POD_IP", field("status.podIP")),
        ("HOST_IP", field("status.hostIP")),
        ("LABEL", field("metadata.labels['app']")),
        ("MAP", json!({"valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}})),
        ("SECRET", json!({"valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}})),
        ("URL", json!({"value": "http://$(POD_IP):80/$(UID)?n=$(SECRET)"})),
    ];
    subsequence(sources.to_vec(), 0..=sources.len())
        .prop_map(|chosen| {
            let entries = chosen.into_iter().map(|(name, source)| {
                let mut entry = source;
                entry["name"] = name.into();
                entry
            });
            entries.collect()
        })
        .boxed()
}

fn volumes() -> [Value; 7] {
    [
        json!({"name": "disk", "emptyDir": {}}),
        json!({"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}),
        json!({"name": "map", "configMap": {"name": "m", "defaultMode": 0o555}}),
        json!({"name": "part", "configMap": {"name": "m", "items": [{"key": "b", "path": "c/d"}]}}),
        json!({"name": "secret", "secret": {"secretName": "s"}}),
        json!({"name": "down", "downwardAPI": {"items": [
            {"path": "n", "fieldRef": {"fieldPath": "metadata.namespace"}},
            {"path": "u", "fieldRef": {"fieldPath": "metadata.uid"}}]}}),
        json!({"name": "all", "projected": {"sources": [
            {"configMap": {"name": "m"}}, {"serviceAccountToken": {"path": "t"}}]}}),
    ]
}

fn mounts() -> BoxedStrategy<Value> {
    let mounts = [
        json!({"name": "disk", "mountPath": "/disk"}),
        json!({"name": "disk", "mountPath": "/disk/part", "subPath": "x/y"}),
        json!({"name": "memory", "mountPath": "/memory", "readOnly": true}),
        json!({"name": "map", "mountPath": "/etc/map"}),
        json!({"name": "map", "mountPath": "/etc/one", "subPath": "a"}),
        json!({"name": "part", "mountPath": "/part"}),
        json!({"name": "secret", "mountPath": "/secret"}),
        json!({"name": "down", "mountPath": "/down"}),
        json!({"name": "all", "mountPath": "/all"}),
    ];
    subsequence(mounts.to_vec(), 0..=mounts.len()).prop_map(Value::from).boxed()
}

fn security() -> BoxedStrategy<Value> {
    let capabilities = json!([
        {"drop": ["ALL"]},
        {"add": ["NET_ADMIN", "SYS_TIME"]},
        {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    ]);
    let all = vec![
        ("runAsUser", one_of(json!([0, 1, 1000, 65534]))),
        ("runAsGroup", one_of(json!([0, 1000]))),
        ("allowPrivilegeEscalation", one_of(json!([true, false]))),
        ("readOnlyRootFilesystem", one_of(json!([true, false]))),
        ("capabilities", one_of(capabilities)),
        ("seccompProfile", one_of(json!([{"type": "RuntimeDefault"}, {"type": "Unconfined"}]))),
    ];
    let privileged = Just(json!({"privileged": true})).boxed();
    prop_oneof![8 => fields(all).prop_map(Value::from), 1 => privileged].boxed()
}

fn container(number: usize) -> BoxedStrategy<Value> {
    let probe = json!([{"exec": {"command": ["check", "$(PLAIN)"]}}, {"tcpSocket": {"port": 80}}]);
    let all = vec![
        ("command", texts()),
        ("args", texts()),
        ("env", env()),
        ("volumeMounts", mounts()),
        ("securityContext", security()),
        ("workingDir", one_of(json!(["/", "/srv/app"]))),
        ("tty", one_of(json!([true, false]))),
        ("stdin", one_of(json!([true, false]))),
        ("livenessProbe", one_of(probe)),
        ("lifecycle", Just(json!({"preStop": {"exec": {"command": ["stop"]}}})).boxed()),
        ("terminationMessagePath", Just(json!("/tmp/end")).boxed()),
        (
            "resources",
            one_of(json!([
            {"limits": {"cpu": "500m", "memory": "64Mi"}},
            {"requests": {"cpu": "100m", "memory": "32Mi"}},
            {"limits": {"memory": "1Gi"}, "requests": {"cpu": 1}}])),
        ),
    ];
    let image = select(vec!["web:1", "db:2"]);
    (fields(all), image)
        .prop_map(move |(mut fields, image)| {
            fields.insert("name".into(), format!("c{number}").into());
            fields.insert("image".into(), image.into());
            // a terminal is written to
            if fields.get("tty") == Some(&true.into()) {
                fields.insert("stdin".into(), true.into());
            }
            Value::from(fields)
        })
        .boxed()
}

fn spec() -> BoxedStrategy<Value> {
    let pod_security = json!([
        {"fsGroup": 2000},
        {"runAsUser": 1000, "runAsGroup": 3000, "supplementalGroups": [4000, 5000]},
        {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]}
    ]);
    let all = vec![
        ("securityContext", one_of(pod_security)),
        ("shareProcessNamespace", one_of(json!([true, false]))),
        ("automountServiceAccountToken", one_of(json!([true, false]))),
        ("hostname", one_of(json!(["front"]))),
        ("subdomain", one_of(json!(["back"]))),
        ("hostAliases", one_of(json!([[{"ip": "10.0.0.9", "hostnames": ["a", "b.c"]}]]))),
        ("dnsConfig", one_of(json!([{"nameservers": ["9.9.9.9"], "searches": ["x.y"]}]))),
    ];
    let containers = (1..=2_usize, 0..=2_usize).prop_flat_map(|(main, init)| {
        let numbers = |range: std::ops::Range<usize>| range.map(container).collect::<Vec<_>>();
        (numbers(0..main), numbers(main..main + init), any::<bool>())
    });
    (fields(all), containers)
        .prop_map(|(mut fields, (main, mut init, sidecar))| {
            if let (true, Some(Value::Object(first))) = (sidecar, init.first_mut()) {
                first.insert("restartPolicy".into(), "Always".into());
            }
            fields.insert("containers".into(), main.into());
            fields.insert("initContainers".into(), init.into());
            fields.insert("volumes".into(), volumes().to_vec().into());
            Value::from(fields)
        })
        .boxed()
}

/// An object of one of the kinds around the spec.
fn object() -> BoxedStrategy<Value> {
    let kinds = select(vec!["Pod", "Deployment", "StatefulSet"]);
    let namespace = proptest::option::of(Just("prod"));
    let logs = select(vec!["true", "false"]);
    (kinds, namespace, logs, spec())
        .prop_map(|(kind, namespace, logs, spec)| {
            let annotations = json!({"anchorhold.dev/logs": logs});
            let mut metadata = json!({"name": "shop"});
            metadata.as_object_mut().unwrap().extend(
                namespace.map(|namespace| ("namespace".to_owned(), Value::from(namespace))),
            );
            let pod = json!({"labels": {"app": "shop"}, "annotations": annotations});
            match kind {
                "Pod" => {
                    let mut own = metadata;
                    own.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
                    json!({"apiVersion": "v1", "kind": kind, "metadata": own, "spec": spec})
                }
                _ => json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
                    "spec": {"serviceName": "shops", "selector": {"matchLabels": {"app": "shop"}},
                        "template": {"metadata": pod, "spec": spec}}}),
            }
        })
        .prop_map(without_service_name)
        .boxed()
}

/// Only a StatefulSet has one.
fn without_service_name(mut object: Value) -> Value {
    if object["kind"] == "Deployment" {
        object["spec"].as_object_mut().unwrap().remove("serviceName");
    }
    object
}

fn facts(name: &str) -> ImageFacts {
    let layer = |name: String| Layer {
        diff_id: Sha256::of(&name),
        verity: VerityInfo { root_hash: Sha256::of(name + "/root"), data_blocks: 2, salt: [3; 32] },
    };
    let passwd = "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n";
    ImageFacts {
        reference: format!("registry.example/{name}@sha256:{}", Sha256::of(name)),
        entrypoint: vec!["/bin/start".to_owned()],
        cmd: vec!["now".to_owned()],
        env: vec!["PATH=/bin".to_owned(), "LANG=C".to_owned()],
        working_dir: "/srv".to_owned(),
        user: "app".to_owned(),
        volumes: vec!["/var/lib/image".to_owned()],
        stop_signal: None,
        accounts: Accounts::parse(Some(passwd), Some("root:x:0:\nextra:x:77:app\n")),
        layers: vec![layer("base".to_owned()), layer(name.to_owned())],
    }
}

const OBJECTS: [&str; 4] = [
    r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "one", "b": "two"}}"#,
    r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "hush"}}"#,
    r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "prod"}, "data": {"a": "one", "b": "two"}}"#,
    r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "prod"}, "stringData": {"p": "hush"}}"#,
];

/// The pod of the object; `None` where Kubernetes' rules or the image's do not let it be.
fn pod(object: &Value) -> Option<Pod> {
    let mut text = OBJECTS.join("\n---\n");
    text.push_str(&format!("\n---\n{object}\n"));
    let texts = vec![NamedText { name: "pod.yaml".to_owned(), text }];
    let options = ReadOptions { platform: Platform::Cluster, ..ReadOptions::default() };
    let set = read_set(texts, &options).unwrap_or_else(|error| panic!("{error}\n{object:#}"));
    let images: BTreeMap<String, ImageFacts> =
        set.images().into_iter().map(|name| (name.clone(), facts(&name))).collect();
    set.files()[0].pod(&images).ok()
}

/// A host that is unlike another one wherever hosts may differ.
fn host(pod: &Pod, seed: &str) -> HostValues {
    let id = Sha256::of(seed).to_string();
    let digit = seed.len();
    let uid = format!("{}-0000-4000-8000-{}", &id[..8], &id[8..20]);
    let mut host = HostValues::for_user_network(pod, &id, &uid, &format!("node-{digit}"));
    host.pod_index = format!("{digit}");
    host.pod_name = match &pod.name {
        ah_pod::PodName::Ordinal { set } => format!("{set}-{digit}"),
        name => name.example(&id),
    };
    host.namespace = format!("namespace-{digit}");
    host.pod_ip = format!("10.0.{digit}.1");
    host.pod_ips = host.pod_ip.clone();
    host.host_ip = format!("192.168.{digit}.1");
    host.host_ips = host.host_ip.clone();
    host.service_ips.iter_mut().for_each(|ip| *ip = format!("10.96.{digit}.1"));
    host.node_memory_bytes = (digit as u64) << 32;
    host.dns = DnsFacts { nameservers: vec![format!("10.0.{digit}.2")], ..DnsFacts::default() };
    host.volume_version = format!("..2024_01_0{digit}_00_00_00.{digit}");
    for (file, value) in &mut host.file_ids {
        *value = Sha256::of(format!("{seed}{file}")).to_string()[..16].to_owned();
    }
    let layers = pod.containers.iter().flat_map(|container| &container.image.layers);
    for (number, layer) in layers.enumerate() {
        let path = format!("0{digit}/{number:02x}");
        host.pci_paths.entry(layer.verity.root_hash).or_insert(path);
    }
    host
}

/// Places of a request that may be changed: a pointer, and the value there.
fn leaves(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(value, &format!("{at}/{key}"), all);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
}

/// The places whose value both hosts agree about.
fn agreed(mine: &Value, theirs: &Value) -> Vec<String> {
    let mut all = Vec::new();
    leaves(mine, "", &mut all);
    // resolvers are the host's as a whole where dnsPolicy does not say None, also the lines that it takes from the pod
    let is_resolver = |at: &String| at == "/dns" || at.starts_with("/dns/");
    all.retain(|at| !at.is_empty() && !is_resolver(at) && mine.pointer(at) == theirs.pointer(at));
    all
}

/// Changes the value at a place, keeping its type; `false` where there is no other value of it.
fn change(request: &mut Value, at: &str, how: usize) -> bool {
    let Some(value) = request.pointer_mut(at) else { return false };
    match value {
        Value::String(text) if how.is_multiple_of(2) => text.push('x'),
        Value::String(text) if text.is_empty() => text.push('y'),
        Value::String(text) => drop(text.pop()),
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => {
            let Some(found) = number.as_i64() else { return false };
            *value = (found + if how.is_multiple_of(2) { 1 } else { -1 }).into();
        }
        Value::Array(items) if items.is_empty() => return false,
        Value::Array(items) if how.is_multiple_of(3) => {
            items.remove(how % items.len());
        }
        Value::Array(items) => items.push(items[how % items.len()].clone()),
        Value::Object(map) => {
            let Some(key) = map.keys().nth(how % map.len().max(1)).cloned() else { return false };
            // what is absent is what is at its default
            let removed = map.remove(&key);
            return !matches!(&removed, None | Some(Value::Null));
        }
        Value::Null => return false,
    }
    true
}

/// What two hosts may each do as they like: how they number commands, and what mode folders and links have.
fn as_theirs(request: &Request, other: &mut Value) {
    let mut differ = |name: &str, value: Value| {
        if let Some(member) = other.get_mut(name) {
            *member = value;
        }
    };
    match request {
        Request::ExecProcess(_) => differ("exec_id", "exec-of-theirs".into()),
        Request::CopyFile(copy) => {
            differ("dir_mode", 0o700.into());
            let kind = copy.file_mode & 0o170_000;
            if kind != 0o100_000 {
                differ("file_mode", (kind | 0o700).into());
            }
        }
        _ => {}
    }
}

/// Ends of the names of the node's files, whose contents are the host's to say; the last two are termination messages.
const NODE_FILES: [&str; 5] = ["-hosts", "-hostname", "-resolv.conf", "-termination-log", "-end"];

/// Whether a request is one that is looked at for changes: one that says what is in the pod and what it does. What the network needs and
/// how the host waits for a container are bounded instead.
fn is_judged(request: &Request) -> bool {
    use Request as R;
    match request {
        R::CopyFile(copy) => !NODE_FILES.iter().any(|name| copy.path.ends_with(name)),
        request => matches!(
            request,
            R::CreateSandbox(_)
                | R::CreateContainer(_)
                | R::StartContainer(_)
                | R::ExecProcess(_)
                | R::SignalProcess(_)
        ),
    }
}

/// All requests of the host are allowed; of those that are judged a change is denied.
fn check(pod: &Pod, changes: &[(usize, usize)]) -> Result<(), TestCaseError> {
    let policy = generate(pod, &Options::default())
        .map_err(|error| TestCaseError::fail(format!("no policy: {error}")))?
        .policy;
    let policy = Policy::compile(&policy).unwrap();
    let (mine, theirs) = (host(pod, "m"), host(pod, "theirs"));
    let requests = honest_requests(pod, &mine).unwrap();
    let others = honest_requests(pod, &theirs).unwrap();
    let judged = requests.iter().filter(|request| is_judged(request)).count();
    let mut state = State::new();
    let mut number = 0;
    for (request, other) in requests.into_iter().zip(others) {
        if is_judged(&request) {
            let (own, mut other) = (request.to_input().unwrap(), other.to_input().unwrap());
            as_theirs(&request, &mut other);
            let places = agreed(&own, &other);
            for (place, how) in changes.iter().skip(number).step_by(judged) {
                let Some(at) = places.get(place % places.len().max(1)) else { break };
                denied(&policy, &state, &request, &own, at, *how)?;
            }
            number += 1;
        }
        let ended = ends(&request).map(str::to_owned);
        let method = request.method();
        let permit = decide(&policy, &state, request)
            .map_err(|denial| TestCaseError::fail(format!("{method}: {denial}")))?;
        state.commit(permit.into_parts().1).unwrap();
        if let Some(id) = ended {
            state.note_exit(&id, 0);
        }
    }
    Ok(())
}

fn denied(
    policy: &Policy,
    state: &State,
    request: &Request,
    own: &Value,
    at: &str,
    how: usize,
) -> Result<(), TestCaseError> {
    let mut changed = own.clone();
    if !change(&mut changed, at, how) {
        return Ok(());
    }
    // what is no request at all gets no further than the codec
    let Ok(changed) = Request::from_json(request.method(), changed) else { return Ok(()) };
    if changed == *request {
        return Ok(());
    }
    let found = own.pointer(at);
    match decide(policy, state, changed) {
        Err(_) => Ok(()),
        Ok(_) => {
            let method = request.method();
            Err(TestCaseError::fail(format!(
                "{method}{at}: allowed with another value than {found:?} in {own:#}"
            )))
        }
    }
}

#[test]
fn attack_any_single_change_of_an_honest_request() {
    let config = Config {
        cases: PODS,
        max_shrink_iters: 16,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let changes = proptest::collection::vec((any::<usize>(), any::<usize>()), CHANGES);
    let result = runner.run(&(object(), changes), |(object, changes)| match pod(&object) {
        Some(pod) => check(&pod, &changes),
        None => Err(TestCaseError::reject("no such process")),
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
