//! A policy in the shape of the convention's known generator: package, rule names, input, state, `policy_data`.

use ah_agent_api::agent::{CreateContainerRequest, ReadStreamRequest, RemoveContainerRequest};
use ah_agent_api::{PolicyRequest, Request};
use ah_permit::{Policy, State, decide};
use serde_json::json;

/// Written by hand after the convention: Rego v0 with future keywords, one result with operations, booleans else.
const POLICY: &str = r#"
package agent_policy

import future.keywords.in
import future.keywords.if
import future.keywords.every

default AllowRequestsFailingPolicy := false
default CreateContainerRequest := false
default ReadStreamRequest := false
default RemoveContainerRequest := true

CreateContainerRequest := {"ops": ops, "allowed": true} {
    print("create", input.container_id)
    is_null(input.string_user)
    count(input.shared_mounts) == 0
    some candidate in policy_data.containers
    matches(candidate.OCI, input.OCI)
    same_sandbox
    ops := remember(candidate)
}

matches(declared, found) if {
    declared.Process.Args == found.Process.Args
    every entry in found.Process.Env {
        entry in declared.Process.Env
    }
    regex.match(declared.Root.Path, found.Root.Path)
}

same_sandbox if not data.pstate.sandbox_name
same_sandbox if data.pstate.sandbox_name == input.OCI.Annotations["io.kubernetes.cri.sandbox-name"]

remember(candidate) := ops if {
    ops := [
        {"op": "add", "path": "/pstate/sandbox_name", "value": input.OCI.Annotations["io.kubernetes.cri.sandbox-name"]},
        {"op": "add", "path": concat("/", ["/pstate", input.container_id]), "value": candidate},
    ]
}

ReadStreamRequest {
    policy_data.request_defaults.ReadStreamRequest == true
}

policy_data := {
    "containers": [{"OCI": {
        "Process": {"Args": ["sleep", "1"], "Env": ["A=1"]},
        "Root": {"Path": "^/run/kata-containers/[a-z0-9]+/rootfs$"}
    }}],
    "request_defaults": {"ReadStreamRequest": true}
}
"#;

fn create(id: &str, args: &[&str], sandbox: &str) -> CreateContainerRequest {
    let json = json!({
        "container_id": id,
        "OCI": {
            "Process": { "Args": args, "Env": ["A=1"] },
            "Root": { "Path": format!("/run/kata-containers/{id}/rootfs") },
            "Annotations": { "io.kubernetes.cri.sandbox-name": sandbox },
        },
    });
    CreateContainerRequest::from_json(json).unwrap()
}

#[test]
fn rules_see_input_state_and_data_as_the_convention_says() {
    let policy = Policy::compile(POLICY).unwrap();
    let mut state = State::new();
    let permit = decide(&policy, &state, create("a", &["sleep", "1"], "pod")).unwrap();
    assert!(!permit.is_repeat());
    state.commit(permit.into_parts().1).unwrap();
    assert!(decide(&policy, &state, create("b", &["sleep", "1"], "pod")).is_ok());
    assert!(decide(&policy, &state, ReadStreamRequest::default()).is_ok());
    assert!(decide(&policy, &state, RemoveContainerRequest::default()).is_ok());
    assert!(policy.data().unwrap().unwrap()["containers"].is_array());
}

#[test]
fn attack_requests_that_its_rules_deny_or_do_not_know() {
    let policy = Policy::compile(POLICY).unwrap();
    let mut state = State::new();
    state
        .commit(
            decide(&policy, &state, create("a", &["sleep", "1"], "pod")).unwrap().into_parts().1,
        )
        .unwrap();
    let denial = decide(&policy, &state, create("b", &["sh"], "pod")).unwrap_err();
    assert!(denial.to_string().contains("create b"), "{denial}");
    assert!(decide(&policy, &state, create("b", &["sleep", "1"], "other")).is_err());
    assert!(decide(&policy, &state, create("../x", &["sleep", "1"], "pod")).is_err());
    let unknown = Request::from_json("SetPolicy", json!({})).unwrap();
    assert!(decide(&policy, &state, unknown).is_err());
}

#[test]
fn data_at_the_end_of_the_text_is_the_same_as_data_among_the_rules() {
    let (rules, data) = POLICY.split_once("\npolicy_data := ").unwrap();
    let (package, rest) = rules.split_once("\ndefault Allow").unwrap();
    let among = format!("{package}\npolicy_data := {data}\ndefault Allow{rest}");
    for text in [
        POLICY,
        &among,
        &format!("{POLICY}\nx := 1"),
        &format!("{rules}\npolicy_data := {data}# end"),
    ] {
        let policy = Policy::compile(text).unwrap();
        assert_eq!(policy.data().unwrap(), Policy::compile(POLICY).unwrap().data().unwrap());
        assert!(decide(&policy, &State::new(), create("a", &["sleep", "1"], "pod")).is_ok());
        assert!(decide(&policy, &State::new(), create("a", &["sh"], "pod")).is_err());
    }
}

#[test]
fn attack_data_that_the_state_operations_would_change() {
    let rule = r#"package agent_policy
StartContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": PATH, "value": {}}]}
policy_data := {"a": 1}
"#;
    for (path, allowed) in [("\"/pstate/x\"", true), ("\"/anchorhold_policy_data/a\"", false)] {
        let policy = Policy::compile(&rule.replace("PATH", path)).unwrap();
        let request = ah_agent_api::agent::StartContainerRequest::default();
        assert_eq!(decide(&policy, &State::new(), request).is_ok(), allowed, "{path}");
    }
}
