//! Pods on a real Kubernetes: kubelet, scheduler, API server, with our snapshotter below them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use ah_testkit_images::{
    Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, busybox, store_image,
};
use ah_testkit_node::{Cluster, Daemon, NodeConfig};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(180);
/// Names the folder with the Kubernetes programs: `cargo xtask test --kubernetes` sets it.
const PROGRAMS: &str = "ANCHORHOLD_KUBERNETES";
/// Where the owner's key service listens, in a test's folder.
const KEY_SOCKET: &str = "keys.sock";

/// A program of this build: tests of other packages do not get its path from cargo.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().unwrap().parent().unwrap().join(name)
}

/// The folder of this build's target that xtask keeps things in.
fn target() -> PathBuf {
    program("any").ancestors().nth(2).unwrap().to_owned()
}

/// A cluster whose node has the handler `anchorhold-cc`, and a folder for the test's files.
async fn cluster() -> Option<(Cluster, TempDir)> {
    let programs = std::env::var_os(PROGRAMS);
    let no_programs = || format!("{PROGRAMS} is not set: cargo xtask test --kubernetes");
    if ah_testkit_node::is_skipped(programs.is_none().then(no_programs)) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let shim_config = folder.path().join("shim.toml");
    let guest = target().join("guest-image");
    let text = format!(
        "confidential = true\ntee = \"software\"\nguest = {guest:?}\nsoftware_tee = {:?}\ntools = [{:?}]\n\
         key_service = \"unix:{}\"\nscratch_folder = {:?}\nmetrics_events = {:?}\n",
        // where `anchorhold --data` has it
        folder.path().join("data/software-tee"),
        target().join("tools/bin"),
        folder.path().join(KEY_SOCKET).display(),
        folder.path().join("scratch"),
        folder.path().join("events.sock"),
    );
    fs::write(&shim_config, text).unwrap();
    let config = NodeConfig::new(program("anchorhold-snapshotter")).with_handler(
        "anchorhold-cc",
        &program("containerd-shim-anchorhold-v2"),
        &shim_config,
    );
    let cluster = Cluster::start(config, &PathBuf::from(programs.unwrap())).await.unwrap();
    Some((cluster, folder))
}

