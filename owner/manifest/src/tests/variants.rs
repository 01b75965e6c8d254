//! Single fields that the known generator refuses (agent policy reference, section 1.8): accepted
//! here where they are safe, else refused with the reason. Volumes have a table of their own.

use super::*;

enum Expect {
    Accepted,
    /// Path, and words of the reason.
    Refused(&'static str, &'static str),
}
use Expect::{Accepted, Refused};

/// Field of the container, field of the spec, field of the metadata.
const VARIANTS: [(&str, &str, &str, Expect); 46] = [
    ("workingDir: /srv", "", "", Accepted),
    ("workingDir: srv", "", "", Refused("spec.containers[0].workingDir", "absolute path")),
    ("", "securityContext: {runAsNonRoot: true, runAsUser: 7}", "", Accepted),
    (
        "",
        "securityContext: {runAsNonRoot: true, runAsUser: 0}",
        "",
        Refused("spec.containers[0]", "user 0"),
    ),
    ("securityContext: {runAsNonRoot: true, runAsUser: 7}", "", "", Accepted),
    ("", "securityContext: {seccompProfile: {type: RuntimeDefault}}", "", Accepted),
    ("securityContext: {seccompProfile: {type: Unconfined}}", "", "", Accepted),
    (
        "",
        "securityContext: {seccompProfile: {type: Localhost}}",
        "",
        Refused("spec.securityContext.seccompProfile.type", "no profiles of the node"),
    ),
    ("", "automountServiceAccountToken: false", "", Accepted),
    ("", "automountServiceAccountToken: true", "", Accepted),
    ("", "enableServiceLinks: false", "", Accepted),
    ("", "enableServiceLinks: true", "", Accepted),
    (
        "",
        "securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: \"1\"}]}",
        "",
        Accepted,
    ),
    (
        "volumeMounts: [{name: v, mountPath: /a, subPath: b}]",
        "volumes: [{name: v, downwardAPI: {defaultMode: 0444, items: [{path: b, fieldRef: {fieldPath: metadata.name}}]}}]",
        "",
        Accepted,
    ),
    ("", "hostPID: false", "", Accepted),
    ("", "hostPID: true", "", Refused("spec.hostPID", "no namespace of the node")),
    ("", "hostIPC: false", "", Accepted),
    ("", "hostIPC: true", "", Refused("spec.hostIPC", "no namespace of the node")),
    ("", "hostAliases: [{ip: 1.2.3.4, hostnames: [a]}]", "", Accepted),
    ("", "subdomain: s", "", Accepted),
    ("", "activeDeadlineSeconds: 5", "", Accepted),
    ("", "securityContext: {fsGroup: 5, fsGroupChangePolicy: OnRootMismatch}", "", Accepted),
    (
        "",
        "securityContext: {fsGroupChangePolicy: Sometimes}",
        "",
        Refused("spec.securityContext.fsGroupChangePolicy", "OnRootMismatch"),
    ),
    ("", "securityContext: {appArmorProfile: {type: RuntimeDefault}}", "", Accepted),
    (
        "securityContext: {appArmorProfile: {type: Localhost}}",
        "",
        "",
        Refused("spec.containers[0].securityContext.appArmorProfile.type", "no AppArmor"),
    ),
    (
        "securityContext: {seLinuxOptions: {level: s0}}",
        "securityContext: {seLinuxOptions: {type: spc_t}}",
        "",
        Accepted,
    ),
    ("securityContext: {procMount: Default}", "", "", Accepted),
    (
        "securityContext: {procMount: Unmasked}",
        "",
        "",
        Refused("spec.containers[0].securityContext.procMount", "user namespace"),
    ),
    ("stdin: true\nstdinOnce: true", "", "", Accepted),
    (
        "",
        "ephemeralContainers: [{name: e, image: web:1}]",
        "",
        Refused("spec.ephemeralContainers", "not in the policy"),
    ),
    ("", "readinessGates: [{conditionType: a}]", "", Accepted),
    ("lifecycle: {preStop: {httpGet: {port: 80}}}", "", "", Accepted),
    ("lifecycle: {preStop: {sleep: {seconds: 1}}}", "", "", Accepted),
    (
        "resources: {claims: [{name: a}]}",
        "",
        "",
        Refused("spec.containers[0].resources.claims", "devices of the node"),
    ),
    (
        "env: [{name: A, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}]",
        "",
        "",
        Accepted,
    ),
    (
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k, optional: true}}}]",
        "",
        "",
        Accepted,
    ),
    ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]", "", "", Accepted),
    (
        "env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]",
        "",
        "",
        Refused("spec.containers[0].env[0].valueFrom.fieldRef.fieldPath", "status.podIP"),
    ),
    ("", "", "creationTimestamp: null", Accepted),
    ("", "", "creationTimestamp: \"2026-01-02T03:04:05Z\"", Accepted),
    ("", "", "creationTimestamp: soon", Refused("metadata.creationTimestamp", "type")),
    ("", "", "finalizers: [a/b]", Accepted),
    (
        "",
        "",
        "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: u}]",
        Accepted,
    ),
    (
        "",
        "",
        "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, nam: r}]",
        Refused("metadata.ownerReferences[0].nam", "unknown field"),
    ),
    ("imagePullPolicy: Always", "imagePullSecrets: [{name: s}]", "", Accepted),
    (
        "",
        "securityContext: {sysctls: [{name: a, value: b}]}",
        "",
        Refused("spec.securityContext.sysctls[0].name", "net.ipv4.tcp_syncookies"),
    ),
];

#[test]
fn each_variant_is_accepted_or_refused_with_the_reason() {
    for (container, spec, metadata, expect) in &VARIANTS {
        let text = pod_yaml(container, spec);
        let text = match metadata.is_empty() {
            true => text,
            false => text.replacen("  name: web\n", &format!("  name: web\n  {metadata}\n"), 1),
        };
        match expect {
            Accepted => drop(pod_of(&text).unwrap_or_else(|error| panic!("{text}: {error}"))),
            Refused(path, words) => check_error(&text, path, words),
        }
    }
}

#[test]
fn a_status_is_not_looked_at() {
    let text =
        format!("{}status: {{phase: Running, podIPs: [{{ip: 10.0.0.1}}]}}\n", pod_yaml("", ""));
    pod_of(&text).unwrap();
}
