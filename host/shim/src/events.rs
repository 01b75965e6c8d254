//! Events to containerd, in order, over its ttrpc socket; kept while it is away.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use ttrpc::asynchronous::{Client, transport::Socket};

use crate::wire::events::{Envelope, ForwardRequest};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
/// Where containerd says that its ttrpc socket is.
const ADDRESS: &str = "TTRPC_ADDRESS";
/// Events kept while containerd is away; a pod makes a handful a container.
const KEPT: usize = 4096;
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts for one event: containerd may take this many halves of a second to come back.
const ATTEMPTS: u32 = 600;

/// An event with the topic that containerd expects of it.
pub(crate) trait Event: Message {
    const TOPIC: &'static str;
    const FULL_NAME: &'static str;
}

macro_rules! events {
    ($($name:ident $topic:literal),*) => {
        $(impl Event for crate::wire::events::$name {
            const TOPIC: &'static str = $topic;
            const FULL_NAME: &'static str = concat!("containerd.events.", stringify!($name));
        })*
    };
}

events! {
    TaskCreate "/tasks/create", TaskStart "/tasks/start", TaskExit "/tasks/exit", TaskDelete "/tasks/delete",
    TaskOOM "/tasks/oom", TaskExecAdded "/tasks/exec-added", TaskExecStarted "/tasks/exec-started",
    TaskPaused "/tasks/paused", TaskResumed "/tasks/resumed"
}

/// Sends events; clones share the order.
#[derive(Clone)]
pub(crate) struct Publisher {
    namespace: String,
    queue: mpsc::Sender<Envelope>,
}

impl Publisher {
    /// Starts sending. Without an address, as under a test, events go nowhere.
    pub(crate) fn start(namespace: &str) -> Self {
        let (queue, waiting) = mpsc::channel(KEPT);
        match std::env::var(ADDRESS) {
            Ok(address) => drop(tokio::spawn(forward(address, waiting))),
            Err(_) => tracing::warn!("{ADDRESS} is not set: containerd hears of nothing"),
        }
        Self { namespace: namespace.into(), queue }
    }

    pub(crate) fn send<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => return tracing::error!(%error, "event {}", E::FULL_NAME),
        };
        let any = Any { type_url: E::FULL_NAME.into(), value, ..Default::default() };
        let envelope = Envelope {
            timestamp: timestamp(SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.into(),
            event: Some(any).into(),
            ..Default::default()
        };
        if self.queue.try_send(envelope).is_err() {
            tracing::error!(
                "event {} is lost: containerd has been away for too long",
                E::FULL_NAME
            );
        }
    }
}

async fn forward(address: String, mut waiting: mpsc::Receiver<Envelope>) {
    let path = address.trim_start_matches("unix://").to_owned();
    let mut client: Option<Client> = None;
    while let Some(envelope) = waiting.recv().await {
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: Some(envelope).into(), ..Default::default() };
        let Ok(payload) = request.write_to_bytes() else { continue };
        for attempt in 1..=ATTEMPTS {
            match send(&path, &mut client, &payload).await {
                Ok(()) => break,
                Err(error) => tracing::debug!(error, attempt, topic, "telling containerd"),
            }
            client = None;
            sleep(PAUSE).await;
        }
    }
}

async fn send(path: &str, client: &mut Option<Client>, payload: &[u8]) -> Result<(), String> {
    let connected = match client {
        Some(client) => client,
        None => {
            let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            client.insert(Client::new(Socket::from(stream)))
        }
    };
    let request = ttrpc::Request {
        service: SERVICE.into(),
        method: "Forward".into(),
        payload: payload.to_vec(),
        ..Default::default()
    };
    let answer = timeout(ANSWER_LIMIT, connected.request(request)).await;
    answer.map_err(|_| "no answer".to_owned())?.map(drop).map_err(|error| error.to_string())
}

/// A point in time as containerd's messages have it.
pub(crate) fn timestamp(at: SystemTime) -> MessageField<Timestamp> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        ..Default::default()
    })
    .into()
}
