use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ah_containerd_api::Client;
use ah_containerd_api::snapshots::ListSnapshotsRequest;
use ah_containerd_api::types::Empty;
use ah_shim::{Config, Tee};
use ah_vmm::{Accelerator, HostTee, Tools, VmError, accelerator, host_tee};
use serde::Serialize;
use tokio::time::timeout;

use crate::merge::{RUNTIME_TYPE, Wanted, handlers_of, merge};
use crate::version::ContainerdVersion;

/// How long a daemon may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The shim's program, as containerd makes its name from [`RUNTIME_TYPE`].
const SHIM: &str = "containerd-shim-anchorhold-v2";
/// What a shim needs of a guest image.
const GUEST_FILES: [&str; 2] = ["vmlinuz", "initrd"];
/// The check of a runtime handler's file.
const HANDLER: &str = "handler";

/// Where a node's parts are.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// containerd's socket.
    pub containerd_socket: PathBuf,
    /// The snapshotter's socket.
    pub snapshotter_socket: PathBuf,
    /// containerd's configuration.
    pub config: PathBuf,
    /// Where the accelerator's answer is kept.
    pub cache: PathBuf,
}

/// How a part of the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// As it should be.
    Good,
    /// Pods run, with something less.
    Limited,
    /// No confidential pod runs.
    Missing,
}

/// One part of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub name: &'static str,
    /// How it is.
    pub finding: Finding,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// Looks at everything that a confidential pod needs of this node. Changes nothing.
pub async fn doctor(options: &DoctorOptions) -> Vec<Check> {
    let tools = Tools::find(&[]);
    let mut checks =
        vec![tee(host_tee::find()), accelerator(tools.as_ref().ok(), &options.cache).await];
    checks.push(vsock(Path::new("/dev/vhost-vsock"), tools.ok().and_then(|t| t.vsock_bridge)));
    checks.push(overlay());
    let (check, version) = containerd(&options.containerd_socket).await;
    checks.push(check);
    checks.push(snapshotter(&options.snapshotter_socket).await);
    checks.push(configuration(options, version));
    checks.extend(handlers(&options.config));
    checks.push(shim());
    checks.push(port_forward(on_path("iptables")));
    checks
}

fn good(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, finding: Finding::Good, found: found.into(), remedy: None }
}

fn not_good(
    name: &'static str,
    finding: Finding,
    found: impl Into<String>,
    remedy: &'static str,
) -> Check {
    Check { name, finding, found: found.into(), remedy: Some(remedy) }
}

/// Guests of SEV-SNP are started where a handler says so; the launch has never met hardware. None of TDX are.
fn tee(found: Result<HostTee, VmError>) -> Check {
    let (found, remedy) = match found {
        Ok(HostTee::Snp) => (
            "SEV-SNP is here; launches with it are written and were never tried on hardware"
                .to_owned(),
            "`anchorhold node install --tee snp` uses it for pods of a node, `anchorhold run --tee auto` for others",
        ),
        Ok(HostTee::Tdx) => (
            "TDX is here, and this version starts no guest in it".to_owned(),
            "none: pods run with the software TEE, which is not confidential",
        ),
        Err(error) => (
            error.to_string(),
            "none: pods run with the software TEE, which is not confidential; on a machine that has SEV-SNP, switch it on in the firmware \
             and the kernel",
        ),
    };
    not_good("tee", Finding::Limited, found, remedy)
}

async fn accelerator(tools: Option<&Tools>, cache: &Path) -> Check {
    const NAME: &str = "accelerator";
    let Some(tools) = tools else {
        let remedy = "install QEMU for x86-64 (Debian: qemu-system-x86)";
        return not_good(NAME, Finding::Missing, "no qemu-system-x86_64", remedy);
    };
    match accelerator::choose(&tools.qemu, cache).await {
        Ok(Accelerator::Kvm) => good(NAME, "kvm"),
        Ok(Accelerator::Tcg) => not_good(
            NAME,
            Finding::Limited,
            "tcg: a guest does not run under /dev/kvm",
            "load kvm_amd or kvm_intel; in a VM, allow nested virtualization",
        ),
        Err(error) => {
            not_good(NAME, Finding::Missing, error.to_string(), "look at QEMU's installation")
        }
    }
}

