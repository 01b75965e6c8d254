use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ah_agent_api::{TRACEPARENT, TraceParent};
use futures_util::stream::iter;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;

use crate::calls::{Call, StreamCall};
use crate::codec::Protobuf;
use crate::snapshots::*;
use crate::types::Empty;

/// How long to wait after a connection could not be accepted (no file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers `containerd.services.snapshots.v1.Snapshots`.
#[allow(missing_docs)]
pub trait Snapshotter: Send + Sync + 'static {
    fn prepare(
        &self,
        request: PrepareSnapshotRequest,
    ) -> impl Future<Output = Result<PrepareSnapshotResponse, Status>> + Send;
    fn view(
        &self,
        request: ViewSnapshotRequest,
    ) -> impl Future<Output = Result<ViewSnapshotResponse, Status>> + Send;
    fn mounts(
        &self,
        request: MountsRequest,
    ) -> impl Future<Output = Result<MountsResponse, Status>> + Send;
    fn commit(
        &self,
        request: CommitSnapshotRequest,
    ) -> impl Future<Output = Result<Empty, Status>> + Send;
    fn remove(
        &self,
        request: RemoveSnapshotRequest,
    ) -> impl Future<Output = Result<Empty, Status>> + Send;
    fn stat(
        &self,
        request: StatSnapshotRequest,
    ) -> impl Future<Output = Result<StatSnapshotResponse, Status>> + Send;
    fn update(
        &self,
        request: UpdateSnapshotRequest,
    ) -> impl Future<Output = Result<UpdateSnapshotResponse, Status>> + Send;
    fn list(
        &self,
        request: ListSnapshotsRequest,
    ) -> impl Future<Output = Result<Vec<ListSnapshotsResponse>, Status>> + Send;
    fn usage(
        &self,
        request: UsageRequest,
    ) -> impl Future<Output = Result<UsageResponse, Status>> + Send;
    fn cleanup(
        &self,
        request: CleanupRequest,
    ) -> impl Future<Output = Result<Empty, Status>> + Send;

    /// Does the work of the call `path`, whose caller said this of its trace. For who wants to see calls begin and end.
    fn lead<T: Send>(
        &self,
        path: &'static str,
        said: Option<TraceParent>,
        work: impl Future<Output = Result<T, Status>> + Send,
    ) -> impl Future<Output = Result<T, Status>> + Send {
        let _ = (path, said);
        work
    }
}

/// The trace that the caller says it is in. One that cannot be read is none (W3C Trace Context, section 4.3).
fn trace<B>(request: &Request<B>) -> Option<TraceParent> {
    request.headers().get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// Answers whoever connects, for ever. To be dropped when it shall end; what is being answered then is not finished.
pub async fn serve<S: Snapshotter>(listener: UnixListener, snapshotter: Arc<S>) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                tokio::spawn(converse(connection, Arc::clone(&snapshotter)));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse<S: Snapshotter>(connection: UnixStream, snapshotter: Arc<S>) {
    let service = service_fn(move |request| {
        let snapshotter = Arc::clone(&snapshotter);
        async move { Ok::<_, Infallible>(answer(snapshotter, request).await) }
    });
    // A peer that breaks off or does not speak HTTP/2 is its own matter.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn answer<S: Snapshotter>(s: Arc<S>, request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        PrepareSnapshotRequest::PATH => once(&*s, request, |r| s.prepare(r)).await,
        ViewSnapshotRequest::PATH => once(&*s, request, |r| s.view(r)).await,
        MountsRequest::PATH => once(&*s, request, |r| s.mounts(r)).await,
        CommitSnapshotRequest::PATH => once(&*s, request, |r| s.commit(r)).await,
        RemoveSnapshotRequest::PATH => once(&*s, request, |r| s.remove(r)).await,
        StatSnapshotRequest::PATH => once(&*s, request, |r| s.stat(r)).await,
        UpdateSnapshotRequest::PATH => once(&*s, request, |r| s.update(r)).await,
        ListSnapshotsRequest::PATH => streamed(&*s, request, |r| s.list(r)).await,
        UsageRequest::PATH => once(&*s, request, |r| s.usage(r)).await,
        CleanupRequest::PATH => once(&*s, request, |r| s.cleanup(r)).await,
        other => Status::unimplemented(format!("no such method: {other}")).into_http(),
    }
}

async fn once<R: Call, F>(
    s: &impl Snapshotter,
    request: Request<Incoming>,
    answer: impl Fn(R) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<R::Response, Status>> + Send,
{
    let said = trace(&request);
    let service = tower::service_fn(|request: tonic::Request<R>| {
        let answer = s.lead(R::PATH, said, answer(request.into_inner()));
        async move { answer.await.map(tonic::Response::new) }
    });
    Grpc::new(Protobuf::<R::Response, R>::new()).unary(service, request).await
}

async fn streamed<R: StreamCall, F>(
    s: &impl Snapshotter,
    request: Request<Incoming>,
    answer: impl Fn(R) -> F,
) -> Response<Body>
where
    F: Future<Output = Result<Vec<R::Response>, Status>> + Send,
{
    let said = trace(&request);
    let service = tower::service_fn(|request: tonic::Request<R>| {
        let answer = s.lead(R::PATH, said, answer(request.into_inner()));
        async move {
            let messages = answer.await?.into_iter().map(Ok::<_, Status>);
            Ok(tonic::Response::new(iter(messages)))
        }
    });
    Grpc::new(Protobuf::<R::Response, R>::new()).server_streaming(service, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_from_the_header_and_another_text_is_none() {
        let of =
            |text: &str| trace(&Request::builder().header(TRACEPARENT, text).body(()).unwrap());
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(text).unwrap().to_string(), text);
        assert_eq!(of(&text[1..]), None);
        assert_eq!(trace(&Request::new(())), None);
    }
}
