//! The host-to-guest protocol: Kata agent wire types, the method table, and domain requests made from them by TryFrom.
#![forbid(unsafe_code)]
