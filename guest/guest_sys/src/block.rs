//! Block device nodes.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use crate::SysError;

/// `BLKROSET`, `_IO(0x12, 93)` (linux/fs.h).
const BLKROSET: libc::c_ulong = 0x125d;

/// Device number of the node at `path`: major, minor.
///
/// # Errors
/// The node is not there or is no block device.
pub fn device_number(path: &Path) -> Result<(u32, u32), SysError> {
    let stat = rustix::fs::stat(path).map_err(|e| SysError::path("stat", path, e))?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device() {
        return Err(SysError::path("use as block device", path, rustix::io::Errno::NOTBLK));
    }
    Ok((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)))
}

/// Marks the device read-only for everyone in this guest. The host can still change the bytes behind it.
///
/// # Errors
/// The node cannot be opened, or the kernel refuses the ioctl.
pub fn set_read_only(path: &Path) -> Result<(), SysError> {
    let device = File::open(path).map_err(|e| SysError::path("open", path, e))?;
    let on: libc::c_int = 1;
    // SAFETY: BLKROSET reads one int behind the pointer; `on` is one and outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKROSET, &raw const on) };
    if result == 0 {
        Ok(())
    } else {
        Err(SysError::path("make read-only", path, std::io::Error::last_os_error()))
    }
}
