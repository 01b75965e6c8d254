use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ah_digest::Sha256;
use sha2::Digest as _;

use super::{Line, Listing, escape, join};

/// Lists a folder: a mounted image, or an unpacked one. Only root sees all attributes. What is mounted below is listed
/// without its contents.
///
/// # Errors
/// When a file cannot be read.
pub fn from_dir(root: &Path) -> io::Result<Listing> {
    let device = fs::symlink_metadata(root)?.dev();
    let mut listing = Listing::new();
    let mut pending = vec![(b"/".to_vec(), root.to_owned())];
    while let Some((path, at)) = pending.pop() {
        let metadata = fs::symlink_metadata(&at)?;
        if metadata.is_dir() && metadata.dev() == device {
            for entry in fs::read_dir(&at)? {
                let entry = entry?;
                pending.push((join(&path, entry.file_name().as_bytes()), entry.path()));
            }
        }
        listing.insert(path, line(&at, &metadata)?);
    }
    Ok(listing)
}

fn line(at: &Path, metadata: &Metadata) -> io::Result<Line> {
    let file_type = metadata.file_type();
    let (kind, content) = if file_type.is_dir() {
        ('d', "-".to_owned())
    } else if file_type.is_symlink() {
        ('l', escape(fs::read_link(at)?.as_os_str().as_bytes()))
    } else if file_type.is_file() {
        let mut hasher = sha2::Sha256::new();
        io::copy(&mut fs::File::open(at)?, &mut hasher)?;
        ('f', Sha256::new(hasher.finalize().into()).to_string())
    } else if file_type.is_char_device() {
        ('c', "-".to_owned())
    } else if file_type.is_block_device() {
        ('b', "-".to_owned())
    } else if file_type.is_fifo() {
        ('p', "-".to_owned())
    } else {
        ('s', "-".to_owned())
    };
    let device = matches!(kind, 'c' | 'b').then(|| metadata.rdev()).unwrap_or_default();
    Ok(Line {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: if matches!(kind, 'f' | 'l') { metadata.size() } else { 0 },
        rdev: (rustix::fs::major(device), rustix::fs::minor(device)),
        links: metadata.nlink(),
        mtime: (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or(0)),
        xattrs: xattrs(at)?,
        content,
    })
}

fn xattrs(at: &Path) -> io::Result<super::BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(at, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = super::BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::lgetxattr(at, name, &mut value)?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}
