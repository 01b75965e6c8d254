//! Single pods: without a VM, changed, and with many of Kubernetes' promises at once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ah_testkit_images::busybox;
use ah_testkit_node::Cluster;

use crate::site::{LIMIT, cluster, confidential};

const CONFIDENTIAL: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sealed}
spec:
  runtimeClassName: anchorhold-cc
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "echo hello from $(hostname); uname -r"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_vm_runs_and_is_heard() {
    let Some((cluster, _folder)) = cluster().await else { return };
    the_files_for_a_cluster_are_taken(&cluster);
    cluster.node().import(&[("localhost/busybox:1", &busybox().unwrap())]).await.unwrap();
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  containers:
  - name: main
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, "echo hello from $(hostname); test -w /"]
"#;
    cluster.apply(pod).unwrap();
    assert_eq!(cluster.wait_for_end("plain", LIMIT).unwrap(), "Succeeded");
    assert_eq!(cluster.kubectl(&["logs", "plain"]).unwrap(), "hello from plain\n");
    cluster.kubectl(&["delete", "pod", "plain", "--grace-period=0"]).unwrap();
}

/// In one cluster, since one takes a while: the pod as its owner wrote it, and with one command more.
#[tokio::test(flavor = "multi_thread")]
async fn attack_a_changed_pod_is_refused_in_words_where_its_original_runs() {
    let Some((cluster, folder)) = cluster().await else { return };
    let pod = confidential(&cluster, folder.path(), CONFIDENTIAL).await;
    let describe = || cluster.kubectl(&["describe", "pod", "sealed"]).unwrap();

    cluster.apply(&pod).unwrap();
    let phase = cluster.wait_for_end("sealed", LIMIT);
    let phase = phase.unwrap_or_else(|error| panic!("{error}\n{}", cluster.node().logs()));
    assert_eq!(phase, "Succeeded", "{}\n{}", describe(), cluster.node().logs());
    let logs = cluster.kubectl(&["logs", "sealed"]).unwrap();
    let host_kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let lines: Vec<&str> = logs.lines().collect();
    assert_eq!(lines[0], "hello from sealed");
    assert_ne!(lines[1], host_kernel.trim(), "it runs on the host's kernel");
    cluster.kubectl(&["delete", "pod", "sealed", "--grace-period=0"]).unwrap();

    let changed = pod.replace("uname -r", "uname -r; id");
    assert_ne!(changed, pod);
    cluster.apply(&changed).unwrap();
    assert_eq!(cluster.wait_for_end("sealed", LIMIT).unwrap(), "Failed");
    let told = describe();
    assert!(told.contains("CreateContainerRequest denied by the policy"), "{told}");
    // which rule, which container's field, what was there, what the policy wants
    for part in ["container main", "/OCI/Process/Args/2: found ", "; id", "expected ", "uname -r"] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

/// Many of Kubernetes' promises in one pod: it fails once, is started again, and goes on until it is told to end.
const SEMANTICS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: quiet, other: "1"}
---
apiVersion: v1
kind: Pod
metadata:
  name: semantics
  labels: {app: semantics}
  annotations:
    anchorhold.dev/termination-log: main
    anchorhold.dev/exec: '{"main": [["/bin/busybox", "touch", "/data/stop"]]}'
