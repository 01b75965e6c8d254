//! Strict decoding and the policy input form, from outside.

use ah_agent_api::agent::{CopyFileRequest, CreateContainerRequest, SignalProcessRequest, Storage};
use ah_agent_api::oci::{LinuxSyscall, Mount, Process, Spec, linux_syscall};
use ah_agent_api::{
    DecodeError, FileType, InputError, MAX_MESSAGE_BYTES, METHODS, PolicyRequest, Request, decode,
    encode, method, request_names,
};
use ah_digest::Sha256;
use proptest::prelude::*;
use serde_json::json;

fn signal() -> SignalProcessRequest {
    SignalProcessRequest { container_id: "a".to_owned(), signal: 15, ..Default::default() }
}

fn container() -> CreateContainerRequest {
    let mut spec = Spec { Version: "1.1.0".to_owned(), ..Default::default() };
    spec.Process = Some(Process { Args: vec!["sh".to_owned()], ..Default::default() }).into();
    spec.Mounts = vec![Mount { type_: "proc".to_owned(), ..Default::default() }];
    spec.Annotations.insert("k".to_owned(), "v".to_owned());
    CreateContainerRequest {
        container_id: "a".to_owned(),
        storages: vec![Storage { driver: "blk".to_owned(), ..Default::default() }],
        OCI: Some(spec).into(),
        ..Default::default()
    }
}

fn check(method: &str, bytes: &[u8], expect: Result<Request, DecodeError>) {
    assert_eq!(Request::decode(method, bytes), expect);
}

#[test]
fn exact_bytes_decode_and_one_more_or_less_does_not() {
    let message = "SignalProcessRequest";
    let bytes = encode(&signal()).unwrap();
    check("SignalProcess", &bytes, Ok(Request::SignalProcess(signal())));
    let cut = &bytes[..bytes.len() - 1];
    check("SignalProcess", cut, Err(DecodeError::Truncated { message }));
    let unknown = [&bytes[..], &[0x38, 1]].concat();
    check("SignalProcess", &unknown, Err(DecodeError::UnknownField { message, number: 7 }));
    let twice = [&bytes[..], &[0x18, 9]].concat();
    check("SignalProcess", &twice, Err(DecodeError::Duplicate { message, number: 3 }));
    let wrong = [&bytes[..bytes.len() - 2], &[0x1d, 9, 0, 0, 0]].concat();
    check("SignalProcess", &wrong, Err(DecodeError::WireType { message, number: 3, found: 5 }));
    let zeros = [&bytes[..], &[0]].concat();
    check("SignalProcess", &zeros, Err(DecodeError::UnknownField { message, number: 0 }));
    let name = "Reboot".to_owned();
    check("Reboot", &bytes, Err(DecodeError::UnknownMethod { method: name }));
}

#[test]
fn attack_unknown_field_in_a_nested_message_is_refused() {
    let plain = encode(&container()).unwrap();
    check("CreateContainer", &plain, Ok(Request::CreateContainer(container())));
    let mut tampered = container();
    let storage = &mut tampered.storages[0];
    storage.special_fields.mut_unknown_fields().add_varint(99, 1);
    let bytes = encode(&tampered).unwrap();
    let expect = DecodeError::UnknownField { message: "Storage", number: 99 };
    check("CreateContainer", &bytes, Err(expect));
}

#[test]
fn attack_unknown_field_in_a_map_entry_is_refused() {
    // Spec.Annotations entry {1: "k", 2: "v"} with and without a field 3.
    let entry = |tail: &[u8]| {
        let inner = [&[0x0a, 1, b'k', 0x12, 1, b'v'][..], tail].concat();
        let spec = [&[0x3a, inner.len() as u8][..], &inner].concat();
        [&[0x32, spec.len() as u8][..], &spec].concat()
    };
    assert!(Request::decode("CreateContainer", &entry(&[])).is_ok());
    let expect = DecodeError::UnknownField { message: "AnnotationsEntry", number: 3 };
    check("CreateContainer", &entry(&[0x18, 1]), Err(expect));
}

