//! Containers that the kernel killed a process of for lack of memory.

use ah_agent_api::agent::OOMEvent;
use ah_container::{Cgroup, ContainerId};
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::sync::mpsc::error::TrySendError;

use super::Guest;
use super::io::{Stream, watched};
use crate::failure::Failure;

/// Most events that the host has not asked for yet.
///
/// A container makes one with each process that it lets die, and a host need never ask. What does not fit is not remembered as told,
/// so the container's next event tells it again; a host that does not read loses nothing but its own knowledge.
pub(super) const MAX_UNREAD: usize = 64;

impl Guest {
    /// Watches a started container's `memory.events`. A guest without inotify or memory controller has no events to give.
    pub(super) fn watch_memory(&self, id: &ContainerId, cgroup: &Cgroup) {
        let (id, cgroup, sender) = (id.clone(), cgroup.clone(), self.oom_sender.clone());
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        handle.spawn(async move {
            let Ok(watch) = watch(&cgroup) else { return };
            let mut seen = 0;
            // The file goes with the cgroup, which ends the watch.
            while cgroup.folder().exists() {
                let now = cgroup.pressure().oom_kill;
                if now > seen {
                    match sender.try_send(id.clone()) {
                        Ok(()) => seen = now,
                        Err(TrySendError::Full(_)) => {}
                        Err(TrySendError::Closed(_)) => return,
                    }
                }
                let Ok(mut ready) = watch.readable().await else { return };
                let _ = ready.try_io(|fd| {
                    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
                    inotify::Reader::new(fd, &mut buffer).next().map(|_| ()).map_err(Into::into)
                });
            }
        });
    }

    /// The next container that lost a process so.
    pub(super) async fn next_oom(&self) -> Result<OOMEvent, Failure> {
        let mut events = self.oom_events.lock().await;
        match events.recv().await {
            Some(id) => Ok(OOMEvent { container_id: id.to_string(), ..Default::default() }),
            None => Err(Failure::EndOfStream),
        }
    }
}

fn watch(cgroup: &Cgroup) -> Result<Stream, Errno> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF;
    inotify::add_watch(&watch, cgroup.events_file(), what)?;
    watched(watch).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}
