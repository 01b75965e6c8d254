//! Files that the host copies in: hosts, resolv.conf and the like, and volumes of files, below one folder and nowhere else.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use ah_agent_api::FileType;
use ah_agent_api::agent::CopyFileRequest;
use ah_container::ContainerId;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, mkdirat, openat2,
    readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::{Errno, pwrite};

use crate::failure::Failure;

/// Largest copied file, bytes. Kubernetes' own limit on a ConfigMap or Secret is 1 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Leads to the version of a volume's files that counts (kubelet, `AtomicWriter`).
const VERSION_LINK: &str = "..data";
/// Most folders below the shared one.
const MAX_DEPTH: usize = 32;
/// Longest target of a link, bytes.
const MAX_TARGET_BYTES: usize = 1024;

/// Writes the request's bytes. A file appears under its name when its last byte is there.
pub(super) fn copy_file(request: &CopyFileRequest, base: &Path) -> Result<(), Failure> {
    let names = names_below(&request.path, base)?;
    let (last, parents) = names
        .split_last()
        .ok_or_else(|| Failure::refused("path: found the shared folder itself"))?;
    let failed = |e: Errno| Failure::effect("copy a file", &std::io::Error::from(e));
    let root = open_folder(CWD, base.as_os_str().as_encoded_bytes(), ResolveFlags::NO_SYMLINKS)
        .map_err(failed)?;
    let folder = make_parents(root, parents, request.dir_mode).map_err(failed)?;
    let owner = owner(request)?;
    match FileType::of(request) {
        FileType::Directory => make_folder(&folder, last, request.file_mode, owner).map_err(failed),
        FileType::Regular => write_part(&folder, last, request, owner),
        FileType::Symlink => make_link(&folder, last, link_target(request, parents)?, owner),
        FileType::Unknown => Err(Failure::refused(format!(
            "file_mode: found {:o}, expected a regular file, a folder or a symbolic link",
            request.file_mode
        ))),
    }
}

/// A link can only lead to what lies in its own folder or below. It never is what a container's mount starts from: that would
/// take it out of the folder in which it is followed.
fn link_target<'a>(request: &'a CopyFileRequest, parents: &[&str]) -> Result<&'a str, Failure> {
    let target = std::str::from_utf8(&request.data).unwrap_or_default();
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let fine = !parents.is_empty()
        && target.len() <= MAX_TARGET_BYTES
        && !target.contains('\0')
        && target.split('/').all(plain);
    if fine {
        return Ok(target);
    }
    Err(Failure::refused(format!(
        "data: found a link to {target:?} at {:?}, expected a path without .. inside a copied folder",
        request.path
    )))
}

