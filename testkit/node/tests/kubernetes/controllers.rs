//! Pods that controllers make, of an image with a password.

use std::fs;
use std::path::Path;

use ah_testkit_images::{
    Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, busybox, store_image,
};
use ah_testkit_node::{Cluster, Daemon};

use crate::site::{LIMIT, RUNTIME_CLASS, cluster, target, with_policy};

/// Where a registry listens in the cluster's network, and who may pull from it: `puller`, `hush` (its bcrypt below).
const REGISTRY: &str = "127.0.0.1:5000";
const HTPASSWD: &str = "puller:$2b$05$abcdefghijklmnopqrstuulzd.YqjLDl8lvpSmVj3De/fioSBHnUa\n";

/// A docker-registry with a password and one image, in the cluster's network.
fn private_registry(
    cluster: &Cluster,
    folder: &Path,
    repository: &str,
    image: &ImageSpec,
) -> Daemon {
    let (store, layout) = (folder.join("registry"), folder.join("registry-layout"));
    let mut builder = LayoutBuilder::create(&layout).unwrap();
    let built = builder.add("any:1", image).unwrap();
    builder.finish().unwrap();
    store_image(&store, repository, &layout, &built).unwrap();
    let (users, config) = (folder.join("htpasswd"), folder.join("registry.yml"));
    fs::write(&users, HTPASSWD).unwrap();
    let text = format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {store:?} }} }}\nhttp: {{ addr: {REGISTRY:?} }}\n\
         auth: {{ htpasswd: {{ realm: test, path: {users:?} }} }}\n"
    );
    fs::write(&config, text).unwrap();
    let namespaces = cluster.node().namespaces();
    let mut serve = namespaces.command("docker-registry");
    serve.arg("serve").arg(&config);
    namespaces.start("docker-registry", serve, &folder.join("registry.log")).unwrap()
}

/// Pods that controllers make, of an image that only who has a password can pull.
const CONTROLLED: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: pull}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '{"auths": {"127.0.0.1:5000": {"auth": "cHVsbGVyOmh1c2g="}}}'}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "* * * * *"
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 1
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        metadata: {labels: {app: nightly}}
        spec:
          runtimeClassName: anchorhold-cc
          restartPolicy: Never
          enableServiceLinks: false
          automountServiceAccountToken: false
          imagePullSecrets: [{name: pull}]
          containers:
          - name: job
            image: 127.0.0.1:5000/private/tool:latest
            imagePullPolicy: Always
            command: [sh, -c, "echo ran as $(hostname)"]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: echo}
