//! Environment, resources, identity.

use super::*;

fn env(container: &str, spec: &str, others: &str) -> Result<Vec<(String, Text)>, ManifestError> {
    let pod = pod_of(&format!("{others}{}", pod_yaml(container, spec)))?;
    let env = pod.containers[0].env.iter();
    Ok(env.map(|variable| (variable.name.clone(), variable.value.clone())).collect())
}

/// An expected value that starts with `*` is one of a Secret.
fn check(container: &str, others: &str, expect: &[(&str, &str)]) {
    let found = env(container, "", others).unwrap();
    let text = |value: &str| match value.strip_prefix('*') {
        Some(secret) => Text::secret(secret),
        None => Text::from(value),
    };
    let expect: Vec<_> =
        expect.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    assert_eq!(found, expect, "{container}");
}

const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {K: v, L: w}\n---\n\
     apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {P: cHc=, B: /w==}\nstringData: {Q: q}\n---\n";

#[test]
fn values_are_expanded_in_order_and_the_last_counts() {
    check(
        "env:\n- {name: A, value: x}\n- {name: B, value: $(A)-$(C)}\n- {name: C, value: $$(A)}",
        "",
        &[("A", "x"), ("B", "x-$(C)"), ("C", "$(A)")],
    );
    check("env:\n- {name: A, value: x}\n- {name: A, value: $(A)y}", "", &[("A", "xy")]);
    check("env:\n- {name: A}", "", &[("A", "")]);
    let pod = pod("env:\n- {name: A, value: x}\ncommand: [$(A), $(B)]\nargs: [$$(A)]", "");
    let words: Vec<_> = pod.containers[0].command.iter().chain(&pod.containers[0].args).collect();
    assert_eq!(words, [&Text::from("x"), &Text::from("$(B)"), &Text::from("$(A)")]);
}

#[test]
fn objects_of_the_same_file_give_values() {
    check(
        "envFrom:\n- {configMapRef: {name: c}, prefix: X_}",
        OBJECTS,
        &[("X_K", "v"), ("X_L", "w")],
    );
    check(
        "env:\n- name: A\n  valueFrom: {configMapKeyRef: {name: c, key: K}}\n- name: B\n  valueFrom: {secretKeyRef: {name: s, key: P}}\n\
         - name: C\n  valueFrom: {secretKeyRef: {name: s, key: Q}}\n- name: D\n  valueFrom: {secretKeyRef: {name: s, key: none, optional: true}}",
        OBJECTS,
        &[("A", "v"), ("B", "*pw"), ("C", "*q")],
    );
    check(
        "envFrom:\n- {secretRef: {name: t}}\nenv:\n- {name: U, value: me:$(R)}\n- {name: R, value: own}",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\nstringData: {R: r}\n---\n",
        &[("R", "own"), ("U", "*me:r")],
    );
    check(
        "envFrom:\n- {configMapRef: {name: c}}\nenv:\n- {name: K, value: own-$(L)}",
        OBJECTS,
        &[("K", "own-w"), ("L", "w")],
    );
    check("envFrom:\n- {secretRef: {name: none, optional: true}}", OBJECTS, &[]);
    for (container, path, words) in [
        (
            "envFrom:\n- {configMapRef: {name: none}}",
            "spec.containers[0].envFrom[0].configMapRef",
            "not in the file",
        ),
        (
            "env:\n- name: A\n  valueFrom: {secretKeyRef: {name: s, key: R}}",
            "spec.containers[0].env[0].valueFrom.secretKeyRef",
            "\"R\" of Secret \"s\"",
        ),
        (
            "env:\n- name: A\n  valueFrom: {secretKeyRef: {name: s, key: B}}",
            "spec.containers[0].env[0].valueFrom.secretKeyRef",
            "UTF-8",
        ),
        ("env:\n- {name: 1A, value: x}", "spec.containers[0].env[0].name", "no digit first"),
    ] {
        check_error(&format!("{OBJECTS}{}", pod_yaml(container, "")), path, words);
    }
}

