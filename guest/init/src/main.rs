//! PID 1: mounts, modules, entropy, the HOST_DATA check against the initdata, then the agent.
#![forbid(unsafe_code)]

fn main() {}
