//! The program `anchorhold-snapshotter`: runs in the foreground until SIGTERM or SIGINT. It may be killed at any time.
#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// Keeps containerd's snapshots, and makes verity block images of image layers for confidential pods.
///
/// In containerd's configuration:
///
///   [proxy_plugins.anchorhold]
///     type = "snapshot"
///     address = "/run/anchorhold/snapshotter.sock"
///
/// Then `snapshotter = "anchorhold"`, of CRI's containerd section (containerd 1.6) or of a runtime (1.7 and later).
#[derive(Parser)]
#[command(name = "anchorhold-snapshotter", version, verbatim_doc_comment)]
struct Options {
    /// Folder for snapshots and block images; one process uses it at a time
    #[arg(long, value_name = "DIR", default_value = "/var/lib/anchorhold/snapshotter")]
    root: PathBuf,
    /// Unix socket to listen on
    #[arg(long, value_name = "SOCKET", default_value = "/run/anchorhold/snapshotter.sock")]
    socket: PathBuf,
    /// containerd's unix socket, where layers are read from
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    containerd: PathBuf,
    /// Layers converted at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    conversions: usize,
    /// The least that is logged to stderr: error, warn, info, debug or off
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_max_level(options.log).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let root = std::path::absolute(&options.root)?;
    let service = ah_snapshotter::open(&root, &options.containerd, options.conversions)?;
    let listener = listen(&options.socket)?;
    tracing::info!(socket = %options.socket.display(), root = %root.display(), "listening");
    tokio::select! {
        () = ah_containerd_api::serve(listener, Arc::new(service)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = fs::remove_file(&options.socket);
    tracing::info!("ended");
    // A conversion that runs is not waited for: what it has made does not count until it is whole.
    std::process::exit(0)
}

/// A socket that only this user reaches. One that nobody listens on is replaced.
fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("folder {}", parent.display()))?;
    }
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            bail!("somebody listens on {} already", path.display());
        }
        fs::remove_file(path).with_context(|| format!("stale socket {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("socket {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}
