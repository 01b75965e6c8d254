use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use protobuf::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};

use crate::calls::{Call, StreamCall};
use crate::codec::Protobuf;

/// Longest message taken, bytes: what containerd itself sends at most.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of gRPC services behind one unix socket. Connects when it is first used, and again after the other end was
/// away.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    namespace: Option<String>,
}

/// The messages of an answer, in their order.
#[derive(Debug)]
pub struct Responses<M>(Streaming<M>);

impl Client {
    /// A client of what listens on `socket`. Must be called inside a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        let socket: PathBuf = socket.to_owned();
        let connect = move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        };
        // The name is not looked up: the connector goes to the socket.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(connect));
        Self { channel, namespace: None }
    }

    /// The same client, with every call in a namespace of containerd's.
    pub fn in_namespace(&self, namespace: impl Into<String>) -> Self {
        Self { channel: self.channel.clone(), namespace: Some(namespace.into()) }
    }

    /// Makes a call.
    ///
    /// # Errors
    /// What the other end answered, or [`Code::Unavailable`] when there is none.
    pub async fn call<R: Call>(&self, request: R) -> Result<R::Response, Status> {
        let (mut grpc, path) = self.ready(R::PATH).await?;
        let codec = Protobuf::<R, R::Response>::new();
        Ok(grpc.unary(self.request(request)?, path, codec).await?.into_inner())
    }

    /// Makes a call that is answered by a stream.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn stream<R: StreamCall>(
        &self,
        request: R,
    ) -> Result<Responses<R::Response>, Status> {
        let (mut grpc, path) = self.ready(R::PATH).await?;
        let codec = Protobuf::<R, R::Response>::new();
        let response = grpc.server_streaming(self.request(request)?, path, codec).await?;
        Ok(Responses(response.into_inner()))
    }

    async fn ready(&self, path: &'static str) -> Result<(Grpc<Channel>, PathAndQuery), Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok((grpc, PathAndQuery::from_static(path)))
    }

    fn request<M>(&self, message: M) -> Result<Request<M>, Status> {
        let mut request = Request::new(message);
        if let Some(namespace) = &self.namespace {
            let value = MetadataValue::try_from(namespace.as_str()).map_err(|_| {
                Status::new(Code::InvalidArgument, format!("namespace {namespace:?} is no name"))
            })?;
            request.metadata_mut().insert("containerd-namespace", value);
        }
        Ok(request)
    }
}

impl<M: Message> Responses<M> {
    /// The next message, if there is one.
    ///
    /// # Errors
    /// What the other end ended the stream with.
    pub async fn next(&mut self) -> Result<Option<M>, Status> {
        self.0.message().await
    }
}
