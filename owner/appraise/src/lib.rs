//! A verified report against reference values: every expectation is required, every claim is named.
#![forbid(unsafe_code)]
