//! Effects that only keep a diary, and gates in front of them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ah_agent::effects::Effects;
use ah_agent::failure::Failure;
use ah_agent::gate::{Gate, Rules};
use ah_agent::keys::{Keys, WantedKey};
use ah_agent_api::agent::*;
use ah_agent_api::types::Interface;
use ah_digest::Sha256;
use ah_permit::{Permit, Policy};
use ah_release::{KeyKind, Place, ReleasedKey, Secret};
use async_trait::async_trait;
use protobuf::Message as _;

/// Everything but exec; a container can be created once and is remembered; ReadStream is decided by the state.
pub(crate) const RULES: &str = r#"
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
pub(crate) struct Diary {
    lines: Mutex<Vec<String>>,
    pub(crate) go_on: tokio::sync::Notify,
    /// Whether the key service's answer waits for `go_on`, and whether it is a refusal.
    pub(crate) hangs: AtomicBool,
    pub(crate) refuses: AtomicBool,
    pub(crate) now_ms: AtomicU64,
    drawn: AtomicU8,
}

impl Diary {
    pub(crate) fn write(&self, mut line: String) {
        if let Some(trace) = ah_agent::console::trace() {
            line.push_str(&format!(" in {}", trace.trace_id()));
        }
        self.lines.lock().unwrap().push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
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

            async fn wanted_keys(
                &self,
                permit: &Permit<CreateContainerRequest>,
            ) -> Result<Vec<WantedKey>, Failure> {
                let place = Place::Env("PW".into());
                let wanted = |id: &str| WantedKey { id: id.parse().unwrap(), place };
                Ok(permit.container_id.strip_prefix("sealed").map(|_| wanted("demo/db")).into_iter().collect())
            }

            async fn fetch_keys(&self, wanted: Vec<WantedKey>) -> Result<Keys, Failure> {
                self.write(format!("fetch {}", wanted[0].id));
                if self.hangs.load(Ordering::Relaxed) {
                    self.go_on.notified().await;
                }
                if self.refuses.load(Ordering::Relaxed) {
                    return Err(Failure::Effect { what: "open a sealed value", cause: "no".into() });
                }
                let secret = || Secret::new(vec![7; 32]).unwrap();
                let key = |wanted: WantedKey| (wanted.id, ReleasedKey { kind: KeyKind::Oct, secret: secret() });
                Ok(wanted.into_iter().map(key).collect())
            }

            async fn give_up(&self, container_id: &str) {
                self.write(format!("give up {container_id}"));
            }

            async fn create_container(
                &self,
                permit: &Permit<CreateContainerRequest>,
                keys: Keys,
            ) -> Result<(), Failure> {
                let needs = permit.container_id.starts_with("sealed");
                assert_eq!(keys.of(&"demo/db".parse().unwrap()).is_some(), needs);
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

pub(crate) fn gate(rules: Rules) -> (Gate<Diary>, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    (Gate::new(rules, diary.clone()), diary)
}

pub(crate) fn rules_of(text: &str) -> Rules {
    Rules::fixed(Policy::compile(text).unwrap(), Sha256::of(text))
}

pub(crate) fn fixed() -> (Gate<Diary>, Arc<Diary>) {
    gate(rules_of(RULES))
}

pub(crate) fn create(id: &str) -> Vec<u8> {
    CreateContainerRequest { container_id: id.into(), ..Default::default() }
        .write_to_bytes()
        .unwrap()
}

pub(crate) fn read(id: &str) -> Vec<u8> {
    ReadStreamRequest { container_id: id.into(), ..Default::default() }.write_to_bytes().unwrap()
}
