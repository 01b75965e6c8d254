//! Every way in which a rule can fail to say yes, beside the one in which it says it.

use ah_agent_api::agent::{CopyFileRequest, RemoveContainerRequest, StartContainerRequest};
use ah_permit::{
    Denial, MAX_COLUMNS, MAX_DENIAL_BYTES, MAX_MINUS_SIGNS, MAX_NESTING, MAX_OPS, MAX_POLICY_BYTES,
    MAX_REREADING, Policy, PolicyError, StaleState, State, decide,
};

fn start(id: &str) -> StartContainerRequest {
    StartContainerRequest { container_id: id.to_owned(), ..Default::default() }
}

fn policy(body: &str) -> Policy {
    let head = "package agent_policy\nimport future.keywords.if\nimport future.keywords.in\n";
    Policy::compile(&format!("{head}{body}")).unwrap()
}

/// The rule for StartContainerRequest, decided for container `a`.
fn check(body: &str, expect: Result<(), &str>) {
    let found = decide(&policy(body), &State::new(), start("a"));
    match (found, expect) {
        (Ok(_), Ok(())) => {}
        (Err(denial), Err(text)) => {
            assert_eq!(denial.rule, "StartContainerRequest", "{body}");
            assert!(denial.to_string().contains(text), "{body}: {denial}");
        }
        (found, _) => panic!("{body}: {found:?}"),
    }
}

#[test]
fn only_true_is_permission() {
    check("StartContainerRequest := true", Ok(()));
    check("StartContainerRequest := false", Err("does not allow"));
    check("StartContainerRequest := true { input.container_id == \"b\" }", Err("does not allow"));
    check("StopContainer := true\nWaitProcessRequest := true", Err("does not allow"));
    check("StartContainerRequest := {\"allowed\": true}", Ok(()));
    check("StartContainerRequest := {\"allowed\": false}", Err("does not allow"));
    check("StartContainerRequest := {\"allowed\": true, \"ops\": null}", Ok(()));
    check("StartContainerRequest(x) := true", Err("does not allow"));
}

#[test]
fn attack_result_of_another_type_is_denied() {
    for value in ["\"true\"", "1", "null", "[true]", "{}", "{\"allowed\": \"true\"}", "{true}"] {
        check(&format!("StartContainerRequest := {value}"), Err("malformed"));
    }
    check("StartContainerRequest := {\"allowed\": true, \"more\": 1}", Err("malformed"));
    check("StartContainerRequest := {\"allowed\": 1}", Err("malformed"));
    check("StartContainerRequest[x] { x := \"allowed\" }", Err("malformed"));
    // Two definitions that disagree are an error of the engine.
    let two = "StartContainerRequest := true { input.container_id }\nStartContainerRequest := false { input.container_id }";
    check(two, Err("failed"));
}

#[test]
fn failing_builtins_are_undefined() {
    check("StartContainerRequest := true { not to_number(input.container_id) }", Ok(()));
    check("StartContainerRequest := true { to_number(input.container_id) }", Err("does not allow"));
}

fn with_ops(ops: &str) -> String {
    format!("StartContainerRequest := {{\"allowed\": true, \"ops\": {ops}}}")
}

