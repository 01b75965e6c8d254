//! A client of the sidecar's gRPC service, for tests in a pod: greets, asks for a report and for evidence, has an image's key unwrapped whose
//! annotation (base64) is in `SKR_ANNOTATION`, and prints the answers.
#![forbid(unsafe_code)]

use std::time::Duration;

use ah_sidecar::grpc::messages::{
    HelloRequest, KeyProviderGetAttestationDataInput, KeyProviderGetReportInput,
    KeyProviderKeyWrapProtocolInput,
};
use ah_sidecar::grpc::stubs::key_provider_service_client::KeyProviderServiceClient;
use serde_json::json;
use tonic::transport::Channel;

/// How often, a tenth of a second apart, the sidecar is looked for.
const TRIES: usize = 600;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("SKR_PORT").unwrap_or_else(|_| "50000".to_owned());
    let mut client =
        KeyProviderServiceClient::new(connect(&format!("http://localhost:{port}")).await?);
    let hello = client.say_hello(HelloRequest { name: "pod".into() }).await?.into_inner();
    println!("hello {}", json!(hello.message));
    let input = KeyProviderGetReportInput { report_data_hex_string: "00ff".into() };
    let report = client.get_report(input).await?.into_inner();
    println!("report {}", json!(report.report_hex_string));
    let input = KeyProviderGetAttestationDataInput { b64_runtime_data_string: "YWJj".into() };
    let data = client.get_attestation_data(input).await?.into_inner();
    println!(
        "data {}",
        json!({"certs_chars": data.certs.len(), "report": data.attestation_report})
    );
    if let Ok(annotation) = std::env::var("SKR_ANNOTATION") {
        match client.un_wrap_key(unwrap_input(&annotation)).await {
            Ok(answer) => {
                let document = answer.into_inner().key_provider_key_wrap_protocol_output;
                println!("unwrapped {}", String::from_utf8_lossy(&document));
            }
            Err(status) => println!("refused {}", json!(status.message())),
        }
    }
    Ok(())
}

/// The document of ocicrypt's key-provider protocol.
fn unwrap_input(annotation: &str) -> KeyProviderKeyWrapProtocolInput {
    let document = json!({
        "op": "keyunwrap",
        "keywrapparams": {},
        "keyunwrapparams": {
            "dc": {"Parameters": {"attestation-agent": ["c2ty"]}},
            "annotation": annotation,
        },
    });
    let bytes = document.to_string().into_bytes();
    KeyProviderKeyWrapProtocolInput { key_provider_key_wrap_protocol_input: bytes }
}

async fn connect(address: &str) -> Result<Channel, Box<dyn std::error::Error>> {
    for _ in 1..TRIES {
        if let Ok(channel) = Channel::from_shared(address.to_owned())?.connect().await {
            return Ok(channel);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(Channel::from_shared(address.to_owned())?.connect().await?)
}
