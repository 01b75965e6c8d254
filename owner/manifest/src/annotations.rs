//! The owner's choices, written as annotations of the pod under `anchorhold.dev/`.

use std::collections::{BTreeMap, BTreeSet};

use ah_grant::{FragmentSource, OwnerKey, fragment_sources};
use ah_pod::{Bound, Logs, OwnerKeys, WholePod, Word};

use crate::error::{ManifestError, Place, Problem};
use crate::options::Platform;

/// Whether the host may read the containers' output: `"true"` (the default) or `"false"`.
pub const LOGS_ANNOTATION: &str = "anchorhold.dev/logs";
/// Containers that see the guest's release socket: names, separated by commas.
pub const RELEASE_SOCKET_ANNOTATION: &str = "anchorhold.dev/release-socket";
/// Commands that the host may run: JSON, container name to a list of argument lists. An argument is a text, or a
/// [`Bound`]: `{"pattern": …}`, `{"prefix": …}`, `{"one-of": […]}`.
pub const EXEC_ANNOTATION: &str = "anchorhold.dev/exec";
/// Containers with `stdin: true` into which the host may write: names, separated by commas, or nothing. Without it all.
pub const STDIN_ANNOTATION: &str = "anchorhold.dev/stdin";
/// Containers whose termination message the host may read: names, separated by commas.
pub const TERMINATION_LOG_ANNOTATION: &str = "anchorhold.dev/termination-log";
/// Variables whose values the host may choose: JSON, container name to variable name to a [`Bound`].
pub const MUTABLE_ANNOTATION: &str = "anchorhold.dev/mutable";
/// Whether keys and execs wait until every declared container has been created: `"true"` or `"false"` (the default).
pub const WHOLE_POD_ANNOTATION: &str = "anchorhold.dev/whole-pod";

/// Whose debug grants let commands run in the pod: standard base64 of an Ed25519 public key.
pub const DEBUG_KEY_ANNOTATION: &str = "anchorhold.dev/debug-key";

/// Whose fragments may add containers to the pod: lines `issuer=NAME key=BASE64 feed=NAME min-version=NUMBER`.
pub const FRAGMENTS_ANNOTATION: &str = "anchorhold.dev/fragments";
/// Fragments that the host hands to the guest: no choice, since the guest verifies them.
const FRAGMENT_ANNOTATION: &str = "anchorhold.dev/fragment";

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
    pub(crate) execs: BTreeMap<String, Vec<Vec<Word>>>,
    pub(crate) stdin: Option<BTreeSet<String>>,
    pub(crate) termination_log: BTreeSet<String>,
    pub(crate) mutable: BTreeMap<String, BTreeMap<String, Bound>>,
    pub(crate) whole: WholePod,
    pub(crate) owner_keys: OwnerKeys,
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
        stdin: None,
        termination_log: BTreeSet::new(),
        mutable: BTreeMap::new(),
        whole: WholePod::NotAwaited,
        owner_keys: OwnerKeys::default(),
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
            STDIN_ANNOTATION => {
                let none = value.trim().is_empty();
                let named = if none { Ok(BTreeSet::new()) } else { names(value, containers) };
                choices.stdin = Some(named.map_err(fail)?);
            }
            TERMINATION_LOG_ANNOTATION => {
                choices.termination_log = names(value, containers).map_err(fail)?;
            }
            MUTABLE_ANNOTATION => choices.mutable = mutable(value, containers).map_err(fail)?,
            WHOLE_POD_ANNOTATION => {
                choices.whole = match switch(value).map_err(fail)? {
                    true => WholePod::Awaited,
                    false => WholePod::NotAwaited,
                };
            }
            FRAGMENTS_ANNOTATION => {
                choices.owner_keys.fragments = fragments(value).map_err(fail)?;
            }
            FRAGMENT_ANNOTATION => {}
            DEBUG_KEY_ANNOTATION => {
                choices.owner_keys.debug = Some(owner_key(value).map_err(fail)?)
            }
            _ => return Err(fail(Problem::UnknownField)),
        }
    }
    Ok(choices)
}

fn logs(value: &str) -> Result<Logs, Problem> {
    Ok(if switch(value)? { Logs::Readable } else { Logs::Closed })
}

fn switch(value: &str) -> Result<bool, Problem> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Problem::Value { found: value.into(), expected: "\"true\" or \"false\"".into() }),
    }
}

fn fragments(value: &str) -> Result<Vec<FragmentSource>, Problem> {
    fragment_sources(value).map_err(|_| Problem::Value {
        found: value.into(),
        expected: "lines like issuer=NAME key=BASE64 feed=NAME min-version=NUMBER, each feed of an issuer once".into(),
    })
}

fn owner_key(value: &str) -> Result<OwnerKey, Problem> {
    value.parse().map_err(|_| Problem::Value {
        found: value.into(),
        expected:
            "standard base64 of an Ed25519 public key, as `anchorhold debug key-gen` prints it"
                .into(),
    })
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

fn mutable(
    value: &str,
    containers: &[&str],
) -> Result<BTreeMap<String, BTreeMap<String, Bound>>, Problem> {
    let expected = "JSON like {\"container\":{\"VARIABLE\":{\"one-of\":[\"a\",\"b\"]}}}, a bound being \
                    one-of, pattern or prefix";
    let wrong = |_| Problem::Value { found: value.into(), expected: expected.into() };
    let mutable: BTreeMap<String, BTreeMap<String, Bound>> =
        serde_json::from_str(value).map_err(wrong)?;
    mutable.keys().try_for_each(|name| known(name, containers).map(drop))?;
    Ok(mutable)
}

fn execs(value: &str, containers: &[&str]) -> Result<BTreeMap<String, Vec<Vec<Word>>>, Problem> {
    let wrong = || Problem::Value {
        found: value.into(),
        expected:
            "JSON like {\"container\":[[\"command\",\"argument\"]]}, where an argument may be \
                   {\"pattern\":…}, {\"prefix\":…} or {\"one-of\":[…]}"
                .into(),
    };
    let execs: BTreeMap<String, Vec<Vec<Word>>> =
        serde_json::from_str(value).map_err(|_| wrong())?;
    for name in execs.keys() {
        known(name, containers)?;
    }
    match execs.values().flatten().any(Vec::is_empty) {
        true => Err(wrong()),
        false => Ok(execs),
    }
}
