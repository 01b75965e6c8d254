//! The program `anchorhold-snapshotter`: runs in the foreground until SIGTERM or SIGINT. It may be killed at any time.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ah_metrics::{Address, EVENTS_SOCKET, Metrics};
use ah_snapshotter::spans::{Spans, Whose};
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
    /// Configuration in TOML with the options below as keys, which options of the command line replace
    /// [default: /etc/anchorhold/snapshotter.toml, where it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// What may be said on the command line or in the file.
#[derive(Debug, Default, Clone, PartialEq, Eq, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Folder for snapshots and block images; one process uses it at a time [default: /var/lib/anchorhold/snapshotter]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Unix socket to listen on [default: /run/anchorhold/snapshotter.sock]
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// containerd's unix socket, where layers are read from [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// Layers converted at a time [default: 2]
    #[arg(long, value_name = "NUMBER")]
    conversions: Option<usize>,
    /// Where GET /metrics is answered with what this node counts: unix:/PATH or tcp:IP:PORT [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Unix socket where shims tell what they count and of their spans, with --metrics or --otlp [default: /run/anchorhold/metrics-events.sock]
    #[arg(long, value_name = "SOCKET")]
    events: Option<PathBuf>,
    /// Where spans of traces go, this program's and shims': http://HOST:PORT of an OpenTelemetry collector (OTLP over gRPC) [default: nowhere]
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// The least that is logged to stderr: error, warn, info, debug or off [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// Between two tries to count or to show.
const METRICS_PAUSE: Duration = Duration::from_secs(10);

/// Read where no other file is named.
const CONFIG: &str = "/etc/anchorhold/snapshotter.toml";

impl Settings {
    fn of(options: Options) -> Result<Self> {
        let said = options.settings;
        let file = match &options.config {
            Some(path) => Self::read(path)?,
            None if Path::new(CONFIG).exists() => Self::read(Path::new(CONFIG))?,
            None => Self::default(),
        };
        Ok(Self {
            root: said.root.or(file.root),
            socket: said.socket.or(file.socket),
            containerd: said.containerd.or(file.containerd),
            conversions: said.conversions.or(file.conversions),
            metrics: said.metrics.or(file.metrics),
            events: said.events.or(file.events),
            otlp: said.otlp.or(file.otlp),
            log: said.log.or(file.log),
        })
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    fn level(&self) -> Result<LevelFilter> {
        let found = self.log.as_deref().unwrap_or("info");
        let level = found.parse();
        level.with_context(|| {
            format!("log: found {found:?}, expected error, warn, info, debug or off")
        })
    }

    fn metrics(&self) -> Result<Option<Address>> {
        self.metrics.as_deref().map(|text| text.parse().context("metrics")).transpose()
    }

    fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new("/run/anchorhold/snapshotter.sock"))
    }
}

fn main() -> ExitCode {
    match Settings::of(Options::parse()).and_then(|settings| run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<()> {
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_max_level(settings.level()?).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: &Settings) -> Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let named = |path: &Option<PathBuf>, default: PathBuf| path.clone().unwrap_or(default);
    let root = named(&settings.root, PathBuf::from("/var/lib/anchorhold/snapshotter"));
    let root = std::path::absolute(root)?;
    let containerd = named(&settings.containerd, "/run/containerd/containerd.sock".into());
    let metrics = Arc::new(Metrics::default());
    let address = settings.metrics()?;
    let events = named(&settings.events, EVENTS_SOCKET.into());
    let conversions = settings.conversions.unwrap_or(2);
    let spans = settings.otlp.as_deref().map(ah_snapshotter::spans::to).transpose()?.map(
        |(spans, carry)| {
            tokio::spawn(carry);
            spans
        },
    );
    let open = ah_snapshotter::open;
    let service = open(&root, &containerd, conversions, Arc::clone(&metrics), spans.clone())?;
    let listener = listen(settings.socket())?;
    tracing::info!(socket = %settings.socket().display(), root = %root.display(), "listening");
    tokio::select! {
        () = ah_containerd_api::serve(listener, Arc::new(service)) => {}
        never = show(address, &events, metrics, spans) => match never {},
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = fs::remove_file(settings.socket());
    tracing::info!("ended");
    // A conversion that runs is not waited for: what it has made does not count until it is whole.
    std::process::exit(0)
}

/// Counts and shows what it counts, and hands shims' spans on, where that is asked for. What keeps it from either is logged and tried again:
/// pods do not wait for who counts them.
async fn show(
    address: Option<Address>,
    events: &Path,
    metrics: Arc<Metrics>,
    spans: Option<Spans>,
) -> Infallible {
    if address.is_none() && spans.is_none() {
        return std::future::pending().await;
    }
    let hand_on = |span| {
        if let Some(spans) = &spans {
            spans.give(Whose::Shim, &span);
        }
    };
    let collect = async || {
        let Err(error) = ah_metrics::collect(events, Arc::clone(&metrics), hand_on).await else {
            return;
        };
        tracing::error!(%error, socket = %events.display(), "what shims tell is not counted");
    };
    let serve = async || {
        let Some(address) = &address else { return std::future::pending().await };
        let Err(error) = ah_metrics::serve(address, Arc::clone(&metrics)).await;
        tracing::error!(%error, ?address, "metrics are not shown");
    };
    tokio::join!(again_and_again(collect), again_and_again(serve)).0
}

async fn again_and_again(work: impl AsyncFn()) -> Infallible {
    loop {
        work().await;
        tokio::time::sleep(METRICS_PAUSE).await;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str, line: &str) -> Result<Settings> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("snapshotter.toml");
        fs::write(&path, file)?;
        let words = ["anchorhold-snapshotter", "--config"].into_iter();
        let path = path.to_str().context("path")?;
        Settings::of(Options::parse_from(words.chain([path]).chain(line.split_whitespace())))
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let file = "root = \"/a\"\nsocket = \"/s\"\nconversions = 3\nlog = \"debug\"\n";
        let found = settings(file, "--root /b").unwrap();
        assert_eq!(found.root.as_deref(), Some(Path::new("/b")));
        assert_eq!((found.socket(), found.conversions), (Path::new("/s"), Some(3)));
        assert_eq!(found.level().unwrap(), LevelFilter::DEBUG);
        assert!(settings("rot = \"/a\"\n", "").is_err());
        let metrics = settings("metrics = \"unix:/m\"\n", "").unwrap().metrics().unwrap();
        assert_eq!(metrics, Some(Address::Unix("/m".into())));
        assert!(settings("", "--metrics 9464").unwrap().metrics().is_err());
        let error = settings("log = \"loud\"\n", "").unwrap().level().unwrap_err();
        assert!(error.to_string().contains("\"loud\", expected error"), "{error}");
    }
}
