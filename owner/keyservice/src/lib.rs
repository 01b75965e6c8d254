//! Key store, release policy, decision log and key release; the core, free of any transport.
//!
//! The adversary sends messages ([`KeyService::handle`]), replays old ones, and may write the database. A key goes out only wrapped
//! to a public key that a verified report binds together with a challenge of ours, or that a verified attestation token names, and only
//! if the key's policy is met by the claims. Whoever holds the key-encryption key and the database holds the keys.
//!
//! In a local service's folder (mode 0700), each file of mode 0600:
//!
//! | file | what |
//! |---|---|
//! | `keys.sqlite3` | keys, each sealed under the key-encryption key and bound to all that its row says; the decision log and its tree |
//! | `key-encryption-key` | 32 random bytes, made on first use |
//!
//! Several replicas share a PostgreSQL database and the key-encryption key instead.
//!
//! The log has one entry for each release, refusal, import, change and deletion ([`LogEntry`]; refusals before verification: 60 a minute,
//! the rest counted), in a Merkle tree of RFC 9162 ([`merkle`]), durable before the answer that it speaks of goes out.
#![forbid(unsafe_code)]

mod answer;
mod audit;
mod backup;
mod database;
mod encoding;
mod environment;
mod evidence;
pub mod files;
mod flood;
mod head;
mod journal;
mod kek;
mod keys;
mod keywrap;
mod log;
mod logbook;
mod material;
pub mod merkle;
mod nonces;
mod release;
mod rows;
mod serve;
mod service;
mod token_kek;
mod token_release;
mod tokens;
mod upgrade;
mod vault;
mod weakness;

pub use answer::{AnswerSigner, SignerError};
pub use audit::{Audit, AuditError};
pub use backup::{BackupError, Restored};
pub use database::{Location, StoreError};
pub use encoding::{decode_base64, encode_base64url};
pub use environment::{Environment, RandomError, SystemEnvironment};
pub use files::FileError;
pub use head::{HeadError, SignedHead};
pub use kek::KekError;
pub use keys::{KeyChange, NewKey, OnExisting};
pub use keywrap::{KeyWrapError, WrapAlgorithm};
pub use log::{Event, LogEntry, LoggedCondition, Verdict};
pub use logbook::{ConsistencyProof, InclusionProof, MAX_ENTRIES, StoredEntry};
pub use material::{Family, KeyType, Material, MaterialError, Shape};
pub use nonces::NonceError;
pub use service::{
    KeyService, Observer, Options, QuoteCollateralSource, ServiceError, verified_at_once,
};
pub use token_kek::{PinSource, TokenKey, TokenKeyError};
pub use token_release::{TokenRefusal, TokenRequest, attributes, bundle};
pub use tokens::{
    AnyOf, KeySet, KeySetError, MAX_TOKEN_BYTES, SharedKeys, TokenError, TokenVerifier,
    TrustedIssuer, TrustedIssuers, VerifiedToken,
};
pub use vault::{Attributes, KekSource, KeyInfo, Rule, VaultError};
