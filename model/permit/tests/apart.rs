//! Rules that only explain are compiled at the first denial, and only where leaving them out changes no decision.

use ah_agent_api::agent::StartContainerRequest;
use ah_permit::{Policy, State, decide};

const DATA: &str = "policy_data := {\"ids\": [\"a\"]}\n";
const DECIDES: &str = "default StartContainerRequest := false\nStartContainerRequest { input.container_id == policy_data.ids[_] }";
/// The generator's, with rules beside them that this policy does not have: they compile in a whole policy only.
const KNOWN: &str = include_str!("../../../owner/policygen/src/rules/explain.rego");

fn known() -> String {
    let lines = KNOWN.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

fn text(decides: &str, explains: &str) -> String {
    format!("package agent_policy\n{decides}\n{explains}\n{DATA}")
}

/// Whether the explanations are left out of decisions. As part of the whole, those of the generator do not compile here.
#[track_caller]
fn check(decides: &str, explains: &str, apart: bool) {
    let policy = Policy::compile(&text(decides, explains));
    let found = policy.is_ok_and(|policy| policy.has_explanations_apart());
    assert_eq!(found, apart, "{decides}\n{explains}");
}

#[test]
fn explanations_wait_for_the_first_denial() {
    check(DECIDES, &known(), true);
    let policy = Policy::compile(&text(DECIDES, &known())).unwrap();
    let start = |id: &str| StartContainerRequest { container_id: id.into(), ..Default::default() };
    assert!(decide(&policy, &State::new(), start("a")).is_ok());
    // Nothing explains it, and it is a denial all the same.
    assert!(policy.check_explanations().is_err());
    assert!(decide(&policy, &State::new(), start("b")).is_err());
}

#[test]
fn attack_rules_that_matter_are_called_explanations() {
    for more in [
        "StartContainerRequest { true }",
        "  forbidden { input.container_id == \"evil\" }",
        "\tStartContainerRequest := false { input.container_id == \"evil\" }",
        "AllowRequestsFailingPolicy := true",
        "default more := true",
        "\r",
        "# a comment",
        " ",
    ] {
        check(DECIDES, &format!("{}{more}\n", known()), false);
        check(DECIDES, &format!("explain_More := [] {more}\n{}", known()), false);
    }
    check(DECIDES, &known().replace(" := array.concat(", " := array.concat( "), false);
    check(DECIDES, "explain_StartContainerRequest := []\n", false);
}

#[test]
fn attack_a_rule_that_decides_asks_for_an_explanation() {
    let with = |rule: &str| format!("{DECIDES}\nStartContainerRequest {{ {rule} }}");
    check(&with("input.container_id == \"c\""), &known(), true);
    for rule in [
        "count(explain_StartContainerRequest) > 0",
        "not unknown_container",
        "p := concat(\"_\", [\"agent\", \"policy\"]); data[p]",
        "all := data; all[_]",
        "walk(data, [_, x]); x",
        "data.agent_policy[x] == \"no such container\"",
    ] {
        check(&with(rule), &known(), false);
    }
    // What the guest and the rules before it remember is no rule.
    check(&with("data.pstate.sandbox; data.guest.exits.a == 0"), &known(), true);
    check(&with("input.data == \"data\""), &known(), true);
}

/// What makes the known text one that can be left out: every rule of it begins a line, and nothing else does.
#[test]
fn every_rule_of_the_known_explanations_begins_a_line() {
    let mut depth = 0_i32;
    for line in known().lines() {
        let begins = line.starts_with(|c: char| c.is_ascii_alphabetic());
        let goes_on = line.starts_with(['\t', '}', ')', ']']);
        assert!(if depth == 0 { begins } else { goes_on }, "{depth} {line}");
        let mut quoted = None;
        for c in line.chars() {
            match (quoted, c) {
                (None, '"' | '`') => quoted = Some(c),
                (Some(mark), c) if c == mark => quoted = None,
                (None, '(' | '[' | '{') => depth += 1,
                (None, ')' | ']' | '}') => depth -= 1,
                _ => {}
            }
        }
        assert!(depth >= 0 && quoted.is_none(), "{line}");
    }
    assert_eq!(depth, 0);
}
