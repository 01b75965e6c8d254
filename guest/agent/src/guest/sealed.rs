//! Sealed values of a container: opened before its first process exists, in the guest's memory alone.
//!
//! The policy pins the sealed text; the value is known to the owner and to the container. What is sealed: variables of the
//! container's environment, and files that were copied in for it. Either all of a container's sealed values open, or it is not made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use ah_agent_api::oci;
use ah_release::{KeyId, KeyKind, MAX_SEALED_BYTES, Place, ReleasedKey, Sealed, is_sealed};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use zeroize::Zeroizing;

use crate::failure::{Failure, chain};
use crate::keys::{Keys, WantedKey};

/// Most keys that one container's sealed values are sealed with; each costs an exchange with the key service.
const MAX_KEYS: usize = 8;
/// Most folders below one another in what was copied in.
const MAX_DEPTH: usize = 32;
const WHAT: &str = "open a sealed value";

/// A sealed value that was found, not opened yet.
#[derive(Debug)]
pub(super) struct Found {
    holder: Holder,
    place: Place,
    text: String,
}

#[derive(Debug)]
enum Holder {
    /// The entry `NAME=sealed…`.
    Env(String),
    File(PathBuf),
}

/// The sealed values of a container: of its environment, and of the files that its mounts take from the folder `shared`.
///
/// # Errors
/// [`Failure::Effect`] for a file that cannot be read.
pub(super) fn find(spec: &oci::Spec, shared: &Path) -> Result<Vec<Found>, Failure> {
    let mut found = in_env(spec.Process.as_ref().map_or(&[], |process| &process.Env));
    for mount in spec.Mounts.iter().filter(|mount| mount.type_ == "bind") {
        let source = Path::new(&mount.source);
        let Ok(below) = source.strip_prefix(shared) else { continue };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if below.as_os_str().is_empty() || !below.components().all(plain) {
            continue;
        }
        in_files(source, &mount.destination, &mut found)
            .map_err(|e| Failure::effect("look for sealed files", &e))?;
    }
    Ok(found)
}

fn in_env(env: &[String]) -> Vec<Found> {
    let sealed = |entry: &String| {
        let (name, text) = entry.split_once('=')?;
        is_sealed(text.as_bytes()).then(|| Found {
            holder: Holder::Env(entry.clone()),
            place: Place::Env(name.to_owned()),
            text: text.to_owned(),
        })
    };
    env.iter().filter_map(sealed).collect()
}

/// Of a file, or of all files below a folder. Links are not followed: what one leads to lies in the same folder.
fn in_files(source: &Path, destination: &str, found: &mut Vec<Found>) -> std::io::Result<()> {
    let mut todo = vec![(source.to_owned(), 0_usize)];
    while let Some((path, depth)) = todo.pop() {
        let kind = match fs::symlink_metadata(&path) {
            Ok(found) => found.file_type(),
            // What is missing is refused where it is mounted.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if kind.is_dir() && depth < MAX_DEPTH {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                todo.push((entry.path(), depth.saturating_add(1)));
            }
        } else if kind.is_file()
            && let Some(text) = sealed_text(&path)?
        {
            let below = path.strip_prefix(source).unwrap_or(Path::new(""));
            let place = Place::File(seen_at(destination, below));
            found.push(Found { holder: Holder::File(path), place, text });
        }
    }
    Ok(())
}

/// The path at which the container sees a file of a mount. The kubelet keeps a volume's files in a folder whose name begins with
/// two dots, and lets the container see them without it, by links.
fn seen_at(destination: &str, below: &Path) -> String {
    let mut parts = below.components().peekable();
    parts.next_if(|part| part.as_os_str().as_encoded_bytes().starts_with(b".."));
    let mut path = destination.trim_end_matches('/').to_owned();
    for part in parts {
        path.push('/');
        path.push_str(&part.as_os_str().to_string_lossy());
    }
    path
}

/// The text of a sealed file, without the white space that editors put behind it.
fn sealed_text(path: &Path) -> std::io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?);
    let mut bytes = Vec::new();
    (&file).take(32).read_to_end(&mut bytes)?;
    if !is_sealed(&bytes) {
        return Ok(None);
    }
    // One byte more than may be, so that a text that is too long is seen to be.
    let most = u64::try_from(MAX_SEALED_BYTES).unwrap_or(u64::MAX);
    (&file).take(most).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()))
}

/// The opened values of an environment, by the entry that each takes the place of. Kept for the container's further processes,
/// which have the same environment.
#[derive(Default)]
pub(super) struct OpenedEnv(BTreeMap<String, Zeroizing<String>>);

/// What was opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) env: OpenedEnv,
    files: OpenedFiles,
}

#[derive(Default)]
struct OpenedFiles(Vec<(PathBuf, Zeroizing<Vec<u8>>)>);

/// What is copied in for a container that is made already is not opened any more, and its program must not take the text for the value.
///
/// # Errors
/// [`Failure::Denied`] for a sealed value.
pub(super) fn check_late(data: &[u8]) -> Result<(), Failure> {
    match is_sealed(data) {
        true => Err(Failure::refused(
            "data: found a sealed value for a container that is made already, expected one before it is made",
        )),
        false => Ok(()),
    }
}

fn failed(place: &Place, cause: &str) -> Failure {
    Failure::Effect { what: WHAT, cause: format!("{place}: {cause}") }
}

fn failed_with(place: &Place, id: &KeyId, cause: &str) -> Failure {
    failed(place, &format!("key {id}: {cause}"))
}

