use std::path::PathBuf;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use crate::version::ContainerdVersion;

/// The runtime that containerd finds as `containerd-shim-anchorhold-v2`.
pub const RUNTIME_TYPE: &str = "io.containerd.anchorhold.v2";
/// The snapshotter's name in containerd.
const SNAPSHOTTER: &str = "anchorhold";
/// The snapshotter that containerd has when none is named.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";
/// The key under which containerd hands a shim the name of its configuration (`runtimeoptions.v1.Options`).
const CONFIG_PATH: &str = "ConfigPath";
/// Annotations of pods that the shim is handed.
const POD_ANNOTATIONS: [&str; 2] = ["io.katacontainers.*", "anchorhold.dev/*"];
/// CRI's plugin in configuration versions 1 and 2 (containerd 1.x).
const CRI: &str = "io.containerd.grpc.v1.cri";
/// CRI's plugins in configuration version 3 (containerd 2.x).
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";

/// A runtime handler, as RuntimeClasses name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Its name.
    pub name: String,
    /// The shim's configuration for it.
    pub config: PathBuf,
}

/// What the node's containerd shall have.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Runtime handlers.
    pub handlers: Vec<Handler>,
    /// The snapshotter's socket.
    pub snapshotter_socket: PathBuf,
    /// The containerd that reads the configuration.
    pub version: ContainerdVersion,
}

/// Why a configuration is left as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// No TOML.
    #[error("containerd's configuration is no TOML: {0}")]
    Toml(String),
    /// A version that has another form.
    #[error("containerd's configuration has version {found}, expected 2 or 3")]
    Version {
        /// The version.
        found: String,
    },
    /// containerd is too old.
    #[error("containerd {found} is too old, expected {} or later", ContainerdVersion::OLDEST)]
    Containerd {
        /// Its version.
        found: ContainerdVersion,
    },
    /// Something else stands where a table is expected.
    #[error("{path} in containerd's configuration is no table")]
    NotATable {
        /// Where.
        path: String,
    },
    /// Something of somebody else's is there.
    #[error("{path} in containerd's configuration is {found}, expected {expected}")]
    Conflict {
        /// Where.
        path: String,
        /// What is there.
        found: String,
        /// What could be merged.
        expected: String,
    },
}

impl MergeError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Version { .. } => {
                Some("write the file in version 2 (`containerd config migrate` prints it)")
            }
            Self::NotATable { .. } | Self::Conflict { .. } => {
                Some("change that entry, or merge by hand what `--print` shows")
            }
            Self::Toml(_) | Self::Containerd { .. } => None,
        }
    }
}

/// The configuration with what is wanted. Everything else stays as it is, comments and order included.
///
/// # Errors
/// [`MergeError`] for what would change the meaning of somebody else's entry.
pub fn merge(text: &str, wanted: &Wanted) -> Result<String, MergeError> {
    if wanted.version < ContainerdVersion::OLDEST {
        return Err(MergeError::Containerd { found: wanted.version });
    }
    let mut document = parse(text)?;
    let version = config_version(&mut document)?;
    refuse_disabled(&document)?;
    let proxy = descend(&mut document, &["proxy_plugins"])?;
    let mut plugin = Table::new();
    plugin.insert("type", value("snapshot"));
    plugin.insert("address", value(wanted.snapshotter_socket.display().to_string()));
    put(proxy, "proxy_plugins", SNAPSHOTTER, plugin)?;
    refuse_discarding(&mut document, version)?;
    if wanted.version < ContainerdVersion::RUNTIME_SNAPSHOTTER {
        set_snapshotter(&mut document, version)?;
    }
    for handler in &wanted.handlers {
        let path = runtimes_path(version);
        let runtimes = descend(&mut document, &path)?;
        put(runtimes, &path.join("."), &handler.name, runtime(handler, wanted.version))?;
    }
    Ok(document.to_string())
}

