//! Sealed values: a secret of one environment variable or one file, encrypted to a key of the key service, as text.
//!
//! `sealed.` and a JSON Web Encryption in its compact form (RFC 7516, section 7.1), direct encryption (`alg` `dir`, RFC 7518, section
//! 4.5) with AES-256-GCM (`enc` `A256GCM`, section 5.3). The protected header has exactly these members:
//!
//! | member | value |
//! |---|---|
//! | `alg` | `dir` |
//! | `enc` | `A256GCM` |
//! | `typ` | `anchorhold-sealed/1` |
//! | `kid` | the key's name in the key service |
//! | `for` | the [`Place`] that the value is for: `env:NAME` or `file:/PATH` |
//!
//! The header is authenticated with the value, as JWE has it. The place is in it because texts of a pod that only the cluster knows
//! (a node's name, a file that is not pinned) are the host's to choose: it could else put a sealed password where a container shows it.

use std::fmt;
use std::str::FromStr;

use aes_gcm::aead::{AeadInPlace as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce as Iv, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{KeyId, Secret};

/// `typ` of the header: name and version of the format.
const TYPE: &str = "anchorhold-sealed/1";
/// Longest sealed text, bytes: what Kubernetes takes for a whole ConfigMap or Secret.
pub const MAX_SEALED_BYTES: usize = 1 << 20;
/// Length of the key, bytes.
pub const SEALING_KEY_BYTES: usize = 32;

const PREFIX: &str = "sealed.";
/// Beginning of base64url of a JSON object without spaces.
const OBJECT: &str = "eyJ";
/// What Confidential Containers write where a signature's header would be.
const OTHER_HEADER: &str = "fakejwsheader.";
const ALGORITHM: &str = "dir";
const ENCRYPTION: &str = "A256GCM";
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Longest name of a variable or path of a file, bytes.
const MAX_NAME_BYTES: usize = 1024;

/// Where a sealed value belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The environment variable of this name.
    Env(String),
    /// The file of this path, as the container sees it. The whole path: where the host may choose what a volume holds, it chooses
    /// the names of its files, too.
    File(String),
}

/// Why a text is not a sealed value, or does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// Another form.
    #[error("sealed value: {found}, expected \"sealed.\" and a compact JWE with direct encryption")]
    Form {
        /// What is wrong.
        found: &'static str,
    },
    /// A form of another project.
    #[error(
        "sealed value is in the form of another project, which is not read\nhint: seal the secret with `anchorhold secret seal`"
    )]
    OtherForm,
    /// The header cannot be read.
    #[error("sealed value: header is not that of {TYPE}: {detail}")]
    Header {
        /// What is wrong with it.
        detail: String,
    },
    /// Another algorithm or format.
    #[error("sealed value: {member} is {found:?}, expected {expected:?}")]
    Member {
        /// Which member of the header.
        member: &'static str,
        /// What it says.
        found: String,
        /// What it has to say.
        expected: &'static str,
    },
    /// Too long.
    #[error("sealed value has {found} bytes, expected at most {MAX_SEALED_BYTES}")]
    TooLong {
        /// Length found, bytes.
        found: usize,
    },
    /// Sealed for another variable or file than the one that has it.
    #[error("sealed value is for {found}, found at {expected}")]
    Place {
        /// What it is for.
        found: Place,
        /// Where it was found.
        expected: Place,
    },
    /// A text that names no place.
    #[error(
        "place is {found:?}, expected env:NAME or file:/PATH, the name of a variable or the path of a file in the container"
    )]
    PlaceForm {
        /// The text, shortened.
        found: String,
    },
    /// Not a key of this format.
    #[error("key has {found} bytes, expected {SEALING_KEY_BYTES}")]
    KeyLength {
        /// Length found, bytes.
        found: usize,
    },
    /// Another key or version of it, or the text was altered.
    #[error(
        "sealed value does not open: it was sealed with other bytes of this key, or was altered"
    )]
    DoesNotOpen,
}

/// Whether a text has to be taken for a sealed value: then it opens, or is an error.
pub fn is_sealed(text: &[u8]) -> bool {
    let rest = text.strip_prefix(PREFIX.as_bytes());
    rest.is_some_and(|rest| {
        rest.starts_with(OBJECT.as_bytes()) || rest.starts_with(OTHER_HEADER.as_bytes())
    })
}

/// Whether a text has to be taken for a sealed value somewhere behind its first `from` bytes, where nothing opens it.
pub fn holds_sealed(text: &str, from: usize) -> bool {
    let begins =
        |(at, _)| at >= from && text.get(at..).is_some_and(|rest| is_sealed(rest.as_bytes()));
    text.match_indices(PREFIX).any(begins)
}

/// A sealed value that is where it belongs; the header is authenticated when it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    key_id: KeyId,
    header: String,
    iv: [u8; IV_BYTES],
    body: Vec<u8>,
    tag: [u8; TAG_BYTES],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    typ: String,
    kid: KeyId,
    r#for: Place,
}

