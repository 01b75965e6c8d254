//! What an owner's Ed25519 key says to a running guest: debug grants and policy fragments, their bytes and signatures.
//!
//! Each statement is signed with a text of its own in front (its domain), so that none can be taken for another. The bytes that
//! were signed are verified first and parsed then.
#![forbid(unsafe_code)]

mod challenge;
mod debug;
mod fragment;
mod key;

pub use challenge::{CHALLENGE_BYTES, Challenge};
pub use debug::{
    Command, DEBUG_WORD, DebugGrant, GrantError, MAX_GRANT_SECONDS, MAX_TOKEN_CHARS, SignedGrant,
};
pub use fragment::{
    FIRST_LINE, Fragment, FragmentContainer, FragmentError, FragmentSource, MAX_FRAGMENT_BYTES,
    SignedFragment, fragment_sources, is_fragment,
};
pub use key::{KeyError, OwnerKey, SecretKey};
