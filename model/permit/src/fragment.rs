//! Policy fragments: containers that somebody whom the policy names adds to it. The pod's own stay as they are.
//!
//! What such a container may be is in the policy, as a container without a program (`sidecar`): its mounts, namespaces, limits, the
//! most capabilities. A fragment fills in program, user, environment of its own, and layers; it cannot say more. The one rule set then
//! decides upon it as upon the others.

use std::collections::BTreeSet;

use ah_grant::{Fragment, FragmentContainer, FragmentError, FragmentSource, SignedFragment};
use serde_json::{Map, Value, json};

use crate::engine::{Policy, PolicyError};
use crate::state::State;

/// The member of a request's annotations for the container's name, and that for its image's.
const NAME_ANNOTATION: &str = "io.kubernetes.cri.container-name";
const IMAGE_ANNOTATION: &str = "io.kubernetes.cri.image-name";
/// Drivers of a root's storages.
const ROOT_DRIVERS: [&str; 2] = ["blk", "overlayfs"];

/// Why a fragment is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentRefused {
    /// The owner named nobody.
    #[error("policy fragment: the policy names nobody who may add containers")]
    NotWanted,
    /// Key, feed, version, form.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// The pod's life has begun.
    #[error("policy fragment: it comes after the sandbox was created, expected before")]
    TooLate,
    /// One fragment of a feed is all: a second one could be an older one.
    #[error("policy fragment: feed {feed:?} of {issuer} was added already")]
    Twice {
        /// Who has signed.
        issuer: String,
        /// The feed.
        feed: String,
    },
    /// A container of this name is declared.
    #[error("policy fragment: container {name:?} is declared already")]
    Declared {
        /// The name.
        name: String,
    },
    /// More than the policy gives to such containers.
    #[error("policy fragment: container {name:?}: {detail}")]
    TooMuch {
        /// The name.
        name: String,
        /// What it wants.
        detail: String,
    },
    /// The policy's data has another form than the generator's.
    #[error("policy fragment: the policy's data has no place for it")]
    NoPlace,
    /// The policy with the fragment does not compile.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// A policy with a fragment in it.
#[derive(Debug)]
pub struct Extended {
    /// The policy.
    pub policy: Policy,
    /// The state, which remembers the feed.
    pub state: State,
    /// For the log: who added what.
    pub words: String,
}

/// Adds a fragment's containers to a policy, behind its own.
///
/// # Errors
/// [`FragmentRefused`]; nothing has changed then.
pub fn extend(policy: &Policy, state: &State, text: &str) -> Result<Extended, FragmentRefused> {
    let mut data = policy.own_data().ok_or(FragmentRefused::NoPlace)?;
    let (sources, sidecar) = named(&data)?;
    let signed = SignedFragment::of(text)?;
    let (fragment, source) = signed.verify(&sources)?;
    if !state.is_before_sandbox() {
        return Err(FragmentRefused::TooLate);
    }
    let feed = (source.issuer.clone(), source.feed.clone());
    let mut feeds: BTreeSet<(String, String)> = state.feeds().clone();
    if !feeds.insert(feed) {
        let (issuer, feed) = (source.issuer.clone(), source.feed.clone());
        return Err(FragmentRefused::Twice { issuer, feed });
    }
    for container in &fragment.containers {
        let added = compose(&sidecar, container)?;
        declare(&mut data, &container.name, added)?;
    }
    let words = words(&fragment, source);
    let policy = policy.with_own_data(data)?;
    Ok(Extended { policy, state: state.with_feeds(feeds), words })
}

fn words(fragment: &Fragment, source: &FragmentSource) -> String {
    let names: Vec<&str> = fragment.containers.iter().map(|one| one.name.as_str()).collect();
    let (issuer, feed, version) = (&source.issuer, &source.feed, fragment.version);
    format!("{issuer} added {} (feed {feed}, version {version})", names.join(", "))
}