#[test]
fn attack_request_over_the_size_limit_is_refused() {
    let request =
        |len| CopyFileRequest { path: "/p".to_owned(), data: vec![0; len], ..Default::default() };
    let overhead = encode(&request(MAX_MESSAGE_BYTES - 64)).unwrap().len() + 64 - MAX_MESSAGE_BYTES;
    let fits = encode(&request(MAX_MESSAGE_BYTES - overhead)).unwrap();
    assert_eq!(fits.len(), MAX_MESSAGE_BYTES);
    assert!(Request::decode("CopyFile", &fits).is_ok());
    let found = MAX_MESSAGE_BYTES + 1;
    let expect = DecodeError::TooLarge { message: "CopyFileRequest", found };
    check("CopyFile", &[&fits[..], &[0]].concat(), Err(expect.clone()));
    assert_eq!(encode(&request(MAX_MESSAGE_BYTES - overhead + 1)), Err(expect));
}

#[test]
fn attack_request_truncated_at_any_byte_is_refused_or_another_whole_request() {
    let bytes = encode(&container()).unwrap();
    for end in 0..bytes.len() {
        // A cut between two fields is a whole message with fewer fields; it is never taken for this one.
        assert_ne!(
            Request::decode("CreateContainer", &bytes[..end]),
            Ok(Request::CreateContainer(container()))
        );
    }
}

#[test]
fn text_must_be_utf8() {
    let ok = Request::decode("StartContainer", &[0x0a, 1, b'a']);
    assert!(ok.is_ok());
    let bad = Request::decode("StartContainer", &[0x0a, 1, 0xff]);
    assert!(matches!(bad, Err(DecodeError::Malformed { message: "StartContainerRequest", .. })));
}

#[test]
fn input_has_every_field_in_the_convention_s_form() {
    let request = SignalProcessRequest::default();
    let expect = json!({ "container_id": "", "exec_id": "", "signal": 0 });
    assert_eq!(request.to_input().unwrap(), expect);

    let input = container().to_input().unwrap();
    assert_eq!(input["OCI"]["Mounts"][0]["type_"], "proc");
    assert_eq!(input["OCI"]["Hooks"], json!(null));
    assert_eq!(input["OCI"]["Annotations"], json!({ "k": "v" }));
    assert_eq!(input["string_user"], json!(null));
    assert_eq!(input["shared_mounts"], json!([]));
    assert_eq!(input["storages"][0]["fs_group"], json!(null));
    let fields: Vec<&str> = input.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields.len(), 11);
    assert_eq!(input["OCI"]["Process"].as_object().unwrap().len(), 12);

    let neighbours =
        json!({ "neighbors": { "ARPNeighbors": [{ "toIPAddress": { "family": 1 } }] } });
    let request = Request::from_json("AddARPNeighborsRequest", neighbours).unwrap();
    let input = request.to_input().unwrap();
    assert_eq!(input["neighbors"]["ARPNeighbors"][0]["toIPAddress"]["family"], 1);

    let syscall =
        LinuxSyscall { ErrnoRet: Some(linux_syscall::ErrnoRet::Errnoret(1)), ..Default::default() };
    assert_eq!(serde_json::to_value(syscall).unwrap()["ErrnoRet"], json!({ "errnoret": 1 }));
}

#[test]
fn json_requests_take_defaults_and_refuse_unknown_fields() {
    let request = Request::from_json("SignalProcess", json!({ "container_id": "a", "signal": 15 }));
    assert_eq!(request, Ok(Request::SignalProcess(signal())));
    let same = Request::from_json("SignalProcessRequest", signal().to_input().unwrap());
    assert_eq!(same, request);
    let unknown = Request::from_json("SignalProcess", json!({ "container": "a" }));
    let Err(InputError::Json { message: "SignalProcessRequest", detail }) = unknown else {
        panic!("{unknown:?}")
    };
    assert!(detail.contains("container"), "{detail}");
    let kind = "Reboot".to_owned();
    assert_eq!(Request::from_json("Reboot", json!({})), Err(InputError::UnknownKind { kind }));
}

