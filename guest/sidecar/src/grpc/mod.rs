//! The key-provider service over gRPC (package `key_provider`), by which image-decryption tools ask for keys.
//!
//! `UnWrapKey` has a key of a vault released and opens what is wrapped to it (RSA-OAEP, SHA-256). `GetReport` and `GetAttestationData` are
//! the routes `/attest/raw` and `/attest/combined`. `WrapKey` reads files of whoever builds images and is not served in a pod.

mod annotation;
pub mod messages;
mod reflection;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::base64;
use crate::error::SidecarError;
use crate::service::Service;

use messages::{
    HelloReply, HelloRequest, KeyProviderGetAttestationDataInput,
    KeyProviderGetAttestationDataOutput, KeyProviderGetReportInput, KeyProviderGetReportOutput,
    KeyProviderKeyWrapProtocolInput, KeyProviderKeyWrapProtocolOutput,
};

/// Generated from `build.rs`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod stubs {
    include!(concat!(env!("OUT_DIR"), "/key_provider.KeyProviderService.rs"));
}

use stubs::key_provider_service_server::{KeyProviderService, KeyProviderServiceServer};

/// The routes over HTTP/2, reflection among them.
///
/// # Errors
/// Words, when the service's own description is not accepted; a bug.
pub fn routes(service: Arc<Service>) -> Result<tonic::service::Routes, String> {
    let provider = KeyProviderServiceServer::new(Provider(service));
    let routes = tonic::service::Routes::new(provider);
    reflection::add(routes)
}

struct Provider(Arc<Service>);

#[tonic::async_trait]
impl KeyProviderService for Provider {
    async fn wrap_key(
        &self,
        _: Request<KeyProviderKeyWrapProtocolInput>,
    ) -> Result<Response<KeyProviderKeyWrapProtocolOutput>, Status> {
        Err(Status::unimplemented(
            "WrapKey is not served in a pod: wrap the key where the image is built, by RSA-OAEP with SHA-256",
        ))
    }

    async fn un_wrap_key(
        &self,
        request: Request<KeyProviderKeyWrapProtocolInput>,
    ) -> Result<Response<KeyProviderKeyWrapProtocolOutput>, Status> {
        let input = request.into_inner().key_provider_key_wrap_protocol_input;
        let wrapped = annotation::read(&input).map_err(Status::invalid_argument)?;
        let data = self.0.unwrap_data(wrapped).await.map_err(status)?;
        let document = annotation::answer(&data);
        Ok(Response::new(KeyProviderKeyWrapProtocolOutput {
            key_provider_key_wrap_protocol_output: document,
        }))
    }

    async fn get_report(
        &self,
        request: Request<KeyProviderGetReportInput>,
    ) -> Result<Response<KeyProviderGetReportOutput>, Status> {
        let text = request.into_inner().report_data_hex_string;
        let report = self.0.raw(text.as_bytes()).await.map_err(status)?;
        Ok(Response::new(KeyProviderGetReportOutput { report_hex_string: hex::encode(report) }))
    }

    async fn get_attestation_data(
        &self,
        request: Request<KeyProviderGetAttestationDataInput>,
    ) -> Result<Response<KeyProviderGetAttestationDataOutput>, Status> {
        let data = base64::standard(&request.into_inner().b64_runtime_data_string)
            .map_err(|error| Status::failed_precondition(format!("runtime data: {error}")))?;
        let combined = self.0.combined(&data).await.map_err(status)?;
        Ok(Response::new(KeyProviderGetAttestationDataOutput {
            endorsed_tcb: combined.endorsed_tcb,
            certs: combined.endorsements,
            attestation_report: combined.evidence,
            uvm_reference_info: combined.uvm_endorsements,
        }))
    }

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let message = format!("Hello {}", request.into_inner().name);
        Ok(Response::new(HelloReply { message }))
    }
}

fn status(error: SidecarError) -> Status {
    let words = error.to_string();
    match error {
        SidecarError::Request(_) => Status::invalid_argument(words),
        SidecarError::Report(_) => Status::failed_precondition(words),
        SidecarError::Internal(_) => Status::internal(words),
        SidecarError::Certificates(_)
        | SidecarError::Maa { .. }
        | SidecarError::Identity(_)
        | SidecarError::Vault { .. } => Status::permission_denied(words),
    }
}
