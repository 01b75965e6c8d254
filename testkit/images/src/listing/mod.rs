//! A file tree as text, one line a file, in byte order of the paths: for comparing a layer tar, an EROFS image and a
//! mounted folder with one another.
//!
//! ```text
//! path  type  mode  uid  gid  size  rdev  links  mtime  xattrs  content
//! ```
//!
//! Fields are separated by tabs. `path` begins with `/`; bytes outside `!`..`~` and the backslash are `\xNN`. `type` is one
//! letter as `find -printf %y` gives it: f d l c b p. `mode` is four octal digits. `size` is that of the data of f and l, else
//! 0. `rdev` is `major:minor`, `0:0` for what is no device. `links` is the link count; a directory's is 2 and one for each
//! subdirectory. `mtime` is seconds and nine digits of nanoseconds. `xattrs` is `name=hex` by commas, or `-`; `content` is the
//! SHA-256 of a file's bytes, a link's target in the form of a path, or `-`.

mod dir;
mod image;
mod tar;

use std::collections::BTreeMap;
use std::fmt::Write as _;

pub use dir::from_dir;
pub use image::from_image;
pub use tar::from_tar;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Type letter.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Length of the data of a file or symlink, bytes.
    pub size: u64,
    /// Device number.
    pub rdev: (u32, u32),
    /// Link count.
    pub links: u64,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// SHA-256 of a file's bytes as text, or an escaped link target.
    pub content: String,
}

/// Paths, beginning with `/`, and files.
pub type Listing = BTreeMap<Vec<u8>, Line>;

/// The text of a listing.
pub fn text(listing: &Listing) -> String {
    let mut out = String::new();
    for (path, line) in listing {
        let xattrs: Vec<String> = line
            .xattrs
            .iter()
            .map(|(name, value)| {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{}={hex}", escape(name))
            })
            .collect();
        let xattrs = if xattrs.is_empty() { "-".into() } else { xattrs.join(",") };
        // A string takes every write.
        let _ = writeln!(
            out,
            "{}\t{}\t{:04o}\t{}\t{}\t{}\t{}:{}\t{}\t{}.{:09}\t{}\t{}",
            escape(path),
            line.kind,
            line.mode,
            line.uid,
            line.gid,
            line.size,
            line.rdev.0,
            line.rdev.1,
            line.links,
            line.mtime.0,
            line.mtime.1,
            xattrs,
            line.content,
        );
    }
    out
}

pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'!'..=b'~' if *byte != b'\\' => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out
}

/// Path of a file in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, separator, name].concat()
}
