//! Names, volumes, ports, DNS: what is accepted and the nearest thing that is not.

use super::*;

fn check(container: &str, spec: &str, expect: Result<(), (&str, &str)>) {
    let text = pod_yaml(container, spec);
    match expect {
        Ok(()) => drop(pod_of(&text).unwrap()),
        Err((path, words)) => check_error(&text, path, words),
    }
}

#[test]
fn volumes_live_in_the_guest() {
    let mount = "volumeMounts: [{name: v, mountPath: /data}]";
    check(mount, "volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]", Ok(()));
    check(mount, "volumes: [{name: v}]", Ok(()));
    for (spec, path, words) in [
        ("volumes: [{name: w}]", "spec.containers[0]", "volume \"v\""),
        ("volumes: [{name: v, hostPath: {path: /}}]", "spec.volumes[0].hostPath", "not protected"),
        (
            "volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]",
            "spec.volumes[0].persistentVolumeClaim",
            "outlives the guest",
        ),
        ("volumes: [{name: v, csi: {driver: c}}]", "spec.volumes[0].csi", "not protected"),
        ("volumes: [{name: v, ephemeral: {}}]", "spec.volumes[0].ephemeral", "not protected"),
        ("volumes: [{name: v, image: {reference: i}}]", "spec.volumes[0].image", "image"),
        (
            "volumes: [{name: v, emptyDir: {medium: HugePages}}]",
            "spec.volumes[0].emptyDir.medium",
            "huge pages",
        ),
        (
            "volumes: [{name: v, emptyDir: {sizeLimit: x}}]",
            "spec.volumes[0].emptyDir.sizeLimit",
            "quantity",
        ),
        ("volumes: [{name: v}, {name: v}]", "spec.volumes[1].name", "no other volume"),
        ("volumes: [{name: ../x}]", "spec.volumes[0].name", "DNS label"),
    ] {
        check(mount, spec, Err((path, words)));
    }
    let volumes = "volumes: [{name: v}]";
    for path in ["data", "/", "/a/../b", "/a/./b", "/a:b"] {
        let mount = format!("volumeMounts: [{{name: v, mountPath: \"{path}\"}}]");
        check(&mount, volumes, Err(("spec.containers[0].volumeMounts[0].mountPath", "absolute")));
    }
    for (sub_path, expect) in [("b", Some("b")), ("./b//c/", Some("b/c")), (".", None), ("", None)]
    {
        let mount = format!("volumeMounts: [{{name: v, mountPath: /a, subPath: \"{sub_path}\"}}]");
        assert_eq!(pod(&mount, volumes).containers[0].mounts[0].sub_path.as_deref(), expect);
    }
    for sub_path in ["/b", "..", "b/../c", "b\\n"] {
        let mount = format!("volumeMounts: [{{name: v, mountPath: /a, subPath: \"{sub_path}\"}}]");
        check(&mount, volumes, Err(("spec.containers[0].volumeMounts[0].subPath", "relative")));
    }
    let expression = |expression: &str, more: &str| {
        format!(
            "env:\n- {{name: B, value: b}}\n- {{name: IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}\nvolumeMounts: [{{name: v, mountPath: /a, subPathExpr: \"{expression}\"{more}}}]"
        )
    };
    let found = pod(&expression("x/$(B)/$$(B)", ""), volumes);
    assert_eq!(found.containers[0].mounts[0].sub_path.as_deref(), Some("x/b/$(B)"));
    for (text, more, words) in [
        ("$(NONE)", "", "variables that the container has"),
        ("$(IP)", "", "values of the manifest alone"),
        ("../$(B)", "", "relative path"),
        ("$(B)", ", subPath: c", "subPath or subPathExpr"),
    ] {
        let place = "spec.containers[0].volumeMounts[0].subPathExpr";
        check(&expression(text, more), volumes, Err((place, words)));
    }
}

