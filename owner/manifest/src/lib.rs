//! Kubernetes objects read strictly: an unknown field is an error with its path.
#![forbid(unsafe_code)]
