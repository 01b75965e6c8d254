//! The guest's effects, request by request.

use std::sync::Arc;

use ah_agent_api::agent::*;
use ah_agent_api::types::Interface;
use ah_permit::Permit;
use async_trait::async_trait;

use super::copy_file::copies_are_gone;
use super::io::{MAX_READ_BYTES, Output};
use super::processes::end_of;
use super::termination::read_message;
use super::{Body, Guest, blocking, copy_file, sealed, stats};
use crate::console::{Level, tell};
use crate::effects::Effects;
use crate::failure::Failure;
use crate::keys::{Keys, WantedKey};

/// Signal numbers (signal(7), x86).
const PAUSE_ENDS_BY: [u32; 2] = [2, 15];
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

#[async_trait]
impl Effects for Arc<Guest> {
    fn exits(&self) -> Vec<(String, i32)> {
        let containers = self.containers();
        let ended = containers.iter().filter_map(|(id, container)| {
            let exit_code = *container.processes().get(&None)?.ended.borrow();
            Some((id.to_string(), exit_code?))
        });
        ended.collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn draw(&self) -> Result<[u8; 32], Failure> {
        let mut bytes = [0; 32];
        ah_guest_sys::random::fill(&mut bytes).map_err(|e| Failure::effect("draw", &e))?;
        Ok(bytes)
    }

    async fn end_process(&self, container_id: &str, exec_id: &str) -> Result<(), Failure> {
        match self.process(container_id, exec_id) {
            Ok(process) => {
                let killed = self.processes.signal(process.pid, SIGKILL);
                process.io.end().await;
                killed
            }
            Err(_gone) => Ok(()),
        }
    }

    async fn create_sandbox(&self, permit: &Permit<CreateSandboxRequest>) -> Result<(), Failure> {
        let (guest, request) = (self.clone(), CreateSandboxRequest::clone(permit));
        super::network::loopback_up().await?;
        blocking(move || guest.make_sandbox(&request)).await
    }

    async fn destroy_sandbox(
        &self,
        _permit: &Permit<DestroySandboxRequest>,
    ) -> Result<(), Failure> {
        let guest = self.clone();
        blocking(move || guest.end_sandbox()).await?;
        self.destroyed.send_replace(true);
        Ok(())
    }

    async fn wanted_keys(
        &self,
        permit: &Permit<CreateContainerRequest>,
    ) -> Result<Vec<WantedKey>, Failure> {
        let (guest, request) = (self.clone(), CreateContainerRequest::clone(permit));
        blocking(move || guest.find_wanted_keys(&request)).await
    }

    async fn fetch_keys(&self, wanted: Vec<WantedKey>) -> Result<Keys, Failure> {
        let client = self.keys.clone();
        blocking(move || sealed::fetch(wanted, &|id| sealed::ask(client.as_deref(), id))).await
    }

    async fn give_up(&self, container_id: &str) {
        let (guest, id) = (self.clone(), container_id.to_owned());
        let given_up = blocking(move || {
            guest.forget_copies(&id);
            Ok(())
        });
        if let Err(failure) = given_up.await {
            tell(Level::Error, &failure.to_string());
        }
    }

    async fn create_container(
        &self,
        permit: &Permit<CreateContainerRequest>,
        keys: Keys,
    ) -> Result<(), Failure> {
        let (guest, request) = (self.clone(), CreateContainerRequest::clone(permit));
        blocking(move || guest.create(&request, &keys)).await
    }

    async fn start_container(&self, permit: &Permit<StartContainerRequest>) -> Result<(), Failure> {
        let (guest, id) = (self.clone(), permit.container_id.clone());
        blocking(move || guest.start(&id)).await
    }

    async fn remove_container(
        &self,
        permit: &Permit<RemoveContainerRequest>,
    ) -> Result<(), Failure> {
        let (guest, id) = (self.clone(), permit.container_id.clone());
        blocking(move || guest.remove(&id)).await
    }

    async fn exec_process(&self, permit: &Permit<ExecProcessRequest>) -> Result<(), Failure> {
        let (guest, request) = (self.clone(), ExecProcessRequest::clone(permit));
        blocking(move || guest.exec(&request)).await
    }

    async fn signal_process(&self, permit: &Permit<SignalProcessRequest>) -> Result<(), Failure> {
        let (_, container) = self.container(&permit.container_id)?;
        let first = permit.exec_id.is_empty() || permit.exec_id == permit.container_id;
        match &container.body {
            Body::Sandbox { ended } => {
                signal_sandbox(ended, permit.signal);
                Ok(())
            }
            // Everything in the container at once: what it forked must not outlive its first process.
            Body::Workload { cgroup, .. } if first && permit.signal == SIGKILL => {
                cgroup.kill().map_err(|e| Failure::effect("kill the container", &e))
            }
            Body::Workload { .. } => {
                let process = self.process(&permit.container_id, &permit.exec_id)?;
                let deaf = first && permit.signal == SIGTERM && !handles(process.pid, SIGTERM);
                self.processes.signal(process.pid, if deaf { SIGKILL } else { permit.signal })
            }
        }
    }

    async fn stats_container(
        &self,
        permit: &Permit<StatsContainerRequest>,
    ) -> Result<StatsContainerResponse, Failure> {
        let (_, container) = self.container(&permit.container_id)?;
        match &container.body {
            Body::Sandbox { .. } => Ok(StatsContainerResponse::default()),
            Body::Workload { cgroup, .. } => Ok(stats::response(&cgroup.usage())),
        }
    }

    async fn close_stdin(&self, permit: &Permit<CloseStdinRequest>) -> Result<(), Failure> {
        let process = self.process(&permit.container_id, &permit.exec_id)?;
        process.io.close_stdin().await
    }

    async fn tty_win_resize(&self, permit: &Permit<TtyWinResizeRequest>) -> Result<(), Failure> {
        let process = self.process(&permit.container_id, &permit.exec_id)?;
        let small = |found: u32| {
            u16::try_from(found).map_err(|_| {
                Failure::refused(format!("row, column: found {found}, expected at most 65535"))
            })
        };
        process.io.resize(small(permit.row)?, small(permit.column)?)
    }

    async fn copy_file(&self, permit: &Permit<CopyFileRequest>) -> Result<(), Failure> {
        let request = CopyFileRequest::clone(permit);
        self.sandbox()?;
        let shared = self.layout.kata().join("shared/containers");
        let given_up =
            self.given_up().iter().find(|id| copy_file::is_for(&request, &shared, id)).cloned();
        if let Some(id) = given_up {
            return Err(copies_are_gone(&id));
        }
        let running = self.containers().keys().any(|id| copy_file::is_for(&request, &shared, id));
        if running {
            sealed::check_late(&request.data)?;
        }
        blocking(move || copy_file::copy_file(&request, &shared)).await
    }

    async fn update_interface(
        &self,
        permit: &Permit<UpdateInterfaceRequest>,
    ) -> Result<Interface, Failure> {
        super::network::update_interface(permit).await
    }

    async fn update_routes(&self, permit: &Permit<UpdateRoutesRequest>) -> Result<Routes, Failure> {
        super::network::update_routes(permit).await
    }

    async fn list_interfaces(
        &self,
        _permit: &Permit<ListInterfacesRequest>,
    ) -> Result<Interfaces, Failure> {
        super::network::list_interfaces().await
    }

    async fn list_routes(&self, _permit: &Permit<ListRoutesRequest>) -> Result<Routes, Failure> {
        super::network::list_routes().await
    }

    async fn add_arp_neighbors(
        &self,
        permit: &Permit<AddARPNeighborsRequest>,
    ) -> Result<(), Failure> {
        super::network::add_neighbors(permit).await
    }

    async fn guest_details(
        &self,
        _permit: &Permit<GuestDetailsRequest>,
    ) -> Result<GuestDetailsResponse, Failure> {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let details = AgentDetails {
            version: crate::AGENT_VERSION.into(),
            init_daemon: false,
            device_handlers: Vec::new(),
            storage_handlers: list(&["blk", "overlayfs", "ephemeral", "local"]),
            supports_seccomp: true,
            ..Default::default()
        };
        Ok(GuestDetailsResponse { agent_details: Some(details).into(), ..Default::default() })
    }

    async fn diagnostic_data(
        &self,
        permit: &Permit<GetDiagnosticDataRequest>,
    ) -> Result<GetDiagnosticDataResponse, Failure> {
        let (id, container) = self.container(&permit.container_id)?;
        let what = permit.log_type.clone();
        let missing =
            || Failure::NotFound { what: format!("copied file {what:?} of container {id}") };
        let Body::Workload { copied, .. } = &container.body else { return Err(missing()) };
        let file = copied.get(&what).cloned().ok_or_else(missing)?;
        let data = blocking(move || {
            read_message(&file).map_err(|e| Failure::effect("read the termination message", &e))
        })
        .await?;
        Ok(GetDiagnosticDataResponse { data, ..Default::default() })
    }

    async fn wait_process(
        &self,
        permit: &Permit<WaitProcessRequest>,
    ) -> Result<WaitProcessResponse, Failure> {
        let (_, container) = self.container(&permit.container_id)?;
        let ended = match &container.body {
            Body::Sandbox { ended } => ended.subscribe(),
            Body::Workload { .. } => {
                self.process(&permit.container_id, &permit.exec_id)?.ended.clone()
            }
        };
        let status = end_of(ended).await?;
        self.tell_corruption(&permit.container_id);
        Ok(WaitProcessResponse { status, ..Default::default() })
    }

    async fn write_stdin(
        &self,
        permit: &Permit<WriteStreamRequest>,
    ) -> Result<WriteStreamResponse, Failure> {
        let process = self.process(&permit.container_id, &permit.exec_id)?;
        let written = process.io.write(&permit.data).await?;
        let len = u32::try_from(written).unwrap_or(u32::MAX);
        Ok(WriteStreamResponse { len, ..Default::default() })
    }

    async fn read_stdout(
        &self,
        permit: &Permit<ReadStreamRequest>,
    ) -> Result<ReadStreamResponse, Failure> {
        self.read(permit, Output::Stdout).await
    }

    async fn read_stderr(
        &self,
        permit: &Permit<ReadStreamRequest>,
    ) -> Result<ReadStreamResponse, Failure> {
        self.read(permit, Output::Stderr).await
    }

    async fn oom_event(&self, _permit: &Permit<GetOOMEventRequest>) -> Result<OOMEvent, Failure> {
        self.next_oom().await
    }
}

impl Guest {
    async fn read(
        &self,
        permit: &Permit<ReadStreamRequest>,
        output: Output,
    ) -> Result<ReadStreamResponse, Failure> {
        let process = self.process(&permit.container_id, &permit.exec_id)?;
        let len = usize::try_from(permit.len).unwrap_or(MAX_READ_BYTES);
        let data = process.io.read(output, len, process.ended.clone()).await?;
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    /// A block that dm-verity refused reaches the workload as an I/O error only; people look for the reason on the console.
    fn tell_corruption(&self, id: &str) {
        let Ok((id, container)) = self.container(id) else { return };
        let Body::Workload { root, .. } = &container.body else { return };
        let root = root.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(corruption) = root.as_ref().and_then(|r| r.corruption()) {
            tell(Level::Error, &format!("container {id}: {corruption}"));
        }
    }
}

/// The sandbox ends as its pause program would: by SIGINT or SIGTERM with code 0, by SIGKILL with 137; it ignores the others.
fn signal_sandbox(ended: &tokio::sync::watch::Sender<Option<i32>>, signal: u32) {
    let status = match signal {
        SIGKILL => 137,
        s if PAUSE_ENDS_BY.contains(&s) => 0,
        _ => return,
    };
    ended.send_if_modified(|now| now.is_none() && now.replace(status).is_none());
}

/// Whether the process has a handler for `signal`, by SigCgt of proc_pid_status(5). The kernel drops a signal without handler that
/// is sent to the first process of a pid namespace, so that SIGTERM would do nothing until the grace period ends; Kata kills then.
fn handles(pid: i32, signal: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let caught = status
        .lines()
        .find_map(|l| l.strip_prefix("SigCgt:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let bit = 1_u64.checked_shl(signal.saturating_sub(1)).unwrap_or_default();
    caught.is_none_or(|mask| mask & bit != 0)
}
