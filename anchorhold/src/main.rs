//! The `anchorhold` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // The supervisor that cleans up after a killed launcher is this same program, started by ah-vmm.
    ah_vmm::supervisor::run_if_asked();
    anchorhold::main(std::env::args_os().collect())
}
