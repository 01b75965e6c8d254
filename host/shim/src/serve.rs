//! The pod's shim itself: a server on the socket that `start` made, until containerd needs it no more.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::events::Publisher;
use crate::launch::socket_path;
use crate::service::{self, Service};
use crate::trace::Tracer;
use crate::{Call, ShimError, convert, counting, log, server};

/// For the last answer to be on its way.
const FAREWELL: Duration = Duration::from_millis(100);

/// Serves until containerd says that it is enough, or SIGTERM comes. The listening socket is the standard input.
///
/// # Errors
/// [`ShimError`] when there is no such socket.
pub fn serve(call: &Call) -> Result<(), ShimError> {
    log::start(&call.bundle, call.debug);
    let stdin = || ShimError::file("listening on", "/dev/stdin");
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(stdin())?;
    let listener = StdUnixListener::from(socket);
    listener.set_nonblocking(true).map_err(stdin())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(stdin())?;
    runtime.block_on(live(call, listener))?;
    // removed last: whoever finds the socket finds the shim
    let _ = fs::remove_file(socket_path(&call.address, &call.namespace, &call.id));
    // threads may be waiting for a guest that is gone
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn live(call: &Call, listener: StdUnixListener) -> Result<(), ShimError> {
    let stdin = || ShimError::file("listening on", "/dev/stdin");
    let listener = UnixListener::from_std(listener).map_err(stdin())?;
    let incoming = futures_util::stream::poll_fn(move |cx| {
        listener.poll_accept(cx).map(|found| Some(found.map(|(stream, _)| stream)))
    });
    let service = Arc::new(Service::new(Publisher::start(&call.namespace)));
    let spec = service::read_spec(&call.bundle).ok();
    counting::of(&call.id);
    let tracer = Tracer::new(spec.as_ref().and_then(convert::pod_uid), &call.id);
    let mut server = Server::new()
        .register_service(server::services(&service, tracer))
        .add_listener(Listener::new(incoming));
    server.start().await?;
    tracing::info!(id = call.id, namespace = call.namespace, "shim is up");
    let mut done = service.done();
    let mut terminate = signal(SignalKind::terminate()).map_err(stdin())?;
    tokio::select! {
        _ = done.wait_for(|done| *done) => {}
        _ = terminate.recv() => {}
    }
    tokio::time::sleep(FAREWELL).await;
    server.stop_listen().await;
    service.end().await;
    tracing::info!("shim ends");
    Ok(())
}
