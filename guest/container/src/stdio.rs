//! A process's standard streams: pipes, whose capacity is the bound and whose fullness is the backpressure. Nothing is copied
//! before the host asks for it, so nothing can be lost and the agent's memory does not grow with a container's output.

use std::os::fd::OwnedFd;

use rustix::fs::{Gid, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// The ends that the new process gets.
#[derive(Debug)]
pub struct ChildStdio {
    /// Read end of standard input.
    pub stdin: OwnedFd,
    /// Write end of standard output.
    pub stdout: OwnedFd,
    /// Write end of standard error.
    pub stderr: OwnedFd,
}

/// The ends that the agent keeps; non-blocking.
#[derive(Debug)]
pub struct ParentStdio {
    /// Write end of standard input.
    pub stdin: OwnedFd,
    /// Read end of standard output.
    pub stdout: OwnedFd,
    /// Read end of standard error.
    pub stderr: OwnedFd,
}

/// Three pipes. The child's ends belong to `uid` and `gid`, so that a program that is not root can open /dev/stdout.
///
/// # Errors
/// The system call's error.
pub fn stdio_pipes(uid: u32, gid: u32) -> Result<(ChildStdio, ParentStdio), Errno> {
    let (stdin_read, stdin_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout_read, stdout_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_read, stderr_write) = pipe_with(PipeFlags::CLOEXEC)?;
    for end in [&stdin_read, &stdout_write, &stderr_write] {
        fchown(end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    for end in [&stdin_write, &stdout_read, &stderr_read] {
        fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
    }
    Ok((
        ChildStdio { stdin: stdin_read, stdout: stdout_write, stderr: stderr_write },
        ParentStdio { stdin: stdin_write, stdout: stdout_read, stderr: stderr_read },
    ))
}
