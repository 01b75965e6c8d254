//! What a hostile host does to what it is handed. Each is the smallest change that should be refused.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ah_agent_api::agent::CreateContainerRequest;
use ah_sandbox::{RawCall, Tamper};
use anchorhold::run::Launch;
use anyhow::{Context, Result};
use protobuf::Message;

/// Where in a layer's disk a byte is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In the file system, in the block with this number.
    Block(u64),
    /// In the hash tree, in its last block.
    HashTree,
}

/// Copies a layer's disk, changes one byte of the copy and hands the copy to the VM. `layer` counts the disks.
///
/// # Errors
/// When the copy cannot be made.
pub fn flip_layer_byte(
    launch: &mut Launch,
    layer: usize,
    place: Where,
    folder: &Path,
) -> Result<()> {
    let layer = launch.sandbox.layers.get_mut(layer).context("the pod has fewer layers")?;
    let copy = folder.join("flipped.image");
    fs::copy(&layer.path, &copy)?;
    let length = fs::metadata(&copy)?.len();
    let offset = match place {
        Where::Block(block) => block * 4096 + 1030,
        Where::HashTree => length - 4096 + 7,
    };
    flip(&copy, offset)?;
    layer.path = copy;
    Ok(())
}

/// Changes one bit of the file's byte at `offset`.
///
/// # Errors
/// When the file cannot be read or written.
pub fn flip(file: &Path, offset: u64) -> Result<()> {
    let file = fs::File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    byte[0] ^= 1;
    file.write_all_at(&byte, offset)?;
    Ok(())
}

/// A copy of a guest file with one bit changed at `offset` from its end; still boots if the place is padding.
///
/// # Errors
/// When the copy cannot be made.
pub fn flipped_copy(file: &Path, from_end: u64, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("altered");
    fs::copy(file, &copy)?;
    let length = fs::metadata(&copy)?.len();
    flip(&copy, length.saturating_sub(from_end))?;
    Ok(copy)
}

/// Alters each CreateContainer request of a workload container (the sandbox's own is left alone).
pub fn on_create(
    alter: impl Fn(&mut CreateContainerRequest) + Send + Sync + 'static,
) -> Option<Arc<dyn Tamper>> {
    on_creates(move |mut request| {
        alter(&mut request);
        vec![request]
    })
}

/// Makes other CreateContainer requests of one (the sandbox's own is left alone).
pub fn on_creates(
    alter: impl Fn(CreateContainerRequest) -> Vec<CreateContainerRequest> + Send + Sync + 'static,
) -> Option<Arc<dyn Tamper>> {
    on_call("CreateContainer", move |call| {
        let Ok(request) = CreateContainerRequest::parse_from_bytes(&call.payload) else {
            return vec![call];
        };
        if request.storages.is_empty() {
            return vec![call];
        }
        let again = |request: CreateContainerRequest| RawCall {
            payload: request.write_to_bytes().unwrap_or_default(),
            ..call.clone()
        };
        alter(request).into_iter().map(again).collect()
    })
}

/// Makes other calls of each call of a method.
pub fn on_call(
    method: &'static str,
    alter: impl Fn(RawCall) -> Vec<RawCall> + Send + Sync + 'static,
) -> Option<Arc<dyn Tamper>> {
    Some(Arc::new(
        move |call: RawCall| {
            if call.method == method { alter(call) } else { vec![call] }
        },
    ))
}
