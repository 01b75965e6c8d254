//! Mounts of the guest: file systems, binds, moves, overlays.

use std::path::{Path, PathBuf};

pub use rustix::mount::MountFlags;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};

use crate::SysError;

/// Mounts a new instance of file system `fs` (`proc`, `erofs`, `tmpfs`, ...) on `target`.
///
/// `options` is the comma-separated data string that the file system reads; empty for none.
///
/// # Errors
/// The kernel's refusal of mount(2).
pub fn filesystem(
    fs: &str,
    source: &str,
    target: &Path,
    flags: MountFlags,
    options: &str,
) -> Result<(), SysError> {
    let data = std::ffi::CString::new(options)
        .map_err(|e| SysError::path("mount options for", target, std::io::Error::other(e)))?;
    rustix::mount::mount(source, target, fs, flags, Some(data.as_c_str()))
        .map_err(|e| SysError::new("mount", format!("{fs} {source} on {}", target.display()), e))
}

/// Makes the tree or file at `source` visible at `target` as well. Submounts are not taken along.
///
/// # Errors
/// The kernel's refusal of mount(2).
pub fn bind(source: &Path, target: &Path) -> Result<(), SysError> {
    rustix::mount::mount_bind(source, target).map_err(|e| {
        SysError::new("bind", format!("{} on {}", source.display(), target.display()), e)
    })
}

/// Sets the per-mount flags (read-only, nosuid, nodev, noexec) of the bind mount at `target`.
///
/// # Errors
/// The kernel's refusal of mount(2).
pub fn remount_bind(target: &Path, flags: MountFlags) -> Result<(), SysError> {
    rustix::mount::mount_remount(target, flags | MountFlags::BIND, c"")
        .map_err(|e| SysError::path("remount", target, e))
}

/// Stops mount events from crossing between `target` (and everything below it) and its peers.
///
/// # Errors
/// The kernel's refusal of mount(2).
pub fn make_private(target: &Path) -> Result<(), SysError> {
    rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| SysError::path("make private", target, e))
}

/// Moves the mount at `source` to `target`.
///
/// # Errors
/// The kernel's refusal of mount(2).
pub fn relocate(source: &Path, target: &Path) -> Result<(), SysError> {
    rustix::mount::mount_move(source, target).map_err(|e| {
        SysError::new("move mount", format!("{} to {}", source.display(), target.display()), e)
    })
}

/// Takes the mount at `target` away; it must be idle.
///
/// # Errors
/// The kernel's refusal of umount2(2).
pub fn unmount(target: &Path) -> Result<(), SysError> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)
        .map_err(|e| SysError::path("unmount", target, e))
}

/// Takes the mount at `target` out of the tree now and lets the kernel drop it when its last user goes.
///
/// # Errors
/// The kernel's refusal of umount2(2).
pub fn detach(target: &Path) -> Result<(), SysError> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|e| SysError::path("detach", target, e))
}

/// The writable part of an overlay: two empty folders of one file system.
#[derive(Debug, Clone)]
pub struct Upper {
    /// Where changes go.
    pub upper: PathBuf,
    /// overlayfs' own working folder.
    pub work: PathBuf,
}

/// Mounts an overlay of `lower` (top layer first) on `target`; without `upper` it is read-only. Device files in it are inert.
///
/// Layers are given one by one through the new mount interface (`lowerdir+`, Linux 6.8), so neither the length of a mount option string nor a
/// colon or comma in a path has a meaning.
///
/// # Errors
/// The kernel's refusal of fsconfig(2), fsmount(2) or move_mount(2).
pub fn overlay(lower: &[PathBuf], upper: Option<&Upper>, target: &Path) -> Result<(), SysError> {
    let fail = |step: &'static str| move |e: rustix::io::Errno| SysError::path(step, target, e);
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(fail("open overlay for"))?;
    let set = |key: &str, path: &Path| {
        rustix::mount::fsconfig_set_string(&context, key, path).map_err(|e| {
            SysError::new(
                "overlay",
                format!("{key} {} for {}", path.display(), target.display()),
                e,
            )
        })
    };
    set("source", Path::new("overlay"))?;
    for layer in lower {
        set("lowerdir+", layer)?;
    }
    if let Some(upper) = upper {
        set("upperdir", &upper.upper)?;
        set("workdir", &upper.work)?;
    }
    rustix::mount::fsconfig_create(&context).map_err(fail("create overlay for"))?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, upper.is_none());
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(fail("mount overlay on"))?;
    rustix::mount::move_mount(
        &mount,
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(fail("attach overlay to"))
}

/// Makes `new_root` the root of this process, for PID 1 of an initramfs: the initramfs itself cannot be left with
/// pivot_root(2), so the mount at `new_root` is moved over it.
///
/// # Errors
/// The kernel's refusal of any of the steps.
pub fn switch_root(new_root: &Path) -> Result<(), SysError> {
    rustix::process::chdir(new_root).map_err(|e| SysError::path("enter", new_root, e))?;
    relocate(Path::new("."), Path::new("/"))?;
    rustix::process::chroot(".").map_err(|e| SysError::path("change root to", new_root, e))?;
    rustix::process::chdir("/").map_err(|e| SysError::path("enter", Path::new("/"), e))
}
