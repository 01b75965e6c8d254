//! The gate and the server in front of effects that only keep a diary: what is decided, in which order, and what is remembered.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ah_agent::effects::Effects;
use ah_agent::failure::Failure;
use ah_agent::gate::{Gate, Rules};
use ah_agent::server;
use ah_agent_api::agent::*;
use ah_agent_api::oci::Process;
use ah_agent_api::types::Interface;
use ah_agent_api::{AGENT_SERVICE, HEALTH_SERVICE, METHODS};
use ah_digest::Sha256;
use ah_grant::{Challenge, Command, DebugGrant, SecretKey};
use ah_permit::{Permit, Policy};
use async_trait::async_trait;
use protobuf::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::Code;

/// Everything but exec; a container can be created once and is remembered; ReadStream is decided by the state.
const RULES: &str = r#"
package agent_policy
import future.keywords.in
import future.keywords.if

default CreateSandboxRequest := true
default DestroySandboxRequest := true
default StartContainerRequest := true
default SignalProcessRequest := true
default WaitProcessRequest := true
default GuestDetailsRequest := true
default ExecProcessRequest := false
default CreateContainerRequest := false

CreateContainerRequest := {"allowed": true, "ops": ops} if {
    not data.pstate[input.container_id]
    ops := [{"op": "add", "path": concat("/", ["/pstate", input.container_id]), "value": true}]
}

default StatsContainerRequest := false

StatsContainerRequest if data.guest.exits[input.container_id] == 0

default ReadStreamRequest := false
ReadStreamRequest if data.pstate[input.container_id]
"#;

/// Writes down what it was asked to do; fails or waits when the id says so.
#[derive(Default)]
struct Diary {
    lines: Mutex<Vec<String>>,
    go_on: tokio::sync::Notify,
    now_ms: AtomicU64,
    drawn: AtomicU8,
}

