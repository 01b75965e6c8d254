//! Kernel modules, power, console.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::system::RebootCommand;

use crate::SysError;

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
