//! The agent's life: policy in, server up, containers, end.

use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ah_container::{Layout, Runtime};
use ah_digest::Sha256;
use ah_permit::Policy;
use ah_policy::{GuestSettings, InitData};
use ah_release::{Admission, PublicKey, ReleaseClient, ReleaseServer, SOCKET_PATH, ServiceAddress};
use ah_scratch::{Candidate, Scratch};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::cli::{Listen, Settings};
use crate::console::{Level, set_level, tell};
use crate::failure::chain;
use crate::gate::{Gate, Rules};
use crate::guest::Guest;
use crate::server::{Running, serve};

/// How long the agent waits, after DestroySandbox, for the host to read the answer and hang up.
const FAREWELL: Duration = Duration::from_secs(2);

/// Most threads that answer requests; one a processor, since more than that only take turns.
const MAX_WORKERS: usize = 4;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs the agent until DestroySandbox. Call it before any thread is started.
///
/// # Errors
/// What kept it from starting; the guest is of no use then.
pub fn run(settings: &Settings) -> Result<(), Error> {
    set_level(settings.log);
    let stage = Stage(Instant::now());
    ah_guest_sys::process::become_subreaper()?;
    let layout = Layout::guest();
    // First, so that it is ready when the first container comes.
    let runtime = Runtime::spawn(&layout)?;
    switch_controllers_on();
    stage.reached("runtime process started");
    let (rules, guest_settings) = rules(settings)?;
    stage.reached("policy compiled");
    let reactor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(
            std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
        )
        .max_blocking_threads(16)
        .enable_all()
        .build()?;
    reactor.block_on(live(settings, rules, &guest_settings, layout, runtime))
}

/// Says at level debug how long the start took so far.
struct Stage(Instant);

impl Stage {
    fn reached(&self, name: &str) {
        tell(Level::Debug, &format!("{name} after {} ms", self.0.elapsed().as_millis()));
    }
}

/// Switches the cgroup controllers on once here, not by the first container. Best effort.
fn switch_controllers_on() {
    let folder = Path::new("/sys/fs/cgroup");
    if let Ok(controllers) = std::fs::read_to_string(folder.join("cgroup.controllers")) {
        let all: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
        let _ = std::fs::write(folder.join("cgroup.subtree_control"), all.join(" "));
    }
}

async fn live(
    settings: &Settings,
    rules: Rules,
    guest_settings: &GuestSettings,
    layout: Layout,
    runtime: Runtime,
) -> Result<(), Error> {
    let scratch = match &settings.scratch {
        None => Scratch::none(),
        Some(name) => {
            Scratch::open(Candidate { name: name.clone() }, layout.state().join("scratch"))
        }
    };
    let keys = key_client(settings, guest_settings)?.map(Arc::new);
    let guest = Arc::new(Guest::new(layout, runtime, scratch, keys.clone())?);
    let mut destroyed = guest.destroyed();
    let gate = Gate::new(rules, Arc::new(guest));
    if let Some(keys) = keys {
        release_socket(keys, &gate)?;
    }
    let running = listen(&settings.listen, &gate).await?;
    tell(Level::Info, "ready");
    destroyed.wait_for(|done| *done).await?;
    let _ = tokio::time::timeout(FAREWELL, running.finish()).await;
    Ok(())
}

async fn listen(at: &Listen, gate: &Gate<Arc<Guest>>) -> Result<Running, Error> {
    match at {
        Listen::Vsock(port) => {
            let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))?;
            Ok(serve(gate, listener.incoming()).await?)
        }
        Listen::Unix(path) => {
            let listener = StdUnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let incoming = futures_util::stream::poll_fn(move |cx| {
                listener.poll_accept(cx).map(|found| Some(found.map(|(stream, _)| stream)))
            });
            Ok(serve(gate, incoming).await?)
        }
    }
}

/// The policy that init compared with HOST_DATA, compiled; or the digest that the policy to come must have.
fn rules(settings: &Settings) -> Result<(Rules, GuestSettings), Error> {
    match (&settings.initdata, settings.host_data) {
        (Some(path), _) => {
            let initdata = read_initdata(path)?;
            let policy = Policy::compile(initdata.policy())?;
            let document = Sha256::of(initdata.bytes());
            Ok((Rules::fixed(policy, document), initdata.guest_settings()?))
        }
        (None, Some(host_data)) => Ok((Rules::Awaited { host_data }, GuestSettings::default())),
        (None, None) => Err("neither initdata nor HOST_DATA".into()),
    }
}

fn read_initdata(path: &Path) -> Result<InitData, Error> {
    Ok(InitData::parse(&std::fs::read(path)?)?)
}

/// Who asks for keys, when the owner's settings name a key service.
fn key_client(settings: &Settings, guest: &GuestSettings) -> Result<Option<ReleaseClient>, Error> {
    let Some(service) = &guest.key_service else { return Ok(None) };
    let ah_policy::ServiceAddress::Vsock { cid, port } = service.address;
    let source = Arc::from(ah_tee::report_source(settings.tee)?);
    let public_key = PublicKey::new(service.public_key.0);
    Ok(Some(ReleaseClient::new(ServiceAddress { cid, port }, public_key, source)))
}

/// Starts the socket where containers get evidence and keys.
fn release_socket(client: Arc<ReleaseClient>, gate: &Gate<Arc<Guest>>) -> Result<(), Error> {
    let gate = gate.clone();
    let admission: Admission = Arc::new(move || {
        let gate = gate.clone();
        Box::pin(async move { gate.may_release_keys().await.map_err(|e| e.to_string()) })
    });
    let server = ReleaseServer::bind(Path::new(SOCKET_PATH), client, admission)?;
    tokio::spawn(server.serve());
    Ok(())
}

/// The text of an error with its causes, for the console.
pub fn text(error: &Error) -> String {
    chain(&**error as &(dyn std::error::Error + 'static))
}
