//! The methods that a pod's life needs, typed.

use ah_agent_api::{
    Empty, HEALTH_SERVICE,
    agent::{
        AddARPNeighborsRequest, CloseStdinRequest, CopyFileRequest, CreateContainerRequest,
        CreateSandboxRequest, DestroySandboxRequest, ExecProcessRequest, GetDiagnosticDataRequest,
        GetDiagnosticDataResponse, GetOOMEventRequest, GuestDetailsRequest, GuestDetailsResponse,
        OOMEvent, PauseContainerRequest, ReadStreamRequest, ReadStreamResponse,
        RemoveContainerRequest, ResumeContainerRequest, Routes, SetPolicyRequest,
        SignalProcessRequest, StartContainerRequest, StatsContainerRequest, StatsContainerResponse,
        TtyWinResizeRequest, UpdateInterfaceRequest, UpdateRoutesRequest, WaitProcessRequest,
        WaitProcessResponse, WriteStreamRequest, WriteStreamResponse,
    },
    health::{CheckRequest, HealthCheckResponse},
    types::Interface,
};

use crate::{AgentClient, CALL_LIMIT, CallError, Limit};

const ORDINARY: Limit = Limit::Within(CALL_LIMIT);

/// Exit status of a process: 0 to 255, 128 plus the signal's number when a signal ended it.
pub type WaitStatus = i32;

