//! Vendor certificates and revocation lists: the only I/O of verification.
#![forbid(unsafe_code)]