spec:
  serviceName: echoes
  selector: {matchLabels: {app: echo}}
  template:
    metadata:
      labels: {app: echo, tier: back}
      annotations:
        anchorhold.dev/unpinned: '["configMap/late"]'
        anchorhold.dev/exec: '{"echo": [["/bin/busybox", "cat", "/late/word"]]}'
    spec:
      runtimeClassName: anchorhold-cc
      enableServiceLinks: false
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 20
      imagePullSecrets: [{name: pull}]
      containers:
      - name: echo
        image: 127.0.0.1:5000/private/tool:latest
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - |
          until [ -e /work/started ]; do sleep 1; done
          echo started as $(hostname) with $MEMORY bytes, tier $(cat /labels/tier)
          exec /udp_echo serve 5353
        env: [{name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]
        resources: {limits: {memory: 64Mi, cpu: 500m}}
        lifecycle:
          postStart: {exec: {command: [/bin/busybox, touch, /work/started]}}
          preStop: {exec: {command: [/bin/busybox, touch, /work/stopping]}}
        volumeMounts:
        - {name: work, mountPath: /work}
        - {name: labels, mountPath: /labels}
        - {name: late, mountPath: /late}
      volumes:
      - {name: work, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
      - {name: late, configMap: {name: late}}
      - {name: labels, downwardAPI: {items: [{path: tier, fieldRef: {fieldPath: "metadata.labels['tier']"}}]}}
"#;

/// An address of the cluster for the StatefulSet's pod, over UDP.
const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: echoes}
spec:
  clusterIP: 10.96.0.53
  selector: {app: echo}
  ports: [{port: 53, targetPort: 5353, protocol: UDP}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn attack_controllers_pods_of_a_private_image_run_as_they_were_written_only() {
    let Some((cluster, folder)) = cluster().await else { return };
    let folder = folder.path();
    let echo = target().join("guest/x86_64-unknown-linux-gnu/guest/examples/udp_echo");
    let program = Entry::file("udp_echo", fs::read(&echo).unwrap()).mode(0o755);
    let image = busybox().unwrap().with_layer(LayerSpec::of(Packing::Gzip, [program]));
    let _registry = private_registry(&cluster, folder, "private/tool", &image);
    let made = with_policy(folder, CONTROLLED, "127.0.0.1:5000/private/tool:latest", &image);
    // the name that CronJobs have in Kubernetes 1.20
    let made = made.replace("apiVersion: batch/v1\n", "apiVersion: batch/v1beta1\n");
    cluster.apply(RUNTIME_CLASS).unwrap();
    let late = |word: &str| {
        let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late}\n";
        let data = format!("{head}data: {{word: {word}}}\n");
        cluster.apply(&data).unwrap();
        let cat = ["exec", "echo-0", "--", "/bin/busybox", "cat", "/late/word"];
        (cat, word.to_owned())
    };
    let (cat, _) = late("first");
    cluster.apply(&made).unwrap();

    let logs = ["logs", "echo-0"];
    let said = cluster.wait_for(&logs, LIMIT, |said| said.contains("serving"));
    let said = said.unwrap_or_else(|error| panic!("{error}\n{}", cluster.node().logs()));
    assert!(said.contains("started as echo-0 with 67108864 bytes, tier back"), "{said}");
    let address = cluster.kubectl(&["get", "pod", "echo-0", "-o", "jsonpath={.status.podIP}"]);
    let ask = |address: &str, words: &str| {
        let mut ask = cluster.node().namespaces().command(&echo);
        let output = ask.args(["ask", address, words]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(ask(&format!("{}:5353", address.unwrap()), "over udp"), "over udp");
    cluster.apply(SERVICE).unwrap();
    let endpoints = ["get", "endpoints", "echoes", "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
    cluster.wait_for(&endpoints, LIMIT, |found| found.starts_with("10.88.")).unwrap();
    let begun = std::time::Instant::now();
    while ask("10.96.0.53:53", "by service") != "by service" {
        assert!(begun.elapsed() < LIMIT, "{}", cluster.logs());
    }

    let logs = ["logs", "-l", "app=nightly", "--tail=-1"];
    let said = cluster.wait_for(&logs, LIMIT, |said| said.contains("ran as nightly-"));
    said.unwrap_or_else(|error| panic!("{error}\n{}", cluster.node().logs()));
    cluster.kubectl(&["delete", "cronjob", "nightly"]).unwrap();

    // A ConfigMap that the owner leaves to the cluster follows it; the kubelet looks each minute.
    assert_eq!(cluster.kubectl(&cat).unwrap(), "first");
    let (cat, word) = late("second");
    let read = cluster.wait_for(&cat, LIMIT, |read| read == word);
    read.unwrap_or_else(|error| panic!("{error}\n{}", cluster.node().logs()));

    // What the cluster's owner changes in a template is denied in its next pod, and kubectl says why.
    let change = r#"[{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "MORE", "value": "1"}}]"#;
    cluster.kubectl(&["patch", "statefulset", "echo", "--type=json", "-p", change]).unwrap();
    let events = ["get", "events", "-o", "jsonpath={.items[*].message}"];
    let denied =
        |said: &str| said.contains("/OCI/Process/Env") && said.contains("denied by the policy");
    cluster.wait_for(&events, LIMIT, denied).unwrap();
}
