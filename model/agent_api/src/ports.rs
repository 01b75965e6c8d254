//! vsock ports of the sandbox.

/// The agent listens here in the guest (Kata agent API, transport: agent and health service).
pub const AGENT: u32 = 1024;
/// The host's software report service, reached from the guest at CID 2 (`--tee software` only).
pub const SOFTWARE_REPORT: u32 = 1030;
/// The key release service, reached from the guest at CID 2.
pub const KEY_RELEASE: u32 = 1031;
/// The host's context id (`VMADDR_CID_HOST`, linux/vm_sockets.h).
pub const HOST_CID: u32 = 2;
