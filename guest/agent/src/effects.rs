//! What a permitted request does. A handler sees the request only through its permit.

use ah_agent_api::agent::*;
use ah_agent_api::types::Interface;
use ah_permit::Permit;
use async_trait::async_trait;

use crate::failure::Failure;
use crate::keys::{Keys, WantedKey};

/// The effects of the agent's requests; the guest's own are [`crate::guest::Guest`], tests have others.
///
/// An effect that fails has undone what it did: the state is not committed after it.
#[async_trait]
pub trait Effects: Send + Sync + 'static {
    /// Containers whose first process has ended, by id, with its exit code: what rules may rely on, since the guest saw it.
    fn exits(&self) -> Vec<(String, i32)>;
    /// Time since the agent's start on the guest's own clock, milliseconds.
    fn now_ms(&self) -> u64;
    /// Random bytes of the guest's own.
    ///
    /// # Errors
    /// [`Failure::Effect`].
    fn draw(&self) -> Result<[u8; 32], Failure>;
    /// Ends a process whose debug session is over; one that has ended is no error.
    async fn end_process(&self, container_id: &str, exec_id: &str) -> Result<(), Failure>;
    /// Shared namespaces, hostname, shared memory, network of the pod.
    async fn create_sandbox(&self, permit: &Permit<CreateSandboxRequest>) -> Result<(), Failure>;
    /// Ends every container; afterwards the machine is turned off.
    async fn destroy_sandbox(&self, permit: &Permit<DestroySandboxRequest>) -> Result<(), Failure>;
    /// Keys that making the container needs, for sealed values of its environment or files. A sealed value that cannot open with any
    /// key is a failure.
    async fn wanted_keys(
        &self,
        permit: &Permit<CreateContainerRequest>,
    ) -> Result<Vec<WantedKey>, Failure>;
    /// Asks the key service for them. Called without the state's lock: the host can make it last.
    async fn fetch_keys(&self, wanted: Vec<WantedKey>) -> Result<Keys, Failure>;
    /// Takes away what was copied in for a container that gets no keys and so is not made.
    async fn give_up(&self, container_id: &str);
    /// Root from verified layers, sealed values opened, spec, first process up to the point before its program.
    async fn create_container(
        &self,
        permit: &Permit<CreateContainerRequest>,
        keys: Keys,
    ) -> Result<(), Failure>;
    /// Lets the first process go.
    async fn start_container(&self, permit: &Permit<StartContainerRequest>) -> Result<(), Failure>;
    /// Ends a container and takes away everything of it.
    async fn remove_container(
        &self,
        permit: &Permit<RemoveContainerRequest>,
    ) -> Result<(), Failure>;
    /// One more process in a container.
    async fn exec_process(&self, permit: &Permit<ExecProcessRequest>) -> Result<(), Failure>;
    /// A signal to a process.
    async fn signal_process(&self, permit: &Permit<SignalProcessRequest>) -> Result<(), Failure>;
    /// Figures of a container's cgroup.
    async fn stats_container(
        &self,
        permit: &Permit<StatsContainerRequest>,
    ) -> Result<StatsContainerResponse, Failure>;
    /// No more bytes on a process's standard input.
    async fn close_stdin(&self, permit: &Permit<CloseStdinRequest>) -> Result<(), Failure>;
    /// The size of a process's terminal.
    async fn tty_win_resize(&self, permit: &Permit<TtyWinResizeRequest>) -> Result<(), Failure>;
    /// A file in the shared folder.
    async fn copy_file(&self, permit: &Permit<CopyFileRequest>) -> Result<(), Failure>;
    /// Address, name and size of packets of an interface.
    async fn update_interface(
        &self,
        permit: &Permit<UpdateInterfaceRequest>,
    ) -> Result<Interface, Failure>;
    /// The routes.
    async fn update_routes(&self, permit: &Permit<UpdateRoutesRequest>) -> Result<Routes, Failure>;
    /// Every interface.
    async fn list_interfaces(
        &self,
        permit: &Permit<ListInterfacesRequest>,
    ) -> Result<Interfaces, Failure>;
    /// Every route.
    async fn list_routes(&self, permit: &Permit<ListRoutesRequest>) -> Result<Routes, Failure>;
    /// Hardware addresses of neighbours.
    async fn add_arp_neighbors(
        &self,
        permit: &Permit<AddARPNeighborsRequest>,
    ) -> Result<(), Failure>;
    /// What this agent is.
    async fn guest_details(
        &self,
        permit: &Permit<GuestDetailsRequest>,
    ) -> Result<GuestDetailsResponse, Failure>;
    /// What a container wrote into its termination message.
    async fn diagnostic_data(
        &self,
        permit: &Permit<GetDiagnosticDataRequest>,
    ) -> Result<GetDiagnosticDataResponse, Failure>;

    /// Waits for a process's end. Called without the state's lock, as the four below.
    async fn wait_process(
        &self,
        permit: &Permit<WaitProcessRequest>,
    ) -> Result<WaitProcessResponse, Failure>;
    /// Bytes for a process's standard input; waits while its pipe is full.
    async fn write_stdin(
        &self,
        permit: &Permit<WriteStreamRequest>,
    ) -> Result<WriteStreamResponse, Failure>;
    /// Bytes of a process's standard output; waits for the first one.
    async fn read_stdout(
        &self,
        permit: &Permit<ReadStreamRequest>,
    ) -> Result<ReadStreamResponse, Failure>;
    /// Bytes of a process's standard error; waits for the first one.
    async fn read_stderr(
        &self,
        permit: &Permit<ReadStreamRequest>,
    ) -> Result<ReadStreamResponse, Failure>;
    /// Waits for the next container that the kernel killed a process of for lack of memory.
    async fn oom_event(&self, permit: &Permit<GetOOMEventRequest>) -> Result<OOMEvent, Failure>;
}
