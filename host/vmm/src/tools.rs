//! The programs of this machine that a VM is made of.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::VmError;

const QEMU: &str = "qemu-system-x86_64";
const VSOCK_BRIDGE: &str = "vhost-device-vsock";
/// The running program, even when its file was replaced or removed meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Where the programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// QEMU for x86-64 guests.
    pub qemu: PathBuf,
    /// The user-mode vsock device, if it was found.
    pub vsock_bridge: Option<PathBuf>,
    /// Program that calls [`run_if_asked`](crate::supervisor::run_if_asked): the running one unless a test
    /// says otherwise.
    pub supervisor: PathBuf,
}

impl Tools {
    /// Looks for the programs: environment (`ANCHORHOLD_QEMU`, `ANCHORHOLD_VHOST_DEVICE_VSOCK`), beside the
    /// running program, the given folders, `PATH`.
    ///
    /// # Errors
    /// [`VmError::ToolMissing`] when there is no QEMU, or a variable names a file that is not there.
    pub fn find(folders: &[PathBuf]) -> Result<Self, VmError> {
        let qemu = locate(QEMU, "ANCHORHOLD_QEMU", folders)?.ok_or_else(|| {
            VmError::ToolMissing { program: QEMU, looked_in: "ANCHORHOLD_QEMU, PATH".into() }
        })?;
        let vsock_bridge = locate(VSOCK_BRIDGE, "ANCHORHOLD_VHOST_DEVICE_VSOCK", folders)?;
        Ok(Self { qemu, vsock_bridge, supervisor: THIS_PROGRAM.into() })
    }
}

fn locate(
    program: &'static str,
    variable: &'static str,
    folders: &[PathBuf],
) -> Result<Option<PathBuf>, VmError> {
    if let Some(named) = env::var_os(variable) {
        let path = PathBuf::from(&named);
        return match path.is_file() {
            true => Ok(Some(path)),
            false => Err(VmError::ToolMissing {
                program,
                looked_in: format!("{variable}={}", path.display()),
            }),
        };
    }
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(search(
        program.as_ref(),
        beside.into_iter().chain(folders.to_vec()).chain(env::split_paths(&path)),
    ))
}

fn search(program: &OsStr, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_folder_that_has_the_program_wins() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(full.path().join("tool"), "").unwrap();
        let folders = || [empty.path().to_path_buf(), full.path().to_path_buf()].into_iter();
        assert_eq!(search("tool".as_ref(), folders()), Some(full.path().join("tool")));
        assert_eq!(search("other".as_ref(), folders()), None);
    }
}