fn make_link(
    at: &OwnedFd,
    name: &str,
    target: &str,
    (uid, gid): (Uid, Gid),
) -> Result<(), Failure> {
    let part = part_name(name);
    let before = (name == VERSION_LINK).then(|| readlinkat(at, name, Vec::new()).ok()).flatten();
    let make = || {
        match unlinkat(at, part.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        symlinkat(target, at, part.as_slice())?;
        chownat(at, part.as_slice(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        renameat(at, part.as_slice(), at, name)
    };
    make().map_err(|e| {
        let _ = unlinkat(at, part.as_slice(), AtFlags::empty());
        Failure::effect("copy a link", &std::io::Error::from(e))
    })?;
    if let Some(before) = before.filter(|before| before.as_bytes() != target.as_bytes()) {
        remove_version(at, before.as_bytes());
        remove_dangling(at);
    }
    Ok(())
}

/// Names of files that the version before had and this one has not: a link to nothing is no file that is gone. The kubelet takes them away on its
/// side (`AtomicWriter`), where nobody sees it from here.
fn remove_dangling(at: &OwnedFd) {
    let path = Path::new("/proc/self/fd").join(at.as_raw_fd().to_string());
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let target = readlinkat(at, &name, Vec::new()).ok();
        let into_version = target.is_some_and(|target| {
            target
                .as_bytes()
                .strip_prefix(VERSION_LINK.as_bytes())
                .is_some_and(|rest| rest.starts_with(b"/"))
        });
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        if into_version
            && matches!(openat2(at, &name, flags, Mode::empty(), resolve), Err(Errno::NOENT))
        {
            let _ = unlinkat(at, &name, AtFlags::empty());
        }
    }
}

/// The files of a volume that nothing leads to any more: nobody else takes them away, and a token is renewed each hour.
fn remove_version(at: &OwnedFd, name: &[u8]) {
    if name.starts_with(b"..") && name.len() > 2 && !name.contains(&b'/') {
        let path = Path::new("/proc/self/fd").join(at.as_raw_fd().to_string());
        // It follows no link, and what is left is gone with the container.
        let _ = std::fs::remove_dir_all(path.join(OsStr::from_bytes(name)));
    }
}

/// Whether a file is one of this container's.
pub(super) fn is_for(request: &CopyFileRequest, base: &Path, id: &ContainerId) -> bool {
    let name = Path::new(&request.path).strip_prefix(base).ok().and_then(|below| below.to_str());
    name.is_some_and(|name| {
        name.strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('-'))
    })
}

/// Takes away what was copied in for a container: its name begins with the id. A pod whose containers are made again and again
/// would fill the guest's memory with their volumes. Whether there was anything.
pub(super) fn remove_copies(base: &Path, id: &ContainerId) -> bool {
    let (start, mut any) = (format!("{id}-"), false);
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(start.as_bytes()) {
            any = true;
            let path = entry.path();
            // Neither follows a link.
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
    }
    any
}

/// Nothing is copied, and nothing made, under the id of a container whose copies were taken away.
pub(super) fn copies_are_gone(id: &ContainerId) -> Failure {
    Failure::refused(format!(
        "container {id} was not made, and the files that were copied in for it are gone: use another id"
    ))
}

/// The path's components below the shared folder.
fn names_below<'a>(path: &'a str, base: &Path) -> Result<Vec<&'a str>, Failure> {
    let refused = || {
        Failure::refused(format!(
            "path: found {path:?}, expected a path below {base:?} without . or .."
        ))
    };
    if path.contains("//") || path.ends_with('/') || path.contains('\0') {
        return Err(refused());
    }
    // Path drops "." components in silence.
    if path.split('/').any(|c| c == ".") {
        return Err(refused());
    }
    let rest = Path::new(path).strip_prefix(base).map_err(|_| refused())?;
    let names: Option<Vec<&str>> = rest
        .components()
        .map(|c| match c {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match names {
        Some(names) if names.len() <= MAX_DEPTH => Ok(names),
        _ => Err(refused()),
    }
}

fn owner(request: &CopyFileRequest) -> Result<(Uid, Gid), Failure> {
    let id = |field, found: i32| {
        u32::try_from(found)
            .map_err(|_| Failure::refused(format!("{field}: found {found}, expected at least 0")))
    };
    Ok((Uid::from_raw(id("uid", request.uid)?), Gid::from_raw(id("gid", request.gid)?)))
}

fn open_folder(at: impl AsFd, name: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    openat2(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn make_parents(root: OwnedFd, parents: &[&str], mode: u32) -> Result<OwnedFd, Errno> {
    let mode = if mode == 0 { 0o755 } else { mode & 0o7777 };
    let mut current = root;
    for name in parents {
        match mkdirat(&current, *name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        current = open_folder(&current, name.as_bytes(), beneath())?;
    }
    Ok(current)
}

fn make_folder(at: &OwnedFd, name: &str, mode: u32, (uid, gid): (Uid, Gid)) -> Result<(), Errno> {
    match mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat2(at, name, flags, Mode::empty(), beneath())?;
    fchown(&folder, Some(uid), Some(gid))?;
    fchmod(&folder, Mode::from_raw_mode(mode & 0o7777))
}

fn write_part(
    at: &OwnedFd,
    name: &str,
    request: &CopyFileRequest,
    (uid, gid): (Uid, Gid),
) -> Result<(), Failure> {
    let (offset, size, end) = extent(request)?;
    let failed = |e: Errno| Failure::effect("copy a file", &std::io::Error::from(e));
    let part = part_name(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = if offset == 0 { flags | OFlags::TRUNC } else { flags };
    let file = openat2(at, part.as_slice(), flags, Mode::from_raw_mode(0o600), beneath())
        .map_err(failed)?;
    write_all(file.as_fd(), &request.data, offset).map_err(failed)?;
    if end < size {
        return Ok(());
    }
    let finish = || {
        fchown(&file, Some(uid), Some(gid))?;
        fchmod(&file, Mode::from_raw_mode(request.file_mode & 0o7777))?;
        renameat(at, part.as_slice(), at, name)
    };
    finish().map_err(|e| {
        let _ = unlinkat(at, part.as_slice(), AtFlags::empty());
        failed(e)
    })
}

/// Where a file is written until its last byte is there. No request can name it: a path of a request is UTF-8, as every text of
/// protobuf is, and no UTF-8 has the byte 0xff (RFC 3629, section 3).
fn part_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0xff]].concat()
}

fn extent(request: &CopyFileRequest) -> Result<(u64, u64, u64), Failure> {
    let number = |field, found: i64| {
        u64::try_from(found)
            .map_err(|_| Failure::refused(format!("{field}: found {found}, expected at least 0")))
    };
    let offset = number("offset", request.offset)?;
    let size = number("file_size", request.file_size)?;
    let length = u64::try_from(request.data.len()).unwrap_or(u64::MAX);
    let end = offset.saturating_add(length);
    if size > MAX_FILE_BYTES || end > size {
        return Err(Failure::refused(format!(
            "file_size: found {size} bytes with data up to {end}, expected at most {MAX_FILE_BYTES} and no data behind the end"
        )));
    }
    Ok((offset, size, end))
}

fn write_all(file: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match pwrite(file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                data = data.get(n..).unwrap_or_default();
                offset = offset.saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "copy_file_tests.rs"]
mod tests;
