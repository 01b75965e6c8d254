//! `anchorhold key import -c importkeyconfig.json`: the known key importer's file, word for word, and nothing secret on the way.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ah_importer::{
    Derivation, ImportConfig, ImportKey, METADATA_SERVICE, import_body, managed_identity_token,
};
use ah_keyservice::SystemEnvironment;
use ah_keyservice::files::{Open, private_file};
use anyhow::{Context as _, Result};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{ImportFile, KeyImport};
use crate::keys::read_secret;
use crate::remote::{Remote, did_nothing, segment};
use crate::ui::{failure, plain, say};

/// Names the metadata service, as for the sidecar.
const METADATA: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
/// Length of a salt that is made here, bytes: that of the hash.
const SALT_BYTES: usize = 32;

pub(crate) async fn run(options: &KeyImport) -> Result<()> {
    let Some(path) = &options.file.config else { return Ok(()) };
    let text = zeroize::Zeroizing::new(
        fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
    );
    let config = ImportConfig::parse(&text).with_context(|| path.display().to_string())?;
    let vault = vault(options, &config).await?;
    let key = match &options.from {
        Some(file) => ImportKey::from_file(config.kty, &read_secret(file)?)
            .with_context(|| file.display().to_string())?,
        None => ImportKey::generate(config.kty, &SystemEnvironment)?,
    };
    key.check_size()?;
    let mut written = Written::default();
    written.add_all(&options.file, &config.derivation, &key)?;
    let query = format!("/keys/{}?{}", segment(config.name.as_str())?, config.query);
    let body = import_body(&config, &key)?;
    match vault.json(Method::PUT, &query, Some(&body)).await {
        Ok(answer) => {
            written.keep();
            tell(options, &config, &answer)
        }
        Err(error) if did_nothing(&error) => Err(error),
        // The request may have arrived: then the vault has a key that these files are the only other copy of.
        Err(error) => Err(match written.keep().as_slice() {
            [] => error,
            files => error.context(format!(
                "the vault may have the key, so {} stays: look before it is deleted",
                shown(files)
            )),
        }),
    }
}

fn shown(files: &[PathBuf]) -> String {
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}

/// The vault, with the token that the command line, the metadata service or the file has for it, in this order.
///
/// The latter two are for the file's vault only: a service of another name, from an option or a variable that was left set, would get a
/// token that opens somebody's vault.
async fn vault(options: &KeyImport, config: &ImportConfig) -> Result<Remote> {
    let of_file = format!("https://{}", config.vault);
    let url = options.target.service.as_deref().unwrap_or(&of_file);
    let vault = Remote::new(url, &options.target)?;
    if options.target.token_file.is_some() {
        return Ok(vault);
    }
    if url.trim_end_matches('/') != of_file.trim_end_matches('/') {
        return Err(failure(
            format!(
                "--service is {url}, and the file's token is for {of_file}: it goes nowhere else"
            ),
            "leave --service and ANCHORHOLD_SERVICE out, or give --service its own token with --token-file",
        ));
    }
    if options.file.managed_identity {
        let service = std::env::var(METADATA).unwrap_or_else(|_| METADATA_SERVICE.to_owned());
        let hsm = config.is_managed_hsm();
        let token = managed_identity_token(&service, hsm, config.client_id.as_deref()).await?;
        return Ok(vault.with_token(token.to_string()));
    }
    match &config.bearer_token {
        Some(token) => Ok(vault.with_token(token.to_string())),
        None => Err(failure(
            format!("there is no token for {url}"),
            "key.akv.bearer_token, --token-file or --managed-identity gives one",
        )),
    }
}

/// Files that were written before the import: gone again if the vault has no key.
#[derive(Default)]
struct Written(Vec<PathBuf>);

impl Written {
    fn add_all(
        &mut self,
        options: &ImportFile,
        derivation: &Derivation,
        key: &ImportKey,
    ) -> Result<()> {
        if let Some(path) = &options.derived_out {
            let salt = salt(derivation)?;
            self.add(path, key.derive(&salt, &derivation.label)?.as_slice())?;
        }
        match &options.key_out {
            Some(path) => self.add(path, &key.to_file()?),
            None => Ok(()),
        }
    }

    fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = private_file(path, Open::New)?;
        self.0.push(path.to_owned());
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.with_context(|| format!("writing {}", path.display()))
    }

    fn keep(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// The file's salt, or one that is made and told: it is public, and without it nobody derives the key again.
fn salt(derivation: &Derivation) -> Result<Vec<u8>> {
    if let Some(salt) = &derivation.salt {
        return Ok(salt.clone());
    }
    let mut salt = vec![0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let text: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("derived with salt {text} and label {:?}", derivation.label);
    Ok(salt)
}

fn tell(options: &KeyImport, config: &ImportConfig, answer: &Value) -> Result<()> {
    let kid = answer.pointer("/key/kid").and_then(Value::as_str).unwrap_or_default();
    if kid.is_empty() {
        return Err(failure(
            "the vault's answer has no key.kid",
            "--service or key.akv.endpoint may name something else than a vault",
        ));
    }
    let policy: Value = serde_json::from_str(&config.policy.to_json())?;
    match options.json {
        true => {
            say!("{}", json!({ "kid": kid, "kty": config.kty.name(), "release_policy": policy }))
        }
        false => say!("{}\n{policy}", plain(kid)),
    }
    Ok(())
}
