//! Pods in VMs: the shim below a real containerd's CRI, its whole life and its faults.

mod faults;
mod life;
mod machine;
mod many;
mod sctp;
mod traces;
