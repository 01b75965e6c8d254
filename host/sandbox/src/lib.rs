//! The sandbox state machine: VM, disks, network, agent connection, containers, endings.
#![forbid(unsafe_code)]
