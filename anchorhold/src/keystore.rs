//! `anchorhold key show`, `disable`, `enable`, `rotate`, `delete`, `backup` and `restore`.

use std::io::BufReader;

use ah_keyservice::files::private_dir;
use ah_keyservice::{BackupError, KeyService, decode_base64};
use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cli::service::{BackupFile, OneKey, RestoreFile, Target};
use crate::dirs::Dirs;
use crate::keyservice;
use crate::store::Store;
use crate::ui::{failure, plain, say};

/// What to do with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Show,
    Disable,
    Enable,
    Rotate,
    Delete,
}

pub(crate) async fn one(dirs: &Dirs, options: &OneKey, action: Action) -> Result<()> {
    let store = Store::open(dirs, &options.target).await?;
    let name = options.name.as_str();
    let key = match action {
        Action::Show => store.show(name).await,
        Action::Disable => store.set_enabled(name, false).await,
        Action::Enable => store.set_enabled(name, true).await,
        Action::Rotate => store.rotate(name).await,
        Action::Delete => store.delete(name).await,
    };
    store.close().await;
    let key = key?;
    match (options.json, action) {
        (true, _) => say!("{key}"),
        (false, Action::Show) => show(name, &key),
        (false, Action::Disable) => {
            say!(
                "{name} is disabled with all its versions: it is released to nobody until it is enabled"
            )
        }
        (false, Action::Enable) => say!("{name} is enabled"),
        (false, Action::Rotate) => say!("{name} has a further version: {}", version(&key)),
        (false, Action::Delete) => say!("{name} is deleted with all its versions"),
    }
    Ok(())
}

/// Lists the keys of a service elsewhere.
pub(crate) async fn list(dirs: &Dirs, target: &Target, json: bool) -> Result<()> {
    let store = Store::open(dirs, target).await?;
    for key in store.list().await? {
        if json {
            say!("{key}");
        } else {
            let kid = key.pointer("/key/kid").and_then(Value::as_str).unwrap_or_default();
            let name = kid.split_once("/keys/").map_or(kid, |(_, name)| name);
            show(name.rsplit_once('/').map_or(name, |(name, _version)| name), &key);
        }
    }
    store.close().await;
    Ok(())
}

fn version(key: &Value) -> String {
    let kid = key.pointer("/key/kid").and_then(Value::as_str).unwrap_or_default();
    plain(kid.rsplit('/').next().unwrap_or_default())
}

fn show(name: &str, key: &Value) {
    let is = |path: &str| key.pointer(path).and_then(Value::as_bool).unwrap_or_default();
    let kind = plain(key.pointer("/key/kty").and_then(Value::as_str).unwrap_or_default());
    let name = plain(name);
    let state = match (is("/attributes/enabled"), is("/attributes/exportable")) {
        (false, _) => "disabled",
        (true, false) => "never released",
        (true, true) => "released under its policy",
    };
    say!(
        "{name}\n    {:36} {kind}\n    {:36} {}\n    {:36} {state}",
        "kind",
        "version",
        version(key),
        "state"
    );
    let data = key.pointer("/release_policy/data").and_then(Value::as_str).and_then(decode_base64);
    let policy: Value =
        data.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if policy.is_object() {
        say!("    {:36} {}", "policy", plain(&policy.to_string()));
    }
}

pub(crate) async fn backup(dirs: &Dirs, options: &BackupFile) -> Result<()> {
    let store = Store::open(dirs, &options.target).await?;
    let done = store.backup(&options.file).await;
    store.close().await;
    done?;
    eprintln!(
        "backup written to {}\nhint: keep the key-encryption key as well, elsewhere: without it no key opens",
        options.file.display()
    );
    Ok(())
}

pub(crate) async fn restore(dirs: &Dirs, options: &RestoreFile) -> Result<()> {
    if options.target.service.is_some() {
        return Err(failure(
            "a backup is restored into the local store only",
            "run it where the service runs, before the service is started",
        ));
    }
    let config = keyservice::read_config(dirs, options.config.as_deref())?;
    private_dir(&config.state)?;
    let file = std::fs::File::open(&options.file)
        .with_context(|| format!("reading {}", options.file.display()))?;
    let (location, kek) = (config.location(), config.kek());
    let restored = KeyService::restore(&location, &kek, &mut BufReader::new(file)).await;
    let restored = restored.map_err(|error| match options.config {
        None if is_about_kek(&error) => failure(
            error,
            "--config names the configuration of a service whose key-encryption key is elsewhere",
        ),
        _ => error.into(),
    })?;
    say!("restored {} keys and {} entries of the decision log", restored.keys, restored.entries);
    Ok(())
}

fn is_about_kek(error: &BackupError) -> bool {
    use ah_keyservice::{ServiceError, VaultError};
    let other =
        |error: &ServiceError| matches!(error, ServiceError::Vault(VaultError::OtherKek { .. }));
    match error {
        BackupError::NoKek { .. } | BackupError::Keys { .. } => true,
        BackupError::Service(error) => other(error),
        _ => false,
    }
}
