//! The expected SEV-SNP launch digest from firmware, kernel, initrd and command line.
//!
//! The security processor hashes every page that goes into a guest before it runs, and the result is the report's
//! MEASUREMENT. This crate computes the same value from the files, so that an owner knows it before any guest exists.
//!
//! Kernel, initrd and command line are not hashed page by page: the VMM places one page with their SHA-256 digests, that
//! page is measured, and the firmware compares. So a large initrd costs one pass of SHA-256.
//!
//! IGVM files carry their own list of pages; they are recognised and refused with [`LaunchError::Igvm`].
#![forbid(unsafe_code)]

mod digest;
mod firmware;
mod hash_table;
mod measure;
mod vmsa;

pub use digest::LaunchDigest;
pub use firmware::{Firmware, FirmwareError, Section, SectionKind};
pub use hash_table::{HashTable, TABLE_BYTES};
pub use measure::{
    DirectBoot, Launch, LaunchError, LaunchInputs, MAX_FIRMWARE_BYTES, MAX_VCPUS,
    PLAIN_HASH_TABLE_GPA, measure, measure_launch,
};
pub use vmsa::{BSP_RESET_VECTOR, Vmm, save_area};

/// One page: the unit of measurement.
pub const PAGE_BYTES: usize = 4096;
