//! Kernel settings that a pod may have.

/// Settings of a network or IPC namespace: Kubernetes' safe ones (v1.33, "Using sysctls"), and the length of a socket's queue, which
/// is as much one namespace's own.
pub const SYSCTLS: [&str; 13] = [
    "kernel.shm_rmid_forced",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Numbers with what stands between them.
pub fn is_sysctl_value(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '\t' | ',' | '-');
    (1..=256).contains(&value.len())
        && value.chars().all(plain)
        && value.starts_with(|c: char| c.is_ascii_digit())
}
