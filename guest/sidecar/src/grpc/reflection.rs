//! The service describes itself, so that tools which know no definitions can ask.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto,
};
use tonic_reflection::server::Builder;

const PACKAGE: &str = "key_provider";

/// Messages with the type and names of their fields, numbered from 1.
const MESSAGES: [(&str, Type, &[&str]); 8] = [
    ("KeyProviderKeyWrapProtocolInput", Type::Bytes, &["key_provider_key_wrap_protocol_input"]),
    ("KeyProviderKeyWrapProtocolOutput", Type::Bytes, &["key_provider_key_wrap_protocol_output"]),
    ("KeyProviderGetReportInput", Type::String, &["report_data_hex_string"]),
    ("KeyProviderGetReportOutput", Type::String, &["report_hex_string"]),
    ("KeyProviderGetAttestationDataInput", Type::String, &["b64_runtime_data_string"]),
    (
        "KeyProviderGetAttestationDataOutput",
        Type::String,
        &["endorsed_tcb", "certs", "attestation_report", "uvm_reference_info"],
    ),
    ("HelloRequest", Type::String, &["name"]),
    ("HelloReply", Type::String, &["message"]),
];

const METHODS: [(&str, &str, &str); 5] = [
    ("WrapKey", "KeyProviderKeyWrapProtocolInput", "KeyProviderKeyWrapProtocolOutput"),
    ("UnWrapKey", "KeyProviderKeyWrapProtocolInput", "KeyProviderKeyWrapProtocolOutput"),
    ("GetReport", "KeyProviderGetReportInput", "KeyProviderGetReportOutput"),
    (
        "GetAttestationData",
        "KeyProviderGetAttestationDataInput",
        "KeyProviderGetAttestationDataOutput",
    ),
    ("SayHello", "HelloRequest", "HelloReply"),
];

pub(super) fn add(routes: tonic::service::Routes) -> Result<tonic::service::Routes, String> {
    let builder = || Builder::configure().register_file_descriptor_set(description());
    let words = |error: tonic_reflection::server::Error| error.to_string();
    let v1 = builder().build_v1().map_err(words)?;
    let v1alpha = builder().build_v1alpha().map_err(words)?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

fn description() -> FileDescriptorSet {
    let full = |name: &str| Some(format!(".{PACKAGE}.{name}"));
    let methods = METHODS.into_iter().map(|(name, input, output)| MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: full(input),
        output_type: full(output),
        ..MethodDescriptorProto::default()
    });
    let service = ServiceDescriptorProto {
        name: Some("KeyProviderService".to_owned()),
        method: methods.collect(),
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("key_provider.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: MESSAGES.into_iter().map(message).collect(),
        service: vec![service],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }
}

fn message((name, kind, fields): (&str, Type, &[&str])) -> DescriptorProto {
    let field = |(number, name): (i32, &&str)| FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..FieldDescriptorProto::default()
    };
    DescriptorProto {
        name: Some(name.to_owned()),
        field: (1..).zip(fields).map(field).collect(),
        ..DescriptorProto::default()
    }
}
