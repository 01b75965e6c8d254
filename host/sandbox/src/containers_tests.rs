//! Runs of pods against an agent of a few lines, without a VM.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use ah_agent_api::{
    agent::{
        CreateContainerRequest, ReadStreamRequest, ReadStreamResponse, SignalProcessRequest,
        StartContainerRequest, WaitProcessRequest, WaitProcessResponse,
    },
    decode, encode,
};
use ah_digest::Sha256;
use ah_pod::{
    Accounts, ContainerSecurity, DnsSettings, ImageFacts, Layer, Pod, PodName, PodSecurity,
    Resources, RestartPolicy,
};
use ah_verity::VerityInfo;
use ah_vmm::VmExit;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Notify, watch},
};
use ttrpc::{
    Code, Request, Response,
    proto::{Codec, MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader},
};

use super::*;
use crate::{
    Events, ids,
    link::Link,
    machine::{Machine, fake::FakeVm},
    services::Services,
};

/// What each container does, by name.
#[derive(Clone, Default)]
struct Script {
    exit_code: i32,
    stdout: &'static str,
    /// Runs until it gets this signal, then ends with 128 and its number.
    until_signal: Option<u32>,
    /// CreateContainer is answered with this.
    create: Option<(Code, &'static str)>,
}

#[derive(Default)]
struct Agent {
    names: BTreeMap<String, String>,
    scripts: BTreeMap<String, Script>,
    calls: Mutex<Vec<String>>,
    output: Mutex<BTreeMap<String, VecDeque<Vec<u8>>>>,
    signals: Mutex<BTreeMap<String, Vec<u32>>>,
    signalled: Notify,
}

impl Agent {
    fn name(&self, id: &str) -> String {
        self.names.get(id).cloned().unwrap_or_default()
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    async fn answer(&self, request: Request) -> Response {
        let payload = &request.payload;
        match request.method.as_str() {
            "CreateContainer" => {
                let request: CreateContainerRequest = decode(payload).unwrap();
                let name = self.name(&request.container_id);
                self.note(format!("create {name}"));
                match self.scripts.get(&name).and_then(|script| script.create) {
                    Some((code, text)) => status(code, text),
                    None => ok(Vec::new()),
                }
            }
            "StartContainer" => {
                let request: StartContainerRequest = decode(payload).unwrap();
                self.note(format!("start {}", self.name(&request.container_id)));
                ok(Vec::new())
            }
            "SignalProcess" => {
                let request: SignalProcessRequest = decode(payload).unwrap();
                let name = self.name(&request.container_id);
                self.note(format!("signal {} {name}", request.signal));
                self.signals.lock().unwrap().entry(name).or_default().push(request.signal);
                self.signalled.notify_waiters();
                ok(Vec::new())
            }
            "WaitProcess" => {
                let request: WaitProcessRequest = decode(payload).unwrap();
                let status = self.wait(&self.name(&request.container_id)).await;
                ok(encode(&WaitProcessResponse { status, ..Default::default() }).unwrap())
            }
            "ReadStdout" => {
                let request: ReadStreamRequest = decode(payload).unwrap();
                let name = self.name(&request.container_id);
                let data = self.output.lock().unwrap().get_mut(&name).and_then(VecDeque::pop_front);
                match data {
                    Some(data) => {
                        ok(encode(&ReadStreamResponse { data, ..Default::default() }).unwrap())
                    }
                    None => status(Code::OUT_OF_RANGE, "end of stream"),
                }
            }
            "ReadStderr" => status(Code::OUT_OF_RANGE, "end of stream"),
            "DestroySandbox" => {
                self.note("destroy".into());
                ok(Vec::new())
            }
            other => status(Code::UNIMPLEMENTED, other),
        }
    }

    async fn wait(&self, name: &str) -> i32 {
        let script = self.scripts.get(name).cloned().unwrap_or_default();
        let Some(signal) = script.until_signal else { return script.exit_code };
        loop {
            let notified = self.signalled.notified();
            let got = self.signals.lock().unwrap().get(name).cloned().unwrap_or_default();
            if got.contains(&signal) {
                return 128 + i32::try_from(signal).unwrap();
            }
            notified.await;
        }
    }
}

fn ok(payload: Vec<u8>) -> Response {
    Response { payload, ..status(Code::OK, "") }
}

fn status(code: Code, text: &str) -> Response {
    let mut response = Response::new();
    response.set_status(ttrpc::get_status(code, text));
    response
}

async fn serve(agent: Arc<Agent>, stream: UnixStream) {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    let mut header = [0u8; MESSAGE_HEADER_LENGTH];
    while reader.read_exact(&mut header).await.is_ok() {
        let header = MessageHeader::from(header);
        let mut payload = vec![0; header.length as usize];
        reader.read_exact(&mut payload).await.unwrap();
        let (agent, writer) = (agent.clone(), writer.clone());
        tokio::spawn(async move {
            let response = agent.answer(Request::decode(payload).unwrap()).await;
            let response = response.encode().unwrap();
            let header = MessageHeader {
                length: response.len() as u32,
                stream_id: header.stream_id,
                type_: MESSAGE_TYPE_RESPONSE,
                flags: 0,
            };
            let frame = [Vec::from(header), response].concat();
            // The test may be over.
            let _ = writer.lock().await.write_all(&frame).await;
        });
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Events for Heard {
    fn output(&self, container: &str, _stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{container}: {line}"));
    }
}

struct Case {
    agent: Arc<Agent>,
    heard: Arc<Heard>,
    created: Created,
    exit: watch::Sender<Option<VmExit>>,
}

fn case(
    containers: &[(&str, Role, Script)],
    change: impl FnOnce(&mut Pod),
    console: Vec<&'static str>,
) -> Case {
    let mut pod = pod(containers.iter().map(|(name, role, _)| container(name, *role)).collect());
    change(&mut pod);
    let root_hash = layer().verity.root_hash;
    let host = ids::host_values(&pod, [(root_hash, "03.1".to_owned())].into()).unwrap();
    let by_id = |(name, id): (&String, &String)| (id.clone(), name.clone());
    let scripts = containers.iter().map(|(name, _, script)| ((*name).to_owned(), script.clone()));
    let mut agent = Agent {
        names: host.container_ids.iter().map(by_id).collect(),
        scripts: scripts.collect(),
        ..Default::default()
    };
    for (name, _, script) in containers {
        let parts = script.stdout.split_inclusive('|').map(|part| part.replace('|', "").into());
        agent.output.get_mut().unwrap().insert((*name).to_owned(), parts.collect());
    }
    let agent = Arc::new(agent);
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve(agent.clone(), theirs));
    let heard = Arc::new(Heard::default());
    let (exit, exited) = watch::channel(None);
    let link = Link {
        vm: Machine::Fake(FakeVm { exit: exited, lines: console }),
        agent: AgentClient::new(ours),
        timeline: Timeline::new(heard.clone()),
        services: Services::none(),
    };
    Case { agent, heard, created: Created { link, pod, host }, exit }
}

fn pod(containers: Vec<Container>) -> Pod {
    Pod {
        name: PodName::Fixed("pod".into()),
        namespace: None,
        hostname: None,
        subdomain: None,
        host_aliases: Vec::new(),
        dns: DnsSettings::default(),
        security: PodSecurity::default(),
        share_process_namespace: false,
        volumes: Vec::new(),
        services: Vec::new(),
        containers,
        restart_policy: RestartPolicy::Never,
        termination_grace_seconds: 30,
        logs: Logs::Readable,
        whole: Default::default(),
        owner_keys: Default::default(),
    }
}

fn layer() -> Layer {
    let verity = VerityInfo { root_hash: Sha256::of("root"), data_blocks: 3, salt: [0; 32] };
    Layer { diff_id: Sha256::of("layer"), verity }
}

fn container(name: &str, role: Role) -> Container {
    Container {
        name: name.into(),
        role,
        image: ImageFacts {
            reference: format!("image@sha256:{}", Sha256::of("image")),
            entrypoint: vec!["/bin/program".into()],
            cmd: Vec::new(),
            env: Vec::new(),
            working_dir: String::new(),
            user: String::new(),
            volumes: Vec::new(),
            stop_signal: None,
            accounts: Accounts::default(),
            layers: vec![layer()],
        },
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        security: ContainerSecurity::default(),
        resources: Resources::default(),
        mounts: Vec::new(),
        ports: Vec::new(),
        tty: false,
        stdin: false,
        stdin_once: false,
        termination_message_path: "/dev/termination-log".into(),
        execs: Vec::new(),
        release_socket: false,
        choices: Default::default(),
    }
}

fn ends(exit_code: i32) -> Script {
    Script { exit_code, ..Default::default() }
}

#[tokio::test]
async fn init_containers_run_one_by_one_before_the_others() {
    let case = case(
        &[
            ("first", Role::Init, ends(0)),
            ("second", Role::Init, ends(0)),
            ("app", Role::Main, Script { stdout: "hello|, you\nbye|", ..ends(0) }),
        ],
        |_| (),
        vec![],
    );
    let outcome = case.created.run_to_end(Stop::never()).await.unwrap();
    assert_eq!((outcome.exit_code, outcome.stopped), (0, false));
    let expect = [
        "create first",
        "start first",
        "create second",
        "start second",
        "create app",
        "start app",
        "destroy",
    ];
    assert_eq!(*case.agent.calls.lock().unwrap(), expect);
    assert_eq!(*case.heard.0.lock().unwrap(), ["app: hello, you", "app: bye"]);
    let stages: Vec<_> = outcome.stages.iter().map(|stage| stage.name).collect();
    assert!(stages.contains(&StageName::FirstOutput) && stages.ends_with(&[StageName::VmEnded]));
}

#[tokio::test]
async fn a_failed_init_container_is_the_pods_end() {
    let case =
        case(&[("first", Role::Init, ends(7)), ("app", Role::Main, ends(0))], |_| (), vec![]);
    let outcome = case.created.run_to_end(Stop::never()).await.unwrap();
    assert_eq!(outcome.exit_code, 7);
    assert_eq!(*case.agent.calls.lock().unwrap(), ["create first", "start first", "destroy"]);
}

#[tokio::test]
async fn the_first_failure_is_the_pods_exit_code() {
    let waits = Script { until_signal: Some(15), ..Default::default() };
    let containers =
        [("a", Role::Main, ends(0)), ("b", Role::Main, ends(3)), ("side", Role::Sidecar, waits)];
    let case = case(&containers, |_| (), vec![]);
    let outcome = case.created.run_to_end(Stop::never()).await.unwrap();
    // The sidecar's 143 is not a failure of the pod.
    assert_eq!(outcome.exit_code, 3);
    assert!(case.agent.calls.lock().unwrap().contains(&"signal 15 side".into()));
}

#[tokio::test]
async fn closed_logs_are_not_asked_for() {
    let case = case(
        &[("app", Role::Main, Script { stdout: "secret|", ..ends(0) })],
        |pod| pod.logs = Logs::Closed,
        vec![],
    );
    case.created.run_to_end(Stop::never()).await.unwrap();
    assert!(case.heard.0.lock().unwrap().is_empty());
    assert_eq!(case.agent.output.lock().unwrap()["app"].len(), 1);
}

#[tokio::test]
async fn a_wish_to_stop_becomes_the_images_stop_signal() {
    let waits = Script { until_signal: Some(3), ..Default::default() };
    let case = case(
        &[("app", Role::Main, waits)],
        |pod| pod.containers[0].image.stop_signal = Some("SIGQUIT".into()),
        vec![],
    );
    let (handle, stop) = Stop::new();
    handle.end();
    let outcome = case.created.run_to_end(stop).await.unwrap();
    assert_eq!((outcome.exit_code, outcome.stopped), (131, true));
}

#[tokio::test]
async fn who_ignores_the_stop_signal_is_killed_after_the_grace_period() {
    let waits = Script { until_signal: Some(9), ..Default::default() };
    let case = case(&[("app", Role::Main, waits)], |pod| pod.termination_grace_seconds = 0, vec![]);
    let (handle, stop) = Stop::new();
    handle.end();
    let outcome = case.created.run_to_end(stop).await.unwrap();
    assert_eq!(outcome.exit_code, 137);
    let calls = case.agent.calls.lock().unwrap();
    assert!(calls.ends_with(&["signal 15 app".into(), "signal 9 app".into(), "destroy".into()]));
}

#[tokio::test]
async fn a_second_wish_ends_at_once() {
    let waits = Script { until_signal: Some(9), ..Default::default() };
    let case = case(&[("app", Role::Main, waits)], |_| (), vec![]);
    let (handle, stop) = Stop::new();
    handle.end();
    handle.end();
    let outcome = case.created.run_to_end(stop).await.unwrap();
    assert!(outcome.stopped && outcome.containers.is_empty());
}

#[tokio::test]
async fn a_denial_is_the_policys() {
    let denied = Script {
        create: Some((Code::PERMISSION_DENIED, "CreateContainerRequest: env")),
        ..Default::default()
    };
    let case = case(&[("app", Role::Main, denied)], |_| (), vec![]);
    let error = case.created.run_to_end(Stop::never()).await.unwrap_err();
    assert_eq!(error.blame(), crate::Blame::Policy);
    assert_eq!(
        error.to_string(),
        "refused by the agent's policy in the guest, container \"app\": CreateContainerRequest: env"
    );
}

#[tokio::test]
async fn a_layer_that_verity_refuses_is_veritys() {
    let text =
        "create container: layer 1 of 1: dm-verity in the guest kernel refused the device's bytes";
    let refused = Script { create: Some((Code::INTERNAL, text)), ..Default::default() };
    let case = case(&[("app", Role::Main, refused)], |_| (), vec![]);
    let error = case.created.run_to_end(Stop::never()).await.unwrap_err();
    assert_eq!(error.blame(), crate::Blame::Verity);
}

#[tokio::test]
async fn another_failure_of_the_agent_is_its_own() {
    let refused = Script { create: Some((Code::INTERNAL, "no memory")), ..Default::default() };
    let case = case(&[("app", Role::Main, refused)], |_| (), vec![]);
    let error = case.created.run_to_end(Stop::never()).await.unwrap_err();
    assert_eq!(error.blame(), crate::Blame::Agent);
}

#[tokio::test]
async fn the_end_of_the_guest_is_told_with_its_console() {
    let waits = Script { until_signal: Some(9), ..Default::default() };
    let case = case(&[("app", Role::Main, waits)], |_| (), vec!["Kernel panic - not syncing"]);
    let created = case.created;
    // The connection goes down with the VM.
    case.exit.send_replace(Some(VmExit::Reset));
    let error = created.run_to_end(Stop::never()).await.unwrap_err();
    assert_eq!(error.blame(), crate::Blame::Guest);
    let text = error.to_string();
    assert!(
        text.contains("kernel panic") && text.ends_with("Kernel panic - not syncing"),
        "{text}"
    );
}
