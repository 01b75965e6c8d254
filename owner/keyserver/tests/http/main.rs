//! The service over HTTPS, as its clients and its attackers meet it. One program, since it takes long to link.

mod attestation;
#[path = "../../../maa/tests/support/mod.rs"]
mod evidence;
mod hostile;
mod own;
mod roles;
mod support;
mod vault;
mod wire;