#[test]
fn settings_that_reach_the_node_are_refused() {
    check(
        "",
        "hostNetwork: false\nhostPID: false\nnodeSelector: {a: b}\ntolerations: [{operator: Exists}]",
        Ok(()),
    );
    for (spec, path) in [
        ("hostNetwork: true", "spec.hostNetwork"),
        ("hostPID: true", "spec.hostPID"),
        ("hostIPC: true", "spec.hostIPC"),
        ("hostUsers: false", "spec.hostUsers"),
        ("os: {name: windows}", "spec.os.name"),
        (
            "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x}}",
            "spec.securityContext.seccompProfile.localhostProfile",
        ),
    ] {
        check("", spec, Err((path, "refused")));
    }
}

#[test]
fn kernel_settings_are_the_safe_ones() {
    let with = |name: &str, value: &str| {
        format!("securityContext: {{sysctls: [{{name: {name}, value: \"{value}\"}}]}}")
    };
    let found = pod("", &with("net/ipv4/ip_local_port_range", "1024 65535")).security.sysctls;
    assert_eq!(found["net.ipv4.ip_local_port_range"], "1024 65535");
    for name in ah_pod::SYSCTLS {
        check("", &with(name, "1"), Ok(()));
    }
    for name in ["kernel.core_pattern", "vm.swappiness", "net.ipv4.../x", "net.core"] {
        check("", &with(name, "1"), Err(("spec.securityContext.sysctls[0].name", "expected")));
    }
    for value in ["", "x", "1\\n2", "|/bin/sh"] {
        let spec = with("net.core.somaxconn", value);
        check("", &spec, Err(("spec.securityContext.sysctls[0].value", "numbers")));
    }
}

#[test]
fn names_are_names() {
    check("", "hostname: h\nsubdomain: s", Ok(()));
    check("", "hostname: H", Err(("spec.hostname", "DNS label")));
    let text = pod_yaml("", "").replace("name: app", "name: a/p");
    check_error(&text, "spec.containers[0].name", "DNS label");
    let text = pod_yaml("", "initContainers: [{name: app, image: i}]");
    check_error(&text, "spec.containers[0].name", "no other container");
    let text = pod_yaml("", "").replace("    image: web:1\n", "");
    check_error(&text, "spec.containers[0].image", "an image");
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n";
    check_error(text, "spec.containers", "a container");
}

#[test]
fn resolver_and_hosts_lines_stay_one_line() {
    check(
        "",
        "dnsPolicy: None\ndnsConfig: {nameservers: [9.9.9.9], searches: [a.b], options: [{name: ndots, value: \"5\"}]}",
        Ok(()),
    );
    check("", "dnsPolicy: None", Err(("spec.dnsConfig.nameservers", "dnsPolicy is None")));
    check("", "dnsConfig: {searches: [\"a b\"]}", Err(("spec.dnsConfig", "one word")));
    check(
        "",
        "dnsConfig: {nameservers: [\"9.9.9.9\\nnameserver 6.6.6.6\"]}",
        Err(("spec.dnsConfig", "an address")),
    );
    check("", "hostAliases: [{ip: 1.2.3.4, hostnames: [a]}]", Ok(()));
    check(
        "",
        "hostAliases: [{ip: 1.2.3.4, hostnames: [\"a\\n6.6.6.6 b\"]}]",
        Err(("spec.hostAliases[0]", "DNS name")),
    );
}

#[test]
fn ports_are_ports() {
    let found = pod("ports: [{containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1}]", "");
    assert_eq!(found.containers[0].ports[0].host_port, Some(8080));
    check(
        "ports: [{containerPort: 0}]",
        "",
        Err(("spec.containers[0].ports[0].containerPort", "a port")),
    );
    assert!(!found.speaks_sctp());
    assert!(
        pod("ports: [{containerPort: 1}, {containerPort: 1, protocol: SCTP}]", "").speaks_sctp()
    );
    check(
        "ports: [{containerPort: 1, protocol: QUIC}]",
        "",
        Err(("spec.containers[0].ports[0].protocol", "refused")),
    );
}
