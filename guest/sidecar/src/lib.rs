//! The key-release sidecar of AKS and ACI, spoken to in the same words: evidence, tokens and keys for the pod it runs in.
//!
//! | part | module |
//! |---|---|
//! | flags, environment, `SkrSideCarArgs` | [`options`] |
//! | routes for applications | [`http`] |
//! | the key-provider service | [`grpc`] |
//! | reports, from the guest's release socket and nowhere else | [`reports`] |
//! | certificates for a report: from the platform, beside the report, or fetched | [`certificates`] |
//! | attestation service and vault as clients see them | [`maa`], [`vault`] |
//! | who the pod is to a vault: IMDS, workload identity | [`identity`] |
//!
//! Who is distrusted: the network and the host, which carry everything; the answer of a vault counts only with a certificate chain to a
//! trusted root, and only this process has the key that it is wrapped to. Without a report there is no answer: none is ever made up.
#![forbid(unsafe_code)]

mod base64;
pub mod certificates;
mod error;
pub mod grpc;
pub mod http;
pub mod identity;
mod jwk;
mod jws;
pub mod maa;
pub mod options;
pub mod reports;
mod service;
pub mod settings;
mod tls;
mod uvm;
pub mod vault;
mod wrap;

pub use error::SidecarError;
pub use service::{Combined, ReleaseRequest, Service, SetupError, WrappedData};
pub use tls::Tls;
