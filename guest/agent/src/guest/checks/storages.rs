//! What a container's storages can be: verified layers, the overlay of all of them, volumes.

use std::path::{Component, Path, PathBuf};

use ah_agent_api::agent::Storage;
use ah_container::Layout;
use ah_rootfs::{LayerSource, PciPath};
use ah_verity::VerityInfo;

use super::{Kind, Medium, Volume};
use crate::failure::Failure;

const ROOT_HASH: &str = "X-kata.dmverity.roothash=";
const SALT: &str = "X-kata.dmverity.salt=";
const HASH_OFFSET: &str = "X-kata.dmverity.hashoffset=";

/// What the storages of a container come to.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The layers of the root, top first.
    pub(super) layers: Vec<LayerSource>,
    /// Most bytes that may be written into the root.
    pub(super) root_bytes: Option<u64>,
    /// The volumes.
    pub(super) volumes: Vec<Volume>,
}

/// Reads the storages.
pub(super) fn storages(
    storages: &[Storage],
    kind: Kind,
    root: &Path,
    layout: &Layout,
) -> Result<Found, Failure> {
    let mut found = Found::default();
    let mut folders: Vec<String> = Vec::new();
    let mut overlays = 0_usize;
    for storage in storages {
        match storage.driver.as_str() {
            "blk" if overlays == 0 => {
                let layer = layer(storage, layout)?;
                folders.push(storage.mount_point.clone());
                found.layers.push(layer);
            }
            "blk" => {
                return Err(Failure::refused(
                    "storages: a layer follows the overlay that should have it",
                ));
            }
            "overlayfs" => {
                found.root_bytes = overlay(storage, root, &folders)?;
                overlays = overlays.saturating_add(1);
            }
            "ephemeral" => found.volumes.push(volume(storage, "tmpfs", Medium::Memory, layout)?),
            "local" => found.volumes.push(volume(storage, "local", Medium::Disk, layout)?),
            other => {
                return Err(Failure::refused(format!(
                    "storages.driver: found {other:?}, expected blk, overlayfs, ephemeral or local"
                )));
            }
        }
    }
    match (kind, found.layers.len(), overlays) {
        (Kind::Sandbox, 0, 0) | (Kind::Workload, 1.., 1) => Ok(found),
        (Kind::Sandbox, ..) => {
            Err(Failure::refused("storages: the sandbox has no root, found layers for one"))
        }
        (Kind::Workload, layers, overlays) => Err(Failure::refused(format!(
            "storages: found {layers} layers and {overlays} overlays, expected at least one layer and one overlay: \
             a container's root is made of verified layers only"
        ))),
    }
}

fn layer(storage: &Storage, layout: &Layout) -> Result<LayerSource, Failure> {
    let refused = |text: String| Failure::refused(format!("storages (layer): {text}"));
    if storage.fstype != "erofs" || !storage.driver_options.is_empty() || storage.fs_group.is_some()
    {
        return Err(refused(format!(
            "found fstype {:?}, driver_options or fs_group, expected erofs and none",
            storage.fstype
        )));
    }
    let mut read_only = false;
    let (mut hash, mut salt, mut offset) = (None, None, None);
    for option in &storage.options {
        let again = |old: bool| match old {
            true => Err(refused(format!("option {option:?} twice"))),
            false => Ok(()),
        };
        if option == "ro" {
            again(std::mem::replace(&mut read_only, true))?;
        } else if let Some(text) = option.strip_prefix(ROOT_HASH) {
            again(hash.replace(text).is_some())?;
        } else if let Some(text) = option.strip_prefix(SALT) {
            again(salt.replace(text).is_some())?;
        } else if let Some(text) = option.strip_prefix(HASH_OFFSET) {
            again(offset.replace(text).is_some())?;
        } else {
            return Err(refused(format!("option {option:?} is not known")));
        }
    }
    let (true, Some(hash), Some(salt), Some(offset)) = (read_only, hash, salt, offset) else {
        return Err(refused("expected the options ro, roothash, salt and hashoffset".into()));
    };
    let salt: ah_digest::Sha256 = salt.parse().map_err(|e| refused(format!("salt: {e}")))?;
    let verity = VerityInfo::from_hash_offset(
        hash.parse().map_err(|e| refused(format!("root hash: {e}")))?,
        *salt.as_bytes(),
        decimal(offset)
            .ok_or_else(|| refused(format!("hash offset {offset:?} is no decimal number")))?,
    )
    .map_err(|e| refused(e.to_string()))?;
    let expected = layout.kata().join("layers").join(verity.root_hash.to_string());
    if expected.to_str() != Some(storage.mount_point.as_str()) {
        return Err(refused(format!(
            "mount_point: found {:?}, expected {expected:?}",
            storage.mount_point
        )));
    }
    let device: PciPath = storage.source.parse().map_err(|e| refused(format!("source: {e}")))?;
    Ok(LayerSource { device, verity })
}

