//! Debug sessions at the gate: challenge, grant, end.

use std::sync::atomic::Ordering;

use ah_agent::gate::{Gate, Rules};
use ah_agent_api::agent::ExecProcessRequest;
use ah_agent_api::oci::Process;
use ah_grant::{Challenge, Command, DebugGrant, SecretKey};
use protobuf::Message as _;

use crate::diary::{Diary, RULES, fixed, gate, rules_of};

/// One container, and debug sessions of the key of seed 3.
fn debug_rules() -> Rules {
    let key = SecretKey::from_seed(&[3; 32]).public();
    rules_of(&format!(
        "{RULES}\ndebug_key := \"{key}\"\n\
         DebugExecRequest := {{\"allowed\": true, \"ops\": ops}} if {{\n\
         data.guest.debug.container == \"web\"\n\
         ops := [{{\"op\": \"add\", \"path\": concat(\"/\", [\"/pstate\", input.exec_id]), \"value\": true}}]\n}}\n"
    ))
}

async fn exec(gate: &Gate<Diary>, words: &[&str], exec_id: &str) -> Result<(), String> {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let process = Process { Args: words, ..Default::default() };
    let request = ExecProcessRequest {
        container_id: "c1".into(),
        exec_id: exec_id.into(),
        process: Some(process).into(),
        ..Default::default()
    };
    let answer = gate.call("ExecProcess", request.write_to_bytes().unwrap()).await;
    answer.map(drop).map_err(|failure| failure.told())
}

fn challenge_in(told: &str) -> Challenge {
    let (_, rest) = told.split_once("debug challenge ").expect(told);
    rest.split_once(',').unwrap().0.parse().unwrap()
}

fn token(challenge: Challenge, command: Command) -> String {
    let rules = {
        let Rules::Fixed { document, .. } = debug_rules() else { panic!() };
        document
    };
    let grant = DebugGrant {
        challenge,
        policy: rules,
        container: "web".into(),
        command,
        stdin: false,
        terminal: false,
        seconds: 1,
    };
    grant.sign(&SecretKey::from_seed(&[3; 32])).unwrap()
}

#[tokio::test]
async fn a_denied_exec_gives_a_challenge_and_its_grant_runs_until_its_time_is_over() {
    let (gate, diary) = gate(debug_rules());
    let told = exec(&gate, &["sh"], "e1").await.unwrap_err();
    assert!(told.contains("ExecProcessRequest") && told.contains("hint: anchorhold debug grant"));
    let token = token(challenge_in(&told), Command::Any);
    exec(&gate, &["anchorhold-debug", &token, "sh"], "e2").await.unwrap();
    assert_eq!(diary.lines(), ["exec c1 sh"]);
    diary.go_on.notified().await;
    assert_eq!(diary.lines(), ["exec c1 sh", "end c1 e2"]);
}

#[tokio::test]
async fn attack_a_token_again_after_its_time_and_a_challenge_without_a_key() {
    let (fixed, _) = fixed();
    let told = exec(&fixed, &["sh"], "e1").await.unwrap_err();
    assert!(!told.contains("challenge"), "{told}");
    let (gate, diary) = gate(debug_rules());
    let told = exec(&gate, &["sh"], "e1").await.unwrap_err();
    let token = token(challenge_in(&told), Command::Any);
    exec(&gate, &["anchorhold-debug", &token, "sh"], "e2").await.unwrap();
    diary.now_ms.store(1_000, Ordering::Relaxed);
    let told = exec(&gate, &["anchorhold-debug", &token, "sh"], "e3").await.unwrap_err();
    assert!(told.contains("its time is over"), "{told}");
    // Whoever holds the key gets another challenge with it.
    assert_ne!(challenge_in(&told), Challenge::new([0; 32]));
    assert_eq!(diary.lines().iter().filter(|line| line.starts_with("exec")).count(), 1);
}
