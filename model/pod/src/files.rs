//! The files that the node gives to each container, which the Kata runtime copies into the guest.

use std::collections::BTreeSet;

use crate::{Container, DnsPolicy, HostValues, Pod};

/// Where the Kata runtime's copied files lie in the guest.
pub const SHARED_DIR: &str = "/run/kata-containers/shared/containers";

/// Copied files of the sandbox container.
pub(crate) const SANDBOX_FILES: [&str; 1] = ["resolv.conf"];

/// Base names of a workload container's copied files, in the order of their mounts.
pub(crate) fn container_files(container: &Container) -> Vec<String> {
    files(container).into_iter().map(|file| file.base_name).collect()
}

/// One file that is copied in and bound over a path of the container.
pub(crate) struct File {
    /// Where the container sees it.
    pub(crate) destination: String,
    /// Last component of the destination, part of the name in [`SHARED_DIR`].
    pub(crate) base_name: String,
    /// What it holds.
    pub(crate) content: Content,
}

/// What a copied file holds.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    Hosts,
    TerminationLog,
    Hostname,
    ResolvConf,
}

/// The kubelet's two files, then containerd's two; one whose place a volume takes is left out.
pub(crate) fn files(container: &Container) -> Vec<File> {
    let all = [
        ("/etc/hosts", Content::Hosts),
        (container.termination_message_path.as_str(), Content::TerminationLog),
        ("/etc/hostname", Content::Hostname),
        ("/etc/resolv.conf", Content::ResolvConf),
    ];
    let taken: BTreeSet<&str> =
        container.mounts.iter().map(|mount| mount.path.trim_end_matches('/')).collect();
    all.into_iter()
        .filter(|(path, _)| !taken.contains(path))
        .filter_map(|(path, content)| {
            let (_, base_name) = path.rsplit_once('/')?;
            Some(File { destination: path.into(), base_name: base_name.into(), content })
        })
        .collect()
}

/// The file's bytes.
pub(crate) fn content(content: Content, pod: &Pod, host: &HostValues) -> String {
    match content {
        Content::Hosts => hosts(pod, host),
        Content::TerminationLog => String::new(),
        Content::Hostname => format!("{}\n", pod.hostname(host)),
        Content::ResolvConf => {
            resolv_conf(pod, host).iter().map(|line| format!("{line}\n")).collect()
        }
    }
}

/// `/etc/hosts` as the kubelet writes it for pods with their own network.
fn hosts(pod: &Pod, host: &HostValues) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let hostname = pod.hostname(host);
    text += &match &pod.subdomain {
        Some(subdomain) => {
            let namespace = pod.namespace().render(host);
            let full = format!("{hostname}.{subdomain}.{namespace}.svc.cluster.local");
            format!("{}\t{full}\t{hostname}\n", host.pod_ip)
        }
        None => format!("{}\t{hostname}\n", host.pod_ip),
    };
    if !pod.host_aliases.is_empty() {
        text += "\n# Entries added by HostAliases.\n";
    }
    for alias in &pod.host_aliases {
        text += &format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t"));
    }
    text
}

/// Lines of `/etc/resolv.conf` (kubelet, `dnsPolicy` and `dnsConfig` merged).
pub(crate) fn resolv_conf(pod: &Pod, host: &HostValues) -> Vec<String> {
    let dns = &pod.dns;
    let from_host = dns.policy == DnsPolicy::FromHost;
    let merged = |host: &[String], own: &[String]| {
        let mut all: Vec<String> = Vec::new();
        for value in host.iter().filter(|_| from_host).chain(own) {
            if !all.contains(value) {
                all.push(value.clone());
            }
        }
        all
    };
    let mut lines = Vec::new();
    let searches = merged(&host.dns.searches, &dns.searches);
    if !searches.is_empty() {
        lines.push(format!("search {}", searches.join(" ")));
    }
    let nameservers = merged(&host.dns.nameservers, &dns.nameservers);
    lines.extend(nameservers.iter().map(|server| format!("nameserver {server}")));
    let options = merged(&host.dns.options, &dns.options);
    if !options.is_empty() {
        lines.push(format!("options {}", options.join(" ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, host, pod};
    use crate::{HostAlias, VolumeMount};

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let mut pod = pod(vec![]);
        let host = host(&pod);
        assert!(hosts(&pod, &host).ends_with("ip6-allrouters\n10.0.2.15\tweb\n"));
        pod.subdomain = Some("sub".into());
        pod.host_aliases =
            vec![HostAlias { ip: "1.2.3.4".into(), hostnames: vec!["a".into(), "b".into()] }];
        let text = hosts(&pod, &host);
        assert!(text.contains("10.0.2.15\tweb.sub.default.svc.cluster.local\tweb\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn resolver_settings_merge_unless_the_policy_is_none() {
        let mut pod = pod(vec![]);
        let host = host(&pod);
        assert_eq!(resolv_conf(&pod, &host), ["nameserver 10.0.2.3"]);
        pod.dns.nameservers = vec!["9.9.9.9".into(), "10.0.2.3".into()];
        pod.dns.searches = vec!["a".into(), "b".into()];
        pod.dns.options = vec!["ndots:5".into()];
        let expect = ["search a b", "nameserver 10.0.2.3", "nameserver 9.9.9.9", "options ndots:5"];
        assert_eq!(resolv_conf(&pod, &host), expect);
        pod.dns.policy = DnsPolicy::OnlyConfig;
        assert_eq!(resolv_conf(&pod, &host)[1], "nameserver 9.9.9.9");
    }

    #[test]
    fn a_volume_takes_the_place_of_a_copied_file() {
        let mut container = container("app");
        assert_eq!(
            container_files(&container),
            ["hosts", "termination-log", "hostname", "resolv.conf"]
        );
        let (volume, path) = ("v".into(), "/etc/hosts".into());
        container.mounts = vec![VolumeMount { volume, path, read_only: false, sub_path: None }];
        assert_eq!(container_files(&container), ["termination-log", "hostname", "resolv.conf"]);
    }
}
