//! Several files read together, and objects that serve the pods of others.

use crate::{LoadError, NamedText, ReadOptions, load, read_set};

use super::*;

fn texts(texts: &[(&str, &str)]) -> Vec<NamedText> {
    let named =
        |(name, text): &(&str, &str)| NamedText { name: (*name).into(), text: (*text).into() };
    texts.iter().map(named).collect()
}

fn check_set_error(files: &[(&str, &str)], file: &str, words: &str) {
    let mut texts = texts(files);
    for _ in 0..texts.len() {
        texts.rotate_left(1);
        let error = read_set(texts.clone(), &ReadOptions::default()).unwrap_err();
        assert_eq!(error.place.file.as_deref(), Some(file), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// The first container's resources with these objects before the pod.
fn resources(objects: &str, container: &str) -> Result<ah_pod::Resources, ManifestError> {
    pod_of(&format!("{objects}---\n{}", pod_yaml(container, "")))
        .map(|pod| pod.containers[0].resources)
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {K: v}\n";

#[test]
fn carriers_of_annotations_need_nothing_of_what_the_pod_takes_values_from() {
    let user = pod_yaml("envFrom: [{configMapRef: {name: c}}]", "");
    let user = user.replacen("spec:\n", "  annotations: {a: b}\nspec:\n", 1);
    let named = |text: &str| NamedText { name: "pod.yaml".into(), text: text.into() };
    let carriers = |text: &str| crate::carriers(named(text), &crate::Rules::shipped());
    assert!(read(&user).is_err());
    let list = format!("{MAP}---\n{user}");
    let [carrier] = &carriers(&list).unwrap()[..] else { panic!("one pod") };
    assert_eq!((carrier.kind.as_str(), carrier.object_name.as_str()), ("Pod", "web"));
    assert_eq!(carrier.annotations, BTreeMap::from([("a".into(), "b".into())]));
    let error = carriers(&user.replace("envFrom", "envFro")).unwrap_err();
    assert_eq!(error.place.file.as_deref(), Some("pod.yaml"));
    assert_eq!(error.place.path, "spec.containers[0].envFro");
}

#[test]
fn files_serve_one_another_in_any_order() {
    let user = pod_yaml("envFrom: [{configMapRef: {name: c}}]", "");
    let mut files = texts(&[("b.yaml", MAP), ("a.yaml", &user), ("-", &pod_yaml("", ""))]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        files.rotate_left(1);
        let set = read_set(files.clone(), &ReadOptions::default()).unwrap();
        let names: Vec<_> =
            set.files().iter().map(|file| file.name().unwrap().to_owned()).collect();
        assert_eq!(names, ["-", "a.yaml", "b.yaml"]);
        assert_eq!(set.images().len(), 1);
        let images = BTreeMap::from([("web:1".to_owned(), facts())]);
        let pods: Vec<_> =
            set.pods().map(|(file, pod)| file.to_pod(pod, &images).unwrap()).collect();
        assert_eq!(pods[1].containers[0].env[0].value, "v".into());
        let pinned = BTreeMap::from([("web:1".to_owned(), "web:1@sha256:00".to_owned())]);
        let edited: Vec<_> = set
            .files()
            .iter()
            .map(|file| file.with_annotation_and_digests("k", "v", &pinned).unwrap())
            .collect();
        assert_eq!(edited[2], MAP);
        assert!(edited[1].contains("web:1@sha256:00"));
        seen.push((pods, edited));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn errors_name_the_file() {
    let user = pod_yaml("envFrom: [{configMapRef: {name: c}}]", "");
    check_set_error(
        &[("a.yaml", &user), ("b.yaml", &pod_yaml("", ""))],
        "a.yaml",
        "ConfigMap \"c\" is not",
    );
    check_set_error(&[("a.yaml", MAP), ("b.yaml", "a: [\n")], "b.yaml", "not valid YAML");
    check_set_error(
        &[("a.yaml", MAP), ("b.yaml", &pod_yaml("ttyy: true", ""))],
        "b.yaml",
        "unknown field",
    );
    check_set_error(
        &[("a.yaml", MAP), ("b.yaml", &MAP.replace("K: v", "K: w"))],
        "b.yaml",
        "ConfigMap \"c\" is given twice",
    );
    check_set_error(&[("a.yaml", "- a\n"), ("b.yaml", MAP)], "a.yaml", "not a mapping");
    let same = texts(&[("a.yaml", MAP), ("b.yaml", MAP), ("c.yaml", &user)]);
    read_set(same, &ReadOptions::default()).unwrap();
    // another namespace is another object
    let other = MAP.replace("name: c", "name: c, namespace: prod").replace("K: v", "K: w");
    read_set(texts(&[("a.yaml", MAP), ("b.yaml", &other)]), &ReadOptions::default()).unwrap();
}

#[test]
fn folders_and_files_are_loaded() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Empty { .. })));
    for (name, text) in [("b.yml", "b"), ("a.yaml", "a"), ("c.json", "{}"), ("notes.txt", "x")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::create_dir(dir.path().join("d.yaml")).unwrap();
    let texts: Vec<_> = load(dir.path()).unwrap().into_iter().map(|text| text.text).collect();
    assert_eq!(texts, ["a", "b", "{}"]);
    assert_eq!(load(&dir.path().join("notes.txt")).unwrap()[0].text, "x");
    assert!(matches!(load(&dir.path().join("none.yaml")), Err(LoadError::Read { .. })));
    std::fs::write(dir.path().join("a.yaml"), [0xff]).unwrap();
    assert!(matches!(load(dir.path()), Err(LoadError::Read { .. })));
}

#[test]
fn limit_ranges_fill_in_what_a_container_does_not_say() {
    let range = |item: &str| {
        format!(
            "apiVersion: v1\nkind: LimitRange\nmetadata: {{name: l}}\nspec: {{limits: [{{type: Container, {item}}}]}}\n"
        )
    };
    let both = range("default: {memory: 2Mi}, defaultRequest: {memory: 1Mi, cpu: 1}");
    let check = |objects: &str, container: &str, expect: [Option<u64>; 4]| {
        let found = resources(objects, container).unwrap_or_else(|error| panic!("{error}"));
        let found = [
            found.cpu_request_milli,
            found.cpu_limit_milli,
            found.memory_request_bytes,
            found.memory_limit_bytes,
        ];
        assert_eq!(found, expect, "{objects}{container}");
    };
    let (one, two) = (Some(1 << 20), Some(2 << 20));
    check(&both, "", [Some(1000), None, one, two]);
    // its own values stay, and a request that only a limit says is the limit
    check(&both, "resources: {limits: {memory: 1Mi}}", [Some(1000), None, one, one]);
    check(&both, "resources: {requests: {cpu: 2}}", [Some(2000), None, one, two]);
    check(&range("max: {memory: 2Mi}"), "", [None, None, two, two]);
    check(&range("min: {memory: 1Mi}"), "", [None, None, one, None]);
    check(&both.replace("Container", "Pod"), "", [None; 4]);
    check(&both.replace("name: l", "name: l, namespace: prod"), "", [None; 4]);
    let text = format!("{both}---\n{}", both.replace("2Mi", "3Mi"));
    let error = resources(&text, "").unwrap_err();
    assert!(error.to_string().contains("default limit for memory is given twice"), "{error}");
    let error = resources(&both, "resources: {requests: {memory: 4Mi}}").unwrap_err();
    assert!(error.to_string().contains("at most the limit"), "{error}");
    check_error(&both.replace("default:", "defalt:"), "spec.limits[0].defalt", "unknown field");
    let env = "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]";
    let pod = pod_of(&format!("{both}---\n{}", pod_yaml(env, ""))).unwrap();
    assert_eq!(pod.containers[0].env[0].value, "2097152".into());
}

#[test]
fn service_accounts_fill_in_what_a_pod_does_not_say() {
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\nautomountServiceAccountToken: false\nimagePullSecrets: [{name: s}]\n---\n";
    let secrets = |spec: &str| {
        let manifest = read(&format!("{account}{}", pod_yaml("", spec))).unwrap();
        manifest.pods()[0].image_pull_secrets().to_vec()
    };
    assert_eq!(secrets("serviceAccountName: robot"), ["s"]);
    assert_eq!(secrets("serviceAccountName: robot\nimagePullSecrets: [{name: t}]"), ["t"]);
    assert!(secrets("").is_empty());
    let default = account.replace("robot", "default");
    assert_eq!(
        read(&format!("{default}{}", pod_yaml("", ""))).unwrap().pods()[0].image_pull_secrets(),
        ["s"]
    );
    check_error(
        &account.replace("automountService", "automountServce"),
        "automountServceAccountToken",
        "unknown field",
    );
}
