//! Messages of package `key_provider`, fields by their numbers.

/// JSON of the key-provider protocol.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProviderKeyWrapProtocolInput {
    /// The document.
    #[prost(bytes = "vec", tag = "1")]
    pub key_provider_key_wrap_protocol_input: Vec<u8>,
}

/// JSON of the key-provider protocol.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProviderKeyWrapProtocolOutput {
    /// The document.
    #[prost(bytes = "vec", tag = "1")]
    pub key_provider_key_wrap_protocol_output: Vec<u8>,
}

/// What a report is to bind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProviderGetReportInput {
    /// Any text: the report binds the SHA-256 of its characters, not of the bytes that they may stand for.
    #[prost(string, tag = "1")]
    pub report_data_hex_string: String,
}

/// A report.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProviderGetReportOutput {
    /// Hex.
    #[prost(string, tag = "1")]
    pub report_hex_string: String,
}

/// What evidence is to bind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProviderGetAttestationDataInput {
    /// Standard base64.
    #[prost(string, tag = "1")]
    pub b64_runtime_data_string: String,
}

/// Evidence in parts, as of `/attest/combined`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyProviderGetAttestationDataOutput {
    /// TCB of the certificates, hex.
    #[prost(string, tag = "1")]
    pub endorsed_tcb: String,
    /// PEM chain, base64.
    #[prost(string, tag = "2")]
    pub certs: String,
    /// Report, base64.
    #[prost(string, tag = "3")]
    pub attestation_report: String,
    /// UVM endorsements, base64.
    #[prost(string, tag = "4")]
    pub uvm_reference_info: String,
}

/// A greeting.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloRequest {
    /// Who greets.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A greeting.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloReply {
    /// `Hello ` and the name.
    #[prost(string, tag = "1")]
    pub message: String,
}
