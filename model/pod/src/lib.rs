//! The requests that an honest containerd and Kata runtime make for a pod: the one derivation that owner and host share.
#![forbid(unsafe_code)]
