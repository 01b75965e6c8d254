use std::collections::BTreeMap;

use ah_digest::Sha256;
use ah_pod::{
    Accounts, HostFact, HostValues, ImageFacts, Layer, Logs, Pod, PodName, Role, Seccomp, Text,
    requests,
};
use ah_verity::VerityInfo;

use crate::{Edits, Manifest, ManifestError, PodTemplate, Problem, read};

mod choices;
mod editing;
mod fields;
mod kinds;
mod mutated;
mod rules;
mod services;
mod sets;
mod values;
mod variants;
mod volumes;

/// A Pod of one container, with more fields of the container and of the spec.
fn pod_yaml(container: &str, spec: &str) -> String {
    let indent = |text: &str, by: usize| -> String {
        text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n{}  containers:\n  - name: app\n    image: web:1\n{}",
        indent(spec, 2),
        indent(container, 4),
    )
}

fn facts() -> ImageFacts {
    let verity = VerityInfo { root_hash: Sha256::of("root"), data_blocks: 1, salt: [0; 32] };
    ImageFacts {
        reference: "docker.io/library/web@sha256:00".into(),
        entrypoint: vec!["/bin/web".into()],
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![Layer { diff_id: Sha256::of("tar"), verity }],
    }
}

fn pod_on(platform: crate::Platform, text: &str) -> Result<Pod, ManifestError> {
    let options = crate::ReadOptions { platform, ..Default::default() };
    let text = crate::NamedText { name: "pod.yaml".into(), text: text.into() };
    let set = crate::read_set(vec![text], &options)?;
    set.files()[0].pod(&BTreeMap::from([("web:1".to_owned(), facts())]))
}

fn pod_of(text: &str) -> Result<Pod, ManifestError> {
    let manifest = read(text)?;
    let images = manifest.images().into_iter().map(|image| (image, facts())).collect();
    manifest.pod(&images)
}

fn pod(container: &str, spec: &str) -> Pod {
    pod_of(&pod_yaml(container, spec)).unwrap()
}

/// The error's path and the start of its words.
fn check_error(text: &str, path: &str, words: &str) {
    let error = pod_of(text).expect_err(text);
    assert_eq!(error.place.path, path, "{error}");
    assert!(error.problem.to_string().contains(words), "{error}");
}

#[test]
fn a_pod_is_read_with_kubernetes_defaults() {
    let pod = pod("", "");
    assert_eq!(pod.name, PodName::Fixed("web".into()));
    let [app] = pod.containers.as_slice() else { panic!("one container") };
    assert_eq!((app.name.as_str(), app.role), ("app", Role::Main));
    assert_eq!(app.termination_message_path, "/dev/termination-log");
    assert_eq!(pod.logs, Logs::Readable);
    assert_eq!(pod.termination_grace_seconds, 30);
    assert!(app.execs.is_empty() && !app.release_socket);
}

#[test]
fn a_deployment_names_its_pods_itself() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: prod}\nspec:\n  replicas: 3\n  \
                selector: {matchLabels: {a: b}}\n  template:\n    metadata:\n      labels: {a: b}\n      annotations:\n        \
                anchorhold.dev/logs: \"false\"\n    spec:\n      containers:\n      - {name: app, image: web}\n";
    let pod = pod_of(text).unwrap();
    assert_eq!(pod.name.pattern(), "^web-[4-9bcdf]{1,10}-[bcdfghjklmnpqrstvwxz2456789]{5}$");
    assert_eq!(pod.namespace.as_deref(), Some("prod"));
    assert_eq!(pod.logs, Logs::Closed);
    let never = text.replace("    spec:\n", "    spec:\n      restartPolicy: Never\n");
    check_error(&never, "spec.template.spec.restartPolicy", "as a Deployment needs");
    let unknown = text.replace("  replicas", "  replica");
    check_error(&unknown, "spec.replica", "unknown field");
}

#[test]
fn attack_yaml_with_unknown_field() {
    pod_of(&pod_yaml("workingDir: /x", "")).unwrap();
    for (container, spec, path) in [
        ("workingdir: /x", "", "spec.containers[0].workingdir"),
        ("securityContext:\n  privilegd: true", "", "spec.containers[0].securityContext.privilegd"),
        ("", "hostNetwrk: true", "spec.hostNetwrk"),
        (
            "volumeMounts:\n- {name: a, mountPath: /a, readonly: true}",
            "",
            "spec.containers[0].volumeMounts[0].readonly",
        ),
    ] {
        check_error(&pod_yaml(container, spec), path, "unknown field");
    }
    let error = read(&pod_yaml("workingdir: /x", "")).unwrap_err();
    assert_eq!((error.place.document, error.place.line), (1, Some(9)));
    assert!(error.hint().is_some());
    let text = pod_yaml("", "").replace("name: web", "name: web\n  labls: {}");
    check_error(&text, "metadata.labls", "unknown field");
    let text = format!("x: 1\n{}", pod_yaml("", ""));
    check_error(&text, "x", "unknown field");
}

#[test]
fn a_value_of_another_type_is_named_by_its_path() {
    check_error(&pod_yaml("tty: 1", ""), "spec.containers[0].tty", "type");
    check_error(
        &pod_yaml("env:\n- {name: A, value: 1}", ""),
        "spec.containers[0].env[0].value",
        "type",
    );
    check_error(
        &pod_yaml("", "terminationGracePeriodSeconds: soon"),
        "spec.terminationGracePeriodSeconds",
        "type",
    );
}

