//! One OCI layer to one EROFS image with its dm-verity tree; owns the determinism contract and its version number.
#![forbid(unsafe_code)]