impl Sealed {
    /// Reads a text that was found at `place`.
    ///
    /// # Errors
    /// [`SealedError`]; [`SealedError::Place`] when it is for another place.
    pub fn parse(text: &str, place: &Place) -> Result<Self, SealedError> {
        if text.len() > MAX_SEALED_BYTES {
            return Err(SealedError::TooLong { found: text.len() });
        }
        let form = |found| SealedError::Form { found };
        let rest = text.strip_prefix(PREFIX).ok_or(form("found another beginning"))?;
        if rest.starts_with(OTHER_HEADER) {
            return Err(SealedError::OtherForm);
        }
        let mut parts = rest.split('.');
        let mut next = || parts.next().ok_or(form("found less than five parts"));
        let (head, key, iv, body, tag) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(form("found more than five parts"));
        }
        if !key.is_empty() {
            return Err(form("found an encrypted key"));
        }
        let header = read_header(head)?;
        if header.r#for != *place {
            return Err(SealedError::Place { found: header.r#for, expected: place.clone() });
        }
        Ok(Self {
            key_id: header.kid,
            header: head.to_owned(),
            iv: fixed(iv).ok_or(form("found an iv that is not 12 bytes"))?,
            body: decode(body).ok_or(form("found a ciphertext that is not base64url"))?,
            tag: fixed(tag).ok_or(form("found a tag that is not 16 bytes"))?,
        })
    }

    /// The key that opens it.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// The value.
    ///
    /// # Errors
    /// [`SealedError::KeyLength`], [`SealedError::DoesNotOpen`].
    pub fn open(&self, key: &Secret) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let mut value = Zeroizing::new(self.body.clone());
        let aad = self.header.as_bytes();
        cipher(key)?
            .decrypt_in_place_detached(
                Iv::from_slice(&self.iv),
                aad,
                &mut value,
                Tag::from_slice(&self.tag),
            )
            .map_err(|_| SealedError::DoesNotOpen)?;
        Ok(value)
    }
}

/// Seals `value` for `place` with the key that the key service has as `key_id`. `iv` is 12 fresh random bytes: this zone has none.
///
/// # Errors
/// [`SealedError::KeyLength`], [`SealedError::TooLong`].
pub fn seal(
    key: &Secret,
    key_id: &KeyId,
    place: &Place,
    iv: [u8; IV_BYTES],
    value: &[u8],
) -> Result<String, SealedError> {
    let header = Header {
        alg: ALGORITHM.into(),
        enc: ENCRYPTION.into(),
        typ: TYPE.into(),
        kid: key_id.clone(),
        r#for: place.clone(),
    };
    let json = serde_json::to_vec(&header)
        .map_err(|error| SealedError::Header { detail: error.to_string() })?;
    let head = URL_SAFE_NO_PAD.encode(json);
    let mut body = Zeroizing::new(value.to_vec());
    let tag = cipher(key)?
        .encrypt_in_place_detached(Iv::from_slice(&iv), head.as_bytes(), &mut body)
        .map_err(|_| SealedError::TooLong { found: value.len() })?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{PREFIX}{head}..{}.{}.{}", encode(&iv), encode(&body), encode(&tag));
    match text.len() {
        0..=MAX_SEALED_BYTES => Ok(text),
        found => Err(SealedError::TooLong { found }),
    }
}

fn cipher(key: &Secret) -> Result<Aes256Gcm, SealedError> {
    let found = key.as_bytes().len();
    Aes256Gcm::new_from_slice(key.as_bytes()).map_err(|_| SealedError::KeyLength { found })
}

fn read_header(text: &str) -> Result<Header, SealedError> {
    let bytes =
        decode(text).ok_or(SealedError::Form { found: "found a header not in base64url" })?;
    let header: Header = serde_json::from_slice(&bytes)
        .map_err(|error| SealedError::Header { detail: error.to_string() })?;
    let members = [
        ("alg", &header.alg, ALGORITHM),
        ("enc", &header.enc, ENCRYPTION),
        ("typ", &header.typ, TYPE),
    ];
    for (member, found, expected) in members {
        if found != expected {
            return Err(SealedError::Member { member, found: shortened(found), expected });
        }
    }
    Ok(header)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

/// Absolute, in the one form that has no empty part, `.` or `..`.
fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

impl FromStr for Place {
    type Err = SealedError;

    fn from_str(text: &str) -> Result<Self, SealedError> {
        let place = match text.split_once(':') {
            Some(("env", name)) if !name.contains('=') => Some(Self::Env(name.to_owned())),
            Some(("file", path)) if is_plain_path(path) => Some(Self::File(path.to_owned())),
            _ => None,
        };
        let plain = |place: &Self| {
            let (Self::Env(name) | Self::File(name)) = place;
            (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        place.filter(plain).ok_or_else(|| SealedError::PlaceForm { found: shortened(text) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(name) => write!(f, "file:{name}"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