#[test]
fn other_documents_pass_or_are_refused_by_kind() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {anything: goes}\n---\n";
    pod_of(&format!("{service}{}", pod_yaml("", ""))).unwrap();
    check_error(&service.replace("Service", "Sirvice"), "kind", "v1/Sirvice");
    pod_of(&format!("{}{}", service.replace("v1", "example.com/v1"), pod_yaml("", ""))).unwrap();
    check_error("apiVersion: batch/v1\nkind: Job\n", "metadata.name", "missing");
    check_error("kind: Pod\n", "kind", "not supported");
    check_error("- a\n", "", "not a mapping");
    let two = format!("{}---\n{}", pod_yaml("", ""), pod_yaml("", ""));
    let error = pod_of(&two).unwrap_err();
    assert_eq!(error.problem, Problem::PodCount { found: 2, expected: "one" });
    assert_eq!(read(&two).unwrap().pods().len(), 2);
    let error = read(&format!("{service}{}", pod_yaml("ttyy: true", ""))).unwrap_err();
    assert_eq!((error.place.document, error.place.line), (2, Some(14)));
}

#[test]
fn init_containers_and_sidecars_come_first() {
    let spec =
        "initContainers:\n- {name: one, image: i}\n- {name: two, image: i, restartPolicy: Always}";
    let pod = pod("", spec);
    let roles: Vec<_> =
        pod.containers.iter().map(|container| (container.name.as_str(), container.role)).collect();
    assert_eq!(roles, [("one", Role::Init), ("two", Role::Sidecar), ("app", Role::Main)]);
    check_error(
        &pod_yaml("restartPolicy: Always", ""),
        "spec.containers[0].restartPolicy",
        "init container",
    );
}

#[test]
fn the_owners_choices_are_read_and_nothing_like_them_is_ignored() {
    let with = |annotation: &str| {
        pod_yaml("", "")
            .replace("name: web", &format!("name: web\n  annotations:\n    {annotation}"))
    };
    let pod = pod_of(&with("anchorhold.dev/release-socket: app")).unwrap();
    assert!(pod.containers[0].release_socket);
    let pod = pod_of(&with("anchorhold.dev/exec: '{\"app\":[[\"ls\",\"-l\"]]}'")).unwrap();
    assert_eq!(pod.containers[0].execs, [["ls", "-l"]]);
    for (annotation, words) in [
        ("anchorhold.dev/release-socket: other", "a container of the pod: app"),
        ("anchorhold.dev/exec: '{\"other\":[[\"ls\"]]}'", "a container of the pod"),
        ("anchorhold.dev/exec: '{\"app\":[[]]}'", "JSON like"),
        ("anchorhold.dev/logs: \"no\"", "\"true\" or \"false\""),
        ("anchorhold.dev/log: \"false\"", "unknown field"),
    ] {
        let error = pod_of(&with(annotation)).unwrap_err();
        assert!(error.problem.to_string().contains(words), "{error}");
    }
}

#[test]
fn probe_and_lifecycle_commands_may_be_run() {
    let container = "env:\n- {name: A, value: x}\n- {name: B, value: $(A)}\n- name: C\n  valueFrom: {fieldRef: {fieldPath: status.podIP}}\n\
                     livenessProbe: {exec: {command: [check, $(A), $(B), $(C), $(D)]}, periodSeconds: 3}\n\
                     readinessProbe: {httpGet: {port: 80}}\n\
                     lifecycle: {preStop: {exec: {command: [stop, $(A)]}}, postStart: {sleep: {seconds: 1}}}\n";
    let pod = pod(container, "");
    // probe commands are expanded with what is written in env, lifecycle commands not at all
    assert_eq!(
        pod.containers[0].execs,
        [vec!["check", "x", "$(A)", "", "$(D)"], vec!["stop", "$(A)"]]
    );
    check_error(
        &pod_yaml("livenessProbe: {exec: {}}", ""),
        "spec.containers[0].livenessProbe.exec.command",
        "a command",
    );
}

#[test]
fn the_pods_stop_signal_comes_before_the_images() {
    let stop_signal = |container: &str| {
        let manifest = read(&pod_yaml(container, "")).unwrap();
        let image = ImageFacts { stop_signal: Some("SIGUSR1".to_owned()), ..facts() };
        let pod = manifest.pod(&BTreeMap::from([("web:1".to_owned(), image)])).unwrap();
        pod.containers[0].image.stop_signal.clone().unwrap()
    };
    assert_eq!(stop_signal(""), "SIGUSR1");
    assert_eq!(stop_signal("lifecycle: {stopSignal: SIGQUIT}"), "SIGQUIT");
}

#[test]
fn what_image_and_manifest_contradict_names_the_container() {
    let manifest = read(&pod_yaml("securityContext: {runAsNonRoot: true}", "")).unwrap();
    let images = BTreeMap::from([("web:1".to_owned(), facts())]);
    let error = manifest.pod(&images).unwrap_err();
    assert_eq!((error.place.path.as_str(), error.place.line), ("spec.containers[0]", Some(7)));
    assert!(error.to_string().contains("user 0"), "{error}");
    assert!(error.hint().unwrap().contains("runAsUser"));
    let error = manifest.pod(&BTreeMap::new()).unwrap_err();
    assert_eq!(error.problem, Problem::NoImage { image: "web:1".into() });
}

#[test]
fn the_projects_examples_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut read_files = 0;
    for example in std::fs::read_dir(folder).unwrap() {
        let file = example.unwrap().path().join("pod.yaml");
        if let Ok(text) = std::fs::read_to_string(&file) {
            crate::read_file(&file, &text).unwrap_or_else(|error| panic!("{error}"));
            read_files += 1;
        }
    }
    assert!(read_files > 0, "no example has a pod.yaml");
}
