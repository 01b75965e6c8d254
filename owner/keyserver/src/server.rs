//! Connections: accepted within bounds, TLS before anything else, ended in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::app::{App, Parts, Peer, router};
use crate::limits::Counted;
use crate::token_keys::Keeper;

/// Longest head of a request, bytes; a token of the longest kind fits.
const HEAD_BYTES: usize = 32 * 1024;
/// How long a connection may stay open, however busy it is.
const CONNECTION_LIFE: Duration = Duration::from_secs(15 * 60);
/// Pause after the system could not give a connection: it has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A service that is bound to its address.
pub struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    app: Arc<App>,
    routes: Router,
    keepers: Vec<Keeper>,
}

impl Server {
    /// Binds. `more` are routes of others, which guard themselves.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(
        address: SocketAddr,
        tls: ServerConfig,
        parts: Parts,
        more: Router,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self::on(listener, tls, parts, more))
    }

    /// Serves on a socket that is bound already: its address is in the certificate.
    pub fn on(listener: TcpListener, mut tls: ServerConfig, parts: Parts, more: Router) -> Self {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let app = App::new(parts);
        let routes = router(&app, more);
        Self { listener, tls: TlsAcceptor::from(Arc::new(tls)), app, routes, keepers: Vec::new() }
    }

    /// Looks after token keys and revocation lists while it is there.
    pub(crate) fn keeping(self, keepers: Vec<Keeper>) -> Self {
        Self { keepers, ..self }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is done; then open requests have a while to end.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let (tell, told) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stop => break,
                Some(_) = tasks.join_next() => continue,
            };
            match accepted {
                Ok((stream, address)) => {
                    // Who has too many connections is hung up on, which costs nothing.
                    let Some(counted) = self.app.connections.open(address.ip()) else { continue };
                    let (app, tls, routes) =
                        (self.app.clone(), self.tls.clone(), self.routes.clone());
                    let told = told.clone();
                    tasks.spawn(async move {
                        connection(stream, address, &app, tls, routes, told, counted).await
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        drop(self.listener);
        let _ = tell.send(true);
        let _ = timeout(self.app.limits.shutdown_timeout, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
        tasks.shutdown().await;
        drop(self.keepers);
        self.app.service.close().await;
    }
}

/// One connection, from its handshake to its end. Whatever goes wrong is the peer's trouble.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    app: &App,
    tls: TlsAcceptor,
    routes: Router,
    mut told: watch::Receiver<bool>,
    counted: Counted,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(app.limits.header_timeout, tls.accept(stream)).await else {
        return;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.map(|certificate| Arc::new(certificate.to_vec()));
    let peer = Peer { address: address.ip(), certificate };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.clone().oneshot(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.header_timeout)
        .max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let life = tokio::time::sleep(CONNECTION_LIFE);
    tokio::pin!(life);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = told.wait_for(|stop| *stop) => {}
        () = &mut life => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(app.limits.request_timeout, connection).await;
    drop(counted);
}
