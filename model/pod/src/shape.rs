//! What requests hold that no pod decides: a runtime that starts from containerd's OCI spec writes it the same.

pub use crate::files::SHARED_DIR;
pub use crate::mounts::{
    RELEASE_SOCKET, bind, depth, image_volume, release_socket, sandbox_mounts, sandbox_storages,
    shm, volume_path, volume_storage, with_defaults,
};
pub use crate::process::{ALL_CAPABILITIES, DEFAULT_CAPABILITIES, DEFAULT_PATH};
pub use crate::requests::{kernel_modules, layer_storages};
pub use crate::resources::SANDBOX_OOM_SCORE_ADJ;
pub use crate::seccomp::runtime_default;
pub use crate::spec::{
    BUNDLE_DIR, MASKED_PATHS, OCI_VERSION, READONLY_PATHS, namespaces, root_path,
};
