//! The debug grant: what an owner's key lets be run in a container, once and for a time.
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 32 | the guest's challenge |
//! | 32 | 32 | SHA-256 of the policy's document: HOST_DATA where that is a SHA-256 |
//! | 64 | 4 | how long, seconds, little endian, 1 to 86,400 |
//! | 68 | 1 | bits: 1 standard input, 2 terminal, 4 any command; the others zero |
//! | 69 | 1 | length of the container's name, 1 to 63 |
//! | 70 | n | the container's name |
//! | 70 + n | 2 | number of the command's words, little endian; zero for any command, else 1 to 256 |
//! | then | 2 + m each | length of the word, little endian, and the word, UTF-8 |
//! | end | 64 | Ed25519 signature over `anchorhold debug grant 1`, a zero byte and all bytes before |
//!
//! A token is the base64url of it without padding. Example: a challenge of 32 times 0x01, a document whose SHA-256 is 32 times 0x02,
//! 900 seconds, a terminal and any command in container `web` begin (behind the 64 bytes) `84 03 00 00  06  03 77 65 62  00 00`.

use ah_digest::Sha256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::challenge::Challenge;
use crate::key::{OwnerKey, SecretKey};

/// The word before the token in an exec's arguments; the granted command follows it.
pub const DEBUG_WORD: &str = "anchorhold-debug";
/// Longest grant, seconds: a day.
pub const MAX_GRANT_SECONDS: u32 = 86_400;
/// Longest token, characters.
pub const MAX_TOKEN_CHARS: usize = 16 << 10;

const DOMAIN: &[u8] = b"anchorhold debug grant 1\0";
const SIGNATURE_BYTES: usize = 64;
const MAX_NAME_BYTES: usize = 63;
const MAX_WORDS: usize = 256;
const STDIN: u8 = 1;
const TERMINAL: u8 = 2;
const ANY_COMMAND: u8 = 4;

/// What may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// These words, and for once: the grant is used up by its first exec.
    Exact(Vec<String>),
    /// Anything, as often as one likes until the time is over.
    Any,
}

/// What a key grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugGrant {
    /// The guest's, so that the grant is for that guest alone.
    pub challenge: Challenge,
    /// SHA-256 of the policy's document.
    pub policy: Sha256,
    /// Name of the container.
    pub container: String,
    /// What may be run in it.
    pub command: Command,
    /// Whether its standard input may be written, by the host in between, too.
    pub stdin: bool,
    /// Whether it may have a terminal.
    pub terminal: bool,
    /// How long: from the first exec on; the process that still runs then is killed, and its streams end.
    pub seconds: u32,
}

/// A grant with its signature, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedGrant {
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// Why there is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// No challenge.
    #[error(
        "challenge: found {found:?}, expected 43 characters of base64url as the guest printed them"
    )]
    Challenge {
        /// The text found, at most 80 characters of it.
        found: String,
    },
    /// Not base64url, too short for a signature, or too long.
    #[error(
        "debug token: found {found} characters, expected base64url of a grant, at most {MAX_TOKEN_CHARS}"
    )]
    Token {
        /// Its length, characters.
        found: usize,
    },
    /// Another key has signed, or something was changed.
    #[error("debug token: the signature is not of the key that the policy names")]
    Signature,
    /// A field that is out of its bounds, or bytes too few or too many.
    #[error("debug grant: {detail}")]
    Body {
        /// What does not fit.
        detail: &'static str,
    },
}

impl DebugGrant {
    /// Signs the grant; gives the token.
    ///
    /// # Errors
    /// [`GrantError::Body`] for a field out of its bounds.
    pub fn sign(&self, key: &SecretKey) -> Result<String, GrantError> {
        let body = self.to_bytes()?;
        // What no guest would read is not signed.
        Self::read(&body)?;
        let signature = key.sign(DOMAIN, &body);
        let token = URL_SAFE_NO_PAD.encode([&body[..], &signature].concat());
        match token.len() {
            0..=MAX_TOKEN_CHARS => Ok(token),
            found => Err(GrantError::Token { found }),
        }
    }