#[test]
fn fields_of_the_pod_are_values_or_facts_of_the_host() {
    let field = |path: &str| {
        let container =
            format!("env:\n- name: A\n  valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}");
        let text = pod_yaml(&container, "serviceAccountName: acc")
            .replace("name: web\n", "name: web\n  labels: {a.b/c: d}\n");
        pod_of(&text).map(|pod| pod.containers[0].env[0].value.clone())
    };
    for (path, expect) in [
        ("metadata.name", Text::from("web")),
        ("metadata.namespace", Text::host(HostFact::PodNamespace)),
        ("metadata.uid", Text::host(HostFact::PodUid)),
        ("metadata.labels['a.b/c']", "d".into()),
        ("spec.nodeName", Text::host(HostFact::NodeName)),
        ("spec.serviceAccountName", "acc".into()),
        ("status.podIP", Text::host(HostFact::PodIp)),
        ("status.podIPs", Text::host(HostFact::PodIps)),
        ("status.hostIP", Text::host(HostFact::HostIp)),
        ("status.hostIPs", Text::host(HostFact::HostIps)),
    ] {
        assert_eq!(field(path).unwrap(), expect, "{path}");
    }
    assert!(field("metadata.labels['x']").is_err());
    assert!(field("status.phase").is_err());
}

#[test]
fn resources_become_values_limits_and_requests() {
    let container = "resources:\n  limits: {cpu: 1500m, memory: 1Gi}\n  requests: {cpu: \"0.5\"}\nenv:\n\
         - name: A\n  valueFrom: {resourceFieldRef: {resource: limits.cpu}}\n\
         - name: B\n  valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}\n\
         - name: C\n  valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}\n\
         - name: D\n  valueFrom: {resourceFieldRef: {resource: requests.memory}}\n";
    check(container, "", &[("A", "2"), ("B", "1024"), ("C", "500"), ("D", "1073741824")]);
    let pod = pod(container, "");
    assert_eq!(pod.containers[0].resources.cpu_limit_milli, Some(1500));
    assert_eq!(pod.containers[0].resources.memory_limit_bytes, Some(1 << 30));
    let stored =
        "resources: {limits: {ephemeral-storage: 2Mi}, requests: {ephemeral-storage: 1Mi}}\n";
    let stored = self::pod(stored, "").containers[0].resources;
    assert_eq!(stored.storage_limit_bytes, Some(2 << 20));
    assert_eq!((stored.memory_limit_bytes, stored.memory_request_bytes), (None, None));
    check_error(
        &pod_yaml(
            "resources: {requests: {ephemeral-storage: 2Mi}, limits: {ephemeral-storage: 1Mi}}",
            "",
        ),
        "spec.containers[0].resources.requests.ephemeral-storage",
        "at most the limit",
    );
    check_error(
        &pod_yaml("env:\n- name: A\n  valueFrom: {resourceFieldRef: {resource: limits.cpu}}", ""),
        "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource",
        "the node's",
    );
    check_error(
        &pod_yaml("resources: {requests: {cpu: 2}, limits: {cpu: 1}}", ""),
        "spec.containers[0].resources.requests.cpu",
        "at most the limit",
    );
    check_error(
        &pod_yaml("resources: {limits: {nvidia.com/gpu: 1}}", ""),
        "spec.containers[0].resources.limits.nvidia.com/gpu",
        "cpu, memory",
    );
}

#[test]
fn the_pods_security_context_is_the_containers_default() {
    let spec = "securityContext:\n  runAsUser: 5\n  runAsGroup: 6\n  fsGroup: 7\n  supplementalGroups: [8]\n  seccompProfile: {type: RuntimeDefault}";
    let of_pod = pod("", spec);
    let security = &of_pod.containers[0].security;
    assert_eq!((security.run_as.user, security.run_as.group), (Some(5), Some(6)));
    assert_eq!(security.seccomp, Seccomp::RuntimeDefault);
    let own = pod(
        "securityContext: {runAsUser: 9, allowPrivilegeEscalation: false, seccompProfile: {type: Unconfined}}",
        spec,
    );
    let security = &own.containers[0].security;
    assert_eq!((security.run_as.user, security.run_as.group), (Some(9), Some(6)));
    assert!(security.no_new_privileges && security.seccomp == Seccomp::Unconfined);
    let host = HostValues::placeholders(&own);
    let request = requests::create_container(&own, 0, &host).unwrap();
    assert_eq!(request.OCI.Process.User.AdditionalGids, [6, 7, 8]);
    check_error(
        &pod_yaml("securityContext: {privileged: true, allowPrivilegeEscalation: false}", ""),
        "spec.containers[0].securityContext.allowPrivilegeEscalation",
        "Kubernetes refuses",
    );
    check_error(
        &pod_yaml("securityContext: {runAsUser: -1}", ""),
        "spec.containers[0].securityContext.runAsUser",
        "an id",
    );
}

#[test]
fn attack_manifest_text_that_reads_as_a_value_of_the_host() {
    pod_of(&pod_yaml("env:\n- {name: A, value: $(pod_ip)}", "")).unwrap();
    check_error(
        &pod_yaml("env:\n- {name: A, value: $(pod-ip)}", ""),
        "spec",
        "reserved for values of the host",
    );
}
