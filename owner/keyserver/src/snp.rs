//! Revocation lists of SNP guests: in a folder that processes share, kept fresh in the background where they are fetched at all.

use std::time::Duration;

use ah_collateral::{FetchError, Folder, Kds, KdsOptions, ListNeed, RevocationLists};
use ah_evidence::Product;

use crate::config::{RevocationConfig, SnpConfig};
use crate::token_keys::Keeper;

/// Whose lists are fetched.
const LINES: [Product; 3] = [Product::Milan, Product::Genoa, Product::Turin];
/// How often the folder is looked at; what is younger than a day is not asked for.
const EVERY: Duration = Duration::from_secs(3600);

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

/// Keeps the folder's lists fresh, where the configuration says from where. Guests that cannot do without a list wait for the first round.
pub(crate) async fn keep(config: &SnpConfig) -> Result<Option<Keeper>, FetchError> {
    let (Some(folder), Some(base)) = (&config.collateral, &config.kds) else { return Ok(None) };
    let options = KdsOptions { base: base.clone(), ..KdsOptions::default() };
    let kds = Kds::new(Folder::new(folder), options)?;
    if config.revocation == RevocationConfig::Required {
        refresh(&kds).await;
    }
    Ok(Some(Keeper(tokio::spawn(async move {
        loop {
            refresh(&kds).await;
            tokio::time::sleep(EVERY).await;
        }
    }))))
}

async fn refresh(kds: &Kds) {
    for words in kds.refresh_lists(&LINES).await {
        tracing::warn!("revocation list is not refreshed: {words}");
    }
}