/// Who may add containers, and what those may be.
fn named(data: &Value) -> Result<(Vec<FragmentSource>, Value), FragmentRefused> {
    let sources = data.get("fragments").ok_or(FragmentRefused::NotWanted)?;
    let sources = serde_json::from_value(sources.clone()).map_err(|_| FragmentRefused::NoPlace)?;
    let sidecar = data.get("sidecar").ok_or(FragmentRefused::NoPlace)?;
    Ok((sources, sidecar.clone()))
}

fn declare(data: &mut Value, name: &str, container: Value) -> Result<(), FragmentRefused> {
    let containers = data.get_mut("containers").and_then(Value::as_array_mut);
    let containers = containers.ok_or(FragmentRefused::NoPlace)?;
    let is_own = |one: &Value| one.get("name").and_then(Value::as_str) == Some(name);
    let declared = containers.iter().any(is_own);
    let place = containers.len();
    containers.push(container);
    let places = data.get_mut("places").and_then(Value::as_object_mut);
    let places = places.ok_or(FragmentRefused::NoPlace)?;
    match declared || places.insert(name.to_owned(), place.into()).is_some() {
        true => Err(FragmentRefused::Declared { name: name.to_owned() }),
        false => Ok(()),
    }
}

/// A container of the policy's data: the policy's own `sidecar` with what the fragment says of it.
///
/// # Errors
/// [`FragmentRefused::TooMuch`] for what the policy does not give, [`FragmentRefused::NoPlace`].
pub fn compose(sidecar: &Value, container: &FragmentContainer) -> Result<Value, FragmentRefused> {
    let mut out = sidecar.clone();
    let mut filling = Filling { out: &mut out, container };
    filling.identity()?;
    filling.process()?;
    filling.root()?;
    Ok(out)
}

/// A container that is being filled in.
struct Filling<'a> {
    out: &'a mut Value,
    container: &'a FragmentContainer,
}

