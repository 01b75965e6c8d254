//! Intel's collateral for TDX quotes, from a folder: nothing is fetched while a guest waits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ah_collateral::{CollateralError, Folder, QuoteFile};
use ah_keyservice::QuoteCollateralSource;
use ah_verifier::{QuoteCollateral, QuoteError};

/// Why quotes cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum TdxError {
    /// The folder.
    #[error(
        "tdx.collateral: {path} cannot be read\nhint: `anchorhold collateral import --dir` makes such a folder"
    )]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// The cause.
        source: CollateralError,
    },
    /// A document in it.
    #[error(
        "tdx.collateral: {path} is no collateral of quotes\nhint: move it away, or import it again"
    )]
    Document {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: QuoteError,
    },
    /// Nothing in it.
    #[error(
        "tdx.collateral: {path} has no collateral of quotes\nhint: `anchorhold collateral import` files it there; leave tdx.collateral out where no TDX guests are"
    )]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
}

/// What was read last, and from which files.
type Read = Option<(Vec<QuoteFile>, Arc<Vec<QuoteCollateral>>)>;

/// Looks at the folder for each quote, so that what is imported while the service runs is used; reads it again when something changed.
#[derive(Debug, Clone)]
pub(crate) struct QuoteFolder {
    path: PathBuf,
    read: Arc<Mutex<Read>>,
}

impl QuoteFolder {
    /// The folder, which has to have something in it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, TdxError> {
        let folder = Self { path, read: Arc::default() };
        folder.documents().map(|_| folder)
    }

    fn documents(&self) -> Result<Arc<Vec<QuoteCollateral>>, TdxError> {
        let files = Folder::new(&self.path).quote_files().map_err(|source| self.failed(source))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((of, documents)) if *of == files => Ok(documents.clone()),
            _ => {
                let documents = Arc::new(self.parse(&files)?);
                *read = Some((files, documents.clone()));
                Ok(documents)
            }
        }
    }

    fn parse(&self, files: &[QuoteFile]) -> Result<Vec<QuoteCollateral>, TdxError> {
        if files.is_empty() {
            return Err(TdxError::Empty { path: self.path.clone() });
        }
        let parse = |file: &QuoteFile| {
            let json = file.read().map_err(|source| self.failed(source))?;
            let path = || file.path().to_owned();
            QuoteCollateral::from_json(&json)
                .map_err(|source| TdxError::Document { path: path(), source })
        };
        files.iter().map(parse).collect()
    }

    fn failed(&self, source: CollateralError) -> TdxError {
        TdxError::Folder { path: self.path.clone(), source }
    }

    /// For those who verify; peers are told that it failed, and not where.
    pub(crate) fn source(&self) -> QuoteCollateralSource {
        let folder = self.clone();
        Arc::new(move || {
            folder.documents().map_err(|error| {
                tracing::warn!(%error, "collateral of quotes");
                "collateral of TDX quotes cannot be read".to_owned()
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document of the form that is read; what is in it is the verifier's to judge.
    fn document(number: u32) -> String {
        serde_json::json!({
            "pck_crl_issuer_chain": "", "root_ca_crl": "", "pck_crl": "",
            "tcb_info_issuer_chain": "", "tcb_info": number.to_string(), "tcb_info_signature": "",
            "qe_identity_issuer_chain": "", "qe_identity": "", "qe_identity_signature": "",
        })
        .to_string()
    }

    #[test]
    fn the_folder_is_read_again_when_it_changed_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let intel = dir.path().join("intel");
        std::fs::create_dir(&intel).unwrap();
        let write = |name: &str, number| {
            let new = dir.path().join("new");
            std::fs::write(&new, document(number)).unwrap();
            std::fs::rename(&new, intel.join(name)).unwrap();
        };
        write("a.json", 1);
        let folder = QuoteFolder::open(dir.path().to_owned()).unwrap();
        let first = folder.documents().unwrap();
        assert!(Arc::ptr_eq(&first, &folder.documents().unwrap()));
        write("a.json", 2);
        let second = folder.documents().unwrap();
        assert!(!Arc::ptr_eq(&first, &second) && second.len() == 1);
        write("b.json", 3);
        assert_eq!(folder.documents().unwrap().len(), 2);
        std::fs::remove_file(intel.join("a.json")).unwrap();
        assert_eq!(folder.documents().unwrap().len(), 1);
        std::fs::write(intel.join("b.json"), "{}").unwrap();
        assert!(matches!(folder.documents(), Err(TdxError::Document { .. })));
        std::fs::remove_file(intel.join("b.json")).unwrap();
        assert!(matches!(folder.documents(), Err(TdxError::Empty { .. })));
    }
}
