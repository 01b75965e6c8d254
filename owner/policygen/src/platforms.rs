//! One policy for the images of several platforms.

use crate::agent::Agent;
use crate::data::ContainerData;
use crate::gather::Draft;
use crate::generate::GenerateError;

/// The containers of another platform's images that are not as the first platform's, each with its place among them.
pub(crate) fn differing(
    first: &[Draft],
    others: Vec<Draft>,
    platform: &str,
    agent: Agent,
) -> Result<Vec<(usize, Draft)>, GenerateError> {
    let mut differing = Vec::new();
    for (index, (mine, other)) in first.iter().zip(others).enumerate() {
        let wrong = |what| {
            let (container, platform) = (other.data.name.clone(), platform.to_owned());
            Err(GenerateError::Platforms { container, platform, what })
        };
        if beside_image(&mine.data)? != beside_image(&other.data)? {
            return wrong("another stop signal");
        }
        if mine.whole == other.whole {
            continue;
        }
        if agent == Agent::Kata {
            return wrong(
                "other settings, and a stock Kata agent does not tell which image it runs",
            );
        }
        if disks(&mine.whole) == disks(&other.whole) {
            return wrong("the same layers and other settings");
        }
        differing.push((index, other));
    }
    Ok(differing)
}

/// What a request's rule must find alike on all platforms.
fn beside_image(container: &ContainerData) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(ContainerData { volumes: Vec::new(), ..container.clone() })
}

/// As `disks` in the rules.
fn disks(request: &serde_json::Value) -> Vec<Option<&serde_json::Value>> {
    let storages = request.get("storages").and_then(serde_json::Value::as_array);
    storages.into_iter().flatten().map(|storage| storage.get("options")).collect()
}
