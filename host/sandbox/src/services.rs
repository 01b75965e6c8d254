//! The host's services on vsock ports, each connection on a thread of its own.

use std::{io, os::unix::net::UnixStream, sync::Arc};

use ah_vmm::{Vm, VsockListener};
use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
};

use crate::{
    SandboxError, VsockService,
    events::{StageName, Timeline},
};

/// The guest is not trusted either: it may hold this many connections to a service.
const CONNECTIONS_MAX: usize = 32;

/// Accepting ends when this is dropped; connections end with the VM's sockets.
pub(crate) struct Services {
    tasks: Vec<AbortHandle>,
    contact: watch::Receiver<bool>,
}

impl Services {
    pub(crate) fn start(
        vm: &Vm,
        services: &[VsockService],
        timeline: &Timeline,
    ) -> Result<Self, SandboxError> {
        let (sender, contact) = watch::channel(false);
        let mut running = Self { tasks: Vec::new(), contact };
        for service in services {
            let listener = vm.listen(service.port)?;
            let task = accept(listener, service.clone(), timeline.clone(), sender.clone());
            running.tasks.push(tokio::spawn(task).abort_handle());
        }
        Ok(running)
    }

    /// Returns when the guest has connected to a service for the first time; never without services.
    pub(crate) async fn first_contact(&self) {
        if self.contact.clone().wait_for(|contact| *contact).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
impl Services {
    pub(crate) fn none() -> Self {
        Self { tasks: Vec::new(), contact: watch::channel(false).1 }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn accept(
    listener: VsockListener,
    service: VsockService,
    timeline: Timeline,
    contact: watch::Sender<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok(stream) = listener.accept().await else { return };
        timeline.reached_first(StageName::KernelUp, None);
        contact.send_replace(true);
        let port = service.port.to_string();
        timeline.reached(StageName::ServiceCalled, Some(&port));
        let (handler, timeline) = (service.handler.clone(), timeline.clone());
        connections.spawn_blocking(move || {
            match blocking(stream) {
                Ok(stream) => handler(stream),
                Err(error) => tracing::warn!(%error, port, "connection of the guest"),
            }
            timeline.reached(StageName::ServiceAnswered, Some(&port));
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

fn blocking(stream: tokio::net::UnixStream) -> io::Result<UnixStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
