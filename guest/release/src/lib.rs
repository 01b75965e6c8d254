//! The attested exchange with a key service, and the socket that containers use to get evidence and keys.
//!
//! [`ReleaseClient`] fetches one key: challenge, fresh key pair, report, wrapped key. It blocks, with one deadline over the whole
//! exchange. [`ReleaseServer`] answers containers with HTTP/1.1 on a unix socket; [`server`] has its routes.
//!
//! Who is distrusted: the host carries the bytes to the key service and may alter, delay or invent them; a container may send
//! anything to the socket. A key's bytes exist here only between the opening of the wrapped key and the answer to the container.
#![forbid(unsafe_code)]

mod answer;
mod client;
pub mod server;
mod transport;

pub use ah_release_api::{
    IdError, KeyId, KeyKind, MAX_SEALED_BYTES, Place, PublicKey, Sealed, SealedError, Secret,
    is_sealed,
};
pub use client::{ReleaseClient, ReleaseError, ReleasedKey};
pub use server::{Admission, ReleaseServer, ServerError};
pub use transport::{
    AddressError, Connection, MAX_WRITE_BYTES, ServiceAddress, Transport, VsockTransport,
};

/// Where containers that were given the mount find the socket.
pub const SOCKET_PATH: &str = "/run/anchorhold/release.sock";
