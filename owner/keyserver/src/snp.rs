//! Revocation lists of SNP guests: in a folder that processes share, kept fresh in the background where they are fetched at all.

use std::path::PathBuf;
use std::time::Duration;

use ah_collateral::{FetchError, Folder, Kds, KdsOptions, ListNeed, RevocationLists};
use ah_evidence::Product;

use crate::config::{RevocationConfig, SnpConfig};
use crate::token_keys::Keeper;

/// Whose lists are fetched.
const LINES: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];
/// Whose lists may be in the folder.
const KNOWN: [Product; 4] = [Product::Milan, Product::Genoa, Product::Turin, Product::Venice];
/// How often the folder is looked at; what is younger than a day is not asked for.
const EVERY: Duration = Duration::from_secs(3600);
/// How long a start waits for lists that are not there.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why no list will be looked at, though the configuration says so.
#[derive(Debug, thiserror::Error)]
pub enum SnpError {
    /// There are no lists, and nobody fetches any.
    #[error(
        "snp.collateral: {path} has no revocation list\nhint: `anchorhold collateral import` files one there, snp.kds fetches them; leave snp.collateral out to use what comes with the evidence"
    )]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
    /// Where they are fetched from.
    #[error(
        "snp.kds: {0}\nhint: https://kdsintf.amd.com is AMD's own; leave it out where lists are filed by hand"
    )]
    Kds(#[from] FetchError),
}

impl SnpConfig {
    /// The lists, and what becomes of a report without one.
    pub(crate) fn lists(&self) -> RevocationLists {
        RevocationLists {
            folder: self.collateral.as_ref().map(Folder::new),
            need: match self.revocation {
                RevocationConfig::Optional => ListNeed::Optional,
                RevocationConfig::Required => ListNeed::Required,
            },
            max_age: self.max_list_age(),
        }
    }
}

/// Keeps the folder's lists fresh, where the configuration says from where. Where guests cannot do without a list, and one is not there yet, the
/// first round is waited for, but not for long: a service that listens refuses them, and one that does not helps nobody.
pub(crate) async fn keep(config: &SnpConfig) -> Result<Option<Keeper>, SnpError> {
    keep_waiting(config, LONGEST_WAIT).await
}

async fn keep_waiting(
    config: &SnpConfig,
    longest_wait: Duration,
) -> Result<Option<Keeper>, SnpError> {
    let Some(path) = &config.collateral else { return Ok(None) };
    let folder = Folder::new(path);
    let Some(base) = &config.kds else {
        return match folder.missing_lists(&KNOWN).len() < Folder::list_files(&KNOWN).len() {
            true => Ok(None),
            false => Err(SnpError::Empty { path: path.clone() }),
        };
    };
    let waits =
        config.revocation == RevocationConfig::Required && !folder.missing_lists(&LINES).is_empty();
    let options = KdsOptions { base: base.clone(), ..KdsOptions::default() };
    let kds = Kds::new(folder, options)?;
    let (done, first_round) = tokio::sync::oneshot::channel();
    let keeper = Keeper(tokio::spawn(async move {
        refresh(&kds).await;
        let _ = done.send(());
        loop {
            tokio::time::sleep(EVERY).await;
            refresh(&kds).await;
        }
    }));
    if waits && tokio::time::timeout(longest_wait, first_round).await.is_err() {
        tracing::warn!(
            "{base} is slow to give revocation lists: reports without a list are refused until it does"
        );
    }
    Ok(Some(keeper))
}

async fn refresh(kds: &Kds) {
    for words in kds.refresh_lists(&LINES).await {
        tracing::warn!("revocation list is not refreshed: {words}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &std::path::Path, kds: Option<&str>) -> SnpConfig {
        SnpConfig {
            collateral: Some(folder.to_owned()),
            kds: kds.map(str::to_owned),
            revocation: RevocationConfig::Required,
            list_max_age: None,
        }
    }

    fn file_list(folder: &std::path::Path, name: &str) {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), "list").unwrap();
    }

    /// A folder that was named by mistake must not pass for one whose lists are looked at.
    #[tokio::test]
    async fn attack_folder_without_any_list_and_nobody_who_fetches_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = keep(&config(dir.path(), None)).await.err().unwrap().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
        assert!(error.contains("has no revocation list\nhint: "), "{error}");
        file_list(dir.path(), "amd/Venice/vlek.crl");
        assert!(keep(&config(dir.path(), None)).await.unwrap().is_none());
        assert!(keep(&SnpConfig::default()).await.unwrap().is_none());
    }

    /// The service takes connections and says nothing: whoever waits for its answer waits for minutes.
    #[tokio::test]
    async fn attack_silent_distribution_service_keeps_no_service_from_starting() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", silent.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Some(&base));
        assert!(keep_waiting(&config, Duration::ZERO).await.unwrap().is_some());
        // Lists that are there, however old, are not waited for at all.
        for name in Folder::list_files(&LINES) {
            file_list(dir.path(), &name);
            let file = std::fs::File::options().write(true).open(dir.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        assert!(keep_waiting(&config, Duration::MAX).await.unwrap().is_some());
    }
}
