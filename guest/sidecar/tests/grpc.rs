//! The key-provider service as image-decryption tools see it.

mod support;

use ah_sidecar::grpc::messages::{
    HelloRequest, KeyProviderGetAttestationDataInput, KeyProviderGetReportInput,
    KeyProviderKeyWrapProtocolInput,
};
use ah_sidecar::grpc::stubs::key_provider_service_client::KeyProviderServiceClient;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use support::*;
use tonic::Code;
use tonic::transport::Channel;

async fn client(scene: &Scene) -> KeyProviderServiceClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = ah_sidecar::grpc::routes(scene.service.clone()).unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming),
    );
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    KeyProviderServiceClient::new(channel.connect().await.unwrap())
}

fn managed_identity(cloud: &str) -> Setup<'static> {
    Setup {
        env: vec![
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("https://{cloud}")),
            ("AZURE_KEY_VAULT_HOSTS", cloud.to_owned()),
        ],
        ..Setup::default()
    }
}

fn input(document: Value) -> KeyProviderKeyWrapProtocolInput {
    let bytes = document.to_string().into_bytes();
    KeyProviderKeyWrapProtocolInput { key_provider_key_wrap_protocol_input: bytes }
}

fn unwrap_document(scene: &Scene, wrapped: &[u8]) -> Value {
    let annotation = json!({
        "kid": "k1", "wrapped_data": standard(wrapped), "iv": "", "wrap_type": "rsa_3072",
        "kms_endpoint": scene.cloud.endpoint(), "attester_endpoint": scene.cloud.endpoint(),
    });
    json!({
        "op": "keyunwrap",
        "keywrapparams": {},
        "keyunwrapparams": {
            "dc": {"Parameters": {"attestation-agent": ["c2ty"]}},
            "annotation": standard(annotation.to_string().as_bytes()),
        },
    })
}

#[tokio::test]
async fn evidence_over_grpc() {
    let scene = Scene::new().await;
    let mut client = client(&scene).await;
    let hello = client.say_hello(HelloRequest { name: "pod".into() }).await.unwrap();
    assert_eq!(hello.into_inner().message, "Hello pod");

    let report_data_hex_string = "00ff".to_owned();
    let report = client.get_report(KeyProviderGetReportInput { report_data_hex_string }).await;
    let report = hex::decode(report.unwrap().into_inner().report_hex_string).unwrap();
    assert_eq!(&report[0x50..0x70], digest(&SHA256, b"00ff").as_ref(), "of the characters");

    let b64_runtime_data_string = "YWJj".to_owned();
    let input = KeyProviderGetAttestationDataInput { b64_runtime_data_string };
    let data = client.get_attestation_data(input).await.unwrap().into_inner();
    assert_eq!(data.endorsed_tcb, "7308000000000003");
    assert!(!data.certs.is_empty() && !data.attestation_report.is_empty());
}

#[tokio::test]
async fn attack_pod_without_a_tee_gets_no_report_over_grpc() {
    let scene = Scene::with(|_, _| Setup { without_socket: true, ..Setup::default() }).await;
    let mut client = client(&scene).await;
    let input = KeyProviderGetReportInput { report_data_hex_string: "00".into() };
    let status = client.get_report(input).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let document = unwrap_document(&scene, &[0; 256]);
    let status = client.un_wrap_key(self::input(document)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}

#[tokio::test]
async fn an_image_key_is_unwrapped() {
    let scene = Scene::with(|_, cloud| managed_identity(cloud)).await;
    scene.cloud.answer(Answer::Key { kty: "RSA-HSM", enc: None });
    let wrapped = scene.cloud.wrap_to_rsa_secret(b"image key");
    let mut client = client(&scene).await;
    let document = unwrap_document(&scene, &wrapped);
    let answer = client.un_wrap_key(input(document)).await.unwrap().into_inner();
    let answer: Value =
        serde_json::from_slice(&answer.key_provider_key_wrap_protocol_output).unwrap();
    let expect = json!({
        "keywrapresults": {"annotation": null},
        "keyunwrapresults": {"optsdata": standard(b"image key")},
    });
    assert_eq!(answer, expect);

    let mut altered = wrapped;
    altered[0] ^= 1;
    let document = unwrap_document(&scene, &altered);
    let status = client.un_wrap_key(input(document)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    scene.cloud.answer(Answer::Key { kty: "oct", enc: None });
    let status = client.un_wrap_key(input(unwrap_document(&scene, &[0; 256]))).await.unwrap_err();
    assert!(status.message().contains("is not an RSA key"), "{status}");
}

#[tokio::test]
async fn wrong_documents_are_named() {
    let scene = Scene::with(|_, cloud| managed_identity(cloud)).await;
    let mut client = client(&scene).await;
    let change = |pointer: &str, value: Value| {
        let mut document = unwrap_document(&scene, &[0; 256]);
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    let agent = "/keyunwrapparams/dc/Parameters/attestation-agent";
    for (document, expect) in [
        (json!(1), "not of the key-provider protocol"),
        (change("/op", json!("keywrap")), "op is not \"keyunwrap\""),
        (change(agent, json!([])), "attestation-agent is missing"),
        (change(agent, json!(["b3RoZXI="])), "another agent is meant"),
        (change("/keyunwrapparams/annotation", json!("?")), "annotation is not base64"),
        (change("/keyunwrapparams/annotation", json!("e30=")), "annotation is not as expected"),
    ] {
        let status = client.un_wrap_key(input(document)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expect), "{status}");
    }
    let status = client.wrap_key(input(json!({}))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(scene.cloud.count(""), 0);
}
