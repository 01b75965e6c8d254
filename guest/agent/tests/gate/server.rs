//! The server on a socket: frames, and what is no frame.

use std::sync::Arc;
use std::time::Duration;

use ah_agent::server;
use ah_agent_api::{AGENT_SERVICE, HEALTH_SERVICE, TRACEPARENT};
use protobuf::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::Code;

use crate::diary::{Diary, create, fixed};

/// A server on a socket pair, and the host's end of a connection to it.
async fn connection() -> (UnixStream, Arc<Diary>, server::Running) {
    let (gate, diary) = fixed();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let once = futures_util::stream::iter([Ok(theirs)]);
    let running =
        server::serve(&gate, futures_util::StreamExt::chain(once, futures_util::stream::pending()))
            .await
            .unwrap();
    (ours, diary, running)
}

fn frame(stream: u32, service: &str, method: &str, payload: &[u8]) -> Vec<u8> {
    frame_in(None, stream, service, method, payload)
}

/// With what the host says of its trace.
fn frame_in(
    trace: Option<&str>,
    stream: u32,
    service: &str,
    method: &str,
    payload: &[u8],
) -> Vec<u8> {
    let told = trace.map(|value| ttrpc::proto::KeyValue {
        key: TRACEPARENT.into(),
        value: value.into(),
        ..Default::default()
    });
    let request = ttrpc::Request {
        service: service.into(),
        method: method.into(),
        payload: payload.to_vec(),
        metadata: told.into_iter().collect(),
        ..Default::default()
    };
    let body = request.write_to_bytes().unwrap();
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(stream.to_be_bytes());
    bytes.extend([1, 0]);
    bytes.extend(body);
    bytes
}

async fn answer(socket: &mut UnixStream) -> (u32, ttrpc::Response) {
    let read = async {
        let mut header = [0; 10];
        socket.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes(header[..4].try_into().unwrap());
        let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut body).await.unwrap();
        (stream, ttrpc::Response::parse_from_bytes(&body).unwrap())
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer, not a hang")
}

#[tokio::test]
async fn the_server_answers_in_ttrpc() {
    let (mut socket, diary, _running) = connection().await;
    socket.write_all(&frame(1, AGENT_SERVICE, "CreateContainer", &create("c1"))).await.unwrap();
    let (stream, response) = answer(&mut socket).await;
    assert_eq!((stream, response.status.code()), (1, Code::OK));
    socket.write_all(&frame(3, AGENT_SERVICE, "ExecProcess", &[])).await.unwrap();
    let (_, response) = answer(&mut socket).await;
    assert_eq!(response.status.code(), Code::PERMISSION_DENIED);
    assert!(response.status.message.contains("ExecProcessRequest"));
    socket.write_all(&frame(5, AGENT_SERVICE, "AddSwap", &[])).await.unwrap();
    let (_, response) = answer(&mut socket).await;
    assert_eq!(response.status.code(), Code::UNIMPLEMENTED);
    assert!(response.status.message.contains("AddSwap"));
    socket.write_all(&frame(7, HEALTH_SERVICE, "Check", &[])).await.unwrap();
    let (_, response) = answer(&mut socket).await;
    assert_eq!(response.status.code(), Code::OK);
    assert_eq!(response.payload, [8, 1], "status SERVING");
    assert_eq!(diary.lines(), ["create c1"]);
}

/// Effects run in tasks of their own, and their lines are looked for by the id all the same.
#[tokio::test]
async fn an_effect_is_in_the_trace_of_its_call() {
    let (mut socket, diary, _running) = connection().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let known = format!("00-{trace}-00f067aa0ba902b7-01");
    let calls = [(1, Some(known.as_str()), "c1"), (3, Some("00-no"), "c2"), (5, None, "c3")];
    for (stream, trace, id) in calls {
        let call = frame_in(trace, stream, AGENT_SERVICE, "CreateContainer", &create(id));
        socket.write_all(&call).await.unwrap();
        assert_eq!(answer(&mut socket).await.1.status.code(), Code::OK);
    }
    assert_eq!(
        diary.lines(),
        [format!("create c1 in {trace}"), "create c2".into(), "create c3".into()]
    );
}

#[tokio::test]
async fn attack_agent_request_over_the_size_limit() {
    let (mut socket, diary, _running) = connection().await;
    // One byte over 4 MiB as a frame: refused without being read into memory, and the connection goes on.
    let length: u32 = (4 << 20) + 1;
    let mut header = length.to_be_bytes().to_vec();
    header.extend(1_u32.to_be_bytes());
    header.extend([1, 0]);
    socket.write_all(&header).await.unwrap();
    let mut left = usize::try_from(length).unwrap();
    let block = vec![0; 1 << 16];
    while left > 0 {
        let n = left.min(block.len());
        socket.write_all(&block[..n]).await.unwrap();
        left -= n;
    }
    let (stream, response) = answer(&mut socket).await;
    assert_eq!(stream, 1);
    assert_eq!(response.status.code(), Code::INVALID_ARGUMENT);
    assert!(diary.lines().is_empty());
    // The largest id that still fits is read, and refused by the policy or not, but answered.
    socket.write_all(&frame(3, AGENT_SERVICE, "CreateContainer", &create("c1"))).await.unwrap();
    let (stream, response) = answer(&mut socket).await;
    assert_eq!((stream, response.status.code()), (3, Code::OK));
}

#[tokio::test]
async fn attack_frame_truncated() {
    let whole = frame(1, AGENT_SERVICE, "CreateContainer", &create("c1"));
    for length in [1, 9, 10, 11, whole.len() - 1] {
        let (mut socket, diary, running) = connection().await;
        socket.write_all(&whole[..length]).await.unwrap();
        drop(socket);
        let done = tokio::time::timeout(Duration::from_secs(10), running.finish()).await;
        assert!(done.is_ok(), "the connection of a cut frame is closed");
        assert!(diary.lines().is_empty());
    }
}

#[tokio::test]
async fn attack_frame_that_is_no_request() {
    let (mut socket, diary, _running) = connection().await;
    let mut bytes = 5_u32.to_be_bytes().to_vec();
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend([1, 0]);
    bytes.extend([0xff; 5]);
    socket.write_all(&bytes).await.unwrap();
    let (_, response) = answer(&mut socket).await;
    assert_eq!(response.status.code(), Code::INVALID_ARGUMENT);
    socket.write_all(&frame(3, "grpc.Other", "CreateContainer", &create("c1"))).await.unwrap();
    let (_, response) = answer(&mut socket).await;
    assert_ne!(response.status.code(), Code::OK);
    assert!(diary.lines().is_empty());
}
