//! The volume with the service account's token that a cluster puts into pods.

use ah_pod::{FileContent, FileVolume, Pod, Text, Volume, VolumeFile, VolumeMount, VolumeSource};

use crate::Platform;
use crate::template::PodContext;

/// Where it is mounted (admission plugin `ServiceAccount`).
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Its certificates, as the annotation would name them.
pub(crate) const CERTIFICATES: &str = "configMap/kube-root-ca.crt";
const MODE: u32 = 0o644;

/// Adds volume and mounts as the cluster would, where it would.
///
/// A live pod has them already: a container that has a mount there is left alone.
pub(crate) fn add(context: &PodContext<'_>, pod: &mut Pod) {
    if !is_wanted(context) {
        return;
    }
    let name = free_name(pod);
    let is_there = |mount: &VolumeMount| mount.path == MOUNT_PATH;
    let mut mounted = false;
    for container in &mut pod.containers {
        if container.mounts.iter().any(is_there) {
            continue;
        }
        mounted = true;
        container.mounts.push(VolumeMount {
            volume: name.clone(),
            path: MOUNT_PATH.into(),
            read_only: true,
            sub_path: None,
        });
    }
    if mounted {
        let source = VolumeSource::Files(FileVolume { files: files(context), unpinned: None });
        pod.volumes.push(Volume { name, source });
    }
}

/// The pod's own word, which its service account's stands for, else the cluster's default. Without a cluster there is nobody to
/// give one.
fn is_wanted(context: &PodContext<'_>) -> bool {
    let own = context.spec.automount_service_account_token;
    own.unwrap_or(context.platform == Platform::Cluster)
}

fn free_name(pod: &Pod) -> String {
    let is_taken = |name: &String| pod.volumes.iter().any(|volume| volume.name == *name);
    let numbered = (0..).map(|number: u32| format!("kube-api-access-{number}"));
    let names = std::iter::once("kube-api-access".to_owned()).chain(numbered);
    names.into_iter().find(|name| !is_taken(name)).unwrap_or_default()
}

fn files(context: &PodContext<'_>) -> Vec<VolumeFile> {
    let key = (context.namespace.clone(), "kube-root-ca.crt".to_owned());
    let certificates =
        context.sources.config_map_files.get(&key).and_then(|data| data.get("ca.crt"));
    let certificates = match certificates {
        Some(bytes) => FileContent::Fixed(ah_pod::FileBytes(bytes.clone())),
        None => FileContent::Free(CERTIFICATES.into()),
    };
    let namespace = match context.namespace().as_literal() {
        Some(text) => FileContent::Fixed(ah_pod::FileBytes(text.as_bytes().to_vec())),
        None => FileContent::Host(ah_pod::HostFact::PodNamespace),
    };
    [("ca.crt", certificates), ("namespace", namespace), ("token", FileContent::Token)]
        .map(|(path, content)| VolumeFile { path: path.into(), mode: MODE, content })
        .into()
}

impl PodContext<'_> {
    /// The pod's namespace, or that the cluster says it.
    pub(crate) fn namespace(&self) -> Text {
        match &self.namespace {
            Some(namespace) => namespace.as_str().into(),
            None => Text::host(ah_pod::HostFact::PodNamespace),
        }
    }

    /// The name of the pod's service account.
    pub(crate) fn service_account(&self) -> &str {
        let account = [&self.spec.service_account_name, &self.spec.service_account];
        let account = account.into_iter().flatten().find(|name| !name.is_empty());
        account.map_or("default", String::as_str)
    }
}
