//! The key-encryption key: what turns a stolen database into noise.
//!
//! AES-256-GCM with a random 96-bit nonce for each sealing (NIST SP 800-38D section 8.2.2 allows 2^32 of them under one key).

use std::io::{Read as _, Write as _};
use std::path::Path;

use ah_digest::Sha256;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::environment::{Environment, RandomError, random32};
use crate::files::{FileError, Open, private_file};
use crate::token_kek::{OpenToken, TokenKey, TokenKeyError};

const KEY_BYTES: usize = 32;

/// Why there is no key-encryption key, or it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds something else.
    #[error("key-encryption key has {found} bytes, expected {KEY_BYTES}")]
    Length {
        /// Length found, bytes; one more than expected stands for all longer ones.
        found: usize,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The environment variable is missing, or holds something else.
    #[error(
        "environment variable {name} does not hold 64 hex digits of a key-encryption key\nhint: openssl rand -hex 32 makes one"
    )]
    Variable {
        /// Its name.
        name: String,
    },
    /// The token that holds it.
    #[error(transparent)]
    Token(#[from] TokenKeyError),
    /// AES-GCM refused the operation.
    #[error("sealing under the key-encryption key failed")]
    Seal,
}

/// Something sealed, with the nonce it was sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) ciphertext: Vec<u8>,
}

/// The key-encryption key, ready for use.
pub(crate) struct Kek {
    key: Key,
    id: [u8; 8],
}

/// Where the key is.
enum Key {
    Memory(LessSafeKey),
    Token(OpenToken),
}

