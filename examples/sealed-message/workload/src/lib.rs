//! A message sealed with a key, and the way a workload gets that key: one HTTP request on the pod's release socket.
//!
//! Sealed form: standard base64 of 12 bytes nonce, then AES-256-GCM ciphertext and tag, AAD [`AAD`].
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What the key is used for; a ciphertext made with the same key for another use does not open.
pub const AAD: &[u8] = b"anchorhold sealed message 1";

/// Length of the nonce, bytes (NIST SP 800-38D, the form without hashing).
const NONCE_BYTES: usize = 12;
/// Longest answer of the release socket that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// The agent itself gives up on the key service well before.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket is not in the container, or nobody listens.
    #[error(
        "release socket {path} cannot be used: {source}; does the pod's annotation anchorhold.dev/release-socket name this container?"
    )]
    Socket {
        /// The socket's path.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The answer is not what the release socket answers.
    #[error("release socket answered with something unreadable: {0}")]
    Answer(&'static str),
    /// No key.
    #[error("no key: {0}")]
    Refused(String),
    /// The key is not an AES-256 key.
    #[error("key has {found} bytes, expected 32")]
    KeyLength {
        /// Length found, bytes.
        found: usize,
    },
    /// The sealed text is not base64 or too short.
    #[error("sealed message is not base64 of nonce, ciphertext and tag")]
    Form,
    /// Another key, or altered.
    #[error("sealed message does not open with this key")]
    DoesNotOpen,
    /// AES-GCM refused the message.
    #[error("message is too long to be sealed")]
    TooLong,
}

/// Seals `message`; `nonce` must be fresh random bytes for every message under one key.
///
/// # Errors
/// [`Error::KeyLength`] unless the key has 32 bytes.
pub fn seal(key: &[u8], nonce: [u8; NONCE_BYTES], message: &[u8]) -> Result<String, Error> {
    let payload = Payload { msg: message, aad: AAD };
    let ciphertext = cipher(key)?.encrypt(&nonce.into(), payload).map_err(|_| Error::TooLong)?;
    Ok(STANDARD.encode([nonce.as_slice(), &ciphertext].concat()))
}

/// Opens what [`seal`] made; white space around the text is allowed.
///
/// # Errors
/// [`Error::Form`] and [`Error::DoesNotOpen`].
pub fn open(key: &[u8], sealed: &str) -> Result<Vec<u8>, Error> {
    let bytes = STANDARD.decode(sealed.trim()).map_err(|_| Error::Form)?;
    let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Error::Form)?;
    let payload = Payload { msg: ciphertext, aad: AAD };
    cipher(key)?.decrypt(nonce.into(), payload).map_err(|_| Error::DoesNotOpen)
}

fn cipher(key: &[u8]) -> Result<Aes256Gcm, Error> {
    Aes256Gcm::new_from_slice(key).map_err(|_| Error::KeyLength { found: key.len() })
}

/// Asks the release socket for a key: `GET /v1/keys/{key_id}`.
///
/// # Errors
/// [`Error::Socket`], [`Error::Answer`], and [`Error::Refused`] with the key service's own words.
pub fn fetch_key(socket: &Path, key_id: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    let answer = exchange(socket, key_id)
        .map_err(|source| Error::Socket { path: socket.display().to_string(), source })?;
    let split = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or(Error::Answer("no HTTP header"))?;
    let (head, body) = (&answer[..split], &answer[split + 4..]);
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| Error::Answer("body is not JSON"))?;
    let ok = head.starts_with(b"HTTP/1.1 200 ") || head.starts_with(b"HTTP/1.0 200 ");
    match (ok, answer) {
        (true, Answer { key: Some(key), .. }) => {
            let key = Zeroizing::new(key);
            STANDARD
                .decode(key.as_bytes())
                .map(Zeroizing::new)
                .map_err(|_| Error::Answer("key is not base64"))
        }
        (false, Answer { error: Some(text), .. }) => Err(Error::Refused(text)),
        _ => Err(Error::Answer("neither key nor error")),
    }
}

/// HTTP/1.0, so that the answer is the rest of the stream.
fn exchange(socket: &Path, key_id: &str) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /v1/keys/{key_id} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Zeroizing::new(Vec::new());
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

#[derive(serde::Deserialize)]
struct Answer {
    key: Option<String>,
    error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn sealed_form_is_pinned_and_opens() {
        let sealed = seal(&KEY, [1; 12], b"hello").unwrap();
        assert_eq!(sealed, "AQEBAQEBAQEBAQEBHoTl2/9R7Ggw5L4iDy5dC+NH1wli");
        assert_eq!(open(&KEY, &format!(" {sealed}\n")).unwrap(), b"hello");
    }

    #[test]
    fn another_key_or_an_altered_message_does_not_open() {
        let sealed = seal(&KEY, [1; 12], b"hello").unwrap();
        assert!(matches!(open(&[8; 32], &sealed), Err(Error::DoesNotOpen)));
        assert!(matches!(open(&KEY, &sealed.replacen('A', "B", 1)), Err(Error::DoesNotOpen)));
        assert!(matches!(open(&KEY, "AQEB"), Err(Error::Form)));
        assert!(matches!(open(&KEY, "?"), Err(Error::Form)));
        assert!(matches!(open(&KEY[1..], &sealed), Err(Error::KeyLength { found: 31 })));
    }

    #[track_caller]
    fn answered(answer: &'static str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let expected = b"GET /v1/keys/demo/message HTTP/1.0\r\nHost: localhost\r\n\r\n";
            let mut request = [0; 55];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, expected);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let key = fetch_key(&path, "demo/message");
        server.join().unwrap();
        key
    }

    #[test]
    fn the_sockets_answers_are_understood() {
        let key =
            answered("HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"key\":\"AQID\",\"kind\":\"oct\"}").unwrap();
        assert_eq!(key.as_slice(), [1, 2, 3]);
        let refused =
            answered("HTTP/1.1 403 Forbidden\r\n\r\n{\"error\":\"refused by x\"}").unwrap_err();
        assert_eq!(refused.to_string(), "no key: refused by x");
        assert!(matches!(
            answered("HTTP/1.1 403 Forbidden\r\n\r\n{\"key\":\"AQID\"}"),
            Err(Error::Answer(_))
        ));
        assert!(matches!(answered("HTTP/1.1 200 OK\r\n\r\nhello"), Err(Error::Answer(_))));
        assert!(matches!(answered(""), Err(Error::Answer(_))));
    }

    #[test]
    fn a_missing_socket_says_what_to_check() {
        let error =
            fetch_key(Path::new("/nowhere/release.sock"), "demo/message").unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/release.sock")
                && error.contains("anchorhold.dev/release-socket"),
            "{error}"
        );
    }
}