/// The configuration without what [`merge`] put in; `original` is what it was before.
///
/// # Errors
/// [`MergeError`] when one of the two is no configuration.
pub fn unmerge(text: &str, original: &str) -> Result<String, MergeError> {
    let mut document = parse(text)?;
    let before = parse(original)?;
    for version in [2, 3] {
        let path = runtimes_path(version);
        if let Some(runtimes) = find_mut(document.as_item_mut(), &path) {
            let named: Vec<String> = runtimes
                .iter()
                .filter(|(_, runtime)| is_ours(runtime))
                .map(|(name, _)| name.to_owned())
                .collect();
            for name in named {
                runtimes.remove(&name);
            }
        }
        let path = snapshotter_path(version);
        if let Some(table) = find_mut(document.as_item_mut(), &path)
            && table.get("snapshotter").and_then(Item::as_str) == Some(SNAPSHOTTER)
        {
            match find(before.as_item(), &path).and_then(|table| table.get("snapshotter")) {
                Some(old) => table.insert("snapshotter", old.clone()),
                None => table.remove("snapshotter"),
            };
        }
        prune(&mut document, &before, &runtimes_path(version));
        prune(&mut document, &before, &snapshotter_path(version));
    }
    if let Some(proxy) = find_mut(document.as_item_mut(), &["proxy_plugins"]) {
        proxy.remove(SNAPSHOTTER);
    }
    prune(&mut document, &before, &["proxy_plugins"]);
    Ok(document.to_string())
}

/// What an earlier [`merge`] was asked for, as far as its result tells.
pub(crate) fn wanted_of(text: &str) -> Option<Wanted> {
    let document = parse(text).ok()?;
    let proxy = find(document.as_item(), &["proxy_plugins", SNAPSHOTTER])?;
    let socket = proxy.get("address")?.as_str()?;
    let runtimes = [2, 3].iter().find_map(|v| find(document.as_item(), &runtimes_path(*v)))?;
    let own_snapshotter = runtimes
        .iter()
        .any(|(_, runtime)| is_ours(runtime) && runtime.get("snapshotter").is_some());
    Some(Wanted {
        handlers: handlers_below(runtimes),
        snapshotter_socket: socket.into(),
        version: match own_snapshotter {
            true => ContainerdVersion::RUNTIME_SNAPSHOTTER,
            false => ContainerdVersion::OLDEST,
        },
    })
}

/// Our runtime handlers in a configuration; none in what is no configuration.
pub(crate) fn handlers_of(text: &str) -> Vec<Handler> {
    let Ok(document) = parse(text) else { return Vec::new() };
    let tables = [2, 3].iter().filter_map(|v| find(document.as_item(), &runtimes_path(*v)));
    tables.flat_map(handlers_below).collect()
}

fn handlers_below(runtimes: &dyn TableLike) -> Vec<Handler> {
    let ours = runtimes.iter().filter(|(_, runtime)| is_ours(runtime));
    let handler = |(name, runtime): (&str, &Item)| {
        let path = runtime.get("options").and_then(|options| options.get(CONFIG_PATH));
        Handler {
            name: name.to_owned(),
            config: path.and_then(Item::as_str).unwrap_or_default().into(),
        }
    };
    ours.map(handler).collect()
}

fn is_ours(runtime: &Item) -> bool {
    runtime.get("runtime_type").and_then(Item::as_str) == Some(RUNTIME_TYPE)
}

fn parse(text: &str) -> Result<DocumentMut, MergeError> {
    text.parse::<DocumentMut>().map_err(|error| MergeError::Toml(error.to_string()))
}

/// The version that the file has; one without any entry gets version 2, which every containerd reads.
fn config_version(document: &mut DocumentMut) -> Result<i64, MergeError> {
    if document.is_empty() {
        document.insert("version", value(2));
    }
    match document.get("version") {
        Some(item) => match item.as_integer() {
            Some(version @ (2 | 3)) => Ok(version),
            _ => Err(MergeError::Version { found: item.to_string().trim().to_owned() }),
        },
        // containerd reads a file without version as version 1.
        None => Err(MergeError::Version { found: "1 (none is given)".into() }),
    }
}

fn refuse_disabled(document: &DocumentMut) -> Result<(), MergeError> {
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    let names = disabled.into_iter().flatten().filter_map(Value::as_str);
    match names.into_iter().find(|name| ["cri", CRI, CRI_RUNTIME, CRI_IMAGES].contains(name)) {
        None => Ok(()),
        Some(name) => Err(MergeError::Conflict {
            path: "disabled_plugins".into(),
            found: format!("a list with {name:?}"),
            expected: "CRI not disabled".into(),
        }),
    }
}

/// Layers are converted from containerd's blobs, after they were unpacked.
fn refuse_discarding(document: &mut DocumentMut, version: i64) -> Result<(), MergeError> {
    let path = snapshotter_path(version);
    let discards = find(document.as_item(), &path)
        .and_then(|table| table.get("discard_unpacked_layers"))
        .and_then(Item::as_bool);
    match discards {
        Some(true) => Err(MergeError::Conflict {
            path: format!("{}.discard_unpacked_layers", path.join(".")),
            found: "true".into(),
            expected: "false".into(),
        }),
        _ => Ok(()),
    }
}

