//! The gate: bytes in, a decision, an effect, a commit. One path for every request.
//!
//! One lock is held from the decision to the commit, so that no second request is decided against a state that the first is about
//! to change. Requests that wait for a process hold it for their decision only; they change nothing. Making a container that needs keys
//! is decided twice, before and after the keys came.

use std::sync::Arc;
use std::time::Instant;

use ah_agent_api::agent::{
    GetDiagnosticDataResponse, GuestDetailsResponse, Interfaces, OOMEvent, ReadStreamResponse,
    Routes, SetPolicyRequest, StatsContainerResponse, WaitProcessResponse, WriteStreamResponse,
};
use ah_agent_api::types::Interface;
use ah_agent_api::{AGENT_SERVICE, Empty, Request, method};
use ah_digest::Sha256;
use ah_grant::is_fragment;
use ah_permit::{Denial, Permit, Policy, State, decide, extend, may_release_keys};
use ah_policy::AksPolicy;
use tokio::sync::{Mutex, Semaphore};

use crate::console::{Level, in_this_trace, tell};
use crate::effects::Effects;
use crate::failure::Failure;

mod create;
mod exec;

/// Exchanges with the key service at once for containers that are made.
const MAX_KEY_EXCHANGES: usize = 4;

/// Where the policy stands.
pub enum Rules {
    /// None yet: it comes by SetPolicy before anything else, and its SHA-256 must be this value (AKS form).
    Awaited {
        /// HOST_DATA of the report that init read.
        host_data: Sha256,
    },
    /// Fixed for the guest's life.
    Fixed {
        /// The rules.
        policy: Box<Policy>,
        /// What they remember.
        state: State,
        /// SHA-256 of the policy's document: what debug grants name.
        document: Sha256,
    },
}

impl Rules {
    /// A policy that init has compared with HOST_DATA, and the SHA-256 of its document.
    pub fn fixed(policy: Policy, document: Sha256) -> Self {
        Self::Fixed { policy: Box::new(policy), state: State::new(), document }
    }

    fn stand(&mut self) -> Result<(&Policy, &mut State), Failure> {
        match self {
            Self::Fixed { policy, state, .. } => Ok((policy, state)),
            Self::Awaited { .. } => Err(no_policy()),
        }
    }

    /// Adds the containers of a fragment that the policy lets somebody add.
    fn extend(&mut self, fragment: &str) -> Result<(), Failure> {
        let Self::Fixed { policy, state, .. } = self else { return Err(no_policy()) };
        let extended = extend(policy, state, fragment)
            .map_err(|e| Failure::refused(format!("SetPolicy: {e}")))?;
        tell(Level::Info, &extended.words);
        (**policy, *state) = (extended.policy, extended.state);
        Ok(())
    }

    fn document(&self) -> Result<Sha256, Failure> {
        match self {
            Self::Fixed { document, .. } => Ok(*document),
            Self::Awaited { .. } => Err(no_policy()),
        }
    }
}

fn no_policy() -> Failure {
    Failure::NotNow { text: "no policy is set yet: SetPolicy must be the first request".into() }
}

/// What turns a method's bytes into its response's bytes.
pub struct Gate<E> {
    rules: Arc<Mutex<Rules>>,
    effects: Arc<E>,
    creating: create::Creating,
    exchanges: Arc<Semaphore>,
}

impl<E> Clone for Gate<E> {
    fn clone(&self) -> Self {
        Self {
            rules: self.rules.clone(),
            effects: self.effects.clone(),
            creating: self.creating.clone(),
            exchanges: self.exchanges.clone(),
        }
    }
}

/// A response's message, from what an effect gives.
trait Response {
    /// Its bytes.
    fn bytes(&self) -> Result<Vec<u8>, Failure>;
    /// The response to a request that was carried out before, where it says nothing.
    fn again() -> Option<Self>
    where
        Self: Sized;
}

impl Response for () {
    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        serialize(&Empty::new())
    }

    fn again() -> Option<Self> {
        Some(())
    }
}

