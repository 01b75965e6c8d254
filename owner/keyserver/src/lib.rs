//! The key service over HTTPS: vault routes, our own routes, callers and their roles, limits.
//!
//! The adversary reaches the port: it sends anything, slowly, from many connections, with stolen or forged tokens. A request passes, in
//! this order, the bounds of its address, the table of routes with the roles that each needs, the bound on its body, and then the route.
//! Only evidence and the keys' own policies decide on releases; a caller's role merely lets it ask.
#![forbid(unsafe_code)]

mod app;
mod attestation;
mod authority;
mod callers;
mod config;
mod error;
mod limits;
mod metrics;
mod openapi;
mod own_routes;
mod providers;
mod roles;
mod server;
mod snp;
mod start;
mod tdx;
mod token_keys;
mod vault_bodies;
mod vault_routes;

pub use app::{Limits, Parts};
pub use authority::{Authority, AuthorityError, Identity};
pub use callers::{Caller, Callers, Credential, Provider, SubjectRule};
pub use config::{Config, ConfigError, RevocationConfig};
pub use error::ApiError;
pub use providers::ProviderError;
pub use roles::Role;
pub use server::Server;
pub use snp::SnpError;
pub use start::{StartError, Started, start, start_with};
pub use tdx::TdxError;
pub use token_keys::{TokenKeys, TokenKeysError};