fn set_snapshotter(document: &mut DocumentMut, version: i64) -> Result<(), MergeError> {
    let path = snapshotter_path(version);
    let table = descend(document, &path)?;
    match table.get("snapshotter").map(Item::as_str) {
        None | Some(Some(DEFAULT_SNAPSHOTTER | SNAPSHOTTER)) => {
            table.insert("snapshotter", value(SNAPSHOTTER));
            Ok(())
        }
        Some(other) => Err(MergeError::Conflict {
            path: format!("{}.snapshotter", path.join(".")),
            found: format!("{:?}", other.unwrap_or("no text")),
            expected: format!(
                "{DEFAULT_SNAPSHOTTER:?} or nothing: this containerd has one for all runtimes"
            ),
        }),
    }
}

fn runtime(handler: &Handler, version: ContainerdVersion) -> Table {
    let mut table = Table::new();
    table.insert("runtime_type", value(RUNTIME_TYPE));
    table.insert("pod_annotations", value(POD_ANNOTATIONS.into_iter().collect::<Array>()));
    table.insert("privileged_without_host_devices", value(true));
    if version >= ContainerdVersion::RUNTIME_SNAPSHOTTER {
        table.insert("snapshotter", value(SNAPSHOTTER));
    }
    let path = handler.config.display().to_string();
    let options: InlineTable = [(CONFIG_PATH, Value::from(path))].into_iter().collect();
    table.insert("options", value(options));
    table
}

fn runtimes_path(version: i64) -> [&'static str; 4] {
    let plugin = if version == 3 { CRI_RUNTIME } else { CRI };
    ["plugins", plugin, "containerd", "runtimes"]
}

/// The table with `snapshotter` and `discard_unpacked_layers`.
fn snapshotter_path(version: i64) -> Vec<&'static str> {
    match version {
        3 => vec!["plugins", CRI_IMAGES],
        _ => vec!["plugins", CRI, "containerd"],
    }
}

/// The table at a path; what is missing on the way is made.
fn descend<'a>(
    document: &'a mut DocumentMut,
    path: &[&str],
) -> Result<&'a mut dyn TableLike, MergeError> {
    let mut item = document.as_item_mut();
    for (depth, name) in path.iter().enumerate() {
        let not_a_table = || MergeError::NotATable { path: path[..=depth].join(".") };
        let table = item.as_table_like_mut().ok_or_else(not_a_table)?;
        let mut made = Table::new();
        // Only what has entries of its own gets a header.
        made.set_implicit(true);
        item = table.entry(name).or_insert(Item::Table(made));
        if !item.is_table_like() {
            return Err(not_a_table());
        }
    }
    item.as_table_like_mut().ok_or_else(|| MergeError::NotATable { path: path.join(".") })
}

fn find<'a>(item: &'a Item, path: &[&str]) -> Option<&'a dyn TableLike> {
    path.iter().try_fold(item, |item, name| item.get(name))?.as_table_like()
}

fn find_mut<'a>(item: &'a mut Item, path: &[&str]) -> Option<&'a mut dyn TableLike> {
    path.iter().try_fold(item, |item, name| item.get_mut(name))?.as_table_like_mut()
}

/// Puts a table where there is none; one with the same entries may be there.
fn put(
    tables: &mut dyn TableLike,
    path: &str,
    name: &str,
    wanted: Table,
) -> Result<(), MergeError> {
    let text = |item: &dyn TableLike| {
        item.iter().map(|(key, item)| format!("{key} = {}", item.to_string().trim())).collect()
    };
    match tables.get(name) {
        None => {
            tables.insert(name, Item::Table(wanted));
            Ok(())
        }
        Some(item) => {
            let expected: Vec<String> = text(&wanted);
            let found: Vec<String> = item.as_table_like().map(text).unwrap_or_default();
            if found == expected {
                return Ok(());
            }
            let (found, expected) = (found.join(", "), expected.join(", "));
            Err(MergeError::Conflict { path: format!("{path}.{name}"), found, expected })
        }
    }
}

/// Removes tables on a path that are empty now and were not there before, deepest first.
fn prune(document: &mut DocumentMut, before: &DocumentMut, path: &[&str]) {
    for depth in (1..=path.len()).rev() {
        let (Some((name, above)), here) = (path[..depth].split_last(), &path[..depth]) else {
            return;
        };
        let empty = find(document.as_item(), here).is_some_and(TableLike::is_empty);
        if empty
            && find(before.as_item(), here).is_none()
            && let Some(table) = find_mut(document.as_item_mut(), above)
        {
            table.remove(name);
        }
    }
}
