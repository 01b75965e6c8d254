//! Key store, release policy, decision log and key release; the core, free of any transport.
#![forbid(unsafe_code)]
