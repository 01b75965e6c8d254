//! Files that an owner hands over.

use std::io::Read as _;
use std::path::Path;

use ah_verifier::{MAX_CRL_BYTES, Revocation};

use crate::CollateralError;
use crate::certificates::Certificates;

/// Largest file with certificates, bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// Adds the certificates of a file: PEM, DER, or the JSON of THIM.
///
/// # Errors
/// [`CollateralError::Io`], [`CollateralError::TooLarge`], [`CollateralError::Thim`] and what [`Certificates::add`] says.
pub fn read_certificates(
    certificates: &mut Certificates,
    path: &Path,
) -> Result<(), CollateralError> {
    certificates.add_form(&read(path, MAX_FILE_BYTES)?, &path.display().to_string())
}

/// A revocation list from a file, PEM or DER.
///
/// # Errors
/// [`CollateralError::Io`], [`CollateralError::TooLarge`], [`CollateralError::Encoding`].
pub fn read_revocation_list(path: &Path) -> Result<Revocation, CollateralError> {
    let bytes = read(path, MAX_CRL_BYTES)?;
    if !bytes.starts_with(b"-----BEGIN") {
        return Ok(Revocation::List(bytes));
    }
    let what = path.display().to_string();
    let text = String::from_utf8_lossy(&bytes);
    match der::Document::from_pem(&text) {
        Ok((_, document)) => Ok(Revocation::List(document.as_bytes().to_vec())),
        Err(source) => Err(CollateralError::Encoding { what, source }),
    }
}

pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, CollateralError> {
    let io = |source| CollateralError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(io)?;
    match bytes.len() > limit {
        true => Err(CollateralError::TooLarge { what: path.display().to_string(), limit }),
        false => Ok(bytes),
    }
}
