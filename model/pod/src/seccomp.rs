//! The filter behind `seccompProfile: RuntimeDefault`, as data.
//!
//! Kubernetes leaves the filter to the runtime. The stock Kata runtime drops it for guests; this
//! project sends it, since it costs nothing where nobody asks for it. What it lets through is what
//! containerd 1.7's default profile lets through for the container's capabilities; everything
//! else fails with EPERM.

use ah_agent_api::oci::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, linux_syscall};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
/// errno(3): what programs take as "this kernel has no clone3", so that they fall back to clone.
const ENOSYS: u32 = 38;
/// Socket family of the channel to the host (vsock(7), `AF_VSOCK`): no workload speaks to it itself.
const AF_VSOCK: u64 = 40;
/// `CLONE_NEW*` (clone(2)): user, pid, net, ipc, uts, cgroup and mount namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Execution domains that containers may choose (personality(2)): Linux, UNAME26 and their 32-bit forms, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// System calls open to every container, names of x86-64 and of its 32-bit mode.
const ALWAYS: &str = include_str!("seccomp_always.txt");

/// System calls that a capability opens.
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The filter for a container with these capabilities.
pub fn runtime_default(capabilities: &[String]) -> LinuxSeccomp {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut names: Vec<&str> = ALWAYS.split_whitespace().collect();
    for (capability, calls) in WITH_CAPABILITY {
        if has(capability) {
            names.extend(calls.split(' '));
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut syscalls = vec![allow(&names, vec![])];
    for domain in PERSONALITIES {
        syscalls.push(allow(&["personality"], vec![arg(0, domain, 0, "SCMP_CMP_EQ")]));
    }
    syscalls.push(allow(&["socket"], vec![arg(0, AF_VSOCK, 0, "SCMP_CMP_NE")]));
    if !has("CAP_SYS_ADMIN") {
        let no_namespaces = arg(0, CLONE_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ");
        syscalls.push(allow(&["clone"], vec![no_namespaces]));
        syscalls.push(LinuxSyscall {
            Names: vec!["clone3".into()],
            Action: ERRNO.into(),
            ErrnoRet: Some(linux_syscall::ErrnoRet::Errnoret(ENOSYS)),
            ..Default::default()
        });
    }
    LinuxSeccomp {
        DefaultAction: ERRNO.into(),
        Architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
            .map(String::from)
            .to_vec(),
        Syscalls: syscalls,
        ..Default::default()
    }
}

fn allow(names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    LinuxSyscall {
        Names: names.iter().map(|name| (*name).to_owned()).collect(),
        Action: ALLOW.into(),
        Args: args,
        ..Default::default()
    }
}

fn arg(index: u64, value: u64, value_two: u64, operation: &str) -> LinuxSeccompArg {
    LinuxSeccompArg {
        Index: index,
        Value: value,
        ValueTwo: value_two,
        Op: operation.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::tests::container;

    fn allowed(add: &[&str], drop: &[&str], call: &str) -> bool {
        let mut container = container("app");
        container.security.capabilities_add = add.iter().map(|name| (*name).into()).collect();
        container.security.capabilities_drop = drop.iter().map(|name| (*name).into()).collect();
        let filter = runtime_default(&crate::process::capabilities(&container).unwrap());
        filter.Syscalls.iter().any(|rule| {
            let plain = rule.Action == ALLOW && rule.Args.is_empty();
            plain && rule.Names.iter().any(|name| name == call)
        })
    }

    #[test]
    fn ordinary_calls_pass_and_the_kernels_own_do_not() {
        for call in ["read", "execve", "openat", "futex", "exit_group", "statx", "chroot"] {
            assert!(allowed(&[], &[], call), "{call}");
        }
        for call in [
            "mount",
            "unshare",
            "clone",
            "bpf",
            "init_module",
            "kexec_load",
            "keyctl",
            "reboot",
            "io_uring_setup",
        ] {
            assert!(!allowed(&[], &[], call), "{call}");
        }
    }

    #[test]
    fn a_capability_opens_its_calls() {
        assert!(allowed(&["SYS_ADMIN"], &[], "mount"));
        assert!(allowed(&["SYS_TIME"], &[], "clock_settime"));
        assert!(!allowed(&[], &["SYS_CHROOT"], "chroot"));
    }

    #[test]
    fn the_list_is_sorted_and_names_each_call_once() {
        let names: Vec<&str> = ALWAYS.split_whitespace().collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
