//! Volumes of files: from objects of the same file, from fields, from tokens.

use ah_pod::{FileContent, VolumeSource};

use super::*;
use crate::Platform;

const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {K: v, L: w}\nbinaryData: {B: /w==}\n---\n\
     apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {P: cHc=}\nstringData: {Q: q}\n---\n";

#[test]
fn the_name_of_a_statefulsets_pod_is_its_number_behind_the_sets_name() {
    let yaml = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  selector: {}\n  serviceName: s\n  template:\n    spec:\n      volumes: [{name: v, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]\n      containers: [{name: app, image: 'web:1', volumeMounts: [{name: v, mountPath: /v}]}]\n";
    let expected = vec![("name".to_owned(), 0o644, "db-=PodIndex".to_owned())];
    assert_eq!(files(yaml).unwrap(), expected);
}

/// Path, mode and contents of each file: text, `=fact`, `*` what should be there, `token`.
fn files(text: &str) -> Result<Vec<(String, u32, String)>, ManifestError> {
    let pod = pod_of(text)?;
    let VolumeSource::Files(volume) = &pod.volumes[0].source else { panic!("{:?}", pod.volumes) };
    let files = volume.files.iter().map(|file| {
        let content = match &file.content {
            FileContent::Fixed(bytes) => String::from_utf8_lossy(&bytes.0).into_owned(),
            FileContent::Host(fact) => format!("={fact:?}"),
            FileContent::Behind { before, fact } => format!("{before}={fact:?}"),
            FileContent::Free(what) => format!("*{what}"),
            FileContent::Token => "token".into(),
        };
        (file.path.clone(), file.mode, content)
    });
    Ok(files.collect())
}

fn with(volume: &str) -> String {
    format!("{OBJECTS}{}", pod_yaml("", &format!("volumes: [{{name: v, {volume}}}]")))
}

fn unpinned(volume: &str, choices: &str) -> String {
    let annotation = format!("name: web\n  annotations:\n    anchorhold.dev/unpinned: '{choices}'");
    with(volume).replace("name: web", &annotation)
}

fn check(volume: &str, expect: &[(&str, u32, &str)]) {
    let expect: Vec<_> = expect
        .iter()
        .map(|(path, mode, text)| ((*path).to_owned(), *mode, (*text).to_owned()))
        .collect();
    assert_eq!(files(&with(volume)).unwrap(), expect, "{volume}");
}

fn refused(volume: &str, path: &str, words: &str) {
    let path = format!("spec.volumes[0].{path}");
    check_error(&with(volume), path.trim_end_matches('.'), words);
}

#[test]
fn objects_of_the_same_file_give_files() {
    check(
        "configMap: {name: c}",
        &[("B", 0o644, "\u{fffd}"), ("K", 0o644, "v"), ("L", 0o644, "w")],
    );
    check("secret: {secretName: s, defaultMode: 0400}", &[("P", 0o400, "pw"), ("Q", 0o400, "q")]);
    check(
        "configMap: {name: c, defaultMode: 292, items: [{key: K, path: a/b}, {key: L, path: c, mode: 0755}]}",
        &[("a/b", 0o444, "v"), ("c", 0o755, "w")],
    );
    check("configMap: {name: none, optional: true}", &[]);
    check("configMap: {name: c, optional: true, items: [{key: none, path: x}]}", &[]);
    check(
        "projected: {sources: [{configMap: {name: c, items: [{key: K, path: x}]}}, {secret: {name: s, items: [{key: P, path: x}]}}]}",
        &[("x", 0o644, "pw")],
    );
    let error = pod_of(&with("configMap: {name: none}")).unwrap_err();
    assert_eq!(error.place.path, "spec.volumes[0].configMap");
    assert!(error.to_string().contains("configMap/none is not in the file"), "{error}");
    assert!(error.hint().unwrap().contains("anchorhold.dev/unpinned"));
    refused("secret: {}", "secret.secretName", "a name");
    refused("configMap: {name: c}, secret: {secretName: s}", "", "one kind");
    refused("configMap: {name: c, defaultMode: 512}", "configMap.defaultMode", "0777");
    let item = |item: &str| format!("configMap: {{name: c, items: [{{{item}}}]}}");
    refused(&item("key: none, path: x"), "configMap.items[0]", "key \"none\" of configMap/c");
    refused(&item("key: K, path: x, mode: -1"), "configMap.items[0].mode", "0777");
    for path in ["/x", "../x", "a/../x", "..x", "", ".", "$(pod-ip)"] {
        let item = item(&format!("key: K, path: \"{path}\""));
        refused(&item, "configMap.items[0].path", "relative path");
    }
    let both = "configMap: {name: c, items: [{key: K, path: a}, {key: L, path: a/b}]}";
    refused(both, "configMap", "file or a folder");
}

#[test]
fn another_namespace_is_another_object() {
    let text = with("configMap: {name: c}")
        .replace("metadata: {name: c}", "metadata: {name: c, namespace: other}");
    check_error(&text, "spec.volumes[0].configMap", "configMap/c is not in the file");
}

#[test]
fn fields_of_the_pod_give_files() {
    let field = |field: &str| {
        let volume =
            format!("downwardAPI: {{items: [{{path: f, fieldRef: {{fieldPath: \"{field}\"}}}}]}}");
        with(&volume).replace("name: web\n", "name: web\n  labels: {b: \"2\", a/x: 'q\"'}\n")
    };
    for (name, expect) in [
        ("metadata.name", "web"),
        ("metadata.namespace", "=PodNamespace"),
        ("metadata.uid", "=PodUid"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels", "a/x=\"q\\\"\"\nb=\"2\""),
    ] {
        assert_eq!(files(&field(name)).unwrap(), [("f".into(), 0o644, expect.into())], "{name}");
    }
    for (name, words) in [
        ("metadata.annotations", "cannot be pinned"),
        ("metadata.labels['none']", "not in the file"),
        ("status.podIP", "metadata.uid"),
    ] {
        assert!(files(&field(name)).unwrap_err().to_string().contains(words), "{name}");
    }
    let resource = "downwardAPI: {items: [{path: f, mode: 0600, resourceFieldRef: {containerName: app, resource: requests.cpu, divisor: 1m}}]}";
    let text = with(resource)
        .replace("image: web:1\n", "image: web:1\n    resources: {requests: {cpu: 250m}}\n");
    assert_eq!(files(&text).unwrap(), [("f".into(), 0o600, "250".into())]);
    let unnamed = resource.replace("containerName: app, ", "");
    refused(&unnamed, "downwardAPI.items[0].resourceFieldRef.containerName", "a container");
}

#[test]
fn attack_contents_left_to_the_host_without_the_owner_s_word() {
    let choice = "[\"configMap/none\"]";
    let volume = "configMap: {name: none}";
    let pod = pod_of(&unpinned(volume, choice)).unwrap();
    let VolumeSource::Files(found) = &pod.volumes[0].source else { panic!() };
    let unpinned_objects = found.unpinned.as_ref().unwrap();
    assert_eq!(
        (unpinned_objects.objects.as_slice(), unpinned_objects.mode),
        (&["configMap/none".to_owned()][..], 0o644)
    );
    // The names are known where the owner lists them.
    let items = "configMap: {name: none, items: [{key: a, path: b}]}";
    assert_eq!(
        files(&unpinned(items, choice)).unwrap(),
        [("b".into(), 0o644, "*configMap/none".into())]
    );
    for (volume, choice) in [
        (volume, "[\"secret/none\"]"),
        (volume, "[\"configMap/other\"]"),
        ("secret: {secretName: none}", choice),
    ] {
        let error = pod_of(&unpinned(volume, choice)).unwrap_err();
        assert!(error.to_string().contains("is not in the file"), "{error}");
    }
    // A choice that does nothing was meant for something.
    for choice in ["[\"configMap/c\"]", "[\"configMap/none\", \"configMap/more\"]"] {
        let volume = if choice.contains("none") { volume } else { "configMap: {name: c}" };
        let error = pod_of(&unpinned(volume, choice)).unwrap_err();
        assert!(error.place.path.ends_with("anchorhold.dev/unpinned"), "{error}");
    }
    let error = pod_of(&unpinned(volume, "configMap/none")).unwrap_err();
    assert!(error.to_string().contains("JSON like"), "{error}");
}

/// As the admission plugin of Kubernetes 1.33 writes it into a pod.
const LIVE: &str = "volumes:\n- name: kube-api-access-x7k2p\n  projected:\n    defaultMode: 420\n    sources:\n    \
    - serviceAccountToken: {expirationSeconds: 3607, path: token}\n    \
    - configMap: {items: [{key: ca.crt, path: ca.crt}], name: kube-root-ca.crt}\n    \
    - downwardAPI: {items: [{fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}, path: namespace}]}";
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn a_live_pod_has_its_token_already() {
    let mount = format!(
        "volumeMounts: [{{name: kube-api-access-x7k2p, mountPath: {TOKEN_PATH}, readOnly: true}}]"
    );
    let text = pod_yaml(&mount, LIVE);
    let expect = [
        ("ca.crt".to_owned(), 0o644, "*configMap/kube-root-ca.crt".to_owned()),
        ("namespace".into(), 0o644, "=PodNamespace".into()),
        ("token".into(), 0o644, "token".into()),
    ];
    assert_eq!(files(&text).unwrap(), expect);
    let live = pod_on(Platform::Cluster, &text).unwrap();
    assert_eq!((live.volumes.len(), live.containers[0].mounts.len()), (1, 1));
    // What the cluster adds to a pod without it gives the same requests, but for the name that no request has.
    let made = pod_of(&pod_yaml("", "automountServiceAccountToken: true")).unwrap();
    let request = |pod: &Pod| {
        requests::copy_files(pod, &HostValues::for_user_network(pod, &"a".repeat(64), "u", "n"))
    };
    assert_eq!(request(&made).unwrap(), request(&live).unwrap());
    let root = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-root-ca.crt}\ndata: {ca.crt: PEM}\n---\n";
    assert_eq!(files(&format!("{root}{text}")).unwrap()[0].2, "PEM");
    // The certificates alone are a ConfigMap like any other.
    let alone = with("projected: {sources: [{configMap: {name: kube-root-ca.crt}}]}");
    assert!(pod_of(&alone).unwrap_err().to_string().contains("cannot be pinned"));
}

