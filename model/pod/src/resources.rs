//! CPU, memory and OOM score, as the kubelet works them out from requests and limits.

use std::ops::RangeInclusive;

use ah_agent_api::oci;
use serde::{Deserialize, Serialize};

use crate::{Container, Pod, Role};

/// OOM score of the sandbox container (containerd `defaultSandboxOOMAdj`).
pub const SANDBOX_OOM_SCORE_ADJ: i64 = -998;

/// CPU shares of the sandbox container (containerd `defaultSandboxCPUshares`), and the kernel's least.
const MIN_CPU_SHARES: u64 = 2;
/// The kernel's most.
const MAX_CPU_SHARES: u64 = 262_144;
/// CFS period, microseconds (kubelet `quotaPeriod`).
const CPU_PERIOD_US: u64 = 100_000;
/// Least CFS quota, microseconds (kubelet `minQuotaPeriod`).
const MIN_CPU_QUOTA_US: u64 = 1_000;

/// `resources` of a container; what only a limit says is its own request too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// `requests.cpu`, thousandths of a core.
    pub cpu_request_milli: Option<u64>,
    /// `limits.cpu`, thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// `requests.memory`.
    pub memory_request_bytes: Option<u64>,
    /// `limits.memory`.
    pub memory_limit_bytes: Option<u64>,
    /// `limits.ephemeral-storage`: what the container may write into its root; 0 is none, as to the kubelet.
    pub storage_limit_bytes: Option<u64>,
}

/// Quality-of-service class (Kubernetes: pod QoS classes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Limits for CPU and memory everywhere, requests equal to them.
    Guaranteed,
    /// Something asked for.
    Burstable,
    /// Nothing asked for.
    BestEffort,
}

impl Resources {
    fn cpu_request(&self) -> u64 {
        self.cpu_request_milli.or(self.cpu_limit_milli).unwrap_or(0)
    }

    /// The limit of what is written into the root, where there is one.
    pub fn root_limit_bytes(&self) -> Option<u64> {
        self.storage_limit_bytes.filter(|limit| *limit > 0)
    }

    fn memory_request(&self) -> u64 {
        self.memory_request_bytes.or(self.memory_limit_bytes).unwrap_or(0)
    }
}

/// The pod's class.
pub fn qos(pod: &Pod) -> Qos {
    let positive = |value: Option<u64>| value.filter(|value| *value > 0);
    let mut guaranteed = !pod.containers.is_empty();
    let mut asked = false;
    for resources in pod.containers.iter().map(|container| &container.resources) {
        let cpu = positive(resources.cpu_limit_milli);
        let memory = positive(resources.memory_limit_bytes);
        asked |= resources.cpu_request() > 0
            || resources.memory_request() > 0
            || cpu.is_some()
            || memory.is_some();
        guaranteed &= cpu == Some(resources.cpu_request());
        guaranteed &= memory == Some(resources.memory_request());
    }
    match (asked, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The bounds in which an honest node chooses the container's OOM score: one value, but for
/// burstable pods that ask for memory, where it depends on the node's memory.
pub fn oom_score_adj_bounds(pod: &Pod, container: &Container) -> RangeInclusive<i64> {
    match qos(pod) {
        Qos::Guaranteed => -997..=-997,
        Qos::BestEffort => 1000..=1000,
        Qos::Burstable if least_memory(pod, container) == 0 => 999..=999,
        Qos::Burstable => 3..=999,
    }
}

/// The container's OOM score (kubelet `GetContainerOOMScoreAdjust`). With a node of unknown size
/// (`node_memory_bytes` 0) it is the lower bound.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: u64) -> i64 {
    let bounds = oom_score_adj_bounds(pod, container);
    let request = u128::from(least_memory(pod, container));
    let part = (request * 1000).checked_div(u128::from(node_memory_bytes)).unwrap_or(1000);
    let score = 1000_i64.saturating_sub(i64::try_from(part).unwrap_or(1000));
    score.clamp(*bounds.start(), *bounds.end())
}

/// A sidecar counts as the least of the main containers that ask for memory (kubelet).
fn least_memory(pod: &Pod, container: &Container) -> u64 {
    let own = container.resources.memory_request();
    if container.role != Role::Sidecar {
        return own;
    }
    let mains = pod.containers.iter().filter(|container| container.role == Role::Main);
    mains.map(|main| main.resources.memory_request()).min().map_or(own, |least| least.min(own))
}

/// `linux.resources` after the Kata runtime's cut: no devices, no pids, no block I/O.
pub(crate) fn workload(container: &Container) -> oci::LinuxResources {
    let resources = &container.resources;
    let cpu = oci::LinuxCPU {
        Shares: shares(resources.cpu_request()),
        Quota: resources.cpu_limit_milli.map_or(0, quota_us),
        Period: CPU_PERIOD_US,
        ..Default::default()
    };
    let memory = resources.memory_limit_bytes.filter(|limit| *limit > 0).map(|limit| {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // the same value for memory and swap together: no swapping (containerd `WithResources`)
        oci::LinuxMemory { Limit: limit, Swap: limit, ..Default::default() }
    });
    oci::LinuxResources { CPU: Some(cpu).into(), Memory: memory.into(), ..Default::default() }
}

/// `linux.resources` of the sandbox container.
pub(crate) fn sandbox() -> oci::LinuxResources {
    let cpu = oci::LinuxCPU { Shares: MIN_CPU_SHARES, ..Default::default() };
    oci::LinuxResources { CPU: Some(cpu).into(), ..Default::default() }
}

fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_CPU_SHARES, MAX_CPU_SHARES)
}

