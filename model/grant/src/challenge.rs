//! Challenges: what a guest gives out so that an answer is for this guest and for once.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::debug::GrantError;

/// Length of a challenge, bytes.
pub const CHALLENGE_BYTES: usize = 32;

/// Random bytes of the guest's. Text form: base64url without padding. No secret: its way leads through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; CHALLENGE_BYTES]);

impl Challenge {
    /// From bytes that the guest has drawn.
    pub const fn new(bytes: [u8; CHALLENGE_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; CHALLENGE_BYTES] {
        &self.0
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Challenge {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| GrantError::Challenge { found: text.chars().take(80).collect() })
    }
}
