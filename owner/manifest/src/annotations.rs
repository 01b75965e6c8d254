//! The owner's choices, written as annotations of the pod under `anchorhold.dev/`.

use std::collections::{BTreeMap, BTreeSet};

use ah_pod::Logs;

use crate::error::{ManifestError, Place, Problem};
use crate::options::Platform;

/// Whether the host may read the containers' output: `"true"` (the default) or `"false"`.
pub const LOGS_ANNOTATION: &str = "anchorhold.dev/logs";
/// Containers that see the guest's release socket: names, separated by commas.
pub const RELEASE_SOCKET_ANNOTATION: &str = "anchorhold.dev/release-socket";
/// Commands that the host may run: JSON, container name to a list of argument lists.
pub const EXEC_ANNOTATION: &str = "anchorhold.dev/exec";

/// Objects whose files the host may choose, names and contents: JSON, a list of `configMap/NAME`, `secret/NAME`,
/// `downwardAPI/metadata.labels`, `downwardAPI/metadata.annotations`.
pub const UNPINNED_ANNOTATION: &str = "anchorhold.dev/unpinned";

/// Services of the pod's namespace whose variables containers get, with `enableServiceLinks: true`: JSON, a list of names.
pub const SERVICES_ANNOTATION: &str = "anchorhold.dev/services";

/// What the pod runs on: `cluster` or `machine`; unset, whoever reads the manifest says it ([`crate::ReadOptions`]).
pub const RUNS_ON_ANNOTATION: &str = "anchorhold.dev/runs-on";

/// The namespace of the owner's choices: nothing in it is ignored.
const PREFIX: &str = "anchorhold.dev/";

/// The choices, read.
#[derive(Debug, Clone)]
pub(crate) struct Choices {
    pub(crate) logs: Logs,
    pub(crate) release_socket: BTreeSet<String>,
    pub(crate) execs: BTreeMap<String, Vec<Vec<String>>>,
    pub(crate) unpinned: BTreeSet<String>,
    pub(crate) services: Vec<String>,
    pub(crate) runs_on: Option<Platform>,
}

/// Reads the choices of a pod with these containers.
pub(crate) fn choices(
    annotations: &BTreeMap<String, String>,
    containers: &[&str],
    path: &str,
) -> Result<Choices, ManifestError> {
    let mut choices = Choices {
        logs: Logs::Readable,
        release_socket: BTreeSet::new(),
        execs: BTreeMap::new(),
        unpinned: BTreeSet::new(),
        services: Vec::new(),
        runs_on: None,
    };
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(PREFIX)) {
        let fail = |problem| {
            let path = format!("{path}.{key}");
            ManifestError::new(Place { path, ..Place::default() }, problem)
        };
        match key.as_str() {
            LOGS_ANNOTATION => choices.logs = logs(value).map_err(fail)?,
            RELEASE_SOCKET_ANNOTATION => {
                choices.release_socket = names(value, containers).map_err(fail)?;
            }
            UNPINNED_ANNOTATION => choices.unpinned = unpinned(value).map_err(fail)?,
            RUNS_ON_ANNOTATION => choices.runs_on = Some(value.parse().map_err(fail)?),
            SERVICES_ANNOTATION => choices.services = services(value).map_err(fail)?,
            // the generator's own, from a file that it has been through before
            ah_pod::RUNTIME_HINTS_ANNOTATION => {}
            EXEC_ANNOTATION => choices.execs = execs(value, containers).map_err(fail)?,
            _ => return Err(fail(Problem::UnknownField)),
        }
    }
    Ok(choices)
}

fn logs(value: &str) -> Result<Logs, Problem> {
    match value {
        "true" => Ok(Logs::Readable),
        "false" => Ok(Logs::Closed),
        _ => Err(Problem::Value { found: value.into(), expected: "\"true\" or \"false\"".into() }),
    }
}

fn names(value: &str, containers: &[&str]) -> Result<BTreeSet<String>, Problem> {
    value.split(',').map(str::trim).map(|name| known(name, containers)).collect()
}

fn known(name: &str, containers: &[&str]) -> Result<String, Problem> {
    match containers.contains(&name) {
        true => Ok(name.into()),
        false => Err(Problem::Value {
            found: name.into(),
            expected: format!("a container of the pod: {}", containers.join(", ")),
        }),
    }
}

fn unpinned(value: &str) -> Result<BTreeSet<String>, Problem> {
    let wrong = || Problem::Value {
        found: value.into(),
        expected: "JSON like [\"configMap/NAME\", \"secret/NAME\"]".into(),
    };
    serde_json::from_str(value).map_err(|_| wrong())
}

/// Each name once.
fn services(value: &str) -> Result<Vec<String>, Problem> {
    let expected = "JSON like [\"service\"], each name once";
    let wrong = || Problem::Value { found: value.into(), expected: expected.into() };
    let names: Vec<String> = serde_json::from_str(value).map_err(|_| wrong())?;
    let once: BTreeSet<&String> = names.iter().collect();
    if once.len() == names.len() { Ok(names) } else { Err(wrong()) }
}

fn execs(value: &str, containers: &[&str]) -> Result<BTreeMap<String, Vec<Vec<String>>>, Problem> {
    let wrong = || Problem::Value {
        found: value.into(),
        expected: "JSON like {\"container\":[[\"command\",\"argument\"]]}".into(),
    };
    let execs: BTreeMap<String, Vec<Vec<String>>> =
        serde_json::from_str(value).map_err(|_| wrong())?;
    for name in execs.keys() {
        known(name, containers)?;
    }
    match execs.values().flatten().any(Vec::is_empty) {
        true => Err(wrong()),
        false => Ok(execs),
    }
}
