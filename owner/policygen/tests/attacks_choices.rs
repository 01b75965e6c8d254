//! The owner's choices: what each lets in, beside what a host would like to make of it.

mod support;

use ah_agent_api::Request;
use ah_agent_api::agent::{CreateContainerRequest, ExecProcessRequest, GetDiagnosticDataRequest};
use ah_permit::may_release_keys;
use ah_pod::{Bound, Pod, Role, TerminationLog, WholePod, Word, requests};
use ah_policygen::{Options, diff, generate, show};
use support::{Case, container, pod};

fn text(pod: &Pod) -> String {
    generate(pod, &Options::default()).unwrap().policy
}

fn exact(word: &str) -> Word {
    Word::Exact(word.to_owned())
}

/// `web` may have its log and three kinds of lines of it shown.
fn with_patterns() -> Pod {
    let mut pod = pod();
    pod.containers[1].choices.exec_patterns = vec![
        vec![
            exact("tail"),
            exact("-n"),
            Word::Within(Bound::Pattern("[1-9][0-9]{0,3}".to_owned())),
            Word::Within(Bound::Prefix("/var/log/web.".to_owned())),
        ],
        vec![exact("level"), Word::Within(Bound::OneOf(vec!["info".into(), "debug".into()]))],
    ];
    pod
}

#[test]
fn attack_exec_beside_a_pattern() {
    let case = Case::running(with_patterns());
    let exec = |words: &[&str]| -> ExecProcessRequest {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        requests::exec_process(&case.pod, 1, &words, "e1", &case.host).unwrap()
    };
    for words in [
        &["tail", "-n", "20", "/var/log/web.access"][..],
        &["tail", "-n", "1", "/var/log/web.2026-01-31"],
        &["level", "debug"],
        &["/bin/check", "--now"],
    ] {
        case.allowed(exec(words));
    }
    for words in [
        &["tail", "-n", "20"][..],
        &["tail", "-n", "20", "/var/log/web.access", "/etc/shadow"],
        &["tail", "-n", "0", "/var/log/web.access"],
        &["tail", "-n", "20 ", "/var/log/web.access"],
        &["tail", "-n", "20\n", "/var/log/web.access"],
        &["tail", "-n", "x20", "/var/log/web.access"],
        &["tail", "-n", "20", "/var/log/webXaccess"],
        &["tail", "-n", "20", "/var/log/web."],
        &["tail", "-n", "20", "/var/log/web.a/../../../etc/shadow"],
        &["tail", "-n", "20", "x/var/log/web.a"],
        &["tail", "-f", "20", "/var/log/web.access"],
        &["tail -n", "20", "/var/log/web.access"],
        &["level", "info debug"],
        &["level", "trace"],
        &["level"],
        &["sh"],
    ] {
        case.denied(exec(words), "/process/Args");
    }
    // The pattern is of this container, and of its words alone.
    let mut elsewhere = exec(&["level", "info"]);
    elsewhere.container_id = case.id("setup");
    assert!(case.decide(elsewhere).is_err());
    let mut more = exec(&["level", "info"]);
    more.process.as_mut().unwrap().Env.push("LD_PRELOAD=/x".to_owned());
    case.denied(more, "/process/Env/6");
}

fn with_mutable(bound: Bound, own: &str) -> Pod {
    let mut pod = pod();
    pod.containers[1].env[0].value = own.into();
    pod.containers[1].choices.mutable.insert("MODE".to_owned(), bound);
    pod
}

#[test]
fn attack_a_variable_out_of_its_bound() {
    let check = |bound: Bound, own: &str, allowed: &[&str], denied: &[&str]| {
        let mut case = Case::new(with_mutable(bound, own));
        let id = case.id("web");
        case.run_until(|r| matches!(r, Request::CreateContainer(c) if c.container_id == id));
        let with = |change: &dyn Fn(&mut Vec<String>)| -> CreateContainerRequest {
            let mut request = case.create("web");
            change(&mut request.OCI.as_mut().unwrap().Process.as_mut().unwrap().Env);
            request
        };
        let set = |value: &str| {
            with(&|env| {
                let at = env.iter().position(|entry| entry.starts_with("MODE=")).unwrap();
                env[at] = format!("MODE={value}");
            })
        };
        case.allowed(case.create("web"));
        allowed.iter().for_each(|value| drop(case.allowed(set(value))));
        denied.iter().for_each(|value| assert!(case.decide(set(value)).is_err(), "{value:?}"));
        // The bound opens the value only: not the name, not a second one, not another variable.
        assert!(case.decide(with(&|env| env.push(format!("MODE={own}")))).is_err());
        assert!(case.decide(with(&|env| env.retain(|entry| !entry.starts_with("MODE=")))).is_err());
        assert!(case.decide(with(&|env| env.push("OTHER=1".to_owned()))).is_err());
        assert!(case.decide(with(&|env| env.push(allowed[0].to_owned()))).is_err());
    };
    let one_of = |all: &[&str]| Bound::OneOf(all.iter().map(|one| (*one).to_owned()).collect());
    check(
        one_of(&["info", "debug"]),
        "info",
        &["debug"],
        &["", "Info", "info ", "trace", "infodebug"],
    );
    check(
        Bound::Pattern("[0-9]{1,3}".to_owned()),
        "7",
        &["0", "999"],
        &["", "1000", "1\n", "-1", "$(pod-ip)", "$(mutable-0)", "$(sandbox-id)"],
    );
    // Any character: in JSON, and in no placeholder.
    check(
        Bound::Pattern(".*".to_owned()),
        "a\"b",
        &["\"", "\\", "a\",\"EVIL=1", "{}", "ü\u{1}", "x=y"],
        &["$(pod-ip)", "\n", "$(mutable-0)"],
    );
    check(Bound::Prefix("eu-".to_owned()), "eu-1", &["eu-west.2"], &["eu-", "us-1", "eu-/x"]);
}

