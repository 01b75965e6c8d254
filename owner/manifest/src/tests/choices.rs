//! The owner's choices that no field has: read whole, or refused with their place.

use ah_pod::{Bound, TerminationLog, WholePod, Word};

use super::{pod_of, pod_yaml};

fn with(annotation: &str, container: &str) -> String {
    pod_yaml(container, "")
        .replace("name: web\n", &format!("name: web\n  annotations:\n    {annotation}\n"))
}

const ENV: &str = "stdin: true\nenv:\n- {name: LEVEL, value: info}\n- name: IP\n  valueFrom: {fieldRef: {fieldPath: status.podIP}}";

#[test]
fn choices_are_read() {
    let check = |annotation: &str, expect: &dyn Fn(&ah_pod::Pod) -> bool| {
        let pod = pod_of(&with(&format!("anchorhold.dev/{annotation}"), ENV)).unwrap();
        assert!(expect(&pod), "{annotation}: {pod:?}");
    };
    let plain = pod_of(&pod_yaml(ENV, "")).unwrap();
    assert!(plain.containers[0].stdin && plain.containers[0].choices == Default::default());
    assert_eq!(plain.whole, WholePod::NotAwaited);
    check("stdin: ''", &|pod| !pod.containers[0].stdin);
    check("stdin: app", &|pod| pod.containers[0].stdin);
    check("termination-log: app", &|pod| {
        pod.containers[0].choices.termination_log == TerminationLog::Readable
    });
    check("whole-pod: 'true'", &|pod| pod.whole == WholePod::Awaited);
    check("whole-pod: 'false'", &|pod| pod.whole == WholePod::NotAwaited);
    check("debug-key: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", &|pod| {
        pod.owner_keys.debug.is_some_and(|key| key.to_string().starts_with("11qYAYKx"))
    });
    assert_eq!(plain.owner_keys, Default::default());
    let line =
        "issuer=platform key=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo= feed=mesh min-version=3";
    check(&format!("fragments: {line}"), &|pod| {
        pod.owner_keys.fragments.iter().any(|source| source.min_version == 3)
    });
    check("fragment: whatever a host carries", &|pod| pod.owner_keys == Default::default());
    check("mutable: '{\"app\":{\"LEVEL\":{\"one-of\":[\"info\",\"debug\"]}}}'", &|pod| {
        let bound = Bound::OneOf(vec!["info".into(), "debug".into()]);
        pod.containers[0].choices.mutable.get("LEVEL") == Some(&bound)
    });
    let exec =
        "exec: '{\"app\":[[\"ls\"],[\"tail\",{\"pattern\":\"[0-9]\"},{\"prefix\":\"/x/\"}]]}'";
    check(exec, &|pod| {
        let tail = vec![
            Word::Exact("tail".into()),
            Word::Within(Bound::Pattern("[0-9]".into())),
            Word::Within(Bound::Prefix("/x/".into())),
        ];
        pod.containers[0].execs == [["ls"]] && pod.containers[0].choices.exec_patterns == [tail]
    });
}

#[test]
fn what_is_no_choice_is_an_error_at_its_annotation() {
    for (annotation, words) in [
        ("stdin: other", "a container of the pod: app"),
        ("termination-log: ''", "a container of the pod: app"),
        ("whole-pod: 'yes'", "\"true\" or \"false\""),
        ("fragments: issuer=platform", "issuer=NAME key=BASE64"),
        ("debug-key: AAAA", "Ed25519 public key"),
        ("debug-key: ''", "Ed25519 public key"),
        ("mutable: '{\"other\":{}}'", "a container of the pod: app"),
        ("mutable: '{\"app\":{\"LEVEL\":{\"regex\":\".\"}}}'", "one-of, pattern or prefix"),
        ("mutable: '{\"app\":{\"LEVEL\":\"debug\"}}'", "one-of, pattern or prefix"),
        ("mutable: '{\"app\":{\"NONE\":{\"pattern\":\".\"}}}'", "a variable in env of container"),
        ("mutable: '{\"app\":{\"IP\":{\"pattern\":\".*\"}}}'", "with a value of its own"),
        ("exec: '{\"app\":[[\"ls\",{\"glob\":\"*\"}]]}'", "JSON like"),
        ("exec: '{\"app\":[[\"ls\",{\"pattern\":\"a\",\"prefix\":\"b\"}]]}'", "JSON like"),
        ("exec: '{\"app\":[[\"ls\",1]]}'", "JSON like"),
    ] {
        let error = pod_of(&with(&format!("anchorhold.dev/{annotation}"), ENV)).unwrap_err();
        assert!(error.problem.to_string().contains(words), "{annotation}: {error}");
        assert!(error.place.path.contains("metadata.annotations.anchorhold.dev/"), "{error}");
    }
    let closed = with("anchorhold.dev/stdin: app", "");
    let error = pod_of(&closed).unwrap_err();
    assert!(error.problem.to_string().contains("stdin: true"), "{error}");
}