fn vsock(device: &Path, bridge: Option<PathBuf>) -> Check {
    match (device.exists(), bridge) {
        (true, _) => good("vsock", device.display().to_string()),
        (false, Some(bridge)) => good("vsock", bridge.display().to_string()),
        (false, None) => not_good(
            "vsock",
            Finding::Missing,
            format!("neither {} nor vhost-device-vsock", device.display()),
            "load the kernel module vhost_vsock, or put vhost-device-vsock on PATH",
        ),
    }
}

fn overlay() -> Check {
    let systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let found = format!("Linux {}", release.trim());
    match systems.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        true => good("kernel", format!("{found} with overlayfs")),
        false => not_good(
            "kernel",
            Finding::Missing,
            format!("{found} without overlayfs"),
            "load the kernel module overlay",
        ),
    }
}

async fn containerd(socket: &Path) -> (Check, Option<ContainerdVersion>) {
    const NAME: &str = "containerd";
    let client = Client::new(socket);
    let answer = timeout(ANSWER_LIMIT, client.call(Empty::default())).await;
    let version = match answer {
        Ok(Ok(response)) => response.version,
        other => {
            let why = other.map_or("no answer".to_owned(), |r| {
                r.map_or_else(|e| e.message().to_owned(), |_| String::new())
            });
            let found = format!("{}: {why}", socket.display());
            let remedy = "start containerd, or name its socket with --containerd";
            return (not_good(NAME, Finding::Missing, found, remedy), None);
        }
    };
    match version.parse::<ContainerdVersion>() {
        Ok(known) if known >= ContainerdVersion::OLDEST => (good(NAME, version), Some(known)),
        _ => (not_good(NAME, Finding::Missing, version, "install containerd 1.6 or later"), None),
    }
}

async fn snapshotter(socket: &Path) -> Check {
    let client = Client::new(socket);
    let answer = timeout(ANSWER_LIMIT, client.stream(ListSnapshotsRequest::default())).await;
    match answer {
        Ok(Ok(_)) => good("snapshotter", format!("answers on {}", socket.display())),
        _ => not_good(
            "snapshotter",
            Finding::Missing,
            format!("does not answer on {}", socket.display()),
            "start anchorhold-snapshotter",
        ),
    }
}

/// Whether merging would change nothing but the handlers' names, which the file has.
fn configuration(options: &DoctorOptions, version: Option<ContainerdVersion>) -> Check {
    const NAME: &str = "configuration";
    let text = fs::read_to_string(&options.config).unwrap_or_default();
    let wanted = Wanted {
        handlers: Vec::new(),
        snapshotter_socket: options.snapshotter_socket.clone(),
        version: version.unwrap_or(ContainerdVersion::OLDEST),
    };
    let path = options.config.display();
    match merge(&text, &wanted) {
        Ok(merged) if merged == text && text.contains(RUNTIME_TYPE) => {
            good(NAME, format!("{path}"))
        }
        Ok(_) if handlers_of(&text).is_empty() => not_good(
            NAME,
            Finding::Missing,
            format!("{path} has no runtime handler of ours"),
            "anchorhold node install, then restart containerd",
        ),
        Ok(_) if version.is_none() => not_good(
            NAME,
            Finding::Limited,
            format!(
                "{path} has our handlers; whether they fit containerd is not known, since it does not answer"
            ),
            "start containerd, and ask again",
        ),
        Ok(_) => not_good(
            NAME,
            Finding::Missing,
            format!("{path} differs from what `node install` would write"),
            "anchorhold node install (--print shows it), then restart containerd",
        ),
        Err(error) => {
            not_good(NAME, Finding::Missing, format!("{path}: {error}"), "merge it by hand")
        }
    }
}

/// Each handler's file, and the guest image that it names.
fn handlers(config: &Path) -> Vec<Check> {
    let text = fs::read_to_string(config).unwrap_or_default();
    let handlers = handlers_of(&text);
    handlers.iter().map(|handler| handler_check(&handler.name, &handler.config)).collect()
}

