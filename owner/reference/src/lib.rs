//! Reference values that somebody signed: UVM endorsements and our own reference files; pure.
//!
//! | source | form | believed by |
//! |---|---|---|
//! | UVM endorsement of a cloud | COSE_Sign1 with `did:x509` issuer | root, key usage and feed of an [`UvmIssuer`] |
//! | `anchorhold guest measure --sign` | JSON envelope with an Ed25519 signature | the signer's public key |
//!
//! Neither says anything of a machine: they say which launch measurements somebody stands for.
#![forbid(unsafe_code)]

mod chain;
mod cose;
mod did;
mod file;
mod uvm;

pub use chain::ChainError;
pub use cose::CoseError;
pub use did::{DidError, DidX509};
pub use file::{
    MAX_REFERENCE_FILE_BYTES, ReferenceError, ReferenceFile, ReferenceGuest, ReferenceKey,
    ReferenceSigner,
};
pub use uvm::{MAX_UVM_BYTES, UvmEndorsement, UvmError, UvmIssuer, verify_uvm};
