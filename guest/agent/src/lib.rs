//! The agent: frame to request to permit to effect.
#![forbid(unsafe_code)]