macro_rules! messages {
    ($($message:ty),* $(,)?) => { $(
        impl Response for $message {
            fn bytes(&self) -> Result<Vec<u8>, Failure> {
                serialize(self)
            }

            fn again() -> Option<Self> {
                None
            }
        }
    )* };
}

messages!(
    Interface,
    Interfaces,
    Routes,
    GuestDetailsResponse,
    OOMEvent,
    ReadStreamResponse,
    GetDiagnosticDataResponse,
    StatsContainerResponse,
    WaitProcessResponse,
    WriteStreamResponse,
);

fn serialize(message: &impl protobuf::Message) -> Result<Vec<u8>, Failure> {
    message.write_to_bytes().map_err(|e| Failure::effect("encode the response", &e))
}

/// Decides, carries out and commits under the lock.
macro_rules! locked {
    ($gate:ident, $request:ident, $effect:ident) => {{
        let mut rules = $gate.rules.lock().await;
        let (policy, state) = rules.stand()?;
        for (container_id, exit_code) in $gate.effects.exits() {
            state.note_exit(&container_id, exit_code);
        }
        let start = Instant::now();
        let permit = decide(policy, state, $request).map_err(denied)?;
        tell(
            Level::Debug,
            &format!("{}: allowed, {} ms", stringify!($effect), start.elapsed().as_millis()),
        );
        let response = match repeated(&permit) {
            Some(response) => response,
            None => $gate.effects.$effect(&permit).await?,
        };
        let (_, changes) = permit.into_parts();
        state.commit(changes).map_err(|e| Failure::effect("commit", &e))?;
        response.bytes()
    }};
}

/// Decides under the lock, carries out without it.
macro_rules! waiting {
    ($gate:ident, $request:ident, $effect:ident) => {{
        let permit = {
            let mut rules = $gate.rules.lock().await;
            let (policy, state) = rules.stand()?;
            decide(policy, state, $request).map_err(denied)?
        };
        if !permit.changes().is_empty() {
            return Err(Failure::refused(concat!(
                "the policy's rule for ",
                stringify!($effect),
                " changes its state, which a waiting request cannot"
            )));
        }
        $gate.effects.$effect(&permit).await?.bytes()
    }};
}

impl<E: Effects> Gate<E> {
    /// A gate in front of `effects`.
    pub fn new(rules: Rules, effects: Arc<E>) -> Self {
        Self {
            rules: Arc::new(Mutex::new(rules)),
            effects,
            creating: Default::default(),
            exchanges: Arc::new(Semaphore::new(MAX_KEY_EXCHANGES)),
        }
    }

    /// Answers one request of the agent service.
    ///
    /// The work goes on when the caller loses interest: a host that hangs up in the middle of an effect must not leave it half done and
    /// the state uncommitted.
    ///
    /// # Errors
    /// [`Failure`]; the state is then as before.
    pub async fn call(&self, method: &str, payload: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let start = Instant::now();
        let gate = self.clone();
        let name: String = method.chars().take(80).collect();
        let method = name.clone();
        let task = tokio::spawn(in_this_trace(async move { gate.answer(&method, &payload).await }));
        let result = match task.await {
            Ok(result) => result,
            Err(e) => Err(Failure::effect("task", &e)),
        };
        match &result {
            Ok(_) => {
                tell(Level::Debug, &format!("{name}: done, {} ms", start.elapsed().as_millis()))
            }
            Err(Failure::EndOfStream) => {}
            Err(e @ Failure::Effect { .. }) => tell(Level::Error, &format!("{name}: {e}")),
            Err(e) => tell(Level::Info, &format!("{name}: {e}")),
        }
        result
    }

    /// Whether containers may have keys as things stand; the policy says it.
    ///
    /// # Errors
    /// [`Failure::Denied`] with the policy's reason, or that there is no policy yet.
    pub async fn may_release_keys(&self) -> Result<(), Failure> {
        let mut rules = self.rules.lock().await;
        let (policy, state) = rules.stand()?;
        may_release_keys(policy, state).map_err(denied)
    }

