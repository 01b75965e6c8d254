//! The yardstick for boot times: the only program of an initrd of its own, it turns the machine off. Never part of a guest image.
#![forbid(unsafe_code)]

fn main() {
    let error = ah_guest_sys::kernel::power_off();
    ah_guest_sys::kernel::console_line(&format!("anchorhold-bench-init: {error}"));
}
