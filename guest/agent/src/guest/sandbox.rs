//! The sandbox: what all containers of the pod share, and its end.

use ah_agent_api::agent::{CreateSandboxRequest, Storage};
use ah_guest_sys::mount::{self, MountFlags};

use super::{Guest, Sandbox, modules};
use crate::failure::Failure;

/// Longest hostname, bytes (sethostname(2), HOST_NAME_MAX).
const MAX_HOSTNAME_BYTES: usize = 64;
/// Size of shared memory when the request names none: 64 MiB, as containerd has it.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

impl Guest {
    /// Carries out a permitted CreateSandbox. Blocks.
    pub(super) fn make_sandbox(&self, request: &CreateSandboxRequest) -> Result<(), Failure> {
        let shm_size = check(request)?;
        let modules = modules::asked(&request.kernel_modules)?;
        if self.sandbox().is_ok() {
            return Err(Failure::Exists { what: "the sandbox".into() });
        }
        modules::load(&modules)?;
        for folder in ["shared/containers", "sandbox/shm", "sandbox/ephemeral", "layers"] {
            let path = self.layout.kata().join(folder);
            std::fs::create_dir_all(&path).map_err(|e| Failure::effect("make a folder", &e))?;
        }
        let bundles = self.layout.state().join("bundles");
        std::fs::create_dir_all(bundles).map_err(|e| Failure::effect("make a folder", &e))?;
        let shm = self.layout.kata().join("sandbox/shm");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount::filesystem("tmpfs", "shm", &shm, flags, &format!("mode=1777,size={shm_size}"))
            .map_err(|e| Failure::effect("mount shared memory", &e))?;
        let made = self
            .runtime
            .sandbox(&request.hostname, request.sandbox_pidns)
            .map_err(|e| Failure::effect("make the sandbox's namespaces", &e));
        let shared_pid = match made {
            Ok(first) => first,
            Err(e) => {
                let _ = mount::detach(&shm);
                return Err(e);
            }
        };
        let sandbox = Sandbox { hostname: request.hostname.clone(), shared_pid };
        *self.sandbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sandbox);
        Ok(())
    }

    /// Ends every container and takes the sandbox's mounts away. Blocks.
    pub(super) fn end_sandbox(&self) -> Result<(), Failure> {
        let all: Vec<_> = self.containers().keys().cloned().collect();
        for id in all {
            self.remove(id.as_str())?;
        }
        let volumes = std::fs::read_dir(self.layout.kata().join("sandbox/ephemeral"));
        for entry in volumes.into_iter().flatten().flatten() {
            self.remove_volume(&entry.path());
        }
        let _ = mount::detach(&self.layout.kata().join("sandbox/shm"));
        *self.sandbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        Ok(())
    }
}

/// Gives the size of the shared memory, bytes.
fn check(request: &CreateSandboxRequest) -> Result<u64, Failure> {
    let none = |field: &str, fine: bool| match fine {
        true => Ok(()),
        false => Err(Failure::refused(format!("{field}: found a value, expected none"))),
    };
    none("guest_hook_path", request.guest_hook_path.is_empty())?;
    // dns has no effect: containers read the resolv.conf that is copied in and bound, which the policy decides on its own.
    let name = &request.hostname;
    let fine = name.len() <= MAX_HOSTNAME_BYTES
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if !fine {
        return Err(Failure::refused(format!(
            "hostname: found {name:?}, expected at most 64 of [A-Za-z0-9.-]"
        )));
    }
    match request.storages.as_slice() {
        [] => Ok(DEFAULT_SHM_BYTES),
        [one] => shm_bytes(one),
        _ => Err(Failure::refused("storages: found several, expected the shared memory only")),
    }
}

/// The one storage a sandbox has: its shared memory, as the Kata runtime announces it.
fn shm_bytes(storage: &Storage) -> Result<u64, Failure> {
    let mut bytes = DEFAULT_SHM_BYTES;
    let known = storage.options.iter().all(|option| match option.strip_prefix("size=") {
        Some(digits) => match digits.parse() {
            Ok(size) => {
                bytes = size;
                true
            }
            Err(_) => false,
        },
        None => matches!(option.as_str(), "noexec" | "nosuid" | "nodev" | "mode=1777"),
    });
    let fine = known
        && storage.driver == "ephemeral"
        && storage.fstype == "tmpfs"
        && storage.source == "shm"
        && storage.driver_options.is_empty()
        && storage.fs_group.is_none()
        && storage.mount_point == "/run/kata-containers/sandbox/shm";
    if fine {
        Ok(bytes)
    } else {
        Err(Failure::refused(format!(
            "storages: found {:?} {:?} on {:?}, expected the sandbox's shared memory",
            storage.driver, storage.options, storage.mount_point
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateSandboxRequest {
        let shm = Storage {
            driver: "ephemeral".into(),
            source: "shm".into(),
            fstype: "tmpfs".into(),
            options: ["noexec", "nosuid", "nodev", "mode=1777", "size=1048576"]
                .map(String::from)
                .into(),
            mount_point: "/run/kata-containers/sandbox/shm".into(),
            ..Default::default()
        };
        CreateSandboxRequest { hostname: "web".into(), storages: vec![shm], ..Default::default() }
    }

    #[test]
    fn a_sandbox_has_shared_memory_and_nothing_else() {
        assert_eq!(check(&request()).unwrap(), 1 << 20);
        let refused = |change: &dyn Fn(&mut CreateSandboxRequest)| {
            let mut request = request();
            change(&mut request);
            assert!(matches!(check(&request), Err(Failure::Denied { .. })), "{request:?}");
        };
        refused(&|r| r.storages[0].mount_point = "/run/anchorhold".into());
        refused(&|r| r.storages[0].driver = "blk".into());
        refused(&|r| r.storages[0].options.push("exec".into()));
        refused(&|r| r.storages[0].options.push("size=1g".into()));
        refused(&|r| r.storages.push(r.storages[0].clone()));
        refused(&|r| r.hostname = "a/b".into());
        refused(&|r| r.guest_hook_path = "/hooks".into());
    }
}
