//! The guest's file tree: a tmpfs instead of the initramfs, which pivot_root(2) cannot leave and containers could not, either.

use std::fs;
use std::path::Path;

use ah_guest_sys::mount::{self, MountFlags};
use ah_tee::Tee;

use crate::InitError;
use crate::command_line::CommandLine;

/// Where the new root is put together.
pub(crate) const NEW_ROOT: &str = "/newroot";
/// The program that stays.
pub(crate) const AGENT: &str = "/bin/anchorhold-agent";
pub(crate) const MODULES: &str = "/lib/modules";
/// For the guest's own folders; images have their own limit (`ah_rootfs::RootAccess`).
const ROOT_OPTIONS: &str = "mode=0755,size=50%";

const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Mounts the new root with proc, sys and dev in it.
pub(crate) fn mount_new_root() -> Result<(), InitError> {
    let root = Path::new(NEW_ROOT);
    make_folder(root)?;
    mount::filesystem("tmpfs", "root", root, MountFlags::NOSUID | MountFlags::NODEV, ROOT_OPTIONS)?;
    for (fs, folder, flags) in
        [("proc", "proc", QUIET), ("sysfs", "sys", QUIET), ("devtmpfs", "dev", DEVICES)]
    {
        let target = root.join(folder);
        make_folder(&target)?;
        mount::filesystem(fs, fs, &target, flags, "")?;
    }
    Ok(())
}

/// Asks the kernel for latency instead of throughput. Loading modules and making containers changes text, mounts, namespaces,
/// cgroups and network, each of which waits for an RCU grace period of 10 to 20 ms; expedited ones take microseconds on a
/// guest's few processors (Documentation/RCU, rcu_expedited). Best effort.
pub(crate) fn hurry() {
    let _ = fs::write(Path::new(NEW_ROOT).join("sys/kernel/rcu_expedited"), "1");
}

/// The command line of this boot.
pub(crate) fn command_line() -> Result<CommandLine, InitError> {
    let path = Path::new(NEW_ROOT).join("proc/cmdline");
    Ok(fs::read_to_string(&path).map_err(InitError::file("read", &path))?.parse()?)
}

/// Moves onto the new root (modules have to be open by then), with nothing of the initramfs left but the agent's program.
pub(crate) fn enter() -> Result<(), InitError> {
    let agent = Path::new(NEW_ROOT).join(AGENT.trim_start_matches('/'));
    make_folder(&Path::new(NEW_ROOT).join("bin"))?;
    fs::write(&agent, "").map_err(InitError::file("make", &agent))?;
    mount::bind(Path::new(AGENT), &agent)?;
    fs::remove_dir_all(MODULES).map_err(InitError::file("remove", Path::new(MODULES)))?;
    fs::remove_file("/init").map_err(InitError::file("remove", Path::new("/init")))?;
    Ok(mount::switch_root(Path::new(NEW_ROOT))?)
}

/// Mounts what the agent and containers expect; configfs needs its module.
pub(crate) fn mount_the_rest(tee: Tee) -> Result<(), InitError> {
    for folder in ["/run", "/tmp", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        make_folder(Path::new(folder))?;
    }
    let pts = "gid=5,mode=0620,ptmxmode=0666";
    mount::filesystem("devpts", "devpts", Path::new("/dev/pts"), DEVICES, pts)?;
    mount::filesystem("tmpfs", "shm", Path::new("/dev/shm"), QUIET, "mode=1777")?;
    mount::filesystem("mqueue", "mqueue", Path::new("/dev/mqueue"), QUIET, "")?;
    mount::filesystem("cgroup2", "cgroup2", Path::new("/sys/fs/cgroup"), QUIET, "nsdelegate")?;
    match tee {
        Tee::Snp | Tee::Tdx => Ok(mount::filesystem(
            "configfs",
            "configfs",
            Path::new("/sys/kernel/config"),
            QUIET,
            "",
        )?),
        Tee::Software | Tee::AzureVtpm => Ok(()),
    }
}

fn make_folder(path: &Path) -> Result<(), InitError> {
    fs::create_dir_all(path).map_err(InitError::file("make", path))
}