#[test]
fn what_is_no_bound_is_refused_when_the_policy_is_made() {
    let refused = |pod: &Pod, words: &str| {
        let error = generate(pod, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(&with_mutable(Bound::OneOf(vec!["a".to_owned()]), "b"), "its own value \"b\"");
    refused(&with_mutable(Bound::Pattern("b)|(?:c".to_owned()), "b"), "variable MODE of container");
    let mut pod = with_patterns();
    pod.containers[1].choices.exec_patterns[0][2] =
        Word::Within(Bound::Pattern("(?s)x".to_owned()));
    refused(&pod, "flags");
}

#[test]
fn attack_the_termination_message_of_another_container() {
    let mut pod = pod();
    pod.containers[1].choices.termination_log = TerminationLog::Readable;
    let case = Case::running(pod);
    let read = |container: &str, file: &str| GetDiagnosticDataRequest {
        container_id: case.id(container),
        log_type: file.to_owned(),
        ..Default::default()
    };
    case.allowed(read("web", "/dev/termination-log"));
    for file in ["/etc/hosts", "/etc/shadow", "", "termination-log", "/dev/termination-log/.."] {
        case.denied(read("web", file), "/log_type");
    }
    case.denied(read("db", "/dev/termination-log"), "/container_id");
    let closed = Case::running(support::pod());
    closed.denied(read("web", "/dev/termination-log"), "/log_type");
}

/// Neither keys nor execs for a pod that lacks a container; all of it when the last one is there.
#[test]
fn attack_keys_and_execs_in_a_part_of_the_pod() {
    for (whole, early) in [(WholePod::Awaited, false), (WholePod::NotAwaited, true)] {
        let mut pod = pod();
        pod.whole = whole;
        let mut case = Case::running(pod);
        let args = case.pod.containers[1].execs[0].clone();
        let exec = requests::exec_process(&case.pod, 1, &args, "e1", &case.host).unwrap();
        assert_eq!(case.decide(exec.clone()).is_ok(), early);
        assert_eq!(may_release_keys(&case.policy, &case.state).is_ok(), early);
        if !early {
            case.denied(exec.clone(), "not created yet: db");
            let denial = may_release_keys(&case.policy, &case.state).unwrap_err();
            assert!(denial.to_string().contains("not created yet: db"), "{denial}");
        }
        case.commit(case.create("db"));
        case.allowed(exec);
        may_release_keys(&case.policy, &case.state).unwrap();
    }
    let case = Case::new(pod());
    assert!(may_release_keys(&case.policy, &case.state).is_err(), "no sandbox");
}

#[test]
fn keys_that_wait_for_the_whole_pod_do_not_come_to_an_init_container() {
    let mut pod = pod();
    pod.whole = WholePod::Awaited;
    pod.containers[0].release_socket = true;
    let error = generate(&pod, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("init container \"setup\""), "{error}");
    pod.containers[0].role = Role::Sidecar;
    generate(&pod, &Options::default()).unwrap();
}

#[test]
fn show_and_diff_have_a_line_for_each_choice() {
    let mut chosen = with_patterns();
    chosen.whole = WholePod::Awaited;
    chosen.containers.push(container("helper", Role::Main));
    chosen.containers[1].choices.termination_log = TerminationLog::Readable;
    let bound = Bound::OneOf(vec!["quiet $(UNKNOWN)".to_owned(), "loud".to_owned()]);
    chosen.containers[1].choices.mutable.insert("MODE".to_owned(), bound);
    chosen.containers[1].env[0].value = "loud".into();
    let shown = show(&text(&chosen)).unwrap().to_string();
    for line in [
        "exec         the host may run tail -n <matching ^(?:[1-9][0-9]{0,3})$> <matching ^/var/log/web\\.",
        "exec         the host may run level <one of info, debug>",
        "termination  the host MAY READ the termination message of web",
        "whole pod    no key and no exec before every container has been created",
        "$(mutable-0) of web: variable MODE, one of quiet $(UNKNOWN), loud",
        "env          MODE=$(mutable-0)",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let mut plain = pod();
    plain.containers.push(container("helper", Role::Main));
    let document = |pod: &Pod| {
        let generated = generate(pod, &Options::default()).unwrap();
        ah_policy::PolicyDocument::InitData(generated.initdata)
    };
    let text = diff(&document(&plain), &document(&chosen)).unwrap().to_string();
    for line in [
        "exec               lets in    level <one of info, debug>",
        "termination log    lets in    the host may read",
        "mutable env        lets in    MODE one of",
        "before the whole pod shuts out",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
