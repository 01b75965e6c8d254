//! One layer's files, from its whole image or from what was kept of it.

use std::fs;

use ah_convert::Seen;
use ah_erofs::{FileKind, Image, Inode, ReadError};

use crate::accounts::AccountsError;
use crate::convert::{KeptFiles, LayerFiles};

/// Longest account file, bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// What overlayfs reads as "nothing below" (Linux, filesystems/overlayfs).
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// A layer to look into.
pub(crate) enum View {
    Image(Image<fs::File>),
    Kept(KeptFiles),
}

/// A directory of one layer.
pub(crate) enum Directory {
    Inode(Inode),
    /// Path without leading slash; empty for the root.
    Path(String),
}

/// A regular file of one layer.
pub(crate) enum File {
    Inode(Inode),
    Bytes(Vec<u8>),
}

/// What a name is in a directory of one layer.
pub(crate) enum Found {
    Whiteout,
    Directory { directory: Directory, opaque: bool },
    Symlink(Vec<u8>),
    File(File),
    Other,
}

impl View {
    pub(crate) fn open(files: LayerFiles) -> Result<Self, ReadError> {
        Ok(match files {
            LayerFiles::Image(file) => Self::Image(Image::open(file)?),
            LayerFiles::Kept(kept) => Self::Kept(kept),
        })
    }

    pub(crate) fn root(&self) -> Result<Directory, AccountsError> {
        Ok(match self {
            Self::Image(image) => Directory::Inode(image.root()?),
            Self::Kept(_) => Directory::Path(String::new()),
        })
    }

    pub(crate) fn lookup(
        &self,
        directory: &Directory,
        name: &[u8],
    ) -> Result<Option<Found>, AccountsError> {
        match (self, directory) {
            (Self::Image(image), Directory::Inode(inode)) => Ok(in_image(image, inode, name)?),
            (Self::Kept(kept), Directory::Path(path)) => in_kept(kept, path, name),
            _ => Err(AccountsError::NotKept),
        }
    }

    pub(crate) fn read(&self, file: &File) -> Result<Vec<u8>, AccountsError> {
        match (self, file) {
            (Self::Image(image), File::Inode(inode)) => Ok(image.read_file(inode, MAX_FILE_BYTES)?),
            (_, File::Bytes(bytes)) => Ok(bytes.clone()),
            _ => Err(AccountsError::NotKept),
        }
    }
}

fn in_image(
    image: &Image<fs::File>,
    directory: &Inode,
    name: &[u8],
) -> Result<Option<Found>, ReadError> {
    let entries = image.read_dir(directory)?;
    let at = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name));
    let Some(entry) = at.ok().and_then(|at| entries.get(at)) else { return Ok(None) };
    let inode = image.inode(entry.nid)?;
    Ok(Some(match inode.kind {
        FileKind::CharDevice { major: 0, minor: 0 } => Found::Whiteout,
        FileKind::Directory => {
            let opaque = inode.meta.xattrs.contains_key(OPAQUE);
            Found::Directory { directory: Directory::Inode(inode), opaque }
        }
        FileKind::Symlink => Found::Symlink(image.read_link(&inode)?),
        FileKind::File => Found::File(File::Inode(inode)),
        _ => Found::Other,
    }))
}

fn in_kept(kept: &KeptFiles, directory: &str, name: &[u8]) -> Result<Option<Found>, AccountsError> {
    let name = std::str::from_utf8(name).map_err(|_| AccountsError::NotKept)?;
    let path = match directory {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    };
    Ok(Some(match kept.get(&path).ok_or(AccountsError::NotKept)? {
        Seen::Absent => return Ok(None),
        Seen::Whiteout => Found::Whiteout,
        Seen::Directory { opaque } => {
            Found::Directory { directory: Directory::Path(path), opaque: *opaque }
        }
        Seen::Symlink(target) => Found::Symlink(target.clone()),
        Seen::File(bytes) => Found::File(File::Bytes(bytes.clone())),
        Seen::NotTaken => return Err(AccountsError::NotKept),
        Seen::Other => Found::Other,
    }))
}
