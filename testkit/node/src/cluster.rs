use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::config::NodeConfig;
use crate::namespaces::Daemon;
use crate::node::{Node, PAUSE, output};

/// How long a part of the control plane may take, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// The name of the one node.
const NODE: &str = "node1";
/// Its address, on the loopback device of its network namespace.
const NODE_ADDRESS: &str = "10.77.0.1";
/// What gives services their addresses, where it is among the programs.
const PROXY: &str = "kube-proxy";
/// Addresses of services.
const SERVICES: &str = "10.96.0.0/16";

/// A real Kubernetes of one node: etcd, API server, controller manager, scheduler, kubelet and kube-proxy on a [`Node`], in its
/// namespaces, so that ports and addresses are its own.
pub struct Cluster {
    node: Node,
    programs: PathBuf,
    daemons: Vec<Daemon>,
}

impl Cluster {
    /// Starts it with the Kubernetes programs in a folder, and waits until the node is ready.
    ///
    /// # Errors
    /// When a program ends or does not get ready, with its log.
    pub async fn start(config: NodeConfig, programs: &Path) -> Result<Self> {
        let node = Node::start(config).await?;
        let mut cluster = Self { node, programs: programs.to_owned(), daemons: Vec::new() };
        cluster.write_files()?;
        cluster.ip(&["addr", "add", &format!("{NODE_ADDRESS}/32"), "dev", "lo"])?;
        // A node has a default route; what goes to a service's address needs one before it is given another.
        cluster.ip(&["route", "add", SERVICES, "dev", "lo", "src", NODE_ADDRESS])?;
        cluster.start_etcd()?;
        cluster.start_apiserver()?;
        cluster.until("the API server answers", |cluster| {
            cluster.kubectl(&["get", "--raw", "/healthz"]).is_ok()
        })?;
        cluster.start_controllers()?;
        cluster.start_kubelet()?;
        cluster.until("the node is ready", |cluster| {
            let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            cluster.kubectl(&["get", "node", NODE, "-o", path]).is_ok_and(|s| s == "True")
        })?;
        if cluster.programs.join(PROXY).is_file() {
            cluster.start_proxy()?;
        }
        Ok(cluster)
    }

