//! The service over HTTPS, as its clients and its attackers meet it. One program, since it takes long to link.

mod attestation;
#[path = "../../../maa/tests/support/mod.rs"]
mod evidence;
mod hostile;
mod own;
mod revocation;
mod roles;
mod rotation;
mod support;
mod tdx;
mod vault;
mod wire;