    fn to_bytes(&self) -> Result<Vec<u8>, GrantError> {
        let words: &[String] = match &self.command {
            Command::Exact(words) => words,
            Command::Any => &[],
        };
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let any = bit(self.command == Command::Any, ANY_COMMAND);
        let mut out = Vec::new();
        out.extend_from_slice(self.challenge.as_bytes());
        out.extend_from_slice(self.policy.as_bytes());
        out.extend_from_slice(&self.seconds.to_le_bytes());
        out.push(bit(self.stdin, STDIN) | bit(self.terminal, TERMINAL) | any);
        out.push(u8::try_from(self.container.len()).map_err(|_| NAME)?);
        out.extend_from_slice(self.container.as_bytes());
        out.extend_from_slice(&short(words.len())?);
        for word in words {
            out.extend_from_slice(&short(word.len())?);
            out.extend_from_slice(word.as_bytes());
        }
        Ok(out)
    }

    fn read(body: &[u8]) -> Result<Self, GrantError> {
        let mut rest = Rest(body);
        let challenge = Challenge::new(rest.take()?);
        let policy = Sha256::new(rest.take()?);
        let seconds = u32::from_le_bytes(rest.take()?);
        let [flags] = rest.take()?;
        let [name_bytes] = rest.take()?;
        let container = rest.text(usize::from(name_bytes))?;
        let count = u16::from_le_bytes(rest.take()?);
        let mut words = Vec::new();
        for _ in 0..count {
            let length = u16::from_le_bytes(rest.take()?);
            words.push(rest.text(usize::from(length))?);
        }
        if !rest.0.is_empty() {
            return Err(GrantError::Body { detail: "bytes behind its end" });
        }
        if !(1..=MAX_GRANT_SECONDS).contains(&seconds) {
            return Err(GrantError::Body { detail: "its time is not between 1 s and 24 h" });
        }
        if !(1..=MAX_NAME_BYTES).contains(&container.len()) {
            return Err(NAME);
        }
        if flags & !(STDIN | TERMINAL | ANY_COMMAND) != 0 {
            return Err(GrantError::Body { detail: "unknown bits" });
        }
        let command = match (flags & ANY_COMMAND != 0, words.len()) {
            (true, 0) => Command::Any,
            (false, 1..=MAX_WORDS) => Command::Exact(words),
            _ => return Err(GrantError::Body { detail: "neither any command nor 1 to 256 words" }),
        };
        let (stdin, terminal) = (flags & STDIN != 0, flags & TERMINAL != 0);
        Ok(Self { challenge, policy, container, command, stdin, terminal, seconds })
    }
}

impl SignedGrant {
    /// Takes a token apart, without believing it.
    ///
    /// # Errors
    /// [`GrantError::Token`].
    pub fn from_token(token: &str) -> Result<Self, GrantError> {
        let wrong = GrantError::Token { found: token.len() };
        if token.len() > MAX_TOKEN_CHARS {
            return Err(wrong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong.clone())?;
        let (body, signature) = bytes.split_last_chunk().ok_or(wrong)?;
        Ok(Self { body: body.to_vec(), signature: *signature })
    }

    /// What it grants, when `key` has signed it.
    ///
    /// # Errors
    /// [`GrantError::Signature`], [`GrantError::Body`].
    pub fn verify(&self, key: &OwnerKey) -> Result<DebugGrant, GrantError> {
        match key.has_signed(DOMAIN, &self.body, &self.signature) {
            true => DebugGrant::read(&self.body),
            false => Err(GrantError::Signature),
        }
    }
}

const NAME: GrantError = GrantError::Body { detail: "the container's name has not 1 to 63 bytes" };

fn short(length: usize) -> Result<[u8; 2], GrantError> {
    let long = |_| GrantError::Body { detail: "more than 65,535 words, or bytes of one" };
    u16::try_from(length).map(u16::to_le_bytes).map_err(long)
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], GrantError> {
        let (found, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*found)
    }

