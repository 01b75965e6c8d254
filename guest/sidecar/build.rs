//! The key-provider service's stubs; its messages are written down in `src/grpc/messages.rs`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::grpc::messages::{input}"))
            .output_type(format!("crate::grpc::messages::{output}"))
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    let wrap = ("KeyProviderKeyWrapProtocolInput", "KeyProviderKeyWrapProtocolOutput");
    let service = Service::builder()
        .name("KeyProviderService")
        .package("key_provider")
        .method(method("wrap_key", "WrapKey", wrap.0, wrap.1))
        .method(method("un_wrap_key", "UnWrapKey", wrap.0, wrap.1))
        .method(method(
            "get_report",
            "GetReport",
            "KeyProviderGetReportInput",
            "KeyProviderGetReportOutput",
        ))
        .method(method(
            "get_attestation_data",
            "GetAttestationData",
            "KeyProviderGetAttestationDataInput",
            "KeyProviderGetAttestationDataOutput",
        ))
        .method(method("say_hello", "SayHello", "HelloRequest", "HelloReply"))
        .build();
    Builder::new().compile(&[service]);
}
