//! The host end of the agent protocol, over vsock or a unix socket that bridges to it.
#![forbid(unsafe_code)]
