//! The agent's figures in the form that containerd reads.

use ah_agent_api::agent::StatsContainerResponse;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

use crate::wire::metrics::{
    CPUStat, CPUUsage, MemoryEntry, MemoryStat, Metrics, PidsStat, Throttle,
};

const NAME: &str = "io.containerd.cgroups.v1.Metrics";

/// What a container has used.
pub(crate) fn metrics(found: &StatsContainerResponse) -> protobuf::Result<Any> {
    let stats = found.cgroup_stats.as_ref().cloned().unwrap_or_default();
    let (cpu, memory, pids) = (&stats.cpu_stats, &stats.memory_stats, &stats.pids_stats);
    let entry = |found: &ah_agent_api::agent::MemoryData| MemoryEntry {
        limit: found.limit,
        usage: found.usage,
        max: found.max_usage,
        failcnt: found.failcnt,
        ..Default::default()
    };
    let named = |name: &str| memory.stats.get(name).copied().unwrap_or_default();
    let metrics = Metrics {
        pids: Some(PidsStat { current: pids.current, limit: pids.limit, ..Default::default() })
            .into(),
        cpu: Some(CPUStat {
            usage: Some(CPUUsage {
                total: cpu.cpu_usage.total_usage,
                kernel: cpu.cpu_usage.usage_in_kernelmode,
                user: cpu.cpu_usage.usage_in_usermode,
                per_cpu: cpu.cpu_usage.percpu_usage.clone(),
                ..Default::default()
            })
            .into(),
            throttling: Some(Throttle {
                periods: cpu.throttling_data.periods,
                throttled_periods: cpu.throttling_data.throttled_periods,
                throttled_time: cpu.throttling_data.throttled_time,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        })
        .into(),
        memory: Some(MemoryStat {
            cache: memory.cache,
            rss: named("anon"),
            // of the guest's control group, which is of version 2
            total_inactive_file: named("inactive_file"),
            usage: Some(entry(&memory.usage)).into(),
            swap: Some(entry(&memory.swap_usage)).into(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    Ok(Any { type_url: NAME.into(), value: metrics.write_to_bytes()?, ..Default::default() })
}
