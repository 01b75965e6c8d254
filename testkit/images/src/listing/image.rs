use std::io::{self, Write};

use ah_digest::Sha256;
use ah_erofs::{FileKind, Image, Inode, ReadAt, ReadError};
use sha2::Digest as _;

use super::{Line, Listing, escape};

/// Lists an EROFS image (also one with a hash tree behind it).
///
/// # Errors
/// When the reader refuses the image.
pub fn from_image<R: ReadAt>(source: R) -> Result<Listing, ReadError> {
    let image = Image::open(source)?;
    let mut listing = Listing::new();
    for (path, inode) in image.walk()? {
        listing.insert(path, line(&image, inode)?);
    }
    Ok(listing)
}

fn line<R: ReadAt>(image: &Image<R>, inode: Inode) -> Result<Line, ReadError> {
    let (mut size, mut rdev, mut content) = (0, (0, 0), "-".to_owned());
    let kind = match inode.kind {
        FileKind::Directory => 'd',
        FileKind::File => {
            let mut hash = Hash(sha2::Sha256::new());
            image.copy_file(&inode, &mut hash)?;
            (size, content) = (inode.size, Sha256::new(hash.0.finalize().into()).to_string());
            'f'
        }
        FileKind::Symlink => {
            (size, content) = (inode.size, escape(&image.read_link(&inode)?));
            'l'
        }
        FileKind::CharDevice { major, minor } => {
            rdev = (major, minor);
            'c'
        }
        FileKind::BlockDevice { major, minor } => {
            rdev = (major, minor);
            'b'
        }
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    };
    Ok(Line {
        kind,
        mode: inode.meta.mode.into(),
        uid: inode.meta.uid,
        gid: inode.meta.gid,
        size,
        rdev,
        links: inode.links.into(),
        mtime: (inode.meta.mtime_seconds, inode.meta.mtime_nanoseconds),
        xattrs: inode.meta.xattrs,
        content,
    })
}

struct Hash(sha2::Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
