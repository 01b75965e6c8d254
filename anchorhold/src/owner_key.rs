//! Owner's keys as files: Ed25519 in PKCS #8 (RFC 8410), PEM, as `openssl genpkey -algorithm ed25519` writes them, too.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ah_grant::{OwnerKey, SecretKey};
use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};

use zeroize::Zeroizing;

use crate::ui::failure;

/// Makes a key and writes it to a file that is not there yet, for its owner's eyes alone.
pub(crate) fn generate(file: &Path) -> Result<OwnerKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| anyhow::anyhow!("no randomness for a new key: {error}"))?;
    // Without the public half, as openssl reads it.
    let pair = KeypairBytes { secret_key: *seed, public_key: None };
    let pem = pair.to_pkcs8_pem(LineEnding::LF).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut options = fs::File::options();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    let mut out = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(failure(
                format!("{} is there already", file.display()),
                "a key that is overwritten is lost: name another file",
            ));
        }
        other => other.with_context(|| format!("making {}", file.display()))?,
    };
    out.write_all(pem.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
    Ok(SecretKey::from_seed(&seed).public())
}

/// Reads a private key.
pub(crate) fn read(file: &Path) -> Result<SecretKey> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let text = Zeroizing::new(text);
    crate::ui::warn_if_others_read(file);
    match SigningKey::from_pkcs8_pem(&text) {
        Ok(key) => Ok(SecretKey::from_seed(key.as_bytes())),
        Err(_) => Err(failure(
            format!("{} holds no Ed25519 private key in PEM (PKCS #8)", file.display()),
            "anchorhold debug key-gen -o FILE makes one",
        )),
    }
}
