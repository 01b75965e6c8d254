//! Kernel modules, power, console.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rustix::system::RebootCommand;

use crate::SysError;

/// Loads the module in `path` without parameters. A module that is already there is no error.
///
/// # Errors
/// The file cannot be opened, or the kernel's refusal of finit_module(2).
pub fn load_module(path: &Path) -> Result<(), SysError> {
    let file = File::open(path).map_err(|e| SysError::path("open module", path, e))?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(SysError::path("load module", path, e)),
    }
}

/// Turns the machine off. Returns only when the kernel refuses.
pub fn power_off() -> SysError {
    rustix::fs::sync();
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
