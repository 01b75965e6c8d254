//! Reads the known key importer's configuration, and makes of it the key, the release policy and the vault's import request.
//!
//! The importer is `importkey` of microsoft/confidential-sidecar-containers. Its file names a vault, a key and the claims under which the
//! key is released; see [`ImportConfig`]. Unlike it, nothing here prints key material, and a member that is not known is an error.
#![forbid(unsafe_code)]

mod config;
mod identity;
mod key;

pub use config::{Derivation, ImportConfig, ImportConfigError};
pub use identity::{IdentityError, METADATA_SERVICE, managed_identity_token};
pub use key::{ImportKey, ImportKeyError, import_body};