impl Filling<'_> {
    fn too_much(&self, detail: impl Into<String>) -> FragmentRefused {
        FragmentRefused::TooMuch { name: self.container.name.clone(), detail: detail.into() }
    }

    /// A member of the request, wherever it stands: among what has placeholders or what has none.
    fn member(&mut self, pointer: &str) -> Result<&mut Value, FragmentRefused> {
        let part = ["fill", "request"]
            .into_iter()
            .find(|part| self.out.get(*part).is_some_and(|part| part.pointer(pointer).is_some()));
        let part = part.and_then(|part| self.out.get_mut(part));
        part.and_then(|part| part.pointer_mut(pointer)).ok_or(FragmentRefused::NoPlace)
    }

    fn set(&mut self, pointer: &str, value: Value) -> Result<(), FragmentRefused> {
        *self.member(pointer)? = value;
        Ok(())
    }

    fn identity(&mut self) -> Result<(), FragmentRefused> {
        let (name, image) = (self.container.name.clone(), self.container.image.clone());
        self.set(&format!("/OCI/Annotations/{NAME_ANNOTATION}"), name.clone().into())?;
        self.set(&format!("/OCI/Annotations/{IMAGE_ANNOTATION}"), image.into())?;
        let own = self.out.get_mut("name").ok_or(FragmentRefused::NoPlace)?;
        *own = name.into();
        Ok(())
    }

    fn process(&mut self) -> Result<(), FragmentRefused> {
        let container = self.container;
        self.set("/OCI/Process/Args", json!(container.args))?;
        self.set("/OCI/Process/Cwd", json!(container.cwd))?;
        let env = self.member("/OCI/Process/Env")?.as_array_mut();
        let env = env.ok_or(FragmentRefused::NoPlace)?;
        // The host may say variables in any order, so a name must not be there twice.
        let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
        let mut names: BTreeSet<String> = env.iter().filter_map(Value::as_str).map(name).collect();
        let twice = container.env.iter().find(|entry| !names.insert(name(entry)));
        if let Some(twice) = twice.map(|entry| name(entry)) {
            return Err(self.too_much(format!("env: {twice} is there twice")));
        }
        // The owner's sealed texts can be read in the policy: whoever adds containers could have them opened in one of his own.
        let is_sealed = |entry: &&String| {
            entry
                .split_once('=')
                .is_some_and(|(_, value)| ah_release_api::is_sealed(value.as_bytes()))
        };
        if let Some(sealed) = container.env.iter().find(is_sealed).map(|entry| name(entry)) {
            return Err(self.too_much(format!("env: {sealed} is sealed, and it gets no keys")));
        }
        let env = self.member("/OCI/Process/Env")?.as_array_mut();
        let env = env.ok_or(FragmentRefused::NoPlace)?;
        env.extend(container.env.iter().map(|entry| Value::from(entry.as_str())));
        let user = self.member("/OCI/Process/User")?.clone();
        if !same_shape(&user, &container.user) {
            return Err(self.too_much("user: its members are not those of OCI.Process.User"));
        }
        self.set("/OCI/Process/User", container.user.clone())?;
        let most = self.member("/OCI/Process/Capabilities")?.clone();
        if !is_within(&most, &container.capabilities) {
            return Err(self.too_much("capabilities: more than the policy gives"));
        }
        self.set("/OCI/Process/Capabilities", container.capabilities.clone())?;
        let bound = *self.member("/OCI/Process/NoNewPrivileges")? == Value::Bool(true);
        if bound && !container.no_new_privileges {
            return Err(self.too_much("no_new_privileges: found false, expected true"));
        }
        self.set("/OCI/Process/NoNewPrivileges", container.no_new_privileges.into())
    }

    /// Layers, their overlay, and where the host says on which disk each is. The agent opens nothing but verified layers, whatever
    /// stands here; volumes are not for a fragment to make.
    fn root(&mut self) -> Result<(), FragmentRefused> {
        let container = self.container;
        self.set("/OCI/Root/Readonly", container.read_only_root.into())?;
        let is_root = |storage: &Value| {
            let driver = storage.get("driver").and_then(Value::as_str);
            driver.is_some_and(|driver| ROOT_DRIVERS.contains(&driver))
        };
        if !container.storages.iter().all(is_root) {
            return Err(self.too_much("storages: found another driver than blk and overlayfs"));
        }
        if !container.read.iter().all(|(name, read)| is_disk(name, read)) {
            return Err(
                self.too_much("read: found a value that is not the place of a layer's disk")
            );
        }
        self.set("/storages", container.storages.clone().into())?;
        let read = self.out.get_mut("read").and_then(Value::as_object_mut);
        let read = read.ok_or(FragmentRefused::NoPlace)?;
        read.retain(|name, _| !name.starts_with(DISK));
        read.extend(container.read.clone());
        Ok(())
    }
}

/// How placeholders of the disks' places begin.
const DISK: &str = "$(pci-path-";

/// `{"kind": "pci", "path": ["storages", N, "source"], "skip": 0, "tail": 0}`
fn is_disk(name: &str, read: &Value) -> bool {
    let number = name.strip_prefix(DISK).and_then(|rest| rest.strip_suffix(')'));
    let is_number = number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let path = read.get("path").and_then(Value::as_array).map(Vec::as_slice);
    let Some([storages, index, source]) = path else { return false };
    let whole =
        json!({ "kind": "pci", "path": ["storages", index, "source"], "skip": 0, "tail": 0 });
    is_number && index.is_u64() && *storages == "storages" && *source == "source" && *read == whole
}

fn same_shape(known: &Value, found: &Value) -> bool {
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    known.is_object() && keys(known) == keys(found)
}

/// Whether each list of the second is a part of the first one's.
fn is_within(most: &Value, found: &Value) -> bool {
    let (Some(most), Some(found)) = (most.as_object(), found.as_object()) else { return false };
    let part = |(key, list): (&String, &Value)| is_part(most, key, list);
    most.len() == found.len() && found.iter().all(part)
}

fn is_part(most: &Map<String, Value>, key: &str, list: &Value) -> bool {
    match (most.get(key).and_then(Value::as_array), list.as_array()) {
        (Some(most), Some(list)) => list.iter().all(|one| most.contains(one)),
        _ => false,
    }
}