/// Digits only: no sign, no space, no second way to write a number.
fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// The limit of what is written above the layers.
fn overlay(storage: &Storage, root: &Path, folders: &[String]) -> Result<Option<u64>, Failure> {
    let lower = format!("lowerdir={}", folders.join(":"));
    let fine = storage.fstype == "overlay"
        && storage.source == "overlay"
        && storage.driver_options.is_empty()
        && storage.fs_group.is_none()
        && root.to_str() == Some(storage.mount_point.as_str());
    let limit = match storage.options.as_slice() {
        [only] if fine && *only == lower => Some(None),
        [first, limit] if fine && *first == lower => {
            limit.strip_prefix("size=").and_then(size).filter(|bytes| *bytes > 0).map(Some)
        }
        _ => None,
    };
    limit.ok_or_else(|| {
        Failure::refused(format!(
            "storages (overlay): found source {:?}, options {:?} on {:?}, expected the layers before it in their order, {lower:?} on {root:?}, \
             and at most a size above 0",
            storage.source, storage.options, storage.mount_point
        ))
    })
}

/// `kind` is the source and the file system type that go with the driver.
fn volume(
    storage: &Storage,
    kind: &str,
    medium: Medium,
    layout: &Layout,
) -> Result<Volume, Failure> {
    let refused = |text: String| Failure::refused(format!("storages (volume): {text}"));
    if storage.fstype != kind || storage.source != kind {
        return Err(refused(format!(
            "found source {:?} of type {:?}, expected {kind}",
            storage.source, storage.fstype
        )));
    }
    let base = layout.kata().join("sandbox/ephemeral");
    let folder = PathBuf::from(&storage.mount_point);
    let name = folder.strip_prefix(&base).ok().and_then(single_name);
    if name.is_none() || storage.mount_point.ends_with('/') {
        return Err(refused(format!(
            "mount_point: found {folder:?}, expected a name below {base:?}"
        )));
    }
    let group = storage.fs_group.as_ref().map(|g| g.group_id);
    let (mut size_bytes, mut mode) = (None, None);
    for option in storage.options.iter().chain(&storage.driver_options) {
        // fsgid is how the Kata runtime gives the group as a driver option; fs_group says the same.
        let known = match option.split_once('=') {
            Some(("size", text)) => size(text).and_then(|bytes| first(&mut size_bytes, bytes)),
            Some(("mode", text)) => octal(text).and_then(|bits| first(&mut mode, bits)),
            Some(("fsgid", text)) if group.is_some_and(|g| g.to_string() == text) => Some(()),
            _ => None,
        };
        known.ok_or_else(|| refused(format!("option {option:?} is not known")))?;
    }
    Ok(Volume { folder, medium, size_bytes, mode, group })
}

/// Sets what was not set yet.
fn first<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// Bytes, or so many KiB, MiB or GiB.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (digits, "k") => (digits, 10),
        (digits, "m") => (digits, 20),
        (digits, "g") => (digits, 30),
        _ => (text, 0),
    };
    decimal(digits)?.checked_mul(1 << shift)
}

fn octal(text: &str) -> Option<u32> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = plain.then(|| u32::from_str_radix(text, 8).ok()).flatten()?;
    (mode <= 0o7777).then_some(mode)
}

/// The one normal component of a path that has no other.
fn single_name(path: &Path) -> Option<&str> {
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => name.to_str(),
        _ => None,
    }
}