impl Kek {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, KekError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
        let mut file = private_file(path, Open::Read)?;
        let mut found = 0;
        loop {
            match file.read(&mut bytes[found..]).map_err(FileError::io("read", path))? {
                0 => break,
                count => found += count,
            }
        }
        match found {
            KEY_BYTES => Self::new(&bytes[..KEY_BYTES]),
            _ => Err(KekError::Length { found }),
        }
    }

    /// Reads 64 hex digits from an environment variable.
    pub(crate) fn from_variable(name: &str) -> Result<Self, KekError> {
        let refused = || KekError::Variable { name: name.to_owned() };
        let text = Zeroizing::new(std::env::var(name).map_err(|_| refused())?);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| refused())?;
        Self::new(key.as_slice())
    }

    /// Makes the file with a fresh key. One that appeared meanwhile is left as it is.
    pub(crate) fn make(path: &Path, environment: &dyn Environment) -> Result<(), KekError> {
        let key = random32(environment)?;
        let mut name = [0; 8];
        environment.random(&mut name)?;
        let new = path.with_extension(format!("new-{:016x}", u64::from_be_bytes(name)));
        let written = write_synced(&new, key.as_slice()).and_then(|()| publish(&new, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written.map_err(KekError::File)
    }

    fn new(key: &[u8]) -> Result<Self, KekError> {
        let labelled = Zeroizing::new([b"anchorhold kek id".as_slice(), key].concat());
        let digest = Sha256::of(labelled.as_slice());
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_bytes()[..8]);
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| KekError::Seal)?;
        Ok(Self { key: Key::Memory(LessSafeKey::new(key)), id })
    }

    /// The key in a token. Its id is made of what it seals, so that another key of the same name is told apart.
    pub(crate) fn in_token(key: &TokenKey) -> Result<Self, KekError> {
        let token = OpenToken::open(key)?;
        let digest = Sha256::of(token.fingerprint());
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_bytes()[..8]);
        Ok(Self { key: Key::Token(token), id })
    }

    /// That nobody outside its token can have it; of a key that is in no token that is its operator's business.
    pub(crate) fn check_made_there(&self) -> Result<(), KekError> {
        match &self.key {
            Key::Memory(_) => Ok(()),
            Key::Token(token) => Ok(token.check_made_there()?),
        }
    }

    /// Says which key-encryption key this is, and nothing else about it.
    pub(crate) fn id(&self) -> [u8; 8] {
        self.id
    }

    /// Seals `secret`, bound to `context`.
    pub(crate) fn seal(
        &self,
        secret: &[u8],
        context: &[u8],
        environment: &dyn Environment,
    ) -> Result<Sealed, KekError> {
        let mut nonce = [0; NONCE_LEN];
        environment.random(&mut nonce)?;
        let key = match &self.key {
            Key::Memory(key) => key,
            Key::Token(token) => {
                return Ok(Sealed { nonce, ciphertext: token.seal(nonce, context, secret)? });
            }
        };
        let mut buffer = Zeroizing::new(secret.to_vec());
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut buffer,
            )
            .map_err(|_| KekError::Seal)?;
        let ciphertext = [buffer.as_slice(), tag.as_ref()].concat();
        Ok(Sealed { nonce, ciphertext })
    }

    /// Opens what was sealed under this key with equal `context`; `None` for anything else.
    pub(crate) fn open(
        &self,
        sealed: &Sealed,
        context: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, KekError> {
        let key = match &self.key {
            Key::Memory(key) => key,
            Key::Token(token) => return Ok(token.open_sealed(sealed, context)?),
        };
        let mut buffer = Zeroizing::new(sealed.ciphertext.clone());
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let Ok(opened) = key.open_in_place(nonce, Aad::from(context), &mut buffer) else {
            return Ok(None);
        };
        let length = opened.len();
        buffer.truncate(length);
        Ok(Some(buffer))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = private_file(path, Open::New)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(FileError::io("written", path))
}

/// Renames without replacing, so that of two processes which start at once both end up with one key.
fn publish(new: &Path, path: &Path) -> Result<(), FileError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => {
            std::fs::remove_file(new).map_err(FileError::io("removed", new))
        }
        other => other.map_err(|errno| FileError::io("made", path)(errno.into())),
    }?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(FileError::io("synced", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::SystemEnvironment as System;
    use std::os::unix::fs::PermissionsExt as _;

    fn kek(dir: &tempfile::TempDir) -> Kek {
        let path = dir.path().join("kek");
        Kek::make(&path, &System).unwrap();
        Kek::read(&path).unwrap()
    }

    #[test]
    fn it_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = kek(&dir);
        assert_eq!(kek(&dir).id(), first.id(), "made again: the first one stays");
        assert_ne!(kek(&tempfile::tempdir().unwrap()).id(), first.id());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn only_the_same_key_and_context_open() {
        let dir = tempfile::tempdir().unwrap();
        let kek = kek(&dir);
        let sealed = kek.seal(b"secret", b"context", &System).unwrap();
        assert_eq!(kek.open(&sealed, b"context").unwrap().unwrap().as_slice(), b"secret");
        assert!(kek.open(&sealed, b"contexu").unwrap().is_none());
        let other = self::kek(&tempfile::tempdir().unwrap());
        assert!(other.open(&sealed, b"context").unwrap().is_none());
        for index in 0..sealed.ciphertext.len() {
            let mut bad = sealed.clone();
            bad.ciphertext[index] ^= 1;
            assert!(kek.open(&bad, b"context").unwrap().is_none());
        }
        let again = kek.seal(b"secret", b"context", &System).unwrap();
        assert_ne!((again.nonce, &again.ciphertext), (sealed.nonce, &sealed.ciphertext));
    }

    #[test]
    fn attack_kek_file_with_wide_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        kek(&dir);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Kek::read(&path),
            Err(KekError::File(FileError::Mode { found: 0o640, .. }))
        ));
    }

    #[test]
    fn its_length_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        for found in [0, 31, 33, 33] {
            let path = dir.path().join("other");
            write_synced(&path, &vec![1; found]).unwrap();
            assert!(
                matches!(Kek::read(&path), Err(KekError::Length { found: length }) if length == found)
            );
            std::fs::remove_file(&path).unwrap();
        }
    }
}
