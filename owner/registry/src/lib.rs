//! Images by digest from a registry, an OCI layout or an archive.
#![forbid(unsafe_code)]
