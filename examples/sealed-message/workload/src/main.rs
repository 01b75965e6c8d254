//! The demo's workload: asks for its key, opens a sealed message, prints it.
#![forbid(unsafe_code)]

fn main() {}
