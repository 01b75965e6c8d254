use crate::{
    MAX_CHUNKS_TOTAL, MAX_FILE_BYTES, MAX_IMAGE_BLOCKS, MAX_INODES, MAX_NAME_BYTES,
    MAX_SYMLINK_BYTES,
};

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The sink failed.
    #[error("image not written")]
    Sink(#[source] std::io::Error),
    /// More blocks than an image may have.
    #[error("image is too large: expected at most {MAX_IMAGE_BLOCKS} blocks of 4096 bytes")]
    TooLarge,
    /// More inodes than an image may have.
    #[error("image has too many files: found {found}, expected at most {MAX_INODES}")]
    TooManyInodes {
        /// Inodes found.
        found: usize,
    },
    /// A file is longer than a file may be.
    #[error("file is too long: found {found} bytes, expected at most {MAX_FILE_BYTES}")]
    FileTooLong {
        /// Length found, bytes.
        found: u64,
    },
    /// Sparse files are too many or too large.
    #[error("sparse files need too many chunks: expected at most {MAX_CHUNKS_TOTAL}")]
    TooManyChunks,
    /// Bytes given for a file do not fit its announced size or come out of order: an error of the caller.
    #[error("file data does not fit: found bytes up to {found}, expected {expected}")]
    FileData {
        /// End of the bytes found.
        found: u64,
        /// The announced size, or the lowest offset allowed.
        expected: u64,
    },
    /// A name that no directory may hold.
    #[error(
        "name is not usable: found {found:?}, expected 1 to {MAX_NAME_BYTES} bytes without / and NUL"
    )]
    Name {
        /// The name, lossy.
        found: String,
    },
    /// A symlink target that Linux would not resolve.
    #[error("symlink target has {found} bytes, expected 1 to {MAX_SYMLINK_BYTES}")]
    Symlink {
        /// Length found, bytes.
        found: usize,
    },
    /// A device number that the format cannot hold.
    #[error("device number is out of range: found {major}:{minor}, expected at most 4095:1048575")]
    Device {
        /// Major number found.
        major: u32,
        /// Minor number found.
        minor: u32,
    },
    /// An extended attribute outside the name spaces user, trusted, security and the two POSIX ACLs.
    #[error("extended attribute is not supported: found {found:?}")]
    XattrName {
        /// The name, lossy.
        found: String,
    },
    /// Extended attributes of one inode are too large.
    #[error("extended attributes are too large: found {found} bytes, expected at most {expected}")]
    XattrSize {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        expected: usize,
    },
    /// The tree is not one: an unknown node, an unsorted directory, a directory with two parents or without one.
    #[error("file tree is inconsistent at node {node}")]
    Tree {
        /// The node's number.
        node: usize,
    },
}

/// Why an image is not read. The bytes may come from anybody.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("image not read")]
    Source(#[source] std::io::Error),
    /// Something points behind the end of the image.
    #[error("{what} lies outside the image: found offset {offset}, expected less than {end}")]
    Outside {
        /// What was to be read.
        what: &'static str,
        /// Its offset, bytes.
        offset: u64,
        /// The image's end, bytes.
        end: u64,
    },
    /// A field has a value that the writer never writes.
    #[error("{what} is not acceptable: found {found}")]
    Field {
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// The superblock's checksum does not fit.
    #[error("superblock checksum differs: found {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Checksum of the bytes.
        found: u32,
        /// Checksum in the superblock.
        expected: u32,
    },
    /// More than the caller allowed.
    #[error("{what} is too large: found {found}, expected at most {expected}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Size found.
        found: u64,
        /// Size allowed.
        expected: u64,
    },
    /// Directories form no tree, or links are miscounted.
    #[error("directory structure is inconsistent at inode {nid}: {what}")]
    Structure {
        /// The inode.
        nid: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The copy's destination failed.
    #[error("file contents not written")]
    Destination(#[source] std::io::Error),
}