/// Which output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl AgentClient {
    /// Whether the agent serves.
    ///
    /// # Errors
    /// As [`AgentClient::call`], like every method here.
    pub async fn check(&self, limit: Limit) -> Result<HealthCheckResponse, CallError> {
        self.call_service(HEALTH_SERVICE, "Check", &CheckRequest::default(), limit).await
    }

    /// What the agent is and can do.
    pub async fn guest_details(&self) -> Result<GuestDetailsResponse, CallError> {
        self.call("GetGuestDetails", &GuestDetailsRequest::default(), ORDINARY).await
    }

    /// Replaces the policy; allowed before the first request and with the measured digest only.
    pub async fn set_policy(&self, policy: &str) -> Result<(), CallError> {
        let request = SetPolicyRequest { policy: policy.into(), ..Default::default() };
        self.unit("SetPolicy", &request).await
    }

    /// Names and addresses of a network interface.
    pub async fn update_interface(
        &self,
        request: &UpdateInterfaceRequest,
    ) -> Result<Interface, CallError> {
        self.call("UpdateInterface", request, ORDINARY).await
    }

    /// The guest's routes.
    pub async fn update_routes(&self, request: &UpdateRoutesRequest) -> Result<Routes, CallError> {
        self.call("UpdateRoutes", request, ORDINARY).await
    }

    /// Neighbours that the guest need not ask for.
    pub async fn add_neighbours(&self, request: &AddARPNeighborsRequest) -> Result<(), CallError> {
        self.unit("AddARPNeighbors", request).await
    }

    /// Stops a container's processes where they are.
    pub async fn pause_container(&self, container_id: &str) -> Result<(), CallError> {
        let request =
            PauseContainerRequest { container_id: container_id.into(), ..Default::default() };
        self.unit("PauseContainer", &request).await
    }

    /// Lets a container's processes go on.
    pub async fn resume_container(&self, container_id: &str) -> Result<(), CallError> {
        let request =
            ResumeContainerRequest { container_id: container_id.into(), ..Default::default() };
        self.unit("ResumeContainer", &request).await
    }

    /// Makes the sandbox.
    pub async fn create_sandbox(&self, request: &CreateSandboxRequest) -> Result<(), CallError> {
        self.unit("CreateSandbox", request).await
    }

    /// Ends the sandbox and everything in it.
    pub async fn destroy_sandbox(&self) -> Result<(), CallError> {
        self.unit("DestroySandbox", &DestroySandboxRequest::default()).await
    }

    /// Puts a file into the guest's shared folder.
    pub async fn copy_file(&self, request: &CopyFileRequest) -> Result<(), CallError> {
        self.unit("CopyFile", request).await
    }

    /// Makes a container from its layers.
    pub async fn create_container(
        &self,
        request: &CreateContainerRequest,
    ) -> Result<(), CallError> {
        self.unit("CreateContainer", request).await
    }

    /// Starts a container's first process.
    pub async fn start_container(&self, container_id: &str) -> Result<(), CallError> {
        let request =
            StartContainerRequest { container_id: container_id.into(), ..Default::default() };
        self.unit("StartContainer", &request).await
    }

    /// Removes a container that has ended.
    pub async fn remove_container(&self, container_id: &str) -> Result<(), CallError> {
        let request =
            RemoveContainerRequest { container_id: container_id.into(), ..Default::default() };
        self.unit("RemoveContainer", &request).await
    }

    /// Starts one more process in a container.
    pub async fn exec_process(&self, request: &ExecProcessRequest) -> Result<(), CallError> {
        self.unit("ExecProcess", request).await
    }

    /// Sends a signal; an empty `exec_id` means the container's first process.
    pub async fn signal_process(
        &self,
        container_id: &str,
        exec_id: &str,
        signal: u32,
    ) -> Result<(), CallError> {
        let request = SignalProcessRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            signal,
            ..Default::default()
        };
        self.unit("SignalProcess", &request).await
    }

    /// Waits for a process's end, however long it takes.
    pub async fn wait_process(
        &self,
        container_id: &str,
        exec_id: &str,
    ) -> Result<WaitStatus, CallError> {
        let request = WaitProcessRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        let answer: WaitProcessResponse =
            self.call("WaitProcess", &request, Limit::Unlimited).await?;
        Ok(answer.status)
    }

    /// Waits for output, at most `len` bytes; empty at its end.
    pub async fn read_stream(
        &self,
        stream: Stream,
        container_id: &str,
        exec_id: &str,
        len: u32,
    ) -> Result<Vec<u8>, CallError> {
        let request = ReadStreamRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            len,
            ..Default::default()
        };
        let method = match stream {
            Stream::Stdout => "ReadStdout",
            Stream::Stderr => "ReadStderr",
        };
        let answer: ReadStreamResponse = self.call(method, &request, Limit::Unlimited).await?;
        Ok(answer.data)
    }

    /// Writes to a process's standard input; returns how many bytes it took.
    pub async fn write_stdin(
        &self,
        container_id: &str,
        exec_id: &str,
        data: &[u8],
    ) -> Result<u32, CallError> {
        let request = WriteStreamRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            data: data.to_vec(),
            ..Default::default()
        };
        let answer: WriteStreamResponse =
            self.call("WriteStdin", &request, Limit::Unlimited).await?;
        Ok(answer.len)
    }

    /// Ends a process's standard input.
    pub async fn close_stdin(&self, container_id: &str, exec_id: &str) -> Result<(), CallError> {
        let request = CloseStdinRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.unit("CloseStdin", &request).await
    }

    /// Tells a process's terminal its size.
    pub async fn resize_tty(
        &self,
        container_id: &str,
        exec_id: &str,
        rows: u32,
        columns: u32,
    ) -> Result<(), CallError> {
        let request = TtyWinResizeRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            row: rows,
            column: columns,
            ..Default::default()
        };
        self.unit("TtyWinResize", &request).await
    }

    /// What a container has used.
    pub async fn stats(&self, container_id: &str) -> Result<StatsContainerResponse, CallError> {
        let request =
            StatsContainerRequest { container_id: container_id.into(), ..Default::default() };
        self.call("StatsContainer", &request, ORDINARY).await
    }

    /// What a container wrote into its termination message, the file that it sees at `path`: at most its last 4096 bytes.
    pub async fn termination_message(
        &self,
        container_id: &str,
        path: &str,
    ) -> Result<String, CallError> {
        let request = GetDiagnosticDataRequest {
            container_id: container_id.into(),
            log_type: path.into(),
            ..Default::default()
        };
        let response: GetDiagnosticDataResponse =
            self.call("GetDiagnosticData", &request, ORDINARY).await?;
        Ok(response.data)
    }

    /// Waits until a container runs out of memory; returns its id.
    pub async fn oom_event(&self) -> Result<String, CallError> {
        let event: OOMEvent =
            self.call("GetOOMEvent", &GetOOMEventRequest::default(), Limit::Unlimited).await?;
        Ok(event.container_id)
    }

    async fn unit<Req: ah_agent_api::Wire>(
        &self,
        method: &'static str,
        request: &Req,
    ) -> Result<(), CallError> {
        self.call::<Req, Empty>(method, request, ORDINARY).await.map(drop)
    }
}