impl Diary {
    fn write(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

macro_rules! diary {
    ($($method:ident($request:ty) -> $response:ty),* $(,)?) => {
        #[async_trait]
        impl Effects for Diary {
            fn exits(&self) -> Vec<(String, i32)> {
                let lines = self.lines();
                let ended = lines.iter().filter_map(|line| line.strip_prefix("exit ")?.split_once(' '));
                ended.map(|(id, code)| (id.to_owned(), code.parse().unwrap())).collect()
            }

            fn now_ms(&self) -> u64 {
                self.now_ms.load(Ordering::Relaxed)
            }

            fn draw(&self) -> Result<[u8; 32], Failure> {
                Ok([self.drawn.fetch_add(1, Ordering::Relaxed); 32])
            }

            async fn end_process(&self, container_id: &str, exec_id: &str) -> Result<(), Failure> {
                self.write(format!("end {container_id} {exec_id}"));
                self.go_on.notify_one();
                Ok(())
            }

            async fn exec_process(&self, permit: &Permit<ExecProcessRequest>) -> Result<(), Failure> {
                let words = permit.process.as_ref().map(|process| process.Args.join(" "));
                self.write(format!("exec {} {}", permit.container_id, words.unwrap_or_default()));
                Ok(())
            }

            async fn create_container(&self, permit: &Permit<CreateContainerRequest>) -> Result<(), Failure> {
                self.write(format!("create {}", permit.container_id));
                match permit.container_id.as_str() {
                    "broken" if self.lines().len() == 1 => Err(Failure::NotNow { text: "no memory".into() }),
                    "slow" => {
                        self.go_on.notified().await;
                        self.write("create slow done".into());
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }

            async fn wait_process(&self, permit: &Permit<WaitProcessRequest>) -> Result<WaitProcessResponse, Failure> {
                self.write(format!("wait {}", permit.container_id));
                self.go_on.notified().await;
                Ok(WaitProcessResponse { status: 143, ..Default::default() })
            }

            $(async fn $method(&self, _permit: &Permit<$request>) -> Result<$response, Failure> {
                self.write(stringify!($method).into());
                Ok(Default::default())
            })*
        }
    };
}

diary! {
    create_sandbox(CreateSandboxRequest) -> (),
    destroy_sandbox(DestroySandboxRequest) -> (),
    start_container(StartContainerRequest) -> (),
    remove_container(RemoveContainerRequest) -> (),
    signal_process(SignalProcessRequest) -> (),
    stats_container(StatsContainerRequest) -> StatsContainerResponse,
    close_stdin(CloseStdinRequest) -> (),
    tty_win_resize(TtyWinResizeRequest) -> (),
    copy_file(CopyFileRequest) -> (),
    update_interface(UpdateInterfaceRequest) -> Interface,
    update_routes(UpdateRoutesRequest) -> Routes,
    list_interfaces(ListInterfacesRequest) -> Interfaces,
    list_routes(ListRoutesRequest) -> Routes,
    add_arp_neighbors(AddARPNeighborsRequest) -> (),
    guest_details(GuestDetailsRequest) -> GuestDetailsResponse,
    diagnostic_data(GetDiagnosticDataRequest) -> GetDiagnosticDataResponse,
    write_stdin(WriteStreamRequest) -> WriteStreamResponse,
    read_stdout(ReadStreamRequest) -> ReadStreamResponse,
    read_stderr(ReadStreamRequest) -> ReadStreamResponse,
    oom_event(GetOOMEventRequest) -> OOMEvent,
}

fn gate(rules: Rules) -> (Gate<Diary>, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    (Gate::new(rules, diary.clone()), diary)
}

fn rules_of(text: &str) -> Rules {
    Rules::fixed(Policy::compile(text).unwrap(), Sha256::of(text))
}

fn fixed() -> (Gate<Diary>, Arc<Diary>) {
    gate(rules_of(RULES))
}

fn create(id: &str) -> Vec<u8> {
    CreateContainerRequest { container_id: id.into(), ..Default::default() }
        .write_to_bytes()
        .unwrap()
}

fn read(id: &str) -> Vec<u8> {
    ReadStreamRequest { container_id: id.into(), ..Default::default() }.write_to_bytes().unwrap()
}

#[tokio::test]
async fn rules_see_the_exits_that_the_guest_saw() {
    let (gate, diary) = fixed();
    let stats = StatsContainerRequest { container_id: "c1".into(), ..Default::default() };
    let stats = stats.write_to_bytes().unwrap();
    let denied = |result| matches!(result, Err(Failure::Denied { .. }));
    assert!(denied(gate.call("StatsContainer", stats.clone()).await));
    diary.write("exit c2 0".into());
    assert!(denied(gate.call("StatsContainer", stats.clone()).await));
    diary.write("exit c1 0".into());
    gate.call("StatsContainer", stats.clone()).await.unwrap();
    // The first exit counts: an id is used once.
    diary.write("exit c1 1".into());
    gate.call("StatsContainer", stats).await.unwrap();
}

#[tokio::test]
async fn a_permitted_request_has_its_effect_and_is_remembered() {
    let (gate, diary) = fixed();
    assert!(matches!(gate.call("ReadStdout", read("c1")).await, Err(Failure::Denied { .. })));
    gate.call("CreateContainer", create("c1")).await.unwrap();
    gate.call("ReadStdout", read("c1")).await.unwrap();
    assert_eq!(diary.lines(), ["create c1", "read_stdout"]);
}

#[tokio::test]
async fn attack_container_twice() {
    let (gate, diary) = fixed();
    gate.call("CreateContainer", create("c1")).await.unwrap();
    let again = gate.call("CreateContainer", create("c1")).await;
    assert!(matches!(again, Err(Failure::Denied { .. })), "{again:?}");
    assert_eq!(diary.lines(), ["create c1"], "no effect without a permit");
}

#[tokio::test]
async fn attack_keys_before_the_policy_lets_containers_have_them() {
    let (without, _) = fixed();
    let refused = without.may_release_keys().await;
    assert!(matches!(refused, Err(Failure::Denied { .. })), "no rule: {refused:?}");
    let rules = format!("{RULES}\nReleaseKeyRequest if data.pstate.c1\n");
    let (gate, _) = gate(rules_of(&rules));
    assert!(matches!(gate.may_release_keys().await, Err(Failure::Denied { .. })));
    gate.call("CreateContainer", create("c1")).await.unwrap();
    gate.may_release_keys().await.unwrap();
}

/// What the generated policies say to a request that was carried out before: allowed, as a repeat.
const REPEATS: &str = r#"
package agent_policy
import future.keywords.if

default CreateSandboxRequest := false
default CreateContainerRequest := false
default StartContainerRequest := false

CreateSandboxRequest := {"allowed": true, "ops": [add("sandbox", true)]} if not data.pstate.sandbox
CreateSandboxRequest := {"allowed": true, "repeat": true} if data.pstate.sandbox
CreateContainerRequest := {"allowed": true, "ops": [add("created", input.container_id)]} if not data.pstate.created
CreateContainerRequest := {"allowed": true, "repeat": true} if data.pstate.created == input.container_id
StartContainerRequest := {"allowed": true, "ops": [add("started", true)]} if not data.pstate.started
StartContainerRequest := {"allowed": true, "repeat": true} if data.pstate.started

add(name, value) := {"op": "add", "path": concat("/", ["/pstate", name]), "value": value}
"#;

#[tokio::test]
async fn attack_second_effect_of_a_repeated_request() {
    let (gate, diary) = gate(rules_of(REPEATS));
    let start = StartContainerRequest { container_id: "c1".into(), ..Default::default() };
    let requests = [
        ("CreateSandbox", CreateSandboxRequest::new().write_to_bytes().unwrap()),
        ("CreateContainer", create("c1")),
        ("StartContainer", start.write_to_bytes().unwrap()),
    ];
    for (method, bytes) in &requests {
        gate.call(method, bytes.clone()).await.unwrap();
    }
    let once = ["create_sandbox", "create c1", "start_container"];
    assert_eq!(diary.lines(), once);
    // A retry, in any order and any number, is answered as the first request was and does nothing.
    for (method, bytes) in requests.iter().chain(requests.iter().rev()) {
        assert_eq!(gate.call(method, bytes.clone()).await.unwrap(), Vec::<u8>::new(), "{method}");
    }
    assert_eq!(diary.lines(), once);
    assert!(gate.call("CreateContainer", create("c2")).await.is_err(), "no retry of it");
    assert_eq!(diary.lines(), once);
}

#[tokio::test]
async fn a_failed_request_is_no_repeat() {
    let (gate, diary) = gate(rules_of(REPEATS));
    assert!(gate.call("CreateContainer", create("broken")).await.is_err());
    gate.call("CreateContainer", create("broken")).await.unwrap();
    gate.call("CreateContainer", create("broken")).await.unwrap();
    assert_eq!(diary.lines(), ["create broken", "create broken"]);
}

#[tokio::test]
async fn attack_exec_of_any_command() {
    let (gate, diary) = fixed();
    let exec =
        ExecProcessRequest { container_id: "c1".into(), exec_id: "e".into(), ..Default::default() };
    let found = gate.call("ExecProcess", exec.write_to_bytes().unwrap()).await;
    match found {
        Err(Failure::Denied { text }) => assert!(text.contains("ExecProcessRequest"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(diary.lines().is_empty());
}

#[tokio::test]
async fn a_failed_effect_leaves_the_state_as_it_was() {
    let (gate, diary) = fixed();
    assert!(matches!(
        gate.call("CreateContainer", create("broken")).await,
        Err(Failure::NotNow { .. })
    ));
    assert!(gate.call("ReadStdout", read("broken")).await.is_err(), "not remembered");
    gate.call("CreateContainer", create("broken")).await.unwrap();
    assert_eq!(diary.lines(), ["create broken", "create broken"]);
}

#[tokio::test]
async fn attack_two_requests_decided_on_one_state() {
    let (gate, diary) = fixed();
    let first = tokio::spawn({
        let gate = gate.clone();
        async move { gate.call("CreateContainer", create("slow")).await }
    });
    while diary.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn({
        let gate = gate.clone();
        async move { gate.call("CreateContainer", create("slow")).await }
    });
    diary.go_on.notify_one();
    first.await.unwrap().unwrap();
    assert!(matches!(second.await.unwrap(), Err(Failure::Denied { .. })));
    assert_eq!(diary.lines(), ["create slow", "create slow done"]);
}

#[tokio::test]
async fn a_host_that_hangs_up_does_not_stop_an_effect_halfway() {
    let (gate, diary) = fixed();
    let call = gate.call("CreateContainer", create("slow"));
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    diary.go_on.notify_one();
    // The lock is free again only after the commit.
    assert!(gate.call("ReadStdout", read("slow")).await.is_ok());
    assert_eq!(diary.lines(), ["create slow", "create slow done", "read_stdout"]);
}

#[tokio::test]
async fn waiting_for_a_process_does_not_hold_the_state() {
    let (gate, diary) = fixed();
    let wait = WaitProcessRequest { container_id: "c1".into(), ..Default::default() };
    let waiting = tokio::spawn({
        let (gate, bytes) = (gate.clone(), wait.write_to_bytes().unwrap());
        async move { gate.call("WaitProcess", bytes).await }
    });
    while diary.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    gate.call("CreateContainer", create("c1")).await.unwrap();
    diary.go_on.notify_one();
    let response = WaitProcessResponse::parse_from_bytes(&waiting.await.unwrap().unwrap()).unwrap();
    assert_eq!(response.status, 143);
}

#[tokio::test]
async fn every_method_is_answered() {
    let supported = [
        "CreateSandbox",
        "DestroySandbox",
        "CreateContainer",
        "StartContainer",
        "ExecProcess",
        "SignalProcess",
        "WaitProcess",
        "RemoveContainer",
        "StatsContainer",
        "ReadStdout",
        "ReadStderr",
        "WriteStdin",
        "CloseStdin",
        "TtyWinResize",
        "CopyFile",
        "UpdateInterface",
        "UpdateRoutes",
        "ListInterfaces",
        "ListRoutes",
        "AddARPNeighbors",
        "GetOOMEvent",
        "GetDiagnosticData",
        "GetGuestDetails",
        "SetPolicy",
    ];
    for method in METHODS.iter().filter(|m| m.service == AGENT_SERVICE) {
        let (gate, diary) = fixed();
        diary.go_on.notify_one();
        match gate.call(method.name, Vec::new()).await {
            Err(Failure::NotSupported { method: named }) => {
                assert_eq!(named, method.name);
                assert!(!supported.contains(&method.name), "{}", method.name);
                assert!(diary.lines().is_empty());
            }
            _ => assert!(supported.contains(&method.name), "{}", method.name),
        }
    }
    let (gate, _) = fixed();
    assert!(matches!(gate.call("Nonsense", Vec::new()).await, Err(Failure::NotSupported { .. })));
}

fn set_policy(text: &str) -> Vec<u8> {
    SetPolicyRequest { policy: text.into(), ..Default::default() }.write_to_bytes().unwrap()
}

#[tokio::test]
async fn the_policy_of_host_data_is_set_first() {
    let host_data = Sha256::of(RULES);
    let (gate, diary) = gate(Rules::Awaited { host_data });
    let early = gate.call("CreateContainer", create("c1")).await;
    assert!(matches!(early, Err(Failure::NotNow { .. })), "{early:?}");
    assert!(diary.lines().is_empty());
    gate.call("SetPolicy", set_policy(RULES)).await.unwrap();
    gate.call("CreateContainer", create("c1")).await.unwrap();
}

#[tokio::test]
async fn attack_set_policy_a_second_time() {
    let host_data = Sha256::of(RULES);
    let (awaiting, _) = gate(Rules::Awaited { host_data });
    awaiting.call("SetPolicy", set_policy(RULES)).await.unwrap();
    for gate in [awaiting, fixed().0] {
        let again = gate.call("SetPolicy", set_policy(RULES)).await;
        assert!(
            matches!(&again, Err(Failure::Denied { text }) if text.contains("already")),
            "{again:?}"
        );
        assert!(gate.call("ExecProcess", Vec::new()).await.is_err());
    }
}

#[tokio::test]
async fn attack_policy_altered_by_one_byte_with_host_data_kept() {
    let host_data = Sha256::of(RULES);
    let (gate, _) = gate(Rules::Awaited { host_data });
    let altered = RULES.replacen("ExecProcessRequest := false", "ExecProcessRequest := true ", 1);
    let found = gate.call("SetPolicy", set_policy(&altered)).await;
    assert!(
        matches!(&found, Err(Failure::Denied { text }) if text.contains("HOST_DATA")),
        "{found:?}"
    );
    gate.call("SetPolicy", set_policy(RULES)).await.unwrap();
}

#[tokio::test]
async fn attack_agent_request_truncated() {
    let (gate, diary) = fixed();
    let whole = create("c1");
    for length in 1..whole.len() {
        let found = gate.call("CreateContainer", whole[..length].to_vec()).await;
        assert!(matches!(found, Err(Failure::Malformed { .. })), "{length}: {found:?}");
    }
    let mut longer = whole.clone();
    longer.push(0xff);
    assert!(matches!(gate.call("CreateContainer", longer).await, Err(Failure::Malformed { .. })));
    assert!(diary.lines().is_empty());
    gate.call("CreateContainer", whole).await.unwrap();
}

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
    let request = ttrpc::Request {
        service: service.into(),
        method: method.into(),
        payload: payload.to_vec(),
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

/// Whatever bytes come for whatever method: an answer, and an effect only for a request that decodes and is permitted.
#[test]
fn fuzz_requests() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let methods: Vec<&'static str> =
        METHODS.iter().filter(|m| m.service == AGENT_SERVICE).map(|m| m.name).collect();
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        // A request that is almost right: one byte of it is another.
        ("[a-z0-9./-]{0,12}", any::<u8>(), any::<proptest::sample::Index>()).prop_map(
            |(id, byte, at)| {
                let mut bytes = create(&id);
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            }
        ),
    ];
    let input = (proptest::sample::select(methods), bytes);
    let config = Config { cases: 512, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&input, |(method, bytes)| {
            let (gate, diary) = fixed();
            diary.go_on.notify_one();
            let answered = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(5), gate.call(method, bytes.clone())).await
            });
            prop_assert!(answered.is_ok(), "{method} hangs");
            if !diary.lines().is_empty() {
                prop_assert!(ah_agent_api::Request::decode(method, &bytes).is_ok(), "{method}");
                prop_assert!(method != "ExecProcess");
            }
            Ok(())
        })
        .unwrap();
}

/// One container, and debug sessions of the key of seed 3.
fn debug_rules() -> Rules {
    let key = SecretKey::from_seed(&[3; 32]).public();
    rules_of(&format!(
        "{RULES}\ndebug_key := \"{key}\"\n\
         DebugExecRequest := {{\"allowed\": true, \"ops\": ops}} if {{\n\
         data.guest.debug.container == \"web\"\n\
         ops := [{{\"op\": \"add\", \"path\": concat(\"/\", [\"/pstate\", input.exec_id]), \"value\": true}}]\n}}\n"
    ))
}

async fn exec(gate: &Gate<Diary>, words: &[&str], exec_id: &str) -> Result<(), String> {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let process = Process { Args: words, ..Default::default() };
    let request = ExecProcessRequest {
        container_id: "c1".into(),
        exec_id: exec_id.into(),
        process: Some(process).into(),
        ..Default::default()
    };
    let answer = gate.call("ExecProcess", request.write_to_bytes().unwrap()).await;
    answer.map(drop).map_err(|failure| failure.told())
}

fn challenge_in(told: &str) -> Challenge {
    let (_, rest) = told.split_once("debug challenge ").expect(told);
    rest.split_once(',').unwrap().0.parse().unwrap()
}

fn token(challenge: Challenge, command: Command) -> String {
    let rules = {
        let Rules::Fixed { document, .. } = debug_rules() else { panic!() };
        document
    };
    let grant = DebugGrant {
        challenge,
        policy: rules,
        container: "web".into(),
        command,
        stdin: false,
        terminal: false,
        seconds: 1,
    };
    grant.sign(&SecretKey::from_seed(&[3; 32])).unwrap()
}

#[tokio::test]
async fn a_denied_exec_gives_a_challenge_and_its_grant_runs_until_its_time_is_over() {
    let (gate, diary) = gate(debug_rules());
    let told = exec(&gate, &["sh"], "e1").await.unwrap_err();
    assert!(told.contains("ExecProcessRequest") && told.contains("hint: anchorhold debug grant"));
    let token = token(challenge_in(&told), Command::Any);
    exec(&gate, &["anchorhold-debug", &token, "sh"], "e2").await.unwrap();
    assert_eq!(diary.lines(), ["exec c1 sh"]);
    diary.go_on.notified().await;
    assert_eq!(diary.lines(), ["exec c1 sh", "end c1 e2"]);
}

#[tokio::test]
async fn attack_a_token_again_after_its_time_and_a_challenge_without_a_key() {
    let (fixed, _) = fixed();
    let told = exec(&fixed, &["sh"], "e1").await.unwrap_err();
    assert!(!told.contains("challenge"), "{told}");
    let (gate, diary) = gate(debug_rules());
    let told = exec(&gate, &["sh"], "e1").await.unwrap_err();
    let token = token(challenge_in(&told), Command::Any);
    exec(&gate, &["anchorhold-debug", &token, "sh"], "e2").await.unwrap();
    diary.now_ms.store(1_000, Ordering::Relaxed);
    let told = exec(&gate, &["anchorhold-debug", &token, "sh"], "e3").await.unwrap_err();
    assert!(told.contains("its time is over"), "{told}");
    // Whoever holds the key gets another challenge with it.
    assert_ne!(challenge_in(&told), Challenge::new([0; 32]));
    assert_eq!(diary.lines().iter().filter(|line| line.starts_with("exec")).count(), 1);
}
