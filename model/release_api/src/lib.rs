//! Key-release messages, release-policy grammar, wrapped-key formats, and the frames that carry them.
#![forbid(unsafe_code)]
