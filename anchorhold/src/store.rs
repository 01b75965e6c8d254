//! A key store, here or elsewhere: the same questions, the same answers, in the form that vaults describe keys.

use std::fs::File;
use std::path::Path;

use ah_importer::ImportKey;
use ah_keyservice::{KeyChange, KeyService, SignedHead, StoredEntry, bundle, encode_base64url};
use ah_release_api::{KeyId, ReleasePolicy};
use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::service::Target;
use crate::dirs::Dirs;
use crate::keys::{self, Accept};
use crate::remote::{Remote, segment};
use crate::ui::failure;

pub(crate) enum Store {
    Local(Box<KeyService>),
    Remote(Remote),
}

impl Store {
    pub(crate) async fn open(dirs: &Dirs, target: &Target) -> Result<Self> {
        match &target.service {
            Some(url) => Ok(Self::Remote(Remote::new(url, target)?)),
            None => Ok(Self::Local(Box::new(keys::open(dirs, Accept::Hardware, None).await?))),
        }
    }

    pub(crate) async fn close(&self) {
        if let Self::Local(service) = self {
            service.close().await;
        }
    }

    /// Imports a key at a service elsewhere.
    pub(crate) async fn import_remote(
        remote: &Remote,
        name: &str,
        key: &ImportKey,
        policy: &ReleasePolicy,
        replace: bool,
    ) -> Result<Value> {
        let path = format!("/{}", segment(name)?);
        if !replace && remote.has_key(&path).await? {
            return Err(failure(
                format!("key {name} exists already"),
                "--replace makes it the key's latest version; older versions stay as they are",
            ));
        }
        let body = json!({
            "key": key.jwk()?,
            "attributes": { "exportable": true },
            "release_policy": {
                "contentType": "application/json; charset=utf-8",
                "data": encode_base64url(policy.to_json()),
            },
        });
        remote.keys(Method::PUT, &path, Some(&body)).await
    }

    /// All keys; an error where one of them is not what was stored.
    pub(crate) async fn list(&self) -> Result<Vec<Value>> {
        match self {
            Self::Local(service) => {
                let keys = service.list().await?.into_iter().map(|key| Ok(bundle(&key?, "")));
                keys.collect()
            }
            Self::Remote(remote) => {
                let mut keys = Vec::new();
                for item in remote.pages("").await? {
                    let kid = item["kid"].as_str().and_then(|kid| kid.split_once("/keys/"));
                    let name = segment(kid.map(|(_, name)| name).unwrap_or_default())?;
                    keys.push(remote.keys(Method::GET, &format!("/{name}"), None).await?);
                }
                Ok(keys)
            }
        }
    }

    pub(crate) async fn show(&self, name: &str) -> Result<Value> {
        match self {
            Self::Local(service) => Ok(bundle(&service.info(&id(name)?, None).await?, "")),
            Self::Remote(remote) => {
                remote.keys(Method::GET, &format!("/{}", segment(name)?), None).await
            }
        }
    }

    /// Changes every version: an older one is released by its own name. Gives the latest.
    pub(crate) async fn set_enabled(&self, name: &str, enabled: bool) -> Result<Value> {
        let mut latest = None;
        for version in self.versions(name).await? {
            latest = Some(match self {
                Self::Local(service) => {
                    let change = KeyChange { enabled: Some(enabled), ..KeyChange::default() };
                    bundle(&service.update(&id(name)?, Some(&version), &change, None).await?, "")
                }
                Self::Remote(remote) => {
                    let path = format!("/{}/{version}", segment(name)?);
                    let body = json!({ "attributes": { "enabled": enabled } });
                    remote.keys(Method::PATCH, &path, Some(&body)).await?
                }
            });
        }
        latest.with_context(|| format!("there is no key {name}"))
    }

    /// Versions of a key, the oldest first.
    async fn versions(&self, name: &str) -> Result<Vec<String>> {
        match self {
            Self::Local(service) => {
                let id = id(name)?;
                // for the error where there is none
                service.info(&id, None).await?;
                let all = service.versions(&id, 0, u32::MAX).await?.into_iter();
                all.map(|key| Ok(key?.version)).collect()
            }
            Self::Remote(remote) => {
                let path = format!("/{}/versions", segment(name)?);
                let items = remote.pages(&path).await?;
                let kid =
                    |item: &Value| item["kid"].as_str()?.rsplit('/').next().map(str::to_owned);
                Ok(items.iter().filter_map(kid).collect())
            }
        }
    }

    pub(crate) async fn rotate(&self, name: &str) -> Result<Value> {
        match self {
            Self::Local(service) => Ok(bundle(&service.rotate(&id(name)?, None).await?, "")),
            Self::Remote(remote) => {
                remote.keys(Method::POST, &format!("/{}/rotate", segment(name)?), None).await
            }
        }
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<Value> {
        let shown = self.show(name).await?;
        match self {
            Self::Local(service) => {
                service.delete(&id(name)?).await.map(|_| shown).map_err(Into::into)
            }
            Self::Remote(remote) => {
                remote.keys(Method::DELETE, &format!("/{}", segment(name)?), None).await
            }
        }
    }

    /// Writes a backup into a new file of mode 0600. A file that was there stays; one that was begun here and not ended does not.
    pub(crate) async fn backup(&self, path: &Path) -> Result<()> {
        use ah_keyservice::files::{Open, private_file};
        let file = private_file(path, Open::New)?;
        let done = self.write_backup(file, path).await;
        if done.is_err() {
            let _ = std::fs::remove_file(path);
        }
        done
    }

    async fn write_backup(&self, mut file: File, path: &Path) -> Result<()> {
        match self {
            Self::Local(service) => drop(service.backup(&mut file).await?),
            Self::Remote(remote) => remote.backup(&mut file).await?,
        }
        file.sync_all().with_context(|| format!("writing {}", path.display()))
    }

    pub(crate) async fn head(&self) -> Result<SignedHead> {
        match self {
            Self::Local(service) => Ok(service.head().await?),
            Self::Remote(remote) => {
                Ok(serde_json::from_value(remote.json(Method::GET, "/v1/log/head", None).await?)?)
            }
        }
    }

    /// Some entries from number `start` on; none at the end.
    pub(crate) async fn entries(&self, start: u64) -> Result<Vec<StoredEntry>> {
        match self {
            Self::Local(service) => Ok(service.entries(start, u64::MAX).await?),
            Self::Remote(remote) => {
                let mut page = remote
                    .json(Method::GET, &format!("/v1/log/entries?start={start}"), None)
                    .await?;
                Ok(serde_json::from_value(page["entries"].take())?)
            }
        }
    }
}

fn id(name: &str) -> Result<KeyId> {
    Ok(name.parse()?)
}
