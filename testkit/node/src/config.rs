use std::path::{Path, PathBuf};
use std::time::Duration;

/// Environment variable: the folder of another containerd than the installed one, for all tests.
const CONTAINERD: &str = "ANCHORHOLD_TEST_CONTAINERD";

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The program `anchorhold-snapshotter`.
    pub snapshotter: PathBuf,
    /// Folder with containerd's programs (`containerd`, `ctr`): that of Debian's package, or the one that
    /// `ANCHORHOLD_TEST_CONTAINERD` names.
    pub containerd: PathBuf,
    /// Runtime handlers of CRI besides runc: name and the TOML below
    /// `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.NAME]`.
    pub runtimes: Vec<(String, String)>,
    /// Folders that containerd looks for shims in, before its own PATH.
    pub path: Vec<PathBuf>,
    /// Environment variables that containerd hands on to its shims.
    pub env: Vec<(String, String)>,
    /// Socket for what shims count, where the node is to show metrics.
    pub metrics_events: Option<PathBuf>,
    /// Where spans of traces go, the snapshotter's and shims' and, where it is built for that, containerd's (Debian 12's is not): `http://HOST:PORT` in the node's network.
    /// Needs `metrics_events`.
    pub collector: Option<String>,
    /// After how long without progress containerd gives up a pull (`image_pull_progress_timeout`, from containerd 1.7 on; unknown to older ones).
    pub pull_progress_limit: Duration,
}

impl NodeConfig {
    /// With runc only.
    pub fn new(snapshotter: impl Into<PathBuf>) -> Self {
        Self {
            snapshotter: snapshotter.into(),
            containerd: std::env::var_os(CONTAINERD).map_or("/usr/bin".into(), PathBuf::from),
            runtimes: Vec::new(),
            path: Vec::new(),
            env: Vec::new(),
            metrics_events: None,
            collector: None,
            pull_progress_limit: Duration::from_secs(300),
        }
    }

    /// With a runtime handler of ours; its shim reads the file `shim_config`.
    #[must_use]
    pub fn with_handler(mut self, name: &str, shim: &Path, shim_config: &Path) -> Self {
        let section = r#"plugins."io.containerd.grpc.v1.cri".containerd.runtimes"#;
        let toml = format!(
            r#"runtime_type = "io.containerd.anchorhold.v2"
pod_annotations = ["io.katacontainers.*", "anchorhold.dev/*"]
privileged_without_host_devices = true
[{section}.{name}.options]
ConfigPath = "{}"
"#,
            shim_config.display()
        );
        self.runtimes.push((name.to_owned(), toml));
        self.path.extend(shim.parent().map(Path::to_owned));
        self
    }

    /// containerd's configuration for a node in a folder.
    pub(crate) fn containerd_toml(&self, folder: &Path) -> String {
        let runtimes: String = self
            .runtimes
            .iter()
            .map(|(name, toml)| {
                format!(
                    "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}]\n{toml}\n"
                )
            })
            .collect();
        format!(
            r#"version = 2
root = "{folder}/root"
state = "{folder}/state"

[grpc]
address = "{folder}/containerd.sock"

[proxy_plugins.anchorhold]
type = "snapshot"
address = "{folder}/snapshotter.sock"

[plugins."io.containerd.gc.v1.scheduler"]
startup_delay = "0s"
deletion_threshold = 1
schedule_delay = "0s"

# containerd 2.x unpacks what ctr imports by these rules; older ones do not look at them.
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "anchorhold"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
image_pull_progress_timeout = "{limit}s"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "anchorhold"
disable_snapshot_annotations = false

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

{runtimes}"#,
            folder = folder.display(),
            pause = crate::node::PAUSE,
            limit = self.pull_progress_limit.as_secs(),
        )
    }
}

/// The network that pods get: a bridge in the node's own network namespace.
pub(crate) const CNI: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "node",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
      }
    },
    {"type": "loopback"}
  ]
}"#;
