//! Figures of a container's cgroup in the API's form.

use ah_agent_api::agent::*;
use ah_container::CgroupUsage;

/// The cgroup's figures; times in nanoseconds, as version 1 counted them.
pub(super) fn response(usage: &CgroupUsage) -> StatsContainerResponse {
    let cpu = |key: &str| usage.cpu.get(key).copied().unwrap_or_default();
    let nanoseconds = |key: &str| cpu(key).saturating_mul(1000);
    let memory = |key: &str| usage.memory.get(key).copied().unwrap_or_default();
    let cpu_stats = CpuStats {
        cpu_usage: Some(CpuUsage {
            total_usage: nanoseconds("usage_usec"),
            usage_in_kernelmode: nanoseconds("system_usec"),
            usage_in_usermode: nanoseconds("user_usec"),
            ..Default::default()
        })
        .into(),
        throttling_data: Some(ThrottlingData {
            periods: cpu("nr_periods"),
            throttled_periods: cpu("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let memory_stats = MemoryStats {
        cache: memory("file"),
        usage: Some(MemoryData {
            usage: usage.memory_bytes,
            max_usage: usage.memory_peak_bytes,
            limit: usage.memory_limit_bytes,
            ..Default::default()
        })
        .into(),
        swap_usage: Some(MemoryData { usage: usage.swap_bytes, ..Default::default() }).into(),
        use_hierarchy: true,
        stats: usage.memory.iter().map(|(k, v)| (k.clone(), *v)).collect(),
        ..Default::default()
    };
    let pids_stats =
        PidsStats { current: usage.pids, limit: usage.pids_limit, ..Default::default() };
    let cgroup = CgroupStats {
        cpu_stats: Some(cpu_stats).into(),
        memory_stats: Some(memory_stats).into(),
        pids_stats: Some(pids_stats).into(),
        blkio_stats: Some(blkio(usage)).into(),
        ..Default::default()
    };
    StatsContainerResponse { cgroup_stats: Some(cgroup).into(), ..Default::default() }
}

fn blkio(usage: &CgroupUsage) -> BlkioStats {
    let of = |keys: [(&str, &str); 2]| {
        let mut entries = Vec::new();
        for (major, minor, key, value) in &usage.io {
            if let Some((_, op)) = keys.iter().find(|(k, _)| k == key) {
                entries.push(BlkioStatsEntry {
                    major: *major,
                    minor: *minor,
                    op: (*op).to_owned(),
                    value: *value,
                    ..Default::default()
                });
            }
        }
        entries
    };
    BlkioStats {
        io_service_bytes_recursive: of([("rbytes", "Read"), ("wbytes", "Write")]),
        io_serviced_recursive: of([("rios", "Read"), ("wios", "Write")]),
        ..Default::default()
    }
}