#[test]
fn copy_file_input_has_type_target_and_digest_but_no_data() {
    let request = |mode, data: &[u8]| CopyFileRequest {
        path: "/p".to_owned(),
        file_mode: mode,
        data: data.to_vec(),
        ..Default::default()
    };
    let link = request(0o120777, b"../x").to_input().unwrap();
    assert_eq!(
        link,
        json!({ "path": "/p", "file_type": "Symlink", "symlink_target": "../x", "file_size": 0,
            "file_mode": 0o120777, "dir_mode": 0, "uid": 0, "gid": 0, "offset": 0,
            "data_size": null, "data_sha256": null, "data_text": null })
    );
    let file = |data: &[u8]| request(0o100644, data).to_input().unwrap();
    assert_eq!(file(b"x")["data_size"], 1);
    assert_eq!(file(b"x")["data_sha256"], Sha256::of(b"x").to_string());
    assert_eq!(file(b"x")["data_text"], "x");
    assert_eq!(file(&[0xff])["data_text"], json!(null));
    assert_eq!(file(&[b'x'; 257])["data_text"], json!(null));
    let text = CopyFileRequest::from_json(file(b"x")).unwrap();
    assert_eq!(text, request(0o100644, b"x"));
    let digest_alone = CopyFileRequest::from_json(file(&[b'x'; 257]));
    assert!(matches!(digest_alone, Err(InputError::Json { .. })), "{digest_alone:?}");
    let kind = |mode| request(mode, b"x").to_input().unwrap()["file_type"].clone();
    assert_eq!(kind(0o100644), "Regular");
    assert_eq!(kind(0o040755), "Directory");
    assert_eq!(kind(0o644), "Unknown");
    // S_IFBLK has the directory's bit as well.
    assert_eq!(kind(0o060644), "Unknown");
    assert_eq!(request(0o100644, b"x").to_input().unwrap()["symlink_target"], json!(null));
    let path = "/p".to_owned();
    assert_eq!(request(0o120777, &[0xff]).to_input(), Err(InputError::SymlinkTarget { path }));

    let from_input = CopyFileRequest::from_json(link).unwrap();
    assert_eq!(from_input, request(0o120777, b"../x"));
    let short = CopyFileRequest::from_json(json!({ "file_type": "Directory" })).unwrap();
    assert_eq!(FileType::of(&short), FileType::Directory);
    let device = request(0o060644, b"");
    assert_eq!(CopyFileRequest::from_json(device.to_input().unwrap()).unwrap(), device);
    let wire = serde_json::to_value(request(0o100644, b"x")).unwrap();
    assert_eq!(CopyFileRequest::from_json(wire).unwrap(), request(0o100644, b"x"));
}

#[test]
fn method_table_is_the_definition_s() {
    let agent = METHODS.iter().filter(|method| method.rule.is_some());
    assert_eq!(agent.clone().count(), 42);
    assert_eq!(request_names().count(), 41);
    for entry in agent {
        let request = Request::decode(entry.name, &[]).unwrap();
        assert_eq!(request.method(), entry.name);
        assert_eq!(Some(request.rule_name()), entry.rule);
        assert_eq!(request.encode().unwrap(), b"");
        assert!(request.to_input().unwrap().is_object() || entry.name == "CopyFile");
    }
    assert_eq!(method("grpc.AgentService", "WriteStdin").unwrap().rule, Some("WriteStreamRequest"));
    assert_eq!(method("grpc.Health", "Check").unwrap().rule, None);
    assert_eq!(method("grpc.Health", "CreateContainer"), None);
}

proptest! {
    #[test]
    fn decoded_requests_encode_to_themselves(
        id in ".{0,20}", exec in ".{0,20}", signal in any::<u32>(),
    ) {
        let request = SignalProcessRequest { container_id: id, exec_id: exec, signal, ..Default::default() };
        let bytes = encode(&request).unwrap();
        prop_assert_eq!(decode::<SignalProcessRequest>(&bytes), Ok(request.clone()));
        let again = SignalProcessRequest::from_json(request.to_input().unwrap());
        prop_assert_eq!(again, Ok(request));
    }

    #[test]
    fn any_bytes_decode_to_a_request_that_round_trips_or_to_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(request) = Request::decode("CreateContainer", &bytes) {
            let again = Request::decode("CreateContainer", &request.encode().unwrap());
            prop_assert_eq!(again, Ok(request));
        }
    }
}
