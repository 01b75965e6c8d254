//! Key store, release policy, decision log and key release; the core, free of any transport.
//!
//! The adversary sends messages ([`KeyService::handle`]), replays old ones, and may write the database file. A key goes out only wrapped
//! to a public key that a verified report binds together with a challenge of ours, and only if the key's policy is met by that report's
//! claims. Whoever holds the key-encryption key and the database holds the keys.
//!
//! In the service's folder (mode 0700), each file of mode 0600:
//!
//! | file | what |
//! |---|---|
//! | `keys.sqlite3` | keys, each sealed under the key-encryption key and bound to its id, kind, policy and date |
//! | `key-encryption-key` | 32 random bytes, made on first use |
//! | `decisions.jsonl` | one JSON object for each release, refusal, import and deletion; refusals before verification: 60 a minute, the rest counted |
#![forbid(unsafe_code)]

mod claims;
mod environment;
mod files;
mod flood;
mod kek;
mod log;
mod nonces;
mod release;
mod serve;
mod service;
mod store;
mod vault;

pub use environment::{Environment, RandomError, SystemEnvironment};
pub use files::FileError;
pub use kek::KekError;
pub use log::{Event, LogEntry, LoggedCondition, Verdict};
pub use nonces::NonceError;
pub use service::{KeyService, Observer, OnExisting, Options, ServiceError};
pub use store::StoreError;
pub use vault::{KeyInfo, VaultError};
