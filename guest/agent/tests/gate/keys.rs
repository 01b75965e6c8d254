//! Containers that need keys: the policy has its say before the exchange and after it, and nobody else waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ah_agent::failure::Failure;
use ah_agent::gate::Gate;
use ah_agent_api::agent::{GuestDetailsRequest, RemoveContainerRequest};
use protobuf::Message as _;
use tokio::task::JoinHandle;

use crate::diary::{Diary, RULES, create, gate, rules_of};

type Answer = JoinHandle<Result<Vec<u8>, Failure>>;

/// A gate whose policy has this rule for keys, too.
fn gate_with(rule: &str) -> (Gate<Diary>, Arc<Diary>) {
    gate(rules_of(&format!("{RULES}\ndefault RemoveContainerRequest := true\n{rule}\n")))
}

/// The same, with a key service that does not answer before it is told to.
fn hanging(rule: &str) -> (Gate<Diary>, Arc<Diary>) {
    let (gate, diary) = gate_with(rule);
    diary.hangs.store(true, Ordering::Relaxed);
    (gate, diary)
}

fn begin(gate: &Gate<Diary>, method: &'static str, bytes: Vec<u8>) -> Answer {
    let gate = gate.clone();
    tokio::spawn(async move { gate.call(method, bytes).await })
}

/// Waits until the diary has so many lines.
async fn until(diary: &Diary, lines: usize) {
    while diary.lines().len() < lines {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn attack_sealed_values_opened_before_the_policy_lets_the_pod_have_keys() {
    let (gate, diary) = gate_with("ReleaseKeyRequest if data.pstate.first");
    let refused = gate.call("CreateContainer", create("sealed")).await;
    assert!(matches!(refused, Err(Failure::Denied { .. })), "{refused:?}");
    gate.call("CreateContainer", create("first")).await.unwrap();
    gate.call("CreateContainer", create("sealed")).await.unwrap();
    assert_eq!(diary.lines(), ["create first", "fetch demo/db", "create sealed"]);
}

#[tokio::test]
async fn attack_sealed_values_under_a_policy_without_a_rule_for_keys() {
    let (gate, diary) = gate_with("");
    let refused = gate.call("CreateContainer", create("sealed")).await;
    assert!(matches!(refused, Err(Failure::Denied { .. })), "{refused:?}");
    gate.call("CreateContainer", create("other")).await.unwrap();
    assert_eq!(diary.lines(), ["create other"], "no key is asked for");
}

#[tokio::test]
async fn attack_key_exchange_that_hangs() {
    let (gate, diary) = hanging("default ReleaseKeyRequest := true");
    let first = begin(&gate, "CreateContainer", create("sealed"));
    until(&diary, 1).await;
    gate.call("GetGuestDetails", GuestDetailsRequest::new().write_to_bytes().unwrap())
        .await
        .unwrap();
    gate.call("CreateContainer", create("other")).await.unwrap();
    diary.go_on.notify_one();
    first.await.unwrap().unwrap();
    let expect = ["fetch demo/db", "guest_details", "create other", "create sealed"];
    assert_eq!(diary.lines(), expect);
}

/// As many as there are threads for would leave none to whoever else asks.
#[tokio::test]
async fn attack_more_key_exchanges_that_hang_than_four() {
    let (gate, diary) = hanging("default ReleaseKeyRequest := true");
    let ids = [1, 2, 3, 4, 5].map(|number| format!("sealed{number}"));
    let all = ids.map(|id| begin(&gate, "CreateContainer", create(&id)));
    until(&diary, 4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(diary.lines(), ["fetch demo/db"; 4]);
    diary.hangs.store(false, Ordering::Relaxed);
    diary.go_on.notify_waiters();
    for answer in all {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(diary.lines().len(), 10);
}

#[tokio::test]
async fn attack_one_container_twice_while_its_keys_are_fetched() {
    let (gate, diary) = hanging("default ReleaseKeyRequest := true");
    let both = [(); 2].map(|()| begin(&gate, "CreateContainer", create("sealed")));
    until(&diary, 2).await;
    assert_eq!(diary.lines(), ["fetch demo/db", "fetch demo/db"]);
    diary.go_on.notify_waiters();
    let mut made = 0;
    for answer in both {
        match answer.await.unwrap() {
            Ok(_) => made += 1,
            Err(Failure::Denied { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(made, 1);
    assert_eq!(diary.lines(), ["fetch demo/db", "fetch demo/db", "create sealed"]);
}

/// The policy lets a container have keys, or be made, only while another one is not there; that comes while the keys are on their way.
#[tokio::test]
async fn attack_request_that_makes_the_decision_wrong_during_the_exchange() {
    for rule in [
        "ReleaseKeyRequest if not data.pstate.other",
        "default ReleaseKeyRequest := true\nCreateContainerRequest := false if data.pstate.other",
    ] {
        let (gate, diary) = hanging(rule);
        let first = begin(&gate, "CreateContainer", create("sealed"));
        until(&diary, 1).await;
        gate.call("CreateContainer", create("other")).await.unwrap();
        diary.go_on.notify_one();
        let refused = first.await.unwrap();
        assert!(matches!(refused, Err(Failure::Denied { .. })), "{rule}: {refused:?}");
        assert_eq!(diary.lines(), ["fetch demo/db", "create other"], "{rule}");
    }
}

#[tokio::test]
async fn what_was_copied_in_goes_with_a_container_that_gets_no_keys() {
    let (gate, diary) = gate_with("default ReleaseKeyRequest := true");
    diary.refuses.store(true, Ordering::Relaxed);
    let refused = gate.call("CreateContainer", create("sealed")).await;
    assert!(matches!(refused, Err(Failure::Effect { .. })), "{refused:?}");
    assert_eq!(diary.lines(), ["fetch demo/db", "give up sealed"]);
    diary.refuses.store(false, Ordering::Relaxed);
    gate.call("CreateContainer", create("other")).await.unwrap();
}

#[tokio::test]
async fn a_container_is_removed_after_it_was_made() {
    let (gate, diary) = hanging("default ReleaseKeyRequest := true");
    let made = begin(&gate, "CreateContainer", create("sealed"));
    until(&diary, 1).await;
    let remove = RemoveContainerRequest { container_id: "sealed".into(), ..Default::default() };
    let removed = begin(&gate, "RemoveContainer", remove.write_to_bytes().unwrap());
    gate.call("CreateContainer", create("other")).await.unwrap();
    assert_eq!(diary.lines(), ["fetch demo/db", "create other"]);
    diary.go_on.notify_one();
    made.await.unwrap().unwrap();
    removed.await.unwrap().unwrap();
    let expect = ["fetch demo/db", "create other", "create sealed", "remove_container"];
    assert_eq!(diary.lines(), expect);
}
