//! OCI layers to read-only verity block images, cached by diff id and conversion version.
#![forbid(unsafe_code)]
