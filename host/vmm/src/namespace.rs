//! Work in another network namespace, on a thread of its own: the namespace belongs to the thread, and what it starts inherits it.

use std::{fs::File, os::fd::AsFd, path::Path, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::VmError;

/// Runs `work` in the namespace that the file stands for, and waits for it.
///
/// # Errors
/// [`VmError::Io`] when it cannot be entered.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> Result<T, VmError> {
    let what = || VmError::io(format!("entering the network namespace {}", namespace.display()));
    let file = File::open(namespace).map_err(what())?;
    let entered = || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), kind).map_err(std::io::Error::from)?;
        Ok(work())
    };
    let done = thread::scope(|scope| scope.spawn(entered).join());
    let done = done.unwrap_or_else(|_| Err(std::io::Error::other("the thread there ended")));
    done.map_err(what())
}