    /// The node, with its containerd.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Runs `kubectl`.
    ///
    /// # Errors
    /// When it fails, with what it wrote.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = self.node.namespaces().command(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.file("kubeconfig")).args(args);
        // It keeps a cache below HOME.
        command.env("HOME", self.node.folder());
        output(&mut command)
    }

    /// `kubectl port-forward`, while what it gives lives.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn forward(&self, object: &str, ports: &[&str]) -> Result<Daemon> {
        let mut command = self.program("kubectl");
        command.arg("--kubeconfig").arg(self.file("kubeconfig")).env("HOME", self.node.folder());
        command.args(["port-forward", object]).args(ports);
        self.node.namespaces().start("port-forward", command, &self.file("port-forward.log"))
    }

    /// `kubectl apply`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let file = self.file("apply.yaml");
        fs::write(&file, yaml)?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).map(|_| ())
    }

    /// Waits until a pod has ended, and gives its phase (`Succeeded`, `Failed`).
    ///
    /// # Errors
    /// When it has not within the time, with what `kubectl describe` says.
    pub fn wait_for_end(&self, pod: &str, limit: Duration) -> Result<String> {
        let begun = Instant::now();
        loop {
            let object: Value =
                serde_json::from_str(&self.kubectl(&["get", "pod", pod, "-o", "json"])?)?;
            let phase = object["status"]["phase"].as_str().unwrap_or_default();
            if matches!(phase, "Succeeded" | "Failed") {
                return Ok(phase.to_owned());
            }
            if begun.elapsed() > limit {
                let described = self.kubectl(&["describe", "pod", pod])?;
                bail!("pod {pod} has not ended in {} s\n{described}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Asks `kubectl` again and again until its answer is as expected, and gives that.
    ///
    /// # Errors
    /// When it is not within the time, with the last answer.
    pub fn wait_for(
        &self,
        args: &[&str],
        limit: Duration,
        expected: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let begun = Instant::now();
        loop {
            let answer = self.kubectl(args);
            match answer {
                Ok(text) if expected(&text) => return Ok(text),
                answer if begun.elapsed() > limit => {
                    let pods = self.kubectl(&["describe", "pods"])?;
                    bail!("kubectl {args:?} in {} s: {answer:?}\n{pods}", limit.as_secs());
                }
                _ => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// What everything has logged.
    pub fn logs(&self) -> String {
        let logs: String = self.daemons.iter().map(|d| format!("== {d:?}\n{}", d.log())).collect();
        format!("{logs}\n{}", self.node.logs())
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        let mut command = self.node.namespaces().command("/bin/busybox");
        output(command.arg("ip").args(args)).map(|_| ())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.node.folder().join("kubernetes").join(name)
    }

    fn write_files(&self) -> Result<()> {
        fs::create_dir(self.node.folder().join("kubernetes"))?;
        fs::write(self.file("kubeconfig"), KUBECONFIG)?;
        fs::write(self.file("tokens.csv"), "node,admin,admin,\"system:masters\"\n")?;
        fs::write(self.file("kubelet.yaml"), KUBELET)?;
        let (key, public) = (self.file("sa.key"), self.file("sa.pub"));
        output(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?;
        let mut make_public = Command::new("openssl");
        make_public.args(["rsa", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public);
        output(&mut make_public).map(|_| ())
    }

    fn start_etcd(&mut self) -> Result<()> {
        let mut etcd = self.node.namespaces().command("etcd");
        etcd.arg("--data-dir").arg(self.file("etcd")).args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380",
            // The test's cluster is not to outlive a power cut.
            "--unsafe-no-fsync",
        ]);
        self.start_daemon("etcd", etcd)
    }

    fn start_apiserver(&mut self) -> Result<()> {
        let mut command = self.program("kube-apiserver");
        command.arg("--cert-dir").arg(self.file("certificates"));
        command.arg("--token-auth-file").arg(self.file("tokens.csv"));
        command.arg("--service-account-key-file").arg(self.file("sa.pub"));
        command.arg("--service-account-signing-key-file").arg(self.file("sa.key"));
        command.arg(format!("--service-cluster-ip-range={SERVICES}"));
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--service-account-issuer=https://127.0.0.1:6443",
            "--authorization-mode=RBAC",
            "--kubelet-preferred-address-types=InternalIP",
            "--bind-address=127.0.0.1",
            "--advertise-address=10.77.0.1",
            "--allow-privileged=true",
            // Pods have no token of a service account unless they ask for one.
            "--disable-admission-plugins=ServiceAccount",
        ]);
        self.start_daemon("kube-apiserver", command)
    }

    fn start_controllers(&mut self) -> Result<()> {
        let mut controllers = self.program("kube-controller-manager");
        controllers.arg("--kubeconfig").arg(self.file("kubeconfig"));
        controllers.arg("--service-account-private-key-file").arg(self.file("sa.key"));
        controllers.arg("--bind-address=127.0.0.1");
        self.start_daemon("kube-controller-manager", controllers)?;
        let mut scheduler = self.program("kube-scheduler");
        scheduler.arg("--kubeconfig").arg(self.file("kubeconfig"));
        scheduler.arg("--bind-address=127.0.0.1");
        self.start_daemon("kube-scheduler", scheduler)
    }

    fn start_kubelet(&mut self) -> Result<()> {
        let mut kubelet = self.program("kubelet");
        kubelet.arg("--kubeconfig").arg(self.file("kubeconfig"));
        kubelet.arg("--config").arg(self.file("kubelet.yaml"));
        kubelet.arg("--root-dir").arg(self.node.folder().join("kubelet"));
        kubelet.arg("--container-runtime=remote");
        let socket = self.node.folder().join("containerd.sock");
        kubelet.arg(format!("--container-runtime-endpoint=unix://{}", socket.display()));
        kubelet.arg(format!("--hostname-override={NODE}"));
        kubelet.arg(format!("--node-ip={NODE_ADDRESS}"));
        kubelet.arg(format!("--pod-infra-container-image={PAUSE}"));
        self.start_daemon("kubelet", kubelet)
    }

    /// What makes services of addresses: rules of iptables in the node's network namespace.
    fn start_proxy(&mut self) -> Result<()> {
        let mut proxy = self.program(PROXY);
        proxy.arg("--kubeconfig").arg(self.file("kubeconfig"));
        proxy.arg(format!("--hostname-override={NODE}"));
        proxy.args([
            "--proxy-mode=iptables",
            "--cluster-cidr=10.88.0.0/16",
            "--bind-address=127.0.0.1",
            "--healthz-bind-address=127.0.0.1:10256",
            // The table of connections is the machine's, not this node's.
            "--conntrack-max-per-core=0",
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ]);
        self.start_daemon(PROXY, proxy)
    }

    fn program(&self, name: &str) -> Command {
        self.node.namespaces().command(self.programs.join(name))
    }

    fn start_daemon(&mut self, name: &str, command: Command) -> Result<()> {
        let log = self.file(&format!("{name}.log"));
        self.daemons.push(self.node.namespaces().start(name, command, &log)?);
        Ok(())
    }

    fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !reached(self) {
            for daemon in &mut self.daemons {
                daemon.expect_running().with_context(|| format!("waiting until {what}"))?;
            }
            if begun.elapsed() > READY_LIMIT {
                let log = self.daemons.last().map(Daemon::log).unwrap_or_default();
                bail!("waited {} s until {what}\n{log}", READY_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

/// The API server makes its own certificate at its start, so there is none to pin: it is reached on loopback, in a network
/// namespace that only the test's processes are in.
const KUBECONFIG: &str = r#"apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}]
users: [{name: test, user: {token: node}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
"#;

const KUBELET: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: false
enforceNodeAllocatable: []
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
"#;
