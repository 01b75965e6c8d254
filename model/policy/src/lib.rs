//! The policy document: initdata and AKS forms, canonical bytes, digest, HOST_DATA rule, version rules.
#![forbid(unsafe_code)]
