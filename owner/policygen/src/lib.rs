//! Pod manifest and image facts to a policy; dry run of every request; show and explain.
#![forbid(unsafe_code)]