spec:
  runtimeClassName: anchorhold-cc
  restartPolicy: OnFailure
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 5
  hostAliases: [{ip: 192.0.2.7, hostnames: [elsewhere.example]}]
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  initContainers:
  - name: first
    image: localhost/busybox:1
    command:
    - sh
    - -c
    - |
      echo made by init > /data/made
      dd if=/dev/zero of=/full bs=65536 2>&1 | grep -o 'No space left' >> /data/made
      [ $(stat -c %s /full) -lt 10000000 ] && echo root full >> /data/made
    resources: {limits: {ephemeral-storage: 8Mi}}
    securityContext: {runAsUser: 0}
    volumeMounts: [{name: data, mountPath: /data}]
  containers:
  - name: main
    image: localhost/busybox:1
    command:
    - sh
    - -c
    - |
      if [ ! -e /data/failed ]; then
        : > /data/failed
        echo the first failure > /dev/termination-log
        exit 3
      fi
      echo mode $(cat /etc/mode)
      echo user $(id -u) groups $(id -G)
      echo name $POD
      echo $(grep -c dm- /proc/partitions) devices
      echo $(nproc) processors, $(grep MemTotal /proc/meminfo)
      cat /data/made
      while read line; do case "$line" in *elsewhere*) echo alias $line;; esac; done < /etc/hosts
      (: > /file) 2> /dev/null || echo read-only root
      echo served > /data/index.html
      /bin/busybox httpd -p 8080 -h /data
      /bin/busybox httpd -p 127.0.0.1:8081 -h /data
      : > /data/ready
      until [ -e /data/stop ]; do sleep 1; done
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {requests: {cpu: 1100m, memory: 400Mi}}
    readinessProbe: {exec: {command: [test, -e, /data/ready]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}
    livenessProbe: {httpGet: {port: 8080, path: /}, initialDelaySeconds: 5, periodSeconds: 2, timeoutSeconds: 20, failureThreshold: 60}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: settings, mountPath: /etc/mode, subPath: mode}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn attack_a_pod_keeps_kubernetes_promises_and_runs_no_other_command() {
    let Some((cluster, folder)) = cluster().await else { return };
    let pod = confidential(&cluster, folder.path(), SEMANTICS).await;
    cluster.apply(&pod).unwrap();
    let get = |path: &str| ["get", "pod", "semantics", "-o", path].map(str::to_owned);
    let wait = |path: &str, expected: &str| {
        let args = get(&format!("jsonpath={path}"));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let found = cluster.wait_for(&args, LIMIT, |found| found == expected);
        found.unwrap_or_else(|error| panic!("{path}: {error}\n{}", cluster.node().logs()));
    };
    let main = "{.status.containerStatuses[0]";
    wait(&format!("{main}.restartCount}} {main}.ready}}"), "1 true");
    wait(&format!("{main}.lastState.terminated.message}}"), "the first failure\n");
    wait(&format!("{main}.lastState.terminated.exitCode}}"), "3");
    let said = cluster.kubectl(&["logs", "semantics"]).unwrap();
    for expect in [
        "mode quiet\n",
        "user 1000 groups 1000 2000\n",
        // tags, encryption, what is shared, the image's layer: what the init container's root had is given back
        "name semantics\n4 devices\n",
        "made by init\nNo space left\nroot full\n",
        "alias 192.0.2.7",
        "read-only root\n",
    ] {
        assert!(said.contains(expect), "{expect}\n{said}");
    }
    // sized by what its containers ask for, which this kubelet does not hand on
    let size = said.split_once("2 processors, MemTotal:").unwrap_or_else(|| panic!("{said}")).1;
    let kib: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    assert!((700 << 10..900 << 10).contains(&kib), "{said}");
    let address = cluster.kubectl(&["get", "pod", "semantics", "-o", "jsonpath={.status.podIP}"]);
    let mut fetch = cluster.node().namespaces().command("/bin/busybox");
    fetch.args(["wget", "-q", "-O", "-", &format!("http://{}:8080/index.html", address.unwrap())]);
    assert_eq!(String::from_utf8_lossy(&fetch.output().unwrap().stdout), "served\n");

    attack_services_and_forwarded_ports_reach_what_the_network_reaches(&cluster);

    let exec =
        |file: &str| cluster.kubectl(&["exec", "semantics", "--", "/bin/busybox", "touch", file]);
    let refused = exec("/data/stopped").unwrap_err().to_string();
    assert!(refused.contains("ExecProcessRequest denied by the policy"), "{refused}");
    exec("/data/stop").unwrap();
    assert_eq!(cluster.wait_for_end("semantics", LIMIT).unwrap(), "Succeeded");
}

const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.80
  selector: {app: semantics}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// By the service's address and over `kubectl port-forward`; what listens on the guest's localhost alone is reached by neither.
fn attack_services_and_forwarded_ports_reach_what_the_network_reaches(cluster: &Cluster) {
    let fetch = |address: &str| {
        let mut fetch = cluster.node().namespaces().command("timeout");
        fetch.args([
            "30",
            "/bin/busybox",
            "wget",
            "-q",
            "-O",
            "-",
            &format!("http://{address}/index.html"),
        ]);
        String::from_utf8_lossy(&fetch.output().unwrap().stdout).into_owned()
    };
    let until_served = |address: &str| {
        let begun = Instant::now();
        while fetch(address) != "served\n" {
            assert!(begun.elapsed() < LIMIT, "{address}\n{}", cluster.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    cluster.apply(WEB).unwrap();
    until_served("10.96.0.80");
    let _forward = cluster.forward("pod/semantics", &["18080:8080", "18081:8081"]).unwrap();
    until_served("127.0.0.1:18080");
    assert_eq!(fetch("127.0.0.1:18081"), "", "the guest's own localhost is open to the node");
}

/// What is in deploy/ is what an API server takes; nothing of it is started here.
fn the_files_for_a_cluster_are_taken(cluster: &Cluster) {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let deploy = deploy.to_str().unwrap();
    cluster.kubectl(&["create", "namespace", "anchorhold"]).unwrap();
    let taken = cluster.kubectl(&["apply", "--dry-run=server", "-k", deploy]).unwrap();
    for object in [
        "daemonset.apps/anchorhold-node created (server dry run)",
        "runtimeclass.node.k8s.io/anchorhold-cc created (server dry run)",
        "runtimeclass.node.k8s.io/anchorhold created (server dry run)",
    ] {
        assert!(taken.contains(object), "{taken}");
    }
    let unknown =
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: x}\nhandlr: y\n";
    assert!(cluster.apply(unknown).is_err(), "an unknown field is taken");
}
