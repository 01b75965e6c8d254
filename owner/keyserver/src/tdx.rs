//! Intel's collateral for TDX quotes, from a folder: nothing is fetched while a guest waits.

use std::path::PathBuf;
use std::sync::Arc;

use ah_collateral::{CollateralError, Folder};
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

/// Reads the folder again for each quote, so that what is imported while the service runs is used.
#[derive(Debug, Clone)]
pub(crate) struct QuoteFolder(PathBuf);

impl QuoteFolder {
    /// The folder, which has to have something in it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, TdxError> {
        let folder = Self(path);
        folder.read().map(|_| folder)
    }

    fn read(&self) -> Result<Vec<QuoteCollateral>, TdxError> {
        let Self(path) = self;
        let failed = |source| TdxError::Folder { path: path.clone(), source };
        let documents = Folder::new(path).quote_collateral().map_err(failed)?;
        let read = |(path, json): (PathBuf, Vec<u8>)| {
            QuoteCollateral::from_json(&json).map_err(|source| TdxError::Document { path, source })
        };
        let documents = documents.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        match documents.is_empty() {
            true => Err(TdxError::Empty { path: path.clone() }),
            false => Ok(documents),
        }
    }

    /// For those who verify; peers are told that it failed, and not where.
    pub(crate) fn source(
        &self,
    ) -> Arc<dyn Fn() -> Result<Vec<QuoteCollateral>, String> + Send + Sync> {
        let folder = self.clone();
        Arc::new(move || {
            folder.read().map_err(|error| {
                tracing::warn!(%error, "collateral of quotes");
                "collateral of TDX quotes cannot be read".to_owned()
            })
        })
    }
}