    async fn answer(&self, name: &str, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let unsupported = || Failure::NotSupported { method: name.to_owned() };
        if method(AGENT_SERVICE, name).is_none() {
            return Err(unsupported());
        }
        let request = Request::decode(name, payload)
            .map_err(|source| Failure::Malformed { method: name.to_owned(), source })?;
        match request {
            Request::CreateSandbox(r) => locked!(self, r, create_sandbox),
            Request::DestroySandbox(r) => locked!(self, r, destroy_sandbox),
            Request::CreateContainer(r) => self.create(r).await,
            Request::StartContainer(r) => locked!(self, r, start_container),
            Request::RemoveContainer(r) => {
                self.creating.ended(&r.container_id).await;
                locked!(self, r, remove_container)
            }
            Request::ExecProcess(r) => self.exec(r).await,
            Request::SignalProcess(r) => locked!(self, r, signal_process),
            Request::StatsContainer(r) => locked!(self, r, stats_container),
            Request::TtyWinResize(r) => locked!(self, r, tty_win_resize),
            Request::CopyFile(r) => locked!(self, r, copy_file),
            Request::UpdateInterface(r) => locked!(self, r, update_interface),
            Request::UpdateRoutes(r) => locked!(self, r, update_routes),
            Request::ListInterfaces(r) => locked!(self, r, list_interfaces),
            Request::ListRoutes(r) => locked!(self, r, list_routes),
            Request::AddARPNeighbors(r) => locked!(self, r, add_arp_neighbors),
            Request::GetGuestDetails(r) => locked!(self, r, guest_details),
            Request::GetDiagnosticData(r) => locked!(self, r, diagnostic_data),
            Request::CloseStdin(r) => waiting!(self, r, close_stdin),
            Request::WaitProcess(r) => waiting!(self, r, wait_process),
            Request::WriteStdin(r) => waiting!(self, r, write_stdin),
            Request::ReadStdout(r) => waiting!(self, r, read_stdout),
            Request::ReadStderr(r) => waiting!(self, r, read_stderr),
            Request::GetOOMEvent(r) => waiting!(self, r, oom_event),
            Request::SetPolicy(r) => self.set_policy(&r).await,
            _ => Err(unsupported()),
        }
    }

    /// Takes the policy that HOST_DATA names, once, before anything else. No rule decides it: the hardware did when it signed
    /// HOST_DATA into the report. Afterwards only fragments that the policy lets somebody add.
    async fn set_policy(&self, request: &SetPolicyRequest) -> Result<Vec<u8>, Failure> {
        let mut rules = self.rules.lock().await;
        let host_data = match &*rules {
            Rules::Awaited { host_data } => *host_data,
            Rules::Fixed { .. } if is_fragment(&request.policy) => {
                return rules.extend(&request.policy).and_then(|()| ().bytes());
            }
            Rules::Fixed { .. } => {
                return Err(Failure::refused(
                    "SetPolicy: the policy is set already and stays for the guest's life",
                ));
            }
        };
        let document = AksPolicy::new(&request.policy)
            .map_err(|e| Failure::refused(format!("SetPolicy: {e}")))?;
        let found = document.host_data_snp();
        if found != host_data {
            return Err(Failure::refused(format!(
                "SetPolicy: the policy's SHA-256 is {found}, HOST_DATA is {host_data}"
            )));
        }
        let policy = Policy::compile(document.policy())
            .map_err(|e| Failure::refused(format!("SetPolicy: {e}")))?;
        *rules = Rules::fixed(policy, found);
        ().bytes()
    }
}

fn denied(denial: Denial) -> Failure {
    Failure::Denied { text: denial.to_string() }
}

/// The answer to a retry of a request that was carried out: as the first time, without a second effect.
fn repeated<R, T: Response>(permit: &Permit<R>) -> Option<T> {
    if permit.is_repeat() { T::again() } else { None }
}
