//! Tar archives, read strictly: POSIX ustar and pax (IEEE Std 1003.1), GNU (tar manual, "Basic Tar Format"), and the
//! headers of Unix V7. Own code, because a layer that two readers see differently is how a policy is made for one tree
//! and the guest is given another: what is ambiguous or unknown is refused here instead of being guessed at.

mod entry;
mod header;
mod pax;
mod sparse;

pub use entry::{Entries, Entry, EntryKind, MAX_ENTRIES};
pub use sparse::SparseMap;

/// Size of a header and unit of everything in a tar, bytes.
pub const RECORD_BYTES: usize = 512;
/// Longest extended header (pax records, GNU long name), bytes. Extended attributes travel in it.
pub const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// Why a tar is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The source failed.
    #[error("tar not read")]
    Read(#[source] std::io::Error),
    /// The tar ends inside a header or a file.
    #[error("tar ends early: expected {expected} more bytes")]
    Truncated {
        /// Bytes missing.
        expected: u64,
    },
    /// A header's checksum does not fit.
    #[error("tar header checksum differs: found {found}, expected {expected}")]
    Checksum {
        /// Sum of the header's bytes.
        found: u64,
        /// The sum that the header states.
        expected: u64,
    },
    /// The magic is neither that of POSIX nor of GNU nor absent.
    #[error("tar header has an unknown magic: found {found:?}")]
    Magic {
        /// The eight bytes, lossy.
        found: String,
    },
    /// A field is no number or out of range.
    #[error("tar header field {field} is not a number in range: found {found:?}")]
    Number {
        /// The field.
        field: &'static str,
        /// Its bytes, lossy.
        found: String,
    },
    /// An entry type that has no place in a layer.
    #[error("tar entry type is not supported: found {found:?} ({name})")]
    EntryType {
        /// The type byte.
        found: char,
        /// What it stands for.
        name: &'static str,
    },
    /// An entry that has no data announces some, or the other way round.
    #[error("tar entry of type {found:?} has {size} bytes of data, expected none")]
    UnexpectedData {
        /// The type byte.
        found: char,
        /// Bytes announced.
        size: u64,
    },
    /// An extended header is malformed, doubled or followed by nothing.
    #[error("tar extended header is malformed: {what}")]
    Extended {
        /// What is wrong.
        what: &'static str,
    },
    /// A pax record that changes what the entry is, in a way that is not known here.
    #[error("pax record is not supported: found {key:?}")]
    PaxKey {
        /// The record's key, lossy.
        key: String,
    },
    /// A pax record's value is out of range.
    #[error("pax record {key} has a wrong value: found {found:?}")]
    PaxValue {
        /// The record's key.
        key: String,
        /// Its value, lossy and at most 64 characters of it.
        found: String,
    },
    /// The map of a sparse file is malformed.
    #[error("sparse map is malformed: {what}")]
    Sparse {
        /// What is wrong.
        what: &'static str,
    },
    /// Something is larger than its maximum.
    #[error("{what} is too large: found {found}, expected at most {expected}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Size found.
        found: u64,
        /// Size allowed.
        expected: u64,
    },
    /// Bytes other than zero behind the end mark: another reader might go on there.
    #[error("tar has data behind its end")]
    TrailingData,
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(64).collect()
}
