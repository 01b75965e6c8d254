//! The gate and the server in front of effects that only keep a diary: what is decided, in which order, and what is remembered.

mod debug;
mod diary;
mod keys;
mod server;

use std::time::Duration;

use ah_agent::failure::Failure;
use ah_agent::gate::Rules;
use ah_agent_api::agent::*;
use ah_agent_api::{AGENT_SERVICE, METHODS};
use ah_digest::Sha256;
use diary::{RULES, create, fixed, gate, read, rules_of};
use protobuf::Message as _;

#[tokio::test]
async fn rules_see_the_exits_that_the_guest_saw() {
    let (gate, diary) = fixed();
    let stats = StatsContainerRequest { container_id: "c1".into(), ..Default::default() };
    let stats = stats.write_to_bytes().unwrap();
    let denied = |result| matches!(result, Err(Failure::Denied { .. }));
    assert!(denied(gate.call("StatsContainer", stats.clone()).await));
    diary.write("exit c2 0".into());
    assert!(denied(gate.call("StatsContainer", stats.clone()).await));
    diary.write("exit c1 0".into());
    gate.call("StatsContainer", stats.clone()).await.unwrap();
    // The first exit counts: an id is used once.
    diary.write("exit c1 1".into());
    gate.call("StatsContainer", stats).await.unwrap();
}

#[tokio::test]
async fn a_permitted_request_has_its_effect_and_is_remembered() {
    let (gate, diary) = fixed();
    assert!(matches!(gate.call("ReadStdout", read("c1")).await, Err(Failure::Denied { .. })));
    gate.call("CreateContainer", create("c1")).await.unwrap();
    gate.call("ReadStdout", read("c1")).await.unwrap();
    assert_eq!(diary.lines(), ["create c1", "read_stdout"]);
}

#[tokio::test]
async fn attack_container_twice() {
    let (gate, diary) = fixed();
    gate.call("CreateContainer", create("c1")).await.unwrap();
    let again = gate.call("CreateContainer", create("c1")).await;
    assert!(matches!(again, Err(Failure::Denied { .. })), "{again:?}");
    assert_eq!(diary.lines(), ["create c1"], "no effect without a permit");
}

#[tokio::test]
async fn attack_keys_before_the_policy_lets_containers_have_them() {
    let (without, _) = fixed();
    let refused = without.may_release_keys().await;
    assert!(matches!(refused, Err(Failure::Denied { .. })), "no rule: {refused:?}");
    let rules = format!("{RULES}\nReleaseKeyRequest if data.pstate.c1\n");
    let (gate, _) = gate(rules_of(&rules));
    assert!(matches!(gate.may_release_keys().await, Err(Failure::Denied { .. })));
    gate.call("CreateContainer", create("c1")).await.unwrap();
    gate.may_release_keys().await.unwrap();
}

/// What the generated policies say to a request that was carried out before: allowed, as a repeat.
const REPEATS: &str = r#"
package agent_policy
import future.keywords.if

default CreateSandboxRequest := false
default CreateContainerRequest := false
default StartContainerRequest := false

CreateSandboxRequest := {"allowed": true, "ops": [add("sandbox", true)]} if not data.pstate.sandbox
CreateSandboxRequest := {"allowed": true, "repeat": true} if data.pstate.sandbox
CreateContainerRequest := {"allowed": true, "ops": [add("created", input.container_id)]} if not data.pstate.created
CreateContainerRequest := {"allowed": true, "repeat": true} if data.pstate.created == input.container_id
StartContainerRequest := {"allowed": true, "ops": [add("started", true)]} if not data.pstate.started
StartContainerRequest := {"allowed": true, "repeat": true} if data.pstate.started

add(name, value) := {"op": "add", "path": concat("/", ["/pstate", name]), "value": value}
"#;

#[tokio::test]
async fn attack_second_effect_of_a_repeated_request() {
    let (gate, diary) = gate(rules_of(REPEATS));
    let start = StartContainerRequest { container_id: "c1".into(), ..Default::default() };
    let requests = [
        ("CreateSandbox", CreateSandboxRequest::new().write_to_bytes().unwrap()),
        ("CreateContainer", create("c1")),
        ("StartContainer", start.write_to_bytes().unwrap()),
    ];
    for (method, bytes) in &requests {
        gate.call(method, bytes.clone()).await.unwrap();
    }
    let once = ["create_sandbox", "create c1", "start_container"];
    assert_eq!(diary.lines(), once);
    // A retry, in any order and any number, is answered as the first request was and does nothing.
    for (method, bytes) in requests.iter().chain(requests.iter().rev()) {
        assert_eq!(gate.call(method, bytes.clone()).await.unwrap(), Vec::<u8>::new(), "{method}");
    }
    assert_eq!(diary.lines(), once);
    assert!(gate.call("CreateContainer", create("c2")).await.is_err(), "no retry of it");
    assert_eq!(diary.lines(), once);
}