fn quota_us(milli: u64) -> i64 {
    if milli == 0 {
        return 0;
    }
    let quota = (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_CPU_QUOTA_US);
    i64::try_from(quota).unwrap_or(i64::MAX)
}

/// `linux.cgroupsPath` (kubelet's cgroupfs form): `/kubepods[/class]/pod<uid>/<container id>`.
pub(crate) fn cgroups_path(pod: &Pod, pod_uid: &str, container_id: &str) -> String {
    let class = match qos(pod) {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    format!("/kubepods{class}/pod{pod_uid}/{container_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::{container, pod};

    fn resources(cpu: (u64, u64), memory: (u64, u64)) -> Resources {
        let set = |value| Some(value).filter(|value| *value > 0);
        Resources {
            cpu_request_milli: set(cpu.0),
            cpu_limit_milli: set(cpu.1),
            memory_request_bytes: set(memory.0),
            memory_limit_bytes: set(memory.1),
            storage_limit_bytes: None,
        }
    }

    fn check(all: &[Resources], qos_expect: Qos, score: i64, bounds: RangeInclusive<i64>) {
        let containers = all.iter().map(|resources| {
            let mut container = container("app");
            container.resources = *resources;
            container
        });
        let pod = pod(containers.collect());
        assert_eq!(qos(&pod), qos_expect, "{all:?}");
        let first = &pod.containers[0];
        assert_eq!(oom_score_adj_bounds(&pod, first), bounds, "{all:?}");
        assert_eq!(oom_score_adj(&pod, first, 1000), score, "{all:?}");
    }

    #[test]
    fn the_class_gives_the_oom_score() {
        let none = Resources::default();
        check(&[none], Qos::BestEffort, 1000, 1000..=1000);
        check(&[resources((10, 10), (5, 5))], Qos::Guaranteed, -997, -997..=-997);
        check(&[resources((0, 10), (0, 5))], Qos::Guaranteed, -997, -997..=-997);
        check(&[resources((5, 10), (5, 5))], Qos::Burstable, 995, 3..=999);
        check(&[resources((0, 10), (0, 5)), none], Qos::Burstable, 995, 3..=999);
        check(&[resources((5, 0), (0, 0))], Qos::Burstable, 999, 999..=999);
        check(&[resources((0, 0), (1, 0))], Qos::Burstable, 999, 3..=999);
        check(&[resources((0, 0), (1000, 0))], Qos::Burstable, 3, 3..=999);
    }

    #[test]
    fn limits_become_shares_quota_and_memory() {
        let check = |given: Resources, expect: (u64, i64, Option<i64>)| {
            let mut container = container("app");
            container.resources = given;
            let found = workload(&container);
            let memory = found.Memory.as_ref().map(|memory| memory.Limit);
            assert_eq!((found.CPU.Shares, found.CPU.Quota, memory), expect);
            assert_eq!(found.CPU.Period, 100_000);
        };
        check(Resources::default(), (2, 0, None));
        check(resources((250, 0), (0, 0)), (256, 0, None));
        check(resources((0, 500), (0, 1 << 20)), (512, 50_000, Some(1 << 20)));
        check(resources((1, 1), (0, 0)), (2, 1000, None));
        check(resources((1_000_000, 0), (0, 0)), (262_144, 0, None));
    }
}
