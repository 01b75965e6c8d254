//! PID 1: mounts, modules, entropy, the HOST_DATA check against the initdata, then the agent.
#![forbid(unsafe_code)]

use std::error::Error;

use ah_guest_sys::kernel;

/// Every way out of this program turns the machine off; should that fail, PID 1 ends and the kernel panics, which `panic=-1` makes a reset.
fn main() {
    let line = match ah_init::run() {
        Ok(ending) if ending.is_clean() => None,
        Ok(ending) => Some(format!("anchorhold-init: {ending}, powering off")),
        Err(error) => Some(format!("anchorhold-init: {}: {}", error.verdict(), chain(&error))),
    };
    if let Some(line) = line {
        kernel::console_line(&line);
    }
    kernel::console_line(&format!("anchorhold-init: {}", chain(&kernel::power_off())));
}

/// The error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
