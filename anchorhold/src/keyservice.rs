//! `anchorhold keyservice serve`.

use std::path::Path;

use ah_keyserver::{Config, start};
use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::service::{KeyServiceCommand, Serve};
use crate::dirs::Dirs;
use crate::ui::{SOFTWARE_TEE, failure, say};

pub(crate) async fn run(dirs: &Dirs, command: &KeyServiceCommand) -> Result<()> {
    let KeyServiceCommand::Serve(options) = command;
    let config = config(dirs, options)?;
    if config.danger_software_root.is_some() {
        eprintln!("{SOFTWARE_TEE}: keys are released to VMs that their hosts can read");
    }
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let started = start(&config).await.map_err(|error| {
        // Its hint is on a line of its own already.
        let text = error.to_string();
        match text.split_once("\nhint: ") {
            Some((text, hint)) => failure(text, hint),
            None => anyhow::Error::new(error),
        }
    })?;
    if let Some(path) = &started.authority {
        eprintln!("certificate authority of this service: {}", path.display());
    }
    if let Some(path) = &started.first_token {
        eprintln!("a first caller was made; its token: {}", path.display());
    }
    say!("{}", started.url);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        eprintln!("stopping: open requests are answered first");
    };
    started.server.serve(stop).await;
    Ok(())
}

/// The configuration of a file, or that of the local store.
pub(crate) fn read_config(dirs: &Dirs, path: Option<&Path>) -> Result<Config> {
    let Some(path) = path else {
        let state = std::path::absolute(dirs.keys()).context("DATA")?;
        return Ok(Config { state, ..Config::default() });
    };
    Config::read(path).map_err(|error| {
        let text = error.to_string();
        let (text, hint) =
            text.split_once("\nhint: ").unwrap_or((&text, "docs/keyservice.md has every key"));
        failure(text, hint)
    })
}

fn config(dirs: &Dirs, options: &Serve) -> Result<Config> {
    let mut config = read_config(dirs, options.config.as_deref())?;
    if let Some(listen) = options.listen {
        config.listen = listen;
    }
    if let Some(state) = &options.state {
        config.state.clone_from(state);
    }
    if options.danger_software_root.is_some() {
        config.danger_software_root.clone_from(&options.danger_software_root);
    }
    Ok(config)
}