/// The owner's `anchorhold`, with all its files in a folder.
fn anchorhold(folder: &Path) -> Command {
    let mut command = Command::new(program("anchorhold"));
    command.arg("--data").arg(folder.join("data")).arg("--cache").arg(folder.join("cache"));
    command
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The pod's YAML with its policy, as an owner makes it, with images of a layout.
fn with_policy_of(folder: &Path, yaml: &str, layout: &Path) -> PathBuf {
    let (pod, out) = (folder.join("pod.yaml"), folder.join("out.yaml"));
    fs::write(&pod, yaml).unwrap();
    let mut generate = anchorhold(folder);
    generate.args(["policy", "generate", "-f"]).arg(&pod);
    succeeds(generate.arg("--images").arg(layout).arg("-o").arg(&out));
    out
}

fn with_policy(folder: &Path, yaml: &str, name: &str, image: &ImageSpec) -> String {
    let mut layout = LayoutBuilder::create(folder.join("layout")).unwrap();
    layout.add(name, image).unwrap();
    layout.finish().unwrap();
    fs::read_to_string(with_policy_of(folder, yaml, &folder.join("layout"))).unwrap()
}

/// The owner's key service while a test lasts.
struct KeyServe(Child);

impl KeyServe {
    fn start(folder: &Path) -> Self {
        let socket = folder.join(KEY_SOCKET);
        let mut serve = anchorhold(folder);
        serve.args(["key", "serve", "--danger-accept-software-tee", "--listen"]);
        serve.arg(format!("unix:{}", socket.display()));
        let log = fs::File::create(folder.join("key-serve.log")).unwrap();
        let mut child = serve.stderr(log).spawn().unwrap();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "the key service has ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(child)
    }
}

impl Drop for KeyServe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const RUNTIME_CLASS: &str = include_str!("../../../deploy/runtimeclass.yaml");

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
    let image = busybox().unwrap();
    let pod = with_policy(folder.path(), CONFIDENTIAL, "localhost/busybox:1", &image);
    cluster.node().import(&[("localhost/busybox:1", &image)]).await.unwrap();
    cluster.node().forget_tag("localhost/busybox:1").await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();
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

const MESSAGE: &str = "The key went to one pod.";
const DEPLOYMENT: &str = include_str!("../../../examples/sealed-message/deployment.yaml");

/// The example from nothing: images, policy, key, `kubectl apply`, `kubectl logs`. Then the cluster's owner makes a Deployment of his own of
/// the same image, with a policy of his own that the guest is content with: the key service is not.
#[tokio::test(flavor = "multi_thread")]
async fn attack_a_key_goes_to_the_deployment_and_not_to_one_with_another_command() {
    let Some((cluster, folder)) = cluster().await else { return };
    let (folder, layout) = (folder.path(), folder.path().join("images"));
    let key = folder.join("key");
    let mut images = Command::new(program("demo-images"));
    images.arg("--out").arg(&layout).arg("--key-out").arg(&key);
    succeeds(images.args(["--message", MESSAGE]));
    let node = cluster.node();
    node.import_layout(&layout, &["localhost/anchorhold/sealed-message:demo"]).await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();

    let yaml = with_policy_of(folder, DEPLOYMENT, &layout);
    let mut import = anchorhold(folder);
    import.args(["key", "import", "demo/message", "--tee", "software"]);
    import.arg("--danger-accept-software-tee").arg("--for").arg(&yaml).arg("--from").arg(&key);
    succeeds(import.arg("--guest").arg(target().join("guest-image")));
    let _served = KeyServe::start(folder);

    cluster.apply(&fs::read_to_string(yaml).unwrap()).unwrap();
    let logs = ["logs", "deployment/sealed-message"];
    let said = cluster.wait_for(&logs, LIMIT, |said| said.contains("the message is: "));
    let said = said.unwrap_or_else(|error| panic!("{error}\n{}", node.logs()));
    assert!(said.contains(MESSAGE), "{said}");
    let up = ["get", "deployment", "sealed-message", "-o", "jsonpath={.status.readyReplicas}"];
    cluster.wait_for(&up, LIMIT, |ready| ready == "1").unwrap();
    cluster.kubectl(&["delete", "deployment", "sealed-message"]).unwrap();

    let changed = DEPLOYMENT.replace("\"demo/message\", ", "\"demo/message\", \"again\", ");
    let changed = changed.replace("name: sealed-message\nspec", "name: copied\nspec");
    assert_ne!(changed, DEPLOYMENT);
    let yaml = with_policy_of(folder, &changed, &layout);
    cluster.apply(&fs::read_to_string(yaml).unwrap()).unwrap();
    let logs = ["logs", "deployment/copied"];
    let said =
        cluster.wait_for(&logs, LIMIT, |said| said.contains("sealed-message: no key")).unwrap();
    assert!(said.contains("x-ms-sevsnpvm-hostdata") && !said.contains(MESSAGE), "{said}");
}

const PASSWORD: &str = "correct-horse-battery";
const TOKEN: &str = "token of the file";

/// A Secret with a sealed file, and a pod with that and a sealed variable, whose command prints what it finds.
fn sealed_pod(folder: &Path) -> String {
    let seal = |place: [&str; 2], value: &str| {
        let (key, secret) = (folder.join("db.key"), folder.join("secret"));
        fs::write(&secret, value).unwrap();
        let mut seal = anchorhold(folder);
        seal.args(["secret", "seal", "--key-id", "demo/db"]).args(place);
        seal.arg("--from").arg(&secret).arg("--key-file").arg(&key);
        if !key.exists() {
            seal.arg("--new-key");
        }
        let output = seal.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let password = seal(["--env", "DB_PASSWORD"], PASSWORD);
    let token = seal(["--file", "/secret/token"], TOKEN);
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: app}}
stringData: {{token: {token}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: opened}}
spec:
  runtimeClassName: anchorhold-cc
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  volumes:
  - {{name: secret, secret: {{secretName: app}}}}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "echo $DB_PASSWORD; cat /secret/token"]
    env: [{{name: DB_PASSWORD, value: {password}}}]
    volumeMounts: [{{name: secret, mountPath: /secret}}]
"#
    )
}