/// The file as the shim itself reads it, and the guest image that it names.
fn handler_check(name: &str, config: &Path) -> Check {
    let missing = |found, remedy| not_good(HANDLER, Finding::Missing, found, remedy);
    let path = config.display();
    let read = match Config::read(config) {
        Ok(read) => read,
        Err(error) => {
            let why = std::error::Error::source(&error);
            let why =
                why.map(|why| format!(": {}", why.to_string().trim_end())).unwrap_or_default();
            let remedy = "anchorhold node install writes it; --print shows what would be in it";
            return missing(format!("{name}: {error}{why}"), remedy);
        }
    };
    let cmdline = format!("cmdline.{}", read.tee.name());
    let needed = GUEST_FILES.into_iter().chain([cmdline.as_str()]);
    let absent = needed.map(|file| read.guest.join(file)).find(|file| !file.is_file());
    if let Some(file) = absent {
        return missing(
            format!("{name}: {} is not there", file.display()),
            "anchorhold guest build --out makes a guest image",
        );
    }
    match (read.confidential, read.tee) {
        (false, _) => good(HANDLER, format!("{name}: {path}")),
        (true, Tee::Software) => not_good(
            HANDLER,
            Finding::Limited,
            format!("{name}: {path}: tee: software (not confidential)"),
            "`anchorhold node install --tee snp` on a machine that has SEV-SNP",
        ),
        (true, Tee::Snp) => snp_handler(format!("{name}: {path}: tee: snp"), host_tee::find()),
    }
}

/// A handler that asks for SEV-SNP starts no pod where that is not.
fn snp_handler(told: String, found: Result<HostTee, VmError>) -> Check {
    const REMEDY: &str = "switch SEV-SNP on in the firmware and the kernel, or `anchorhold node install --tee software`, which is not confidential";
    let found = match found {
        Ok(HostTee::Snp) => return good(HANDLER, told),
        Ok(HostTee::Tdx) => "this machine has TDX".to_owned(),
        Err(error) => error.to_string(),
    };
    not_good(HANDLER, Finding::Missing, format!("{told}: {found}"), REMEDY)
}

fn shim() -> Check {
    match on_path(SHIM) {
        Some(file) => good("shim", file.display().to_string()),
        None => not_good(
            "shim",
            Finding::Missing,
            format!("no {SHIM} on PATH"),
            "put it into a folder of containerd's PATH, as /usr/local/bin",
        ),
    }
}

/// What a shim redirects forwarded ports with.
fn port_forward(iptables: Option<PathBuf>) -> Check {
    const NAME: &str = "port-forward";
    match iptables {
        Some(file) => good(NAME, file.display().to_string()),
        None => not_good(
            NAME,
            Finding::Limited,
            "no iptables on PATH",
            "install iptables where containerd's PATH finds it: kubectl port-forward to pods in VMs needs it, and nothing else does",
        ),
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_promise_a_tee_where_a_pod_of_a_node_gets_one() {
        let none = VmError::Unsupported { what: "x", found: "none".into(), expected: "Y" };
        for (found, promised) in
            [(Ok(HostTee::Snp), true), (Ok(HostTee::Tdx), false), (Err(none), false)]
        {
            let check = tee(found);
            assert_eq!(check.finding, Finding::Limited);
            let is_promised = check.remedy.is_some_and(|remedy| !remedy.starts_with("none"));
            assert_eq!(is_promised, promised, "{check:?}");
        }
    }

    #[test]
    fn a_handler_of_snp_is_good_where_snp_is() {
        let none = VmError::Unsupported { what: "x", found: "none".into(), expected: "Y" };
        for (found, expect) in [
            (Ok(HostTee::Snp), Finding::Good),
            (Ok(HostTee::Tdx), Finding::Missing),
            (Err(none), Finding::Missing),
        ] {
            assert_eq!(snp_handler("anchorhold-cc".into(), found).finding, expect);
        }
    }

    #[test]
    fn without_iptables_a_node_is_limited() {
        assert_eq!(port_forward(None).finding, Finding::Limited);
        assert_eq!(port_forward(Some("/usr/sbin/iptables".into())).finding, Finding::Good);
    }

    #[test]
    fn vsock_needs_the_device_or_the_program() {
        let check = |device: &str, bridge: Option<&str>, expect: Finding| {
            let found = vsock(Path::new(device), bridge.map(PathBuf::from));
            assert_eq!(found.finding, expect);
            assert_eq!(found.remedy.is_some(), expect != Finding::Good);
        };
        check("/dev/null", None, Finding::Good);
        check("/dev/none", Some("/usr/bin/vhost-device-vsock"), Finding::Good);
        check("/dev/none", None, Finding::Missing);
    }
}
