//! Kernel settings of the sandbox (sysctls), which its containers share with its namespaces.

use std::collections::BTreeMap;

use crate::spec::SpecError;

/// Settings of the sandbox's own network and IPC namespaces. Any other one would be the guest's: `kernel.core_pattern` alone runs
/// a program of one's choice outside every container.
pub const SETTINGS: [&str; 13] = [
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
/// Longest value, bytes.
const MAX_VALUE_BYTES: usize = 256;

/// Checks names and values, whatever the policy says.
///
/// # Errors
/// [`SpecError`] naming the first that is refused.
pub fn check_settings(settings: &BTreeMap<String, String>) -> Result<(), SpecError> {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b' ' | b'\t' | b',' | b'-');
    for (name, value) in settings {
        if !SETTINGS.contains(&name.as_str()) {
            return Err(SpecError::unsupported("Linux.Sysctl", name));
        }
        if value.is_empty() || value.len() > MAX_VALUE_BYTES || !value.bytes().all(plain) {
            return Err(SpecError::value("Linux.Sysctl", value, "numbers"));
        }
    }
    Ok(())
}

/// Writes them in the namespaces of the caller.
pub(crate) fn set(settings: &BTreeMap<String, String>) -> Result<(), Box<dyn std::error::Error>> {
    check_settings(settings)?;
    for (name, value) in settings {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(path, value).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<(), SpecError> {
        check_settings(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn attack_setting_of_the_whole_guest() {
        for name in SETTINGS {
            check(name, "1024 65535").unwrap();
        }
        let others = [
            "kernel.core_pattern",
            "kernel.modprobe",
            "vm.overcommit_memory",
            "net.ipv4.../../kernel/x",
            "net/core/somaxconn",
            "",
        ];
        for name in others {
            assert!(check(name, "1").is_err(), "{name}");
        }
        for value in ["", "|/bin/sh", "1\n2", "1\0", &"1".repeat(257)] {
            assert!(check("net.core.somaxconn", value).is_err(), "{value:?}");
        }
    }
}
