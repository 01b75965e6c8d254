//! The sidecar as a program: options, log, listener.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ah_sidecar::options::{Options, ServerType};
use ah_sidecar::{Service, grpc, http};
use tokio::net::TcpListener;

/// Time for one call: report, token, key, each with its own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let env = |name: &str| std::env::var(name).ok();
    let options =
        Options::parse(std::env::args().skip(1), env).map_err(|error| error.to_string())?;
    start_log(&options)?;
    for path in &options.settings.unknown {
        tracing::warn!("SkrSideCarArgs: {path} is not known and has no effect");
    }
    let service = Arc::new(Service::new(&options, &env).map_err(|error| error.to_string())?);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(serve(&options, service))
}

async fn serve(options: &Options, service: Arc<Service>) -> Result<(), String> {
    // The name localhost of the known sidecar; nothing but the pod's own containers can reach it.
    let listener = TcpListener::bind(("127.0.0.1", options.port))
        .await
        .map_err(|error| format!("port {}: {error}", options.port))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    eprintln!("anchorhold-sidecar listens on {address}");
    match options.server_type {
        ServerType::Http => axum::serve(listener, http::router(service))
            .with_graceful_shutdown(terminated())
            .await
            .map_err(|error| error.to_string()),
        ServerType::Grpc => {
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            tonic::transport::Server::builder()
                .timeout(CALL_TIMEOUT)
                .add_routes(grpc::routes(service)?)
                .serve_with_incoming_shutdown(incoming, terminated())
                .await
                .map_err(|error| error.to_string())
        }
    }
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn start_log(options: &Options) -> Result<(), String> {
    let log = tracing_subscriber::fmt().with_max_level(options.log_level).with_ansi(false);
    match &options.log_file {
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            log.with_writer(Mutex::new(file)).init();
        }
        None => log.with_writer(std::io::stderr).init(),
    }
    Ok(())
}