#[test]
fn a_token_is_mounted_where_the_platform_would() {
    let account = |automount: &str| {
        format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: acc}}\n{automount}\n---\n")
    };
    let check = |platform, account: &str, spec: &str, expect: bool| {
        let text = format!("{account}{}", pod_yaml("", spec));
        let pod = pod_on(platform, &text).unwrap();
        let mounts = &pod.containers[0].mounts;
        assert_eq!(
            mounts.iter().any(|mount| mount.path == TOKEN_PATH),
            expect,
            "{platform:?} {text}"
        );
        assert_eq!(pod.volumes.len(), usize::from(expect));
    };
    use Platform::{Cluster, OneMachine};
    let own = "serviceAccountName: acc";
    let (yes, no) = ("automountServiceAccountToken: true", "automountServiceAccountToken: false");
    check(OneMachine, "", "", false);
    check(Cluster, "", "", true);
    check(OneMachine, "", yes, true);
    check(Cluster, "", no, false);
    check(Cluster, &account(no), own, false);
    check(Cluster, &account(no), "", true);
    check(Cluster, &account(no), &format!("{own}\n{yes}"), true);
    check(OneMachine, &account(yes), own, true);
}

#[test]
fn what_a_pod_runs_on_is_its_own_to_say() {
    let text = |word: &str| {
        let annotations = format!("  annotations: {{anchorhold.dev/runs-on: {word}}}\nspec:\n");
        pod_yaml("", "").replacen("spec:\n", &annotations, 1)
    };
    use Platform::{Cluster, OneMachine};
    for reader in [Cluster, OneMachine] {
        assert_eq!(pod_on(reader, &text("cluster")), pod_on(Cluster, &pod_yaml("", "")));
        assert_eq!(pod_on(reader, &text("machine")), pod_on(OneMachine, &pod_yaml("", "")));
    }
    assert_eq!(read(&text("machine")).unwrap().pods()[0].runs_on(), Some(OneMachine));
    assert_eq!(read(&pod_yaml("", "")).unwrap().pods()[0].runs_on(), None);
    let path = "metadata.annotations.anchorhold.dev/runs-on";
    check_error(&text("Cluster"), path, "expected \"cluster\" or \"machine\"");
}
