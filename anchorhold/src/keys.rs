//! `anchorhold key import` and `key list`, and the key service that `run` embeds.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use ah_importer::ImportKey;
use ah_keyservice::{
    Event, Family, KeyInfo, KeyService, KeyType, NewKey, OnExisting, Options, SystemEnvironment,
};
use ah_release_api::policy::{PodFacts, TeeKind};
use ah_release_api::{KeyId, MAX_SECRET_BYTES, ReleasePolicy};
use ah_software_tee::SoftwareTee;
use ah_verifier::TrustedRoots;
use anyhow::{Context, Result};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{KeyImport, Kty, Tee};
use crate::dirs::Dirs;
use crate::remote::Remote;
use crate::store::Store;
use crate::ui::{self, failure};
use crate::{guest, launches};

/// Whose reports the embedded key service believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// AMD's roots only.
    Hardware,
    /// The root of this user's software TEE too: asked for by an option with `danger` in its name.
    DangerSoftwareTee,
}

impl Accept {
    /// What the option said.
    pub fn from_option(danger_accept_software_tee: bool) -> Self {
        if danger_accept_software_tee { Self::DangerSoftwareTee } else { Self::Hardware }
    }
}

/// Opens the local key service.
pub async fn open(
    dirs: &Dirs,
    accept: Accept,
    observe: Option<ah_keyservice::Observer>,
) -> Result<KeyService> {
    let roots = match accept {
        Accept::Hardware => TrustedRoots::amd(),
        Accept::DangerSoftwareTee => {
            let tee = SoftwareTee::open(dirs.software_tee())?;
            TrustedRoots::amd().danger_with_software_root(tee.root_der())?
        }
    };
    let mut options = Options::new(roots);
    options.observer = observe;
    let dir = dirs.keys();
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    KeyService::open(&dir, options)
        .await
        .with_context(|| format!("key service in {}", dir.display()))
}

/// Imports a key under the release policy that follows from a pod.
pub(crate) async fn import(dirs: &Dirs, options: &KeyImport) -> Result<()> {
    let (Some(name), Some(pod)) = (&options.name, &options.pod) else {
        return Err(failure(
            "key import needs a name and a pod",
            "anchorhold key import NAME --for out.yaml --generate",
        ));
    };
    let id: KeyId = name.parse()?;
    let policy = release_policy(dirs, options, pod)?;
    let key = key(options)?;
    let what = describe(&key);
    if let Some(url) = &options.target.service {
        let remote = Remote::new(url, &options.target)?;
        let imported = Store::import_remote(&remote, name, &key, &policy, options.replace).await?;
        match options.json {
            true => crate::ui::say!("{imported}"),
            false => crate::ui::say!("imported {name} ({what}) at {url}"),
        }
        return Ok(());
    }
    let on_existing = if options.replace { OnExisting::Replace } else { OnExisting::Refuse };
    let service = open(dirs, Accept::Hardware, None).await?;
    let bytes = key.material.secret.as_bytes().len();
    let info = service
        .put(
            NewKey::released_under(policy, id, key.kty, key.material),
            Event::Import,
            on_existing,
            None,
        )
        .await?;
    service.close().await;
    if options.json {
        let (policy, kty) = (policy_json(&info), info.kty.name());
        crate::ui::say!(
            "{}",
            json!({ "name": info.id.as_str(), "kty": kty, "bytes": bytes, "release_policy": policy })
        );
    } else {
        crate::ui::say!("imported {} ({what})", info.id.as_str());
        crate::ui::say!("released only if all of this is verified:");
        crate::ui::say!("{}", claims(&info));
    }
    Ok(())
}

/// What a key is, in a word or two.
fn describe(key: &ImportKey) -> String {
    match key.kty.family {
        Family::Oct | Family::Opaque => {
            format!("{} bytes", key.material.secret.as_bytes().len())
        }
        Family::Rsa | Family::Ec => key.kty.name().to_owned(),
    }
}

/// Lists the keys.
pub(crate) async fn list(dirs: &Dirs, as_json: bool) -> Result<()> {
    let service = open(dirs, Accept::Hardware, None).await?;
    let mut damaged = None;
    for entry in service.list().await? {
        match entry {
            Ok(info) if as_json => {
                let policy = policy_json(&info);
                let created = info.attributes.created_s;
                crate::ui::say!(
                    "{}",
                    json!({ "name": info.id.as_str(), "created_unix_s": created, "release_policy": policy })
                );
            }
            Ok(info) => {
                crate::ui::say!("{}\n{}", info.id.as_str(), claims(&info))
            }
            Err(error) => damaged = Some(error),
        }
    }
    service.close().await;
    damaged.map_or(Ok(()), |error| Err(error.into()))
}

