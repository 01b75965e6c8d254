//! One policy for the images of several platforms.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::agent::Agent;
use crate::data::ContainerData;
use crate::gather::Draft;
use crate::generate::GenerateError;

/// A container as it is on another platform than the first: its place among the pod's containers, and the platform.
pub(crate) type Variant = (usize, String, Draft);

/// Adds the containers of another platform's images that are neither as the first platform's nor as those of one before.
pub(crate) fn add_differing(
    variants: &mut Vec<Variant>,
    first: &[Draft],
    others: Vec<Draft>,
    platform: &str,
    agent: Agent,
) -> Result<(), GenerateError> {
    let mut added = Vec::new();
    for (index, (mine, other)) in first.iter().zip(others).enumerate() {
        let wrong = |what| {
            let (container, platform) = (other.data.name.clone(), platform.to_owned());
            Err(GenerateError::Platforms { container, platform, what })
        };
        if let Some(difference) = difference(&mine.data, &other.data)? {
            return wrong(difference);
        }
        let earlier = variants.iter().filter(|(place, _, _)| *place == index);
        let earlier = earlier.map(|(_, platform, draft)| (platform.as_str(), draft));
        let mut known = std::iter::once(("the first platform", mine)).chain(earlier);
        if known.clone().any(|(_, draft)| draft.whole == other.whole) {
            continue;
        }
        if agent == Agent::Kata {
            return wrong(
                "other settings, and a stock Kata agent does not tell which image it runs".into(),
            );
        }
        let alike = |(_, draft): &(&str, &Draft)| disks(&draft.whole) == disks(&other.whole);
        if let Some((platform, _)) = known.find(alike) {
            return wrong(format!("the layers that it has for {platform}, and other settings"));
        }
        added.push((index, platform.to_owned(), other));
    }
    variants.extend(added);
    Ok(())
}

/// The first member that a request's rule must find alike on all platforms and does not, in people's words.
fn difference(
    mine: &ContainerData,
    other: &ContainerData,
) -> Result<Option<String>, serde_json::Error> {
    let members = |container: &ContainerData| {
        serde_json::to_value(ContainerData { volumes: Vec::new(), ..container.clone() })
    };
    let (mine, other) = (members(mine)?, members(other)?);
    let names = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let differs = |name: &String| mine.get(name) != other.get(name);
    let said = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
    Ok(names(&mine).union(&names(&other)).find(|name| differs(name)).map(|name| {
        let (found, expected) = (said(other.get(name)), said(mine.get(name)));
        format!(
            "another {}: found {found}, expected {expected} as for the first platform",
            name.replace('_', " ")
        )
    }))
}

/// As `disks` in the rules.
fn disks(request: &Value) -> Vec<Option<&Value>> {
    let storages = request.get("storages").and_then(Value::as_array);
    storages.into_iter().flatten().map(|storage| storage.get("options")).collect()
}