#[tokio::test]
async fn a_failed_request_is_no_repeat() {
    let (gate, diary) = gate(rules_of(REPEATS));
    assert!(gate.call("CreateContainer", create("broken")).await.is_err());
    gate.call("CreateContainer", create("broken")).await.unwrap();
    gate.call("CreateContainer", create("broken")).await.unwrap();
    assert_eq!(diary.lines(), ["create broken", "create broken"]);
}

#[tokio::test]
async fn attack_exec_of_any_command() {
    let (gate, diary) = fixed();
    let exec =
        ExecProcessRequest { container_id: "c1".into(), exec_id: "e".into(), ..Default::default() };
    let found = gate.call("ExecProcess", exec.write_to_bytes().unwrap()).await;
    match found {
        Err(Failure::Denied { text }) => assert!(text.contains("ExecProcessRequest"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(diary.lines().is_empty());
}

#[tokio::test]
async fn a_failed_effect_leaves_the_state_as_it_was() {
    let (gate, diary) = fixed();
    assert!(matches!(
        gate.call("CreateContainer", create("broken")).await,
        Err(Failure::NotNow { .. })
    ));
    assert!(gate.call("ReadStdout", read("broken")).await.is_err(), "not remembered");
    gate.call("CreateContainer", create("broken")).await.unwrap();
    assert_eq!(diary.lines(), ["create broken", "create broken"]);
}

#[tokio::test]
async fn attack_two_requests_decided_on_one_state() {
    let (gate, diary) = fixed();
    let first = tokio::spawn({
        let gate = gate.clone();
        async move { gate.call("CreateContainer", create("slow")).await }
    });
    while diary.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn({
        let gate = gate.clone();
        async move { gate.call("CreateContainer", create("slow")).await }
    });
    diary.go_on.notify_one();
    first.await.unwrap().unwrap();
    assert!(matches!(second.await.unwrap(), Err(Failure::Denied { .. })));
    assert_eq!(diary.lines(), ["create slow", "create slow done"]);
}

#[tokio::test]
async fn a_host_that_hangs_up_does_not_stop_an_effect_halfway() {
    let (gate, diary) = fixed();
    let call = gate.call("CreateContainer", create("slow"));
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    diary.go_on.notify_one();
    // The lock is free again only after the commit.
    assert!(gate.call("ReadStdout", read("slow")).await.is_ok());
    assert_eq!(diary.lines(), ["create slow", "create slow done", "read_stdout"]);
}

#[tokio::test]
async fn waiting_for_a_process_does_not_hold_the_state() {
    let (gate, diary) = fixed();
    let wait = WaitProcessRequest { container_id: "c1".into(), ..Default::default() };
    let waiting = tokio::spawn({
        let (gate, bytes) = (gate.clone(), wait.write_to_bytes().unwrap());
        async move { gate.call("WaitProcess", bytes).await }
    });
    while diary.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    gate.call("CreateContainer", create("c1")).await.unwrap();
    diary.go_on.notify_one();
    let response = WaitProcessResponse::parse_from_bytes(&waiting.await.unwrap().unwrap()).unwrap();
    assert_eq!(response.status, 143);
}

#[tokio::test]
async fn every_method_is_answered() {
    let supported = [
        "CreateSandbox",
        "DestroySandbox",
        "CreateContainer",
        "StartContainer",
        "ExecProcess",
        "SignalProcess",
        "WaitProcess",
        "RemoveContainer",
        "StatsContainer",
        "ReadStdout",
        "ReadStderr",
        "WriteStdin",
        "CloseStdin",
        "TtyWinResize",
        "CopyFile",
        "UpdateInterface",
        "UpdateRoutes",
        "ListInterfaces",
        "ListRoutes",
        "AddARPNeighbors",
        "GetOOMEvent",
        "GetDiagnosticData",
        "GetGuestDetails",
        "SetPolicy",
    ];
    for method in METHODS.iter().filter(|m| m.service == AGENT_SERVICE) {
        let (gate, diary) = fixed();
        diary.go_on.notify_one();
        match gate.call(method.name, Vec::new()).await {
            Err(Failure::NotSupported { method: named }) => {
                assert_eq!(named, method.name);
                assert!(!supported.contains(&method.name), "{}", method.name);
                assert!(diary.lines().is_empty());
            }
            _ => assert!(supported.contains(&method.name), "{}", method.name),
        }
    }
    let (gate, _) = fixed();
    assert!(matches!(gate.call("Nonsense", Vec::new()).await, Err(Failure::NotSupported { .. })));
}

fn set_policy(text: &str) -> Vec<u8> {
    SetPolicyRequest { policy: text.into(), ..Default::default() }.write_to_bytes().unwrap()
}

#[tokio::test]
async fn the_policy_of_host_data_is_set_first() {
    let host_data = Sha256::of(RULES);
    let (gate, diary) = gate(Rules::Awaited { host_data });
    let early = gate.call("CreateContainer", create("c1")).await;
    assert!(matches!(early, Err(Failure::NotNow { .. })), "{early:?}");
    assert!(diary.lines().is_empty());
    gate.call("SetPolicy", set_policy(RULES)).await.unwrap();
    gate.call("CreateContainer", create("c1")).await.unwrap();
}

#[tokio::test]
async fn attack_set_policy_a_second_time() {
    let host_data = Sha256::of(RULES);
    let (awaiting, _) = gate(Rules::Awaited { host_data });
    awaiting.call("SetPolicy", set_policy(RULES)).await.unwrap();
    for gate in [awaiting, fixed().0] {
        let again = gate.call("SetPolicy", set_policy(RULES)).await;
        assert!(
            matches!(&again, Err(Failure::Denied { text }) if text.contains("already")),
            "{again:?}"
        );
        assert!(gate.call("ExecProcess", Vec::new()).await.is_err());
    }
}

#[tokio::test]
async fn attack_policy_altered_by_one_byte_with_host_data_kept() {
    let host_data = Sha256::of(RULES);
    let (gate, _) = gate(Rules::Awaited { host_data });
    let altered = RULES.replacen("ExecProcessRequest := false", "ExecProcessRequest := true ", 1);
    let found = gate.call("SetPolicy", set_policy(&altered)).await;
    assert!(
        matches!(&found, Err(Failure::Denied { text }) if text.contains("HOST_DATA")),
        "{found:?}"
    );
    gate.call("SetPolicy", set_policy(RULES)).await.unwrap();
}

#[tokio::test]
async fn attack_agent_request_truncated() {
    let (gate, diary) = fixed();
    let whole = create("c1");
    for length in 1..whole.len() {
        let found = gate.call("CreateContainer", whole[..length].to_vec()).await;
        assert!(matches!(found, Err(Failure::Malformed { .. })), "{length}: {found:?}");
    }
    let mut longer = whole.clone();
    longer.push(0xff);
    assert!(matches!(gate.call("CreateContainer", longer).await, Err(Failure::Malformed { .. })));
    assert!(diary.lines().is_empty());
    gate.call("CreateContainer", whole).await.unwrap();
}

/// Whatever bytes come for whatever method: an answer, and an effect only for a request that decodes and is permitted.
#[test]
fn fuzz_requests() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let methods: Vec<&'static str> =
        METHODS.iter().filter(|m| m.service == AGENT_SERVICE).map(|m| m.name).collect();
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        // A request that is almost right: one byte of it is another.
        ("[a-z0-9./-]{0,12}", any::<u8>(), any::<proptest::sample::Index>()).prop_map(
            |(id, byte, at)| {
                let mut bytes = create(&id);
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            }
        ),
    ];
    let input = (proptest::sample::select(methods), bytes);
    let config = Config { cases: 512, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&input, |(method, bytes)| {
            let (gate, diary) = fixed();
            diary.go_on.notify_one();
            let answered = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(5), gate.call(method, bytes.clone())).await
            });
            prop_assert!(answered.is_ok(), "{method} hangs");
            if !diary.lines().is_empty() {
                prop_assert!(ah_agent_api::Request::decode(method, &bytes).is_ok(), "{method}");
                prop_assert!(method != "ExecProcess");
            }
            Ok(())
        })
        .unwrap();
}
