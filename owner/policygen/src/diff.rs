//! Two policies of one pod: what the change lets in, and what it shuts out.

mod aspects;
mod text;

use std::collections::BTreeSet;

use ah_digest::Sha256;
use ah_permit::{Policy, Secrets};
use ah_policy::{DocumentError, POLICY_KEY, PolicyDocument, SETTINGS_KEY};
use serde::Serialize;
use serde_json::Value;

use crate::agent::Agent;
use crate::data::{ContainerData, PolicyData, SANDBOX};
use crate::diff::aspects::{Aspect, Images, Item};
use crate::explain::ExplainError;
use crate::generate::DATA_MARK;
use crate::show::read_data;

/// How two policies differ. An empty one means that the documents are the same, byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What holds for the whole pod.
    pub pod: Vec<Change>,
    /// The containers that differ, in the new policy's order, then those that are gone.
    pub containers: Vec<ContainerDiff>,
}

/// How a container differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerDiff {
    /// Its name.
    pub name: String,
    /// Whether it is in one policy only.
    pub presence: Presence,
    /// What differs; for a container of one policy, all that it is.
    pub changes: Vec<Change>,
}

/// Which of the two policies has a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// The new one only.
    Added,
    /// The old one only.
    Removed,
    /// Both.
    Both,
}

/// One thing that differs, its values grouped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What: `env`, `image`, `exec` …, or the JSON pointer of a field of the request.
    pub what: String,
    /// Values that the new policy allows and the old one did not.
    pub lets_in: Vec<String>,
    /// Values that the old policy allowed and the new one does not.
    pub shuts_out: Vec<String>,
}

impl Diff {
    /// Whether the two documents are the same.
    pub fn is_same(&self) -> bool {
        self.pod.is_empty() && self.containers.is_empty()
    }
}

/// Compares two policy documents of this generator.
///
/// # Errors
/// [`ExplainError`] when one of them is not of this generator.
pub fn diff(old: &PolicyDocument, new: &PolicyDocument) -> Result<Diff, ExplainError> {
    if old == new {
        return Ok(Diff::default());
    }
    let read = |document: &PolicyDocument| read_data(&Policy::compile(document.policy())?);
    let (old_data, new_data) = (read(old)?, read(new)?);
    let mut found =
        Diff { pod: documents(old, new)?, containers: containers(&old_data, &new_data) };
    compare(&aspects::of_pod(&old_data), &aspects::of_pod(&new_data), &mut found.pod);
    let open = Secrets::default();
    let others = |data| (aspects::others_of_pod(data), open.clone());
    rest(&others(&old_data), &others(&new_data), &mut found.pod);
    if found.is_same() {
        // Equal in every value, and yet other bytes: another HOST_DATA.
        let digest = |document: &PolicyDocument| bytes_digest(document).to_string();
        found.pod.push(change("document", vec![digest(new)], vec![digest(old)]));
    }
    Ok(found)
}

fn bytes_digest(document: &PolicyDocument) -> Sha256 {
    match document {
        PolicyDocument::InitData(initdata) => Sha256::of(initdata.bytes()),
        PolicyDocument::Aks(policy) => policy.host_data_snp(),
    }
}

/// What is in the documents beside the policy's data.
fn documents(old: &PolicyDocument, new: &PolicyDocument) -> Result<Vec<Change>, DocumentError> {
    let mut changes = Vec::new();
    let mut each = |what: &str, read: &dyn Fn(&PolicyDocument) -> Result<String, DocumentError>| {
        let (old, new) = (read(old)?, read(new)?);
        if old != new {
            let some = |text: String| if text.is_empty() { vec![] } else { vec![text] };
            changes.push(change(what, some(new), some(old)));
        }
        Ok::<(), DocumentError>(())
    };
    each("form", &|document| {
        Ok(match document {
            PolicyDocument::InitData(initdata) => format!("initdata ({})", initdata.algorithm()),
            PolicyDocument::Aks(_) => "aks".to_owned(),
        })
    })?;
    each("rules", &|document| Ok(rules_name(document.policy())))?;
    for key in other_keys(old, new) {
        each(&format!("initdata value {key}"), &|document| {
            let PolicyDocument::InitData(initdata) = document else { return Ok(String::new()) };
            let digest =
                |value: &str| format!("{} bytes, sha256 {}", value.len(), Sha256::of(value));
            Ok(initdata.value(&key).map(digest).unwrap_or_default())
        })?;
    }
    each("key service", &|document| {
        let service = document.guest_settings()?.key_service;
        let words = service.map(|service| format!("{} {}", service.address, service.public_key));
        Ok(words.unwrap_or_default())
    })?;
    Ok(changes)
}

/// Values of the documents that are neither the policy nor the guest's settings.
fn other_keys(old: &PolicyDocument, new: &PolicyDocument) -> BTreeSet<String> {
    let keys = |document: &PolicyDocument| -> Vec<String> {
        let PolicyDocument::InitData(initdata) = document else { return Vec::new() };
        initdata.keys().map(str::to_owned).collect()
    };
    let all = keys(old).into_iter().chain(keys(new));
    all.filter(|key| key != POLICY_KEY && key != SETTINGS_KEY).collect()
}

/// The rules by their digest: what is below them is read as this generator's rules would.
fn rules_name(policy: &str) -> String {
    let rules = policy.rsplit_once(DATA_MARK).map_or(policy, |(rules, _)| rules);
    let is_of = |agent| {
        let all = crate::generate::all_rules(agent);
        all.iter().any(|known| known.trim_end() == rules.trim_end())
    };
    let own = match (is_of(Agent::Anchorhold), is_of(Agent::Kata)) {
        (true, _) => "of this generator",
        (_, true) => "of this generator, for stock Kata",
        _ => "of another generator or another version: read them",
    };
    format!("{} ({own})", Sha256::of(rules))
}

