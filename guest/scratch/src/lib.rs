//! The pod's scratch disk: the host's bytes under a key that never leaves the guest, and file systems on it.
//!
//! What containers write into their roots and emptyDirs would otherwise take the guest's memory. The host may attach one
//! disk for it, which holds nothing that the guest trusts: every sector is encrypted and authenticated (dm-crypt with AEGIS-128
//! on dm-integrity) under a key that was drawn at this boot, is in kernel memory only and goes with it. A sector that the host changed,
//! moved or never got is an error of the read (EILSEQ), not data. What the host can still do is to give back an earlier version of a sector that it has
//! seen in this boot, to see which sectors are written when, and to leave the disk out.
//!
//! ```text
//! virtio-blk "scratch" ─ dm-integrity (tags) ─ dm-crypt (key) ─┬─ first half: ext4, shared by what has no limit of its own
//!                                                              └─ second half: one ext4 for each volume and root with a limit
//! ```
//!
//! A sector that was never written has no valid tag, so no file system may read what it has not written: see [`ext4`].
#![forbid(unsafe_code)]

mod background;
mod disk;
mod error;
pub mod ext4;
mod find;
mod layout;
mod room;

pub use background::Scratch;
pub use disk::ScratchDisk;
pub use error::ScratchError;
pub use find::{Candidate, find};