#[test]
fn attack_ops_outside_pstate_are_denied() {
    check(&with_ops(r#"[{"op": "add", "path": "/pstate/a", "value": 1}]"#), Ok(()));
    for path in ["/pstate", "", "/", "/agent_policy/x", "/pstatex/a", "pstate/a"] {
        let ops = format!(r#"[{{"op": "add", "path": "{path}", "value": {{}}}}]"#);
        check(&with_ops(&ops), Err("ops"));
    }
    let moved = r#"[{"op": "move", "from": "/pstate", "path": "/pstate/a"}]"#;
    check(&with_ops(moved), Err("is not under /pstate"));
    check(&with_ops(r#"[{"op": "replace", "path": "/pstate/a", "value": 1}]"#), Err("ops"));
    check(&with_ops(r#"[{"op": "test", "path": "/pstate/a", "value": 1}]"#), Err("ops"));
    check(&with_ops(r#"{"op": "add", "path": "/pstate/a", "value": 1}"#), Err("expected a list"));
    check(&with_ops(r#"[{"op": "grow", "path": "/pstate/a", "value": 1}]"#), Err("ops"));
    let one = r#"{"op": "add", "path": "/pstate/a", "value": 1}"#;
    let many = |count: usize| with_ops(&format!("[{}]", vec![one; count].join(",")));
    check(&many(MAX_OPS), Ok(()));
    check(&many(MAX_OPS + 1), Err("at most"));
}

const ONCE: &str = r#"
StartContainerRequest := {"allowed": true, "ops": ops} if {
    not data.pstate[input.container_id]
    ops := [{"op": "add", "path": concat("", ["/pstate/", input.container_id]), "value": true}]
}
StartContainerRequest := {"allowed": true, "repeat": true} if data.pstate[input.container_id] == true
RemoveContainerRequest := {"allowed": true, "ops": ops} if {
    data.pstate[input.container_id] == true
    ops := [{"op": "replace", "path": concat("", ["/pstate/", input.container_id]), "value": "gone"}]
}
"#;

#[test]
fn state_follows_the_effect_and_a_retry_is_known() {
    let policy = policy(ONCE);
    let mut state = State::new();
    let first = decide(&policy, &state, start("a")).unwrap();
    assert!(!first.is_repeat());
    // The effect failed: nothing is committed, so the same request is no retry.
    drop(first);
    let first = decide(&policy, &state, start("a")).unwrap();
    assert!(!first.is_repeat() && !first.changes().is_empty());
    state.commit(first.into_parts().1).unwrap();
    let again = decide(&policy, &state, start("a")).unwrap();
    assert!(again.is_repeat() && again.changes().is_empty());
    let remove = RemoveContainerRequest { container_id: "a".to_owned(), ..Default::default() };
    let removed = decide(&policy, &state, remove).unwrap();
    state.commit(removed.into_parts().1).unwrap();
    assert!(decide(&policy, &state, start("a")).is_err());
    assert!(decide(&policy, &state, start("b")).is_ok());
}

#[test]
fn attack_two_requests_decided_upon_one_state_commit_once() {
    let policy = policy(ONCE);
    let mut state = State::new();
    let (one, two) = (decide(&policy, &state, start("a")), decide(&policy, &state, start("a")));
    assert_eq!(state.commit(one.unwrap().into_parts().1), Ok(()));
    assert_eq!(state.commit(two.unwrap().into_parts().1), Err(StaleState));
}

#[test]
fn attack_repeat_that_changes_the_state_is_denied() {
    let ops = r#"[{"op": "add", "path": "/pstate/a", "value": 1}]"#;
    let rule = |ops: &str| {
        format!("StartContainerRequest := {{\"allowed\": true, \"repeat\": true, \"ops\": {ops}}}")
    };
    check(&rule("[]"), Ok(()));
    check(&rule(ops), Err("repeats and changes"));
}

#[test]
fn attack_policy_that_lets_denied_requests_pass_is_refused() {
    let text = |value: &str| {
        format!(
            "package agent_policy\ndefault StartContainerRequest := true\nAllowRequestsFailingPolicy := {value}"
        )
    };
    assert!(Policy::compile(&text("false")).is_ok());
    let found = "true".to_owned();
    assert_eq!(Policy::compile(&text("true")).unwrap_err(), PolicyError::Bypass { found });
    assert!(matches!(Policy::compile(&text("1")), Err(PolicyError::Bypass { .. })));
    let default = "package agent_policy\ndefault StartContainerRequest := true\ndefault AllowRequestsFailingPolicy := true";
    assert!(matches!(Policy::compile(default), Err(PolicyError::Bypass { .. })));
    let rule = text("true { count(input) == 0 }");
    assert!(matches!(Policy::compile(&rule), Err(PolicyError::Bypass { .. })));
}

#[test]
fn a_text_that_is_no_policy_is_refused() {
    let compile = |text: &str| Policy::compile(text).unwrap_err();
    let found = "other".to_owned();
    let other = "package other\nStartContainerRequest := true";
    assert_eq!(compile(other), PolicyError::Package { found });
    let nested = "package agent_policy.more\nStartContainerRequest := true";
    assert!(matches!(compile(nested), PolicyError::Package { .. }));
    assert_eq!(compile("package agent_policy\nx := 1"), PolicyError::NoRules);
    assert!(matches!(compile("package agent_policy\nx := {"), PolicyError::Rego { .. }));
    assert!(matches!(compile(""), PolicyError::Rego { .. }));
    assert!(matches!(compile(&" ".repeat(MAX_POLICY_BYTES + 1)), PolicyError::TooLarge { .. }));
    let line = |bytes: usize| {
        format!("package agent_policy\nStartContainerRequest := \"{}\"", "x".repeat(bytes))
    };
    assert!(Policy::compile(&line(60_000)).is_ok());
    assert!(matches!(
        compile(&line(usize::try_from(MAX_COLUMNS).unwrap())),
        PolicyError::Rego { .. }
    ));
    let lines = |count: usize| {
        format!("package agent_policy\nStartContainerRequest := true{}", "\n".repeat(count))
    };
    assert!(Policy::compile(&lines(100_000)).is_ok());
    assert!(matches!(compile(&lines(200_001)), PolicyError::TooManyLines { .. }));
    // rules and data are counted together, although the engine does not see the data as text
    let both = |rules: usize, data: usize| {
        format!("{}\npolicy_data := {{{}}}\n", lines(rules), "\n".repeat(data))
    };
    assert!(Policy::compile(&both(100_000, 99_000)).is_ok());
    assert!(matches!(compile(&both(100_000, 101_000)), PolicyError::TooManyLines { .. }));
}

/// Found by fuzzing: the engine's parser takes twice as long for each bracket more.
#[test]
fn attack_brackets_that_the_parser_would_never_come_out_of() {
    let nested = |depth: usize, open: &str, close: &str| {
        let (open, close) = (open.repeat(depth), close.repeat(depth));
        format!("package agent_policy\nStartContainerRequest {{ x := {open}1{close} }}\n")
    };
    let is_too_deep = |text: &str| match Policy::compile(text) {
        Err(PolicyError::TooDeep { found }) => found > MAX_REREADING,
        _ => false,
    };
    for (open, close) in [
        ("[", "]"),
        ("{", "}"),
        ("{\"a\":", "}"),
        ("[{", "}]"),
        ("f([", "])"),
        ("[1|", "]"),
        ("{1|", "}"),
        ("[1|some a, b in c;", "]"),
    ] {
        assert!(!is_too_deep(&nested(5, open, close)), "{open}");
        assert!(is_too_deep(&nested(24, open, close)), "{open}");
    }
    // a little at a time, all over the text
    let more = nested(10, "[", "]").replace("package agent_policy\n", "");
    assert!(!is_too_deep(&nested(10, "[", "]")));
    assert!(is_too_deep(&format!("{}{}", nested(10, "[", "]"), more.repeat(500))));
    // elements behind the first one are read once
    let wide = format!("{}1{}", "[0, ".repeat(24), "]".repeat(24));
    assert!(!is_too_deep(&format!(
        "package agent_policy\nStartContainerRequest {{ x := {wide} }}"
    )));
    // and a text of nothing else is looked at in no time, and takes none of the parser's stack
    let too_nested = |text: &str| matches!(Policy::compile(text), Err(PolicyError::TooNested));
    for (open, close) in [("(", ")"), ("[0,", "]"), ("f(", ")")] {
        let text = format!("package agent_policy\nx := {}", open.repeat(1 << 20));
        assert!(too_nested(&text), "{open}");
        assert!(!too_nested(&nested(MAX_NESTING - 1, open, close)), "{open}");
        assert!(too_nested(&nested(MAX_NESTING, open, close)), "{open}");
    }
    // a minus sign before a value nests as well
    let minus = |count: usize| format!("package agent_policy\nx := {}1", "- ".repeat(count));
    assert!(!too_nested(&minus(MAX_MINUS_SIGNS)));
    assert!(too_nested(&minus(MAX_MINUS_SIGNS + 1)));
    // in texts and comments they are no brackets, and a quote in one of these does not begin a text
    let deep = "[".repeat(60);
    let rule = format!(
        "package agent_policy\n# {deep} \"\nx := \"{deep}\\\"{deep}\"\ny := `{deep}\\`\nStartContainerRequest := true"
    );
    assert!(!is_too_deep(&rule));
    for hidden in ["# \"\n", "x := `\"`\n", "x := \"`\"\n", "x := \"#\"\n", "x := \"\\\\\"\n"] {
        assert!(is_too_deep(&format!("package agent_policy\n{hidden}y := {deep}")), "{hidden}");
    }
}

#[test]
fn attack_builtins_that_reach_outside_are_not_there() {
    for call in [
        "http.send({\"method\": \"get\", \"url\": \"http://x\"})",
        "time.now_ns()",
        "opa.runtime()",
        "uuid.rfc4122(\"x\")",
    ] {
        let text = format!("package agent_policy\nStartContainerRequest := true {{ {call} }}");
        let denied = match Policy::compile(&text) {
            Err(_) => true,
            Ok(policy) => decide(&policy, &State::new(), start("a")).is_err(),
        };
        assert!(denied, "{call}");
    }
}

#[test]
fn denials_name_the_nearest_container_and_its_fields() {
    let policy = policy(
        r#"
default StartContainerRequest := false
explain_StartContainerRequest := [{"container": n, "request": {"container_id": i}} | i := {"web": "1", "db": "2"}[n]]
default WaitProcessRequest := false
explain_WaitProcessRequest := [{"text": "not now", "field": "/exec_id", "found": "x", "expected": "y"}]
default RemoveContainerRequest := false
RemoveContainerRequest if { print("printed", input.container_id); false }
explain_CopyFileRequest := "not a list"
default CopyFileRequest := false
"#,
    );
    let denial = decide(&policy, &State::new(), start("3")).unwrap_err();
    assert_eq!(
        denial.to_string(),
        "StartContainerRequest denied by the policy\n  container db: /container_id: found \"3\", expected \"2\""
    );
    let wait = ah_agent_api::agent::WaitProcessRequest::default();
    let denial = decide(&policy, &State::new(), wait).unwrap_err();
    assert!(
        denial.to_string().ends_with("/exec_id: found \"x\", expected \"y\"; not now"),
        "{denial}"
    );
    let remove = RemoveContainerRequest { container_id: "r".to_owned(), ..Default::default() };
    let denial = decide(&policy, &State::new(), remove).unwrap_err();
    assert!(denial.to_string().contains("printed r"), "{denial}");
    let denial = decide(&policy, &State::new(), CopyFileRequest::default()).unwrap_err();
    assert!(denial.to_string().contains("does not allow"), "{denial}");
    let json = serde_json::to_string(&denial).unwrap();
    assert_eq!(serde_json::from_str::<Denial>(&json).unwrap(), denial);
}

#[test]
fn denials_stay_short() {
    let long = "é".repeat(4000);
    let body = format!(
        "default StartContainerRequest := false\nexplain_StartContainerRequest := [{{\"text\": \"{long}\"}} | x := [1,2,3,4,5,6,7,8,9,10,11,12][_]; x > 0]"
    );
    let denial = decide(&policy(&body), &State::new(), start("a")).unwrap_err();
    within_limit(&denial);
    let last = denial.reasons.last().unwrap();
    let more = format!("and {} more", 12 - (denial.reasons.len() - 1));
    assert_eq!(last.text, more);
}

/// Both as text, which the agent answers with, and as JSON.
fn within_limit(denial: &Denial) {
    assert!(denial.to_string().len() <= MAX_DENIAL_BYTES, "{denial}");
    assert!(serde_json::to_string(denial).unwrap().len() <= MAX_DENIAL_BYTES, "{denial}");
    assert!(!denial.reasons.is_empty());
}

#[test]
fn attack_a_host_cannot_make_a_denial_long_or_forge_its_lines() {
    let policy = policy(
        r#"
default CreateContainerRequest := false
explain_CreateContainerRequest := [{"container": "web", "request": {}}]
"#,
    );
    for (key, value) in [
        ("k".repeat(1 << 20), "v".repeat(1 << 20)),
        ("\"\\".repeat(9000), "\u{1}\"".repeat(9000)),
        ("x\nCreateContainerRequest allowed\r".repeat(40), "é\u{1b}[2K\n".repeat(900)),
    ] {
        let mut request = ah_agent_api::agent::CreateContainerRequest::default();
        let annotations = (0..20).map(|n| (format!("{n}{key}"), value.clone())).collect();
        let spec = ah_agent_api::oci::Spec { Annotations: annotations, ..Default::default() };
        request.OCI = Some(spec).into();
        let denial = decide(&policy, &State::new(), request).unwrap_err();
        within_limit(&denial);
        let text = denial.to_string();
        assert!(text.lines().skip(1).all(|line| line.starts_with("  ")), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}

#[test]
fn attack_a_secret_s_value_is_not_in_a_denial() {
    let policy = policy(
        r#"
default CreateContainerRequest := false
explain_CreateContainerRequest := [{"container": "web", "secrets": ["PW"], "request": object.union(input, {"OCI":
    {"Process": {"Env": ["MODE=a", "PW=hush-hush"], "Args": ["run", "--pw=hush-hush"]}}})}]
"#,
    );
    let denial = |env: &[&str], args: &[&str]| {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let process =
            ah_agent_api::oci::Process { Env: texts(env), Args: texts(args), ..Default::default() };
        let spec = ah_agent_api::oci::Spec { Process: Some(process).into(), ..Default::default() };
        let request = ah_agent_api::agent::CreateContainerRequest {
            OCI: Some(spec).into(),
            ..Default::default()
        };
        decide(&policy, &State::new(), request).unwrap_err().to_string()
    };
    let args = ["run", "--pw=hush-hush"];
    let text = denial(&["MODE=b", "PW=hush-hush"], &args);
    assert!(text.contains("found \"MODE=b\", expected \"MODE=a\""), "{text}");
    let text = denial(&["MODE=a", "PW=guess"], &args);
    assert!(text.contains("/OCI/Process/Env/1") && text.contains("not shown"), "{text}");
    assert!(!text.contains("hush") && !text.contains("guess"), "{text}");
    for text in [denial(&["MODE=a"], &args), denial(&["MODE=a", "PW=hush-hush"], &["run"])] {
        assert!(text.contains("expected \"") && !text.contains("hush"), "{text}");
    }
}

#[test]
fn attack_symlink_whose_target_the_rules_cannot_see_is_denied() {
    let policy = policy("CopyFileRequest := true");
    let link = |target: &[u8]| CopyFileRequest {
        file_mode: 0o120777,
        data: target.to_vec(),
        ..Default::default()
    };
    assert!(decide(&policy, &State::new(), link(b"x")).is_ok());
    let denial = decide(&policy, &State::new(), link(&[0xff])).unwrap_err();
    assert!(denial.to_string().contains("not UTF-8"), "{denial}");
}

#[test]
fn texts_of_the_same_rules_share_them_and_not_their_data_or_state() {
    let text = |names: &str, rules: &str| {
        format!(
            "package agent_policy\nimport future.keywords.if\nimport future.keywords.in\n\
             StartContainerRequest if input.container_id in policy_data.names\n{rules}\n\
             policy_data := {{\"names\":{names}}}\n"
        )
    };
    let allowed = |policy: &Policy, id: &str| decide(policy, &State::new(), start(id)).is_ok();
    let first = Policy::compile(&text(r#"["a"]"#, "")).unwrap();
    assert!(allowed(&first, "a"));
    let check = |names: &str, rules: &str, a: bool, b: bool| {
        let other = first.compile_alike(&text(names, rules)).unwrap();
        assert_eq!((allowed(&other, "a"), allowed(&other, "b")), (a, b), "{names} {rules}");
        assert!(allowed(&first, "a") && !allowed(&first, "b"));
    };
    check(r#"["b"]"#, "", false, true);
    check(r#"["a"]"#, "", true, false);
    check("[]", "", false, false);
    // Other rules are compiled anew.
    check("[]", "StartContainerRequest if input.container_id == \"b\"", false, true);
    // What compile refuses, this refuses too.
    let bypass = text("[]", "AllowRequestsFailingPolicy := true");
    assert!(matches!(first.compile_alike(&bypass), Err(PolicyError::Bypass { .. })));
    assert!(first.compile_alike("package other").is_err());
    assert!(first.compile_alike(&" ".repeat(MAX_POLICY_BYTES + 1)).is_err());
}
