//! The command people type: thin, holds no logic of its own.
#![forbid(unsafe_code)]

fn main() {}
