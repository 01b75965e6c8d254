//! The ways in which guests of an image are started, and what the report of each holds.
//!
//! `anchorhold run` knows all disks before the start and boots by qboot, which looks for none of them. A node's shim plugs layers in
//! later, behind bridges that only SeaBIOS sets up. Both boot the same kernel, initrd and command line; the firmware is measured,
//! so an owner who has a key for a pod lists both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ah_digest::Sha384;
use ah_evidence::Tee;
use ah_guest_image::{GuestImage, Machine};
use ah_manifest::{NamedText, Rules};
use anyhow::{Context, Result};

use crate::guest::{SEV_FEATURES_SNP, VCPU_SIG_EPYC};
use crate::{guest, inputs};

/// One way to start a guest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Launch {
    /// The firmware that QEMU is given.
    pub firmware: PathBuf,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// What a report of the guest holds.
    pub measurement: Sha384,
}

/// All launches of an image with these numbers of virtual CPUs: that of `anchorhold run` comes first, then that of a node's shim.
///
/// # Errors
/// A firmware or a file of the image cannot be read, or the TEE measures in another way.
pub fn launches(image: &GuestImage, vcpus: &BTreeSet<u32>, tee: Tee) -> Result<Vec<Launch>> {
    let mut launches = Vec::new();
    for firmware in firmwares(tee)? {
        let bytes =
            fs::read(&firmware).with_context(|| format!("reading {}", firmware.display()))?;
        for vcpus in vcpus.iter().copied() {
            let machine = Machine {
                firmware: &bytes,
                vcpus,
                vcpu_sig: VCPU_SIG_EPYC,
                sev_features: SEV_FEATURES_SNP,
            };
            let measurement = ah_guest_image::measure(image, &machine, tee)?;
            launches.push(Launch { firmware: firmware.clone(), vcpus, measurement });
        }
    }
    Ok(launches)
}

/// The firmware of a machine whose disks are known, and that of one with bridges. Hardware TEEs have one that measures a kernel.
fn firmwares(tee: Tee) -> Result<Vec<PathBuf>> {
    let mut all = vec![guest::firmware(tee)?];
    if tee != Tee::Software {
        return Ok(all);
    }
    match ah_vmm::firmware::find_for_bridges() {
        Ok(with_bridges) if all.contains(&with_bridges) => {}
        Ok(with_bridges) => all.push(with_bridges),
        Err(error) => eprintln!(
            "warning: the firmware of Kubernetes nodes is not on this machine, so their pods are not among the launches: {error}"
        ),
    }
    Ok(all)
}

/// Numbers of virtual CPUs that the VM of a pod can have: what `anchorhold run` gives it, what a shim makes of the pod's own hints, and of the limits
/// that a kubelet hands on (Kubernetes 1.23 and later) where a pod has none.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn vcpus_of(pod: &Path) -> Result<BTreeSet<u32>> {
    let mut vcpus = BTreeSet::from([crate::run::VCPUS]);
    let NamedText { name, text } = inputs::text(pod)?;
    // a policy alone, without its pod, says nothing of its size
    if let Ok(carriers) = ah_manifest::carriers(NamedText { name, text }, &Rules::shipped()) {
        let both = carriers.iter().flat_map(|pod| [pod.cpu_limit_milli, pod.cpu_milli]);
        let whole = both.map(|milli| milli.div_ceil(1_000));
        vcpus.extend(whole.filter_map(|cores| u32::try_from(cores).ok()).filter(|n| *n > 0));
    }
    Ok(vcpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_limits_say_how_many_processors_its_machine_has() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        let check = |limit: &str, expect: &[u32]| {
            let text = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - {{name: a, image: x, resources: {{limits: {{{limit}}}}}}}\n"
            );
            fs::write(&file, text).unwrap();
            assert_eq!(vcpus_of(&file).unwrap(), BTreeSet::from_iter(expect.iter().copied()));
        };
        check("memory: 64Mi", &[1]);
        check("cpu: 500m", &[1]);
        check("cpu: 2500m", &[1, 3]);
        check("cpu: 2500m}, requests: {cpu: 1500m", &[1, 3]);
        check("memory: 64Mi}, requests: {cpu: 1500m", &[1, 2]);
    }
}
