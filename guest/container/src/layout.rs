//! Where the guest keeps a container's files. All below `/run`, which init mounts as a tmpfs.

use std::path::{Path, PathBuf};

use crate::id::{ContainerId, ExecId};

/// Longest runtime spec, in bytes; requests are at most 4 MiB and JSON of the same content is about as long.
pub const MAX_SPEC_BYTES: usize = 8 << 20;

/// The folders of containers, below one base. Tests use another base than the guest.
#[derive(Debug, Clone)]
pub struct Layout {
    kata: PathBuf,
    state: PathBuf,
    cgroups: PathBuf,
}

impl Layout {
    /// The guest's own: `/run/kata-containers`, `/run/anchorhold`, `/sys/fs/cgroup`.
    pub fn guest() -> Self {
        Self {
            kata: "/run/kata-containers".into(),
            state: "/run/anchorhold".into(),
            cgroups: "/sys/fs/cgroup".into(),
        }
    }

    /// Everything below `base`, except the cgroups.
    pub fn below(base: &Path, cgroups: &Path) -> Self {
        Self {
            kata: base.join("kata-containers"),
            state: base.join("anchorhold"),
            cgroups: cgroups.to_owned(),
        }
    }

    /// `/run/kata-containers`.
    pub fn kata(&self) -> &Path {
        &self.kata
    }

    /// `/run/anchorhold`, the agent's own state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The only root a container can have: `/run/kata-containers/<cid>/rootfs`.
    pub fn root(&self, id: &ContainerId) -> PathBuf {
        self.kata.join(id.as_str()).join("rootfs")
    }

    /// The container's folder in `/run/kata-containers`.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.kata.join(id.as_str())
    }

    /// The bundle: runtime spec and process files.
    pub fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.state.join("bundles").join(id.as_str())
    }

    /// `config.json` of the bundle.
    pub fn spec_file(&self, id: &ContainerId) -> PathBuf {
        self.bundle(id).join("config.json")
    }

    /// The process file of an exec.
    pub fn exec_file(&self, id: &ContainerId, exec: &ExecId) -> PathBuf {
        self.bundle(id).join(format!("exec-{exec}.json"))
    }

    /// libcontainer's state folders, one a container.
    pub fn runtime_state(&self) -> PathBuf {
        self.state.join("runtime")
    }

    /// The container's cgroup, chosen by the guest: the host's CgroupsPath is not used as a path.
    pub fn cgroup(&self, id: &ContainerId) -> PathBuf {
        self.cgroups.join(id.as_str())
    }
}
