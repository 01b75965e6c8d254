//! `anchorhold node …`: containerd's configuration, and what the node can do.

use std::path::Path;
use std::process::ExitCode;

use ah_node::{ContainerdVersion, DoctorOptions, Finding, InstallError, Installed, Wanted};
use anyhow::{Context, Result};

use crate::cli::{Node, NodeInstall, NodePlaces};
use crate::dirs::Dirs;
use crate::ui::failure;

/// The handler that is always there.
const HANDLER: &str = "anchorhold-cc";

pub(crate) async fn run(dirs: &Dirs, command: &Node) -> Result<ExitCode> {
    match command {
        Node::Install(options) => install(options)?,
        Node::Uninstall { places } => {
            tell(&ah_node::uninstall(&places.containerd_config).map_err(told)?, "uninstalled");
        }
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
    let mut handlers = vec![HANDLER.to_owned()];
    handlers.extend(options.alias.iter().cloned());
    let snapshotter_socket = std::path::absolute(&options.places.snapshotter)?;
    let wanted = Wanted { handlers, snapshotter_socket, version };
    let config = &options.places.containerd_config;
    if options.print {
        let text = match std::fs::read_to_string(config) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("{} not read", config.display()))?,
        };
        crate::ui::print(format_args!("{}", ah_node::merge(&text, &wanted)?));
        return Ok(());
    }
    tell(&ah_node::install(config, &wanted).map_err(told)?, "installed");
    Ok(())
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
