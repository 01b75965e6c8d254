//! containerd-shim-anchorhold-v2: containerd's task API in front of one sandbox VM a pod.
#![forbid(unsafe_code)]

pub mod convert;