    fn text(&mut self, length: usize) -> Result<String, GrantError> {
        let (found, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        let text = std::str::from_utf8(found);
        text.map(str::to_owned).map_err(|_| GrantError::Body { detail: "a text is not UTF-8" })
    }
}

const SHORT: GrantError = GrantError::Body { detail: "it ends too early" };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[9; 32])
    }

    fn grant(command: Command) -> DebugGrant {
        DebugGrant {
            challenge: Challenge::new([1; 32]),
            policy: Sha256::new([2; 32]),
            container: "web".into(),
            command,
            stdin: false,
            terminal: true,
            seconds: 900,
        }
    }

    fn opened(token: &str) -> Result<DebugGrant, GrantError> {
        SignedGrant::from_token(token)?.verify(&key().public())
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let body = grant(Command::Any).to_bytes().unwrap();
        assert_eq!(body[64..], [0x84, 3, 0, 0, 6, 3, 0x77, 0x65, 0x62, 0, 0]);
    }

    #[test]
    fn attack_a_token_of_another_key_or_with_one_bit_changed_grants_nothing() {
        let token = grant(Command::Exact(vec!["ls".into(), "".into()])).sign(&key()).unwrap();
        assert!(opened(&token).is_ok());
        let other = SecretKey::from_seed(&[8; 32]);
        let foreign = grant(Command::Any).sign(&other).unwrap();
        assert_eq!(opened(&foreign), Err(GrantError::Signature));
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                opened(&URL_SAFE_NO_PAD.encode(changed)),
                Err(GrantError::Signature),
                "{at}"
            );
        }
        // What was signed for another purpose is not a grant.
        let body = grant(Command::Any).to_bytes().unwrap();
        let signature = key().sign(b"anchorhold policy fragment 1\0", &body);
        let token = URL_SAFE_NO_PAD.encode([&body[..], &signature].concat());
        assert_eq!(opened(&token), Err(GrantError::Signature));
    }

    #[test]
    fn attack_bytes_that_could_be_read_in_two_ways_are_refused_though_signed() {
        let signed = |body: &[u8]| {
            let signature = key().sign(DOMAIN, body);
            opened(&URL_SAFE_NO_PAD.encode([body, &signature].concat()))
        };
        let body = grant(Command::Exact(vec!["ls".into()])).to_bytes().unwrap();
        assert!(signed(&body).is_ok());
        let changed = |at: usize, byte: u8| {
            let mut body = body.clone();
            body[at] = byte;
            signed(&body)
        };
        for (at, byte) in [(68, 8), (68, 4), (69, 0), (69, 200), (73, 0), (73, 2), (75, 3)] {
            assert!(matches!(changed(at, byte), Err(GrantError::Body { .. })), "{at} {byte}");
        }
        assert!(matches!(signed(&[&body[..], &[0]].concat()), Err(GrantError::Body { .. })));
        assert!(matches!(signed(&body[..body.len() - 1]), Err(GrantError::Body { .. })));
        for seconds in [0, MAX_GRANT_SECONDS + 1] {
            let grant = DebugGrant { seconds, ..grant(Command::Any) };
            assert!(grant.sign(&key()).is_err());
        }
        assert!(grant(Command::Exact(Vec::new())).sign(&key()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read_back(
            words in prop::collection::vec(".{0,20}", 1..5),
            stdin: bool,
            terminal: bool,
            seconds in 1..=MAX_GRANT_SECONDS,
            container in "[a-z]{1,63}",
        ) {
            let command = Command::Exact(words);
            let grant = DebugGrant { stdin, terminal, seconds, container, ..grant(command) };
            prop_assert_eq!(opened(&grant.sign(&key()).unwrap()), Ok(grant));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}") {
            prop_assert!(opened(&text).is_err());
        }
    }
}