/// The cluster's owner makes a pod of his own with the sealed texts that he reads, and a policy that the guest is content with.
#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_values_open_in_their_pod_and_not_in_one_with_another_policy() {
    let Some((cluster, folder)) = cluster().await else { return };
    let folder = folder.path();
    let (name, image) = ("localhost/busybox:1", busybox().unwrap());
    let yaml = sealed_pod(folder);
    let pod = with_policy(folder, &yaml, name, &image);
    let mut import = anchorhold(folder);
    import.args(["key", "import", "demo/db", "--tee", "software", "--danger-accept-software-tee"]);
    import.arg("--for").arg(folder.join("out.yaml")).arg("--from").arg(folder.join("db.key"));
    succeeds(import.arg("--guest").arg(target().join("guest-image")));
    let _served = KeyServe::start(folder);
    let node = cluster.node();
    node.import(&[(name, &image)]).await.unwrap();
    node.forget_tag(name).await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();
    let describe = || cluster.kubectl(&["describe", "pod", "opened"]).unwrap();

    cluster.apply(&pod).unwrap();
    let phase = cluster.wait_for_end("opened", LIMIT);
    let phase = phase.unwrap_or_else(|error| panic!("{error}\n{}", node.logs()));
    assert_eq!(phase, "Succeeded", "{}\n{}", describe(), node.logs());
    let logs = cluster.kubectl(&["logs", "opened"]).unwrap();
    assert_eq!(logs.lines().collect::<Vec<_>>(), [PASSWORD, TOKEN]);
    cluster.kubectl(&["delete", "pod", "opened", "--grace-period=0"]).unwrap();

    let changed = yaml.replace("cat /secret/token", "cat /secret/token; id");
    assert_ne!(changed, yaml);
    let changed = with_policy_of(folder, &changed, &folder.join("layout"));
    cluster.apply(&fs::read_to_string(changed).unwrap()).unwrap();
    assert_eq!(cluster.wait_for_end("opened", LIMIT).unwrap(), "Failed");
    let told = describe();
    let words = "env:DB_PASSWORD: key demo/db: refused by the key's release policy";
    assert!(told.contains(words), "{told}");
    for told in [told, node.logs()] {
        assert!(!told.contains(PASSWORD) && !told.contains(TOKEN), "{told}");
    }
    cluster.kubectl(&["delete", "pod", "opened", "--grace-period=0"]).unwrap();
    until_no_vm_is_left(&cluster);
}

/// Shims and VMs are gone some time after their pods.
fn until_no_vm_is_left(cluster: &Cluster) {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -E '^[^ ]*(qemu-system|vhost-device-vsock|shim-anchorhold)'; done";
    let begun = std::time::Instant::now();
    loop {
        let left = cluster.node().namespaces().command("sh").args(["-c", script]).output().unwrap();
        if left.stdout.is_empty() {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{}", String::from_utf8_lossy(&left.stdout));
        std::thread::sleep(Duration::from_millis(200));
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
    command: [sh, -c, "echo made by init > /data/made"]
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
      cat /data/made
      while read line; do case "$line" in *elsewhere*) echo alias $line;; esac; done < /etc/hosts
      (: > /file) 2> /dev/null || echo read-only root
      echo served > /data/index.html
      /bin/busybox httpd -p 8080 -h /data
      : > /data/ready
      until [ -e /data/stop ]; do sleep 1; done
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
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
    let image = busybox().unwrap();
    let pod = with_policy(folder.path(), SEMANTICS, "localhost/busybox:1", &image);
    cluster.node().import(&[("localhost/busybox:1", &image)]).await.unwrap();
    cluster.node().forget_tag("localhost/busybox:1").await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();
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
        "name semantics\n",
        "made by init\n",
        "alias 192.0.2.7",
        "read-only root\n",
    ] {
        assert!(said.contains(expect), "{expect}\n{said}");
    }
    let address = cluster.kubectl(&["get", "pod", "semantics", "-o", "jsonpath={.status.podIP}"]);
    let mut fetch = cluster.node().namespaces().command("/bin/busybox");
    fetch.args(["wget", "-q", "-O", "-", &format!("http://{}:8080/index.html", address.unwrap())]);
    assert_eq!(String::from_utf8_lossy(&fetch.output().unwrap().stdout), "served\n");

    let exec =
        |file: &str| cluster.kubectl(&["exec", "semantics", "--", "/bin/busybox", "touch", file]);
    let refused = exec("/data/stopped").unwrap_err().to_string();
    assert!(refused.contains("ExecProcessRequest denied by the policy"), "{refused}");
    exec("/data/stop").unwrap();
    assert_eq!(cluster.wait_for_end("semantics", LIMIT).unwrap(), "Succeeded");
}

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
    let mut ask = cluster.node().namespaces().command(&echo);
    ask.args(["ask", &format!("{}:5353", address.unwrap()), "over udp"]);
    assert_eq!(String::from_utf8_lossy(&ask.output().unwrap().stdout), "over udp");

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
