//! The form of a lock file: TOML, one table an image.

use ah_digest::Sha256;
use ah_oci::Platform;
use ah_pod::{Accounts, GroupEntry, ImageFacts, Layer, PasswdEntry};
use ah_verity::{VerityInfo, ZERO_SALT};
use serde::{Deserialize, Serialize};

use super::{LockError, LockedImage};
use crate::{facts, name};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileForm {
    pub(super) version: u32,
    pub(super) conversion_version: u32,
    #[serde(default)]
    pub(super) image: Vec<ImageForm>,
}

/// One image. Lists of tables come last, as TOML wants them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageForm {
    name: String,
    platform: String,
    reference: String,
    target_digest: Sha256,
    manifest_digest: Sha256,
    config_digest: Sha256,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    user: String,
    volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_signal: Option<String>,
    /// Each `name:uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passwd: Option<Vec<String>>,
    /// Each `name:gid:member,member`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<Vec<String>>,
    #[serde(default)]
    layer: Vec<LayerForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerForm {
    digest: Sha256,
    diff_id: Sha256,
    root_hash: Sha256,
    data_blocks: u64,
}

impl ImageForm {
    pub(super) fn of(((name, platform), image): (&(String, Platform), &LockedImage)) -> Self {
        let facts = &image.facts;
        let passwd = |entry: &PasswdEntry| format!("{}:{}:{}", entry.name, entry.uid, entry.gid);
        let group = |entry: &GroupEntry| {
            format!("{}:{}:{}", entry.name, entry.gid, entry.members.join(","))
        };
        let layer = |(layer, digest): (&Layer, &Sha256)| LayerForm {
            digest: *digest,
            diff_id: layer.diff_id,
            root_hash: layer.verity.root_hash,
            data_blocks: layer.verity.data_blocks,
        };
        Self {
            name: name.clone(),
            platform: platform.to_string(),
            reference: facts.reference.clone(),
            target_digest: image.target_digest,
            manifest_digest: image.manifest_digest,
            config_digest: image.config_digest,
            entrypoint: facts.entrypoint.clone(),
            cmd: facts.cmd.clone(),
            env: facts.env.clone(),
            working_dir: facts.working_dir.clone(),
            user: facts.user.clone(),
            volumes: facts.volumes.clone(),
            stop_signal: facts.stop_signal.clone(),
            passwd: facts.accounts.passwd.as_ref().map(|list| list.iter().map(passwd).collect()),
            group: facts.accounts.group.as_ref().map(|list| list.iter().map(group).collect()),
            layer: facts.layers.iter().zip(&image.layer_digests).map(layer).collect(),
        }
    }

    pub(super) fn into_locked(self) -> Result<((String, Platform), LockedImage), LockError> {
        let wrong = |reason: String| LockError::Form { reason };
        let platform: Platform = self.platform.parse().map_err(|e| wrong(format!("{e}")))?;
        let reference = name::parse(&self.name).map_err(|error| wrong(error.to_string()))?;
        let expected = name::canonical(&reference, &self.target_digest);
        if self.reference != expected {
            let what = format!("reference {:?}, expected {expected:?}", self.reference);
            return Err(LockError::Contradiction { what });
        }
        let layer = |form: &LayerForm| {
            let (root_hash, data_blocks) = (form.root_hash, form.data_blocks);
            let verity = VerityInfo { root_hash, data_blocks, salt: ZERO_SALT };
            let verity = verity.checked().map_err(|error| wrong(error.to_string()))?;
            Ok(Layer { diff_id: form.diff_id, verity })
        };
        // the numbers were read as containerd reads them, so that writing and reading them again changes nothing
        let accounts = Accounts {
            passwd: self.passwd.map(|list| list.iter().map(|line| passwd_entry(line)).collect()),
            group: self.group.map(|list| list.iter().map(|line| group_entry(line)).collect()),
        };
        let facts = ImageFacts {
            reference: self.reference,
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            env: self.env,
            working_dir: self.working_dir,
            user: self.user,
            volumes: self.volumes,
            stop_signal: self.stop_signal,
            accounts,
            layers: self.layer.iter().map(layer).collect::<Result<_, LockError>>()?,
        };
        facts::check(&self.name, &facts).map_err(|error| wrong(error.to_string()))?;
        let locked = LockedImage {
            target_digest: self.target_digest,
            manifest_digest: self.manifest_digest,
            config_digest: self.config_digest,
            layer_digests: self.layer.iter().map(|layer| layer.digest).collect(),
            facts,
        };
        Ok(((self.name, platform), locked))
    }
}

fn number(field: Option<&str>) -> i64 {
    field.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn passwd_entry(line: &str) -> PasswdEntry {
    let mut fields = line.split(':');
    let name = fields.next().unwrap_or_default().to_owned();
    PasswdEntry { name, uid: number(fields.next()), gid: number(fields.next()) }
}

fn group_entry(line: &str) -> GroupEntry {
    let mut fields = line.split(':');
    let name = fields.next().unwrap_or_default().to_owned();
    let gid = number(fields.next());
    let members = fields.next().unwrap_or_default();
    let members = members.split(',').filter(|_| !members.is_empty()).map(str::to_owned).collect();
    GroupEntry { name, gid, members }
}
