//! What an image says about the containers made from it.

use ah_digest::Sha256;
use ah_verity::VerityInfo;
use serde::{Deserialize, Serialize};

/// The facts of one image that enter a request, as read from its verified config and layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFacts {
    /// `registry/name@sha256:<digest>`, as containerd writes it (without a tag): the digest of what the
    /// name stands for, an index or a manifest.
    pub reference: String,
    /// `config.Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `config.Cmd`.
    pub cmd: Vec<String>,
    /// `config.Env`, each `NAME=value`.
    pub env: Vec<String>,
    /// `config.WorkingDir`, may be empty.
    pub working_dir: String,
    /// `config.User`, may be empty: `user[:group]`, names or numbers.
    pub user: String,
    /// Keys of `config.Volumes`, sorted. They are folders of the container's own writable root, where
    /// the image's files in them keep owner and contents; under a read-only root each is an empty
    /// file system in memory.
    pub volumes: Vec<String>,
    /// `config.StopSignal`.
    pub stop_signal: Option<String>,
    /// Users and groups of the merged layers.
    pub accounts: Accounts,
    /// Layers, bottom first.
    pub layers: Vec<Layer>,
}

/// One layer: what the OCI config calls it and what dm-verity checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// SHA-256 of the uncompressed tar (OCI image specification, `rootfs.diff_ids`).
    pub diff_id: Sha256,
    /// Root hash, size and salt of the layer's block image.
    #[serde(with = "verity")]
    pub verity: VerityInfo,
}

/// `/etc/passwd` and `/etc/group` of the merged layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// `/etc/passwd`; `None` when the image has no such file.
    pub passwd: Option<Vec<PasswdEntry>>,
    /// `/etc/group`; `None` when the image has no such file.
    pub group: Option<Vec<GroupEntry>>,
}

/// One line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswdEntry {
    /// First field.
    pub name: String,
    /// Third field; a text that is not a number counts as 0, as in containerd.
    pub uid: i64,
    /// Fourth field, read like the third.
    pub gid: i64,
}

/// One line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupEntry {
    /// First field.
    pub name: String,
    /// Third field; a text that is not a number counts as 0, as in containerd.
    pub gid: i64,
    /// Fourth field, split at commas.
    pub members: Vec<String>,
}

impl Accounts {
    /// Reads the two files as containerd does: blank lines skipped, missing fields empty.
    pub fn parse(passwd: Option<&str>, group: Option<&str>) -> Self {
        Self {
            passwd: passwd.map(|text| lines(text).map(passwd_entry).collect()),
            group: group.map(|text| lines(text).map(group_entry).collect()),
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn passwd_entry(line: &str) -> PasswdEntry {
    let mut fields = line.split(':');
    let name = fields.next().unwrap_or_default().to_owned();
    let mut number = |skip: usize| number(fields.nth(skip));
    PasswdEntry { name, uid: number(1), gid: number(0) }
}

fn group_entry(line: &str) -> GroupEntry {
    let mut fields = line.split(':');
    let name = fields.next().unwrap_or_default().to_owned();
    let gid = number(fields.nth(1));
    let members = fields.next().unwrap_or_default();
    let members = members.split(',').filter(|_| !members.is_empty()).map(str::to_owned).collect();
    GroupEntry { name, gid, members }
}

fn number(field: Option<&str>) -> i64 {
    field.and_then(|text| text.parse().ok()).unwrap_or(0)
}

mod verity {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        root_hash: Sha256,
        data_blocks: u64,
        salt: Sha256,
    }

    pub(super) fn serialize<S: serde::Serializer>(
        verity: &VerityInfo,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Form {
            root_hash: verity.root_hash,
            data_blocks: verity.data_blocks,
            salt: Sha256::new(verity.salt),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VerityInfo, D::Error> {
        let form = Form::deserialize(deserializer)?;
        Ok(VerityInfo {
            root_hash: form.root_hash,
            data_blocks: form.data_blocks,
            salt: *form.salt.as_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_lines_read_as_containerd_reads_them() {
        let accounts = Accounts::parse(
            Some("root:x:0:0:root:/root:/bin/sh\n\n  www:x:33:34::/:\nodd\nbad:x:y:7\n"),
            Some("root:x:0:\nweb:x:40:www,alice\nshort\n"),
        );
        let passwd: Vec<_> =
            accounts.passwd.unwrap().into_iter().map(|e| (e.name, e.uid, e.gid)).collect();
        assert_eq!(
            passwd,
            [
                ("root".into(), 0, 0),
                ("www".into(), 33, 34),
                ("odd".into(), 0, 0),
                ("bad".into(), 0, 7)
            ]
        );
        let group = accounts.group.unwrap();
        assert_eq!(group[0].members, Vec::<String>::new());
        assert_eq!(group[1].members, ["www", "alice"]);
        assert_eq!((group[2].name.as_str(), group[2].gid), ("short", 0));
    }

    #[test]
    fn a_layer_keeps_its_verity_parameters_in_json() {
        let layer = Layer {
            diff_id: Sha256::of(b"tar"),
            verity: VerityInfo { root_hash: Sha256::of(b"root"), data_blocks: 7, salt: [0; 32] },
        };
        let json = serde_json::to_string(&layer).unwrap();
        assert_eq!(serde_json::from_str::<Layer>(&json).unwrap(), layer);
        assert!(serde_json::from_str::<Layer>(&json.replace("data_blocks", "blocks")).is_err());
    }
}
