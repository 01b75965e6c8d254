use std::sync::Mutex;

use ah_agent_api::{TraceParent, agent::StartContainerRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use ttrpc::{
    Code, Request, Response,
    proto::{Codec, MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader},
};

use super::*;

/// An agent that answers each request with what `answer` makes of it.
fn agent(answer: impl Fn(&Request) -> Response + Send + 'static) -> AgentClient {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    tokio::spawn(async move {
        let mut header = [0u8; MESSAGE_HEADER_LENGTH];
        while theirs.read_exact(&mut header).await.is_ok() {
            let header = MessageHeader::from(header);
            let mut payload = vec![0; header.length as usize];
            theirs.read_exact(&mut payload).await.unwrap();
            let response = answer(&Request::decode(payload).unwrap()).encode().unwrap();
            let header = MessageHeader {
                length: response.len() as u32,
                stream_id: header.stream_id,
                type_: MESSAGE_TYPE_RESPONSE,
                flags: 0,
            };
            theirs.write_all(&Vec::from(header)).await.unwrap();
            theirs.write_all(&response).await.unwrap();
        }
    });
    AgentClient::new(ours)
}

fn status(code: Code, message: &str) -> Response {
    let mut response = Response::new();
    response.set_status(ttrpc::get_status(code, message));
    response
}

#[tokio::test]
async fn a_denial_keeps_the_policys_text() {
    let client = agent(|_| status(Code::PERMISSION_DENIED, "CreateContainerRequest: no"));
    let error = client.start_container("c").await.unwrap_err();
    assert!(
        matches!(&error, CallError::Denied { method: "StartContainer", message } if message == "CreateContainerRequest: no"),
        "{error}"
    );
}

#[tokio::test]
async fn another_status_is_a_refusal_with_its_code() {
    let client = agent(|_| status(Code::INTERNAL, "verity: root hash"));
    let error = client.start_container("c").await.unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { code, message, .. } if code == "INTERNAL" && message == "verity: root hash"),
        "{error}"
    );
}

#[tokio::test]
async fn a_call_says_the_trace_that_it_is_in() {
    let client = agent(|request| {
        let said: Vec<String> =
            request.metadata.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        status(Code::INTERNAL, &said.join(","))
    });
    let said = async || match client.start_container("c").await {
        Err(CallError::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(said().await, "");
    let parent = TraceParent::new(0x4bf9, 0xb7).unwrap();
    let told = format!("traceparent=00-{:032x}-{:016x}-00", 0x4bf9, 0xb7);
    let place = Place { here: parent, hears: None };
    assert_eq!(in_trace(place, said()).await, told);
}

/// Where somebody hears of calls, each has a span of its own.
#[tokio::test]
async fn a_call_is_a_span_and_a_wait_is_none() {
    static HEARD: Mutex<Vec<(&str, TraceParent, TraceParent, bool)>> = Mutex::new(Vec::new());
    let hears = Hears {
        number: || 0xb8,
        ended: |made| {
            HEARD.lock().unwrap().push((made.method, made.parent, made.here, made.error.is_some()));
        },
    };
    let client = agent(|request| {
        let said = request.metadata.iter().map(|pair| pair.value.clone());
        status(Code::INTERNAL, &said.collect::<String>())
    });
    let parent = TraceParent::new(0x4bf9, 0xb7).unwrap();
    let place = Place { here: parent, hears: Some(hears) };
    let (start, wait) = in_trace(place, async {
        (client.start_container("c").await, client.wait_process("c", "").await)
    })
    .await;
    let said = |error: CallError| match error {
        CallError::Refused { message, .. } => message,
        other => panic!("{other:?}"),
    };
    let heard = HEARD.lock().unwrap().clone();
    let [(method, above, here, failed)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((*method, *above, *failed), ("StartContainer", parent, true));
    assert_ne!(here, above);
    assert_eq!(here.trace_id().to_string(), above.trace_id().to_string());
    assert_eq!(said(start.unwrap_err()), here.to_string());
    assert_eq!(said(wait.unwrap_err()), parent.to_string());
}

#[tokio::test]
async fn answers_carry_their_message() {
    let client = agent(|request| {
        assert_eq!(
            (request.service.as_str(), request.method.as_str()),
            ("grpc.AgentService", "WaitProcess")
        );
        assert_eq!(request.timeout_nano, 0);
        let mut response = status(Code::OK, "");
        response.payload = vec![0x08, 0x03];
        response
    });
    assert_eq!(client.wait_process("c", "").await.unwrap(), 3);
}

#[tokio::test]
async fn an_answer_with_an_unknown_field_is_not_taken() {
    let client = agent(|_| {
        let mut response = status(Code::OK, "");
        response.payload = vec![0x78, 0x03];
        response
    });
    assert!(matches!(client.wait_process("c", "").await, Err(CallError::Answer { .. })));
}

#[tokio::test]
async fn the_end_of_the_connection_ends_waiting_calls() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = AgentClient::new(ours);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait_process("c", "").await }
    });
    tokio::task::yield_now().await;
    drop(theirs);
    assert!(waiting.await.unwrap().unwrap_err().is_disconnected());
    assert!(client.start_container("c").await.unwrap_err().is_disconnected());
}

#[tokio::test]
async fn a_tamper_sees_and_replaces_every_call() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let client = agent({
        let sent = sent.clone();
        move |request| {
            let message: StartContainerRequest = decode(&request.payload).unwrap();
            sent.lock().unwrap().push(message.container_id);
            status(Code::OK, "")
        }
    });
    let twice = |call: RawCall| {
        let other = StartContainerRequest { container_id: "evil".into(), ..Default::default() };
        vec![RawCall { payload: encode(&other).unwrap(), ..call.clone() }, call]
    };
    client.with_tamper(Arc::new(twice)).start_container("c").await.unwrap();
    assert_eq!(*sent.lock().unwrap(), ["evil", "c"]);
}