/// The keys that they are sealed to, each once. A key is asked for when nothing else is wrong, so all are read first.
///
/// # Errors
/// [`Failure::Effect`] naming the place of the first that is not what it has to be.
pub(super) fn wanted(found: &[Found]) -> Result<Vec<WantedKey>, Failure> {
    let mut wanted: Vec<WantedKey> = Vec::new();
    for Found { place, text, .. } in found {
        let sealed = Sealed::parse(text, place).map_err(|e| failed(place, &e.to_string()))?;
        let id = sealed.key_id();
        if wanted.iter().any(|key| key.id == *id) {
            continue;
        }
        if wanted.len() >= MAX_KEYS {
            let cause = format!("found more than {MAX_KEYS} keys for one container");
            return Err(failed_with(place, id, &cause));
        }
        wanted.push(WantedKey { id: id.clone(), place: place.clone() });
    }
    Ok(wanted)
}

/// Asks for each key.
///
/// # Errors
/// [`Failure::Effect`] naming place and key of the first that is not released.
pub(super) fn fetch(
    wanted: Vec<WantedKey>,
    ask: &dyn Fn(&KeyId) -> Result<ReleasedKey, String>,
) -> Result<Keys, Failure> {
    let fetched = |WantedKey { id, place }| match ask(&id) {
        Ok(key) => Ok((id, key)),
        Err(cause) => Err(failed_with(&place, &id, &cause)),
    };
    wanted.into_iter().map(fetched).collect()
}

/// Opens all of them.
///
/// # Errors
/// [`Failure::Effect`] naming place and key of the first that does not open; never a value.
pub(super) fn open(found: Vec<Found>, keys: &Keys) -> Result<Opened, Failure> {
    let mut opened = Opened::default();
    for Found { holder, place, text } in found {
        let sealed = Sealed::parse(&text, &place).map_err(|e| failed(&place, &e.to_string()))?;
        let id = sealed.key_id();
        let failed = |cause: String| failed_with(&place, id, &cause);
        // The host may have copied other files in since the keys were asked for.
        let key = keys.of(id).ok_or_else(|| failed("it came after the keys were asked for".into()));
        let key = key?;
        if key.kind != KeyKind::Oct {
            return Err(failed("it is no symmetric key (oct)".into()));
        }
        let value = sealed.open(&key.secret).map_err(|e| failed(e.to_string()))?;
        if is_sealed(&value) {
            return Err(failed("what it holds is sealed again".into()));
        }
        match (holder, &place) {
            (Holder::Env(entry), Place::Env(name)) => {
                let value = env_entry(name, &value).map_err(failed)?;
                opened.env.0.insert(entry, value);
            }
            (Holder::File(path), _) => opened.files.0.push((path, value)),
            (Holder::Env(_), Place::File(_)) => return Err(failed("it is not a file".into())),
        }
    }
    Ok(opened)
}

/// `NAME=value`, where the value can be one of a variable.
fn env_entry(name: &str, value: &[u8]) -> Result<Zeroizing<String>, String> {
    match std::str::from_utf8(value) {
        Ok(value) if !value.contains('\0') => Ok(Zeroizing::new(format!("{name}={value}"))),
        _ => Err("what it holds is not UTF-8 without zero bytes, as a variable's value has to be"
            .to_owned()),
    }
}

impl Opened {
    /// Puts the files' values in their places, with owner and mode as they were.
    ///
    /// # Errors
    /// [`Failure::Effect`].
    pub(super) fn write_files(&self) -> Result<(), Failure> {
        let write = |(path, value): &(PathBuf, Zeroizing<Vec<u8>>)| {
            replace(path, value).map_err(|e| Failure::effect("write an opened file", &e))
        };
        self.files.0.iter().try_for_each(write)
    }
}

/// The name beside it is one that no request can give (see `copy_file::part_name`).
fn replace(path: &Path, value: &[u8]) -> std::io::Result<()> {
    let old = fs::symlink_metadata(path)?;
    let mut part = path.as_os_str().to_owned().into_vec();
    part.push(0xff);
    let part = PathBuf::from(OsString::from_vec(part));
    match fs::remove_file(&part) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(value)?;
        std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        fs::rename(&part, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

impl OpenedEnv {
    /// Puts the values into an environment.
    ///
    /// # Errors
    /// [`Failure::Denied`] for a sealed value that was not opened when the container was made.
    pub(super) fn put_into(&self, env: &mut [String]) -> Result<(), Failure> {
        for entry in env {
            if let Some(value) = self.0.get(entry.as_str()) {
                *entry = value.to_string();
            } else if let Some((name, text)) = entry.split_once('=')
                && is_sealed(text.as_bytes())
            {
                return Err(Failure::refused(format!(
                    "Process.Env: {name} has a sealed value that the container was not made with"
                )));
            }
        }
        Ok(())
    }

    /// A failure without the values, since the runtime's texts may quote what it was given.
    pub(super) fn hide(&self, failure: Failure) -> Failure {
        let hidden = |text: String| {
            let values = self.0.values().filter_map(|entry| Some(entry.split_once('=')?.1));
            let values = values.filter(|value| !value.is_empty());
            values.fold(text, |text, value| text.replace(value, "(opened)"))
        };
        match failure {
            Failure::Effect { what, cause } => Failure::Effect { what, cause: hidden(cause) },
            Failure::Denied { text } => Failure::Denied { text: hidden(text) },
            other => other,
        }
    }
}

impl fmt::Debug for OpenedEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenedEnv({} values)", self.0.len())
    }
}

impl fmt::Debug for OpenedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenedFiles({})", self.0.len())
    }
}

/// Asks the pod's key service.
pub(super) fn ask(
    client: Option<&ah_release::ReleaseClient>,
    id: &KeyId,
) -> Result<ReleasedKey, String> {
    match client {
        Some(client) => client.release(id).map_err(|e| chain(&e)),
        None => Err("the pod's settings name no key service, expected one: the policy was made without --key-service".into()),
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