/// A key's release policy; null where there is none.
fn policy_json(info: &KeyInfo) -> serde_json::Value {
    let text = info.rule.as_ref().map(|rule| rule.policy.to_json()).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// A release policy for people: a line a claim where it is one list of them, values of which one has to be there below one another;
/// else its JSON.
fn claims(info: &KeyInfo) -> String {
    let json = policy_json(info);
    let lines = |authority: &serde_json::Value| -> Option<String> {
        let all = authority.get("allOf")?.as_array()?.iter();
        Some(all.map(condition).collect::<Option<Vec<_>>>()?.join("\n"))
    };
    let one = json.get("anyOf").and_then(|any| any.as_array()).filter(|any| any.len() == 1);
    let text = one.and_then(|any| lines(any.first()?));
    text.unwrap_or_else(|| {
        info.rule.as_ref().map(|rule| rule.policy.to_json_pretty()).unwrap_or_default()
    })
}

/// A comparison, or several of which one has to be met.
fn condition(one: &serde_json::Value) -> Option<String> {
    let line = |one: &serde_json::Value| {
        Some(format!("    {:36} {}", one.get("claim")?.as_str()?, one.get("equals")?.as_str()?))
    };
    let Some(any) = one.get("anyOf") else { return line(one) };
    let lines = any.as_array()?.iter().map(line).collect::<Option<Vec<_>>>()?;
    Some(lines.join(" or\n"))
}

fn release_policy(dirs: &Dirs, options: &KeyImport, pod: &Path) -> Result<ReleasePolicy> {
    let tee = match options.tee {
        Tee::Snp => ah_evidence::Tee::Snp,
        Tee::Software if options.danger_accept_software_tee => ah_evidence::Tee::Software,
        Tee::Software => {
            return Err(failure(
                "a key for the software TEE would be released to a VM that the host can read",
                "--danger-accept-software-tee says that you want that",
            ));
        }
        Tee::Tdx | Tee::Auto => {
            return Err(failure(
                format!("keys cannot be released to tee {:?} in this version", options.tee),
                "--tee snp, or --tee software --danger-accept-software-tee for a trial",
            ));
        }
    };
    let document = crate::policy::carried_by(pod)?;
    let image = guest::load(dirs, options.guest.as_deref())?;
    let facts = PodFacts {
        tee: if tee == ah_evidence::Tee::Software { TeeKind::Software } else { TeeKind::SevSnp },
        launch_measurements: measurements(&image, options, pod, tee)?,
        host_data: document.host_data_snp()?,
    };
    if tee == ah_evidence::Tee::Software {
        eprintln!("{}: this key will be released to a VM that the host can read", ui::SOFTWARE_TEE);
    }
    match options.authority.as_slice() {
        [] => Ok(ReleasePolicy::for_pod(&facts)?),
        named => Ok(ReleasePolicy::for_pod_by(&facts, named)?),
    }
}

/// Of each way in which the pod may be started.
fn measurements(
    image: &ah_guest_image::GuestImage,
    options: &KeyImport,
    pod: &Path,
    tee: ah_evidence::Tee,
) -> Result<Vec<ah_digest::Sha384>> {
    let mut vcpus = launches::vcpus_of(pod)?;
    vcpus.extend(options.vcpus.iter().copied());
    let all = launches::launches(image, &vcpus, tee)?;
    Ok(all.into_iter().map(|launch| launch.measurement).collect())
}

/// Reads a text file; `-` is standard input.
pub(crate) fn read_text(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

fn key(options: &KeyImport) -> Result<ImportKey> {
    let family = match options.kty {
        Kty::Oct => Family::Oct,
        Kty::Rsa => Family::Rsa,
        Kty::Ec => Family::Ec,
    };
    let kty = KeyType { family, hsm: false };
    match &options.from {
        None => Ok(ImportKey::generate(kty, &SystemEnvironment)?),
        Some(file) => Ok(ImportKey::from_file(kty, &read_secret(file)?)?),
    }
}

/// Reads a file that may hold a key; `-` is standard input. What is longer than any key is cut, which the key's length then tells.
pub(crate) fn read_secret(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut source: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(fs::File::open(file).with_context(|| format!("reading {}", file.display()))?)
    };
    let mut bytes = Zeroizing::new(Vec::new());
    source.by_ref().take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, Key};

    fn options(words: &str) -> Result<Box<KeyImport>, clap::Error> {
        let words = format!("anchorhold key import {words}");
        match Cli::try_parse_from(words.split_whitespace())?.command {
            Command::Key(Key::Import(options)) => Ok(options),
            other => panic!("{other:?}"),
        }
    }

    /// A key of each kind, as it is then in the store.
    #[tokio::test]
    async fn every_kind_of_key_is_made_and_stored() {
        let dir = tempfile::tempdir().unwrap();
        let options = |kty: &str| options(&format!("{kty} --for p.yaml --generate --kty {kty}"));
        let amd = Options::new(TrustedRoots::amd());
        let service = KeyService::open(&dir.path().join("keys"), amd).await.unwrap();
        for kty in ["oct", "RSA", "EC"] {
            let options = options(kty).unwrap();
            let key = key(&options).unwrap();
            let said = describe(&key);
            assert_eq!(said, if kty == "oct" { "32 bytes" } else { kty });
            let text = r#"{"version":"1.0.0","anyOf":[{"authority":"https://a","allOf":[{"claim":"c","equals":"v"}]}]}"#;
            let policy = ReleasePolicy::parse(text).unwrap();
            let id = options.name.as_deref().unwrap().parse().unwrap();
            let stored = service
                .put(
                    NewKey::released_under(policy, id, key.kty, key.material),
                    Event::Import,
                    OnExisting::Refuse,
                    None,
                )
                .await
                .unwrap();
            assert_eq!(stored.kty.name(), kty);
            assert_eq!(stored.public.is_empty(), kty == "oct");
        }
        service.close().await;
    }

    #[test]
    fn the_two_forms_do_not_mix() {
        assert!(options("name --for p.yaml --generate --authority https://a").is_ok());
        assert!(options("-c file").is_ok());
        for words in [
            "name",
            "name --for p.yaml",
            "name --generate",
            "--for p.yaml --generate",
            "name --for p.yaml --generate --from f",
            "-c file name",
            "-c file --authority https://a",
            "-c file --danger-accept-software-tee",
            "name --for p.yaml --generate --key-out f",
        ] {
            assert!(options(words).is_err(), "{words}");
        }
    }
}
