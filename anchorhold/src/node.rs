//! `anchorhold node …`: containerd's configuration, and what the node can do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ah_node::{
    ContainerdVersion, DoctorOptions, Finding, Handler, InstallError, Installed, OwnFile, Removed,
    ShimConfig, Wanted, Written,
};
use anyhow::{Context, Result};

use crate::cli::{Node, NodeInstall, NodePlaces, NodeTee};
use crate::dirs::Dirs;
use crate::ui::failure;

/// The handler for confidential pods, and the name of its file.
const CONFIDENTIAL: &str = "anchorhold-cc";
/// The handler for pods that are in a virtual machine and have no policy, and the name of its file.
const ISOLATED: &str = "anchorhold";
/// Where a node's software TEE is.
const SOFTWARE_TEE: &str = "/var/lib/anchorhold/software-tee";
/// The name of the snapshotter's file.
const SNAPSHOTTER: &str = "snapshotter";

pub(crate) async fn run(dirs: &Dirs, command: &Node) -> Result<ExitCode> {
    match command {
        Node::Install(options) => install(options)?,
        Node::Uninstall { places } => uninstall(places)?,
        Node::Doctor { places, json } => return doctor(dirs, places, *json).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn install(options: &NodeInstall) -> Result<()> {
    let version = match &options.containerd_version {
        Some(text) => text.parse()?,
        None => ContainerdVersion::of_program(Path::new("containerd"))
            .map_err(|error| failure(error, "say which with --containerd-version"))?,
    };
    let snapshotter_socket = std::path::absolute(&options.places.snapshotter)?;
    let wanted = Wanted { handlers: handlers(options)?, snapshotter_socket, version };
    let config = &options.places.containerd_config;
    if options.print {
        let text = match std::fs::read_to_string(config) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("{} not read", config.display()))?,
        };
        crate::ui::print(format_args!("{}", ah_node::merge(&text, &wanted)?));
        for file in own_files(options)? {
            crate::ui::print(format_args!("\n# {}\n{}", file.path.display(), file.text));
        }
        return Ok(());
    }
    // Nothing is written where containerd's file is refused, and what the handlers name is there before containerd knows of them.
    ah_node::check(config, &wanted).map_err(told)?;
    for file in own_files(options)? {
        let path = file.path.display();
        match file.write().map_err(told)? {
            Written::New => eprintln!("installed: {path}"),
            Written::Updated => eprintln!("installed: {path} is changed"),
            Written::Same => {}
            Written::Kept => eprintln!(
                "kept: {path} was changed by somebody and is left as it is\nhint: --print shows what would be in it"
            ),
        }
    }
    tell(&ah_node::install(config, &wanted).map_err(told)?, "installed");
    match options.tee {
        NodeTee::Software => eprintln!(
            "{}: a program of this node signs the guests' reports",
            crate::ui::SOFTWARE_TEE
        ),
        NodeTee::Snp => eprintln!("tee: snp: this launch has never met hardware"),
    }
    Ok(())
}

fn uninstall(places: &NodePlaces) -> Result<()> {
    let config = &places.containerd_config;
    let named = ah_node::installed(config).map_err(told)?;
    tell(&ah_node::uninstall(config).map_err(told)?, "uninstalled");
    let mut files: BTreeSet<PathBuf> = named.into_iter().map(|handler| handler.config).collect();
    let own = [CONFIDENTIAL, ISOLATED, SNAPSHOTTER].map(|name| file_of(places, name));
    files.extend(own.into_iter().collect::<Result<Vec<_>>>()?);
    for path in files {
        match OwnFile::remove(&path).map_err(told)? {
            Removed::Gone => eprintln!("uninstalled: {}", path.display()),
            Removed::Absent => {}
            Removed::Kept => {
                eprintln!("kept: {} was changed by somebody: remove it by hand", path.display());
            }
        }
    }
    // a folder with somebody's files stays
    let _ = std::fs::remove_dir(&places.config_dir);
    Ok(())
}

fn handlers(options: &NodeInstall) -> Result<Vec<Handler>> {
    let handler = |name: &str, confidential: bool| -> Result<Handler> {
        let kind = if confidential { CONFIDENTIAL } else { ISOLATED };
        Ok(Handler { name: name.to_owned(), config: file_of(&options.places, kind)? })
    };
    let mut handlers = vec![handler(CONFIDENTIAL, true)?, handler(ISOLATED, false)?];
    for alias in &options.alias {
        if handlers.iter().any(|known| known.name == alias.name) {
            return Err(failure(
                format!("--alias {}: there is a handler of this name", alias.name),
                "each handler has a name of its own",
            ));
        }
        handlers.push(handler(&alias.name, alias.confidential)?);
    }
    Ok(handlers)
}

fn own_files(options: &NodeInstall) -> Result<Vec<OwnFile>> {
    let places = &options.places;
    let shim = |name, confidential| -> Result<OwnFile> {
        let config = ShimConfig {
            path: file_of(places, name)?,
            confidential,
            guest: std::path::absolute(&options.guest)?,
            tee: options.tee.into(),
            software_tee: SOFTWARE_TEE.into(),
            key_service: options.key_service.clone(),
        };
        Ok(config.file())
    };
    let snapshotter = ah_node::snapshotter_config(
        file_of(places, SNAPSHOTTER)?,
        &std::path::absolute(&places.snapshotter)?,
        &std::path::absolute(&places.containerd)?,
        options.otlp.as_deref(),
    );
    Ok(vec![shim(CONFIDENTIAL, true)?, shim(ISOLATED, false)?, snapshotter])
}

fn file_of(places: &NodePlaces, name: &str) -> Result<PathBuf> {
    Ok(std::path::absolute(&places.config_dir)?.join(format!("{name}.toml")))
}

fn tell(done: &Installed, what: &str) {
    let path = done.config.display();
    match done.changed {
        true => eprintln!("{what}: {path} is changed\nhint: restart containerd"),
        false => eprintln!("{path} is as it should be"),
    }
}

fn told(error: InstallError) -> anyhow::Error {
    match &error {
        InstallError::Merge { source, .. } => {
            let text = format!("{error}: {source}");
            source.hint().map_or_else(|| anyhow::anyhow!(text.clone()), |hint| failure(&text, hint))
        }
        InstallError::File { source, .. } => {
            failure(format!("{error}: {source}"), "run it as root")
        }
    }
}

async fn doctor(dirs: &Dirs, places: &NodePlaces, json: bool) -> Result<ExitCode> {
    let options = DoctorOptions {
        containerd_socket: places.containerd.clone(),
        snapshotter_socket: places.snapshotter.clone(),
        config: places.containerd_config.clone(),
        cache: dirs.layers(),
    };
    let checks = ah_node::doctor(&options).await;
    if json {
        crate::ui::say!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let mark = match check.finding {
                Finding::Good => "good",
                Finding::Limited => "limited",
                Finding::Missing => "MISSING",
            };
            crate::ui::say!("{mark:8} {:14} {}", check.name, check.found);
            if let Some(remedy) = check.remedy {
                crate::ui::say!("{:8} {:14} -> {remedy}", "", "");
            }
        }
    }
    let missing = checks.iter().any(|check| check.finding == Finding::Missing);
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
