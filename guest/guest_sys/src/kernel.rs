//! Kernel modules, power, console.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::system::RebootCommand;

use crate::SysError;

/// Where init leaves modules that a pod has to ask for: a folder for each name that can be asked for, its files in their order. It is there only
/// where the image has such modules.
pub const ASKED_MODULES: &str = "/lib/modules/asked";
/// Writing 1 here ends the loading of modules until the next boot (Linux Documentation/admin-guide/sysctl/kernel.rst).
pub const MODULES_DISABLED: &str = "/proc/sys/kernel/modules_disabled";

/// A kernel module, opened: it can be loaded after its path has gone.
#[derive(Debug)]
pub struct Module {
    file: File,
    path: PathBuf,
}

impl Module {
    /// Opens the module at `path`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SysError> {
        let file = File::open(path).map_err(|e| SysError::path("open module", path, e))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Loads it without parameters. A module that is already there is no error.
    ///
    /// # Errors
    /// The kernel's refusal of finit_module(2).
    pub fn load(&self) -> Result<(), SysError> {
        match rustix::system::finit_module(&self.file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(e) => Err(SysError::path("load module", &self.path, e)),
        }
    }
}

/// Turns the machine off. Returns only when the kernel refuses.
///
/// Nothing is written back first: nothing that this guest writes is ever read again.
pub fn power_off() -> SysError {
    match rustix::system::reboot(RebootCommand::PowerOff) {
        Ok(()) => SysError::new("power off", "this machine", rustix::io::Errno::AGAIN),
        Err(e) => SysError::new("power off", "this machine", e),
    }
}

/// Writes one line to the console, whole, so that lines of several writers do not mix. Best effort: PID 1 has nobody else to tell.
pub fn console_line(line: &str) {
    let Ok(mut console) = File::options().write(true).open("/dev/console") else { return };
    let _ = console.write_all(format!("{line}\r\n").as_bytes());
    let _ = rustix::termios::tcdrain(&console);
}
