//! A container's termination message: from the guest into the file that the kubelet reads when the container has ended.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ah_agent_client::AgentClient;

use crate::convert::Spec;

/// Where the message is.
#[derive(Debug, Clone)]
pub(crate) struct TerminationLog {
    /// The kubelet's file.
    file: PathBuf,
    /// Where the container sees it.
    seen_at: String,
}

impl TerminationLog {
    pub(crate) fn of(spec: &Spec) -> Option<Self> {
        let (file, seen_at) = spec.termination_log()?;
        Some(Self { file, seen_at })
    }

    /// Fetches the message of a container that has ended. The policy decides whether it is told; without one the kubelet has none.
    pub(crate) async fn fetch(&self, agent: &AgentClient, container_id: &str) {
        match agent.termination_message(container_id, &self.seen_at).await {
            Err(error) => tracing::debug!(%error, container_id, "termination message"),
            Ok(message) => {
                if let Err(error) = write(&self.file, message.as_bytes()) {
                    tracing::warn!(%error, container_id, "writing the termination message");
                }
            }
        }
    }
}

/// Into the file that is there; a link is not followed, and none is made.
fn write(path: &Path, message: &[u8]) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = flags.bits().cast_signed();
    let mut file = File::options().write(true).truncate(true).custom_flags(flags).open(path)?;
    file.write_all(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_that_is_there_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("b"));
        assert!(write(&file, b"x").is_err());
        std::fs::write(&file, "longer before").unwrap();
        write(&file, b"done").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"done");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(write(&link, b"x").is_err());
    }
}