fn containers(old: &PolicyData, new: &PolicyData) -> Vec<ContainerDiff> {
    let named = |data: &'_ PolicyData, name: &str| {
        data.containers.iter().find(|container| container.name == name).cloned()
    };
    let gone = old.containers.iter().filter(|container| named(new, &container.name).is_none());
    let all = new.containers.iter().chain(gone);
    let differ = all.filter_map(|container| {
        let name = container.name.as_str();
        let sides = (named(old, name), named(new, name));
        let presence = match sides {
            (None, _) => Presence::Added,
            (_, None) => Presence::Removed,
            _ => Presence::Both,
        };
        let aspects = |data, side: &Option<ContainerData>| match side {
            Some(container) => aspects::of_container(data, container),
            None => Vec::new(),
        };
        let mut changes = Vec::new();
        compare(&aspects(old, &sides.0), &aspects(new, &sides.1), &mut changes);
        if let (Some(old_side), Some(new_side)) = &sides {
            let layers = |data: &PolicyData, side| crate::show::layers(&data.request(side));
            let images = match layers(old, old_side) == layers(new, new_side) {
                true => Images::Whole,
                false => Images::Shape,
            };
            let (old, new) = (side(old, old_side, images), side(new, new_side, images));
            rest(&old, &new, &mut changes);
            let others =
                |side, secrets: &Secrets| (aspects::others_of_container(side), secrets.clone());
            rest(&others(old_side, &old.1), &others(new_side, &new.1), &mut changes);
        }
        let name = if name == SANDBOX { "(sandbox)" } else { name }.to_owned();
        (!changes.is_empty()).then_some(ContainerDiff { name, presence, changes })
    });
    differ.collect()
}

/// A request without what the aspects say, and what of it is not shown.
fn side(data: &PolicyData, container: &ContainerData, images: Images) -> (Value, Secrets) {
    let request = data.request(container);
    let secrets = Secrets::of(&container.secrets, &request);
    (aspects::without_aspects(request, images), secrets)
}

/// Each aspect as a set of values; where the sets are equal, their order.
fn compare(old: &[Aspect], new: &[Aspect], changes: &mut Vec<Change>) {
    let gone = old.iter().filter(|aspect| !new.iter().any(|other| other.what == aspect.what));
    for aspect in new.iter().chain(gone) {
        let items = |side: &[Aspect]| -> Vec<Item> {
            let found = side.iter().find(|other| other.what == aspect.what);
            found.map(|aspect| aspect.items.clone()).unwrap_or_default()
        };
        let (old, new) = (items(old), items(new));
        let (lets_in, shuts_out) = (beyond(&new, &old), beyond(&old, &new));
        if !lets_in.is_empty() || !shuts_out.is_empty() {
            changes.push(shown(aspect.what, &lets_in, &shuts_out));
        } else if old != new && aspect.ordered {
            let what = format!("order of {}", aspect.what);
            changes.push(shown(&what, &[joined(&new)], &[joined(&old)]));
        }
    }
}

/// What is in `these` more often than in `those`.
fn beyond(these: &[Item], those: &[Item]) -> Vec<Item> {
    let mut left: Vec<&Item> = those.iter().collect();
    let mut out = Vec::new();
    for item in these {
        match left.iter().position(|other| other.raw == item.raw) {
            Some(at) => drop(left.swap_remove(at)),
            None => out.push(item.clone()),
        }
    }
    out
}

fn joined(items: &[Item]) -> Item {
    let join = |texts: Vec<&str>| texts.join(", ");
    Item {
        raw: join(items.iter().map(|item| item.raw.as_str()).collect()),
        shown: join(items.iter().map(|item| item.shown.as_str()).collect()),
    }
}

/// A change as people may see it: where only a masked value differs, that it does.
fn shown(what: &str, lets_in: &[Item], shuts_out: &[Item]) -> Change {
    let words = |items: &[Item], others: &[Item], mark: &str| -> Vec<String> {
        let word = |item: &Item| match others.iter().any(|other| other.shown == item.shown) {
            true => format!("{} ({mark})", item.shown),
            false => item.shown.clone(),
        };
        items.iter().map(word).collect()
    };
    let lets = words(lets_in, shuts_out, "another value, not shown");
    change(what, lets, words(shuts_out, lets_in, "the old value, not shown"))
}

fn change(what: &str, lets_in: Vec<String>, shuts_out: Vec<String>) -> Change {
    Change { what: what.to_owned(), lets_in, shuts_out }
}

/// The fields that no aspect covers, by their JSON pointers.
fn rest(old: &(Value, Secrets), new: &(Value, Secrets), changes: &mut Vec<Change>) {
    fields(String::new(), Some(&old.0), Some(&new.0), &mut |pointer, found, expected| {
        let item = |value: Option<&Value>, secrets: &Secrets| -> Vec<Item> {
            let item = |value: &Value| Item {
                raw: value.to_string(),
                shown: secrets.mask(value).to_string(),
            };
            value.map(item).into_iter().collect()
        };
        changes.push(shown(pointer, &item(expected, &new.1), &item(found, &old.1)));
    });
}

/// Is told the JSON pointer of a difference, and both values.
type Report<'a> = dyn FnMut(&str, Option<&Value>, Option<&Value>) + 'a;

fn fields(pointer: String, old: Option<&Value>, new: Option<&Value>, report: &mut Report<'_>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let added = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(added) {
                let step = key.replace('~', "~0").replace('/', "~1");
                fields(format!("{pointer}/{step}"), left.get(key), right.get(key), report);
            }
        }
        (old, new) => report(&pointer, old, new),
    }
}
