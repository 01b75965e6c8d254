//! dm-verity: parameters, superblock, hash-tree build and check, device-mapper table line; the only definition.
#![forbid(unsafe_code)]
