//! Debug sessions: what a grant of the owner's key lets in, beside what a host would like to make of it.

mod support;

use ah_agent_api::agent::{
    CloseStdinRequest, ExecProcessRequest, ReadStreamRequest, TtyWinResizeRequest,
    WriteStreamRequest,
};
use ah_digest::Sha256;
use ah_grant::{Challenge, Command, DEBUG_WORD, DebugGrant, SecretKey};
use ah_permit::{CHALLENGE_LIFE_MS, DebugExec, Denial, Here, MAX_CHALLENGES, Policy, decide_exec};
use ah_pod::{Logs, Pod, WholePod, requests};
use ah_policy::PolicyDocument;
use ah_policygen::{Agent, Options, diff, generate, show};
use support::{Case, pod};

const NOW_MS: u64 = 5_000;

fn key() -> SecretKey {
    SecretKey::from_seed(&[3; 32])
}

fn with_key() -> Pod {
    let mut pod = pod();
    pod.owner_keys.debug = Some(key().public());
    pod.logs = Logs::Closed;
    pod.containers[1].stdin = true;
    pod
}

fn document() -> Sha256 {
    Sha256::of("the policy's document")
}

/// The pod runs, and its guest has given out a challenge.
struct Debugged {
    case: Case,
    challenge: Challenge,
}

impl Debugged {
    fn new(pod: Pod) -> Self {
        let mut case = Case::running(pod);
        let challenge = case.state.offer_challenge(NOW_MS, Challenge::new([5; 32]));
        Self { case, challenge }
    }

    fn grant(&self, command: Command) -> DebugGrant {
        DebugGrant {
            challenge: self.challenge,
            policy: document(),
            container: "web".into(),
            command,
            stdin: false,
            terminal: false,
            seconds: 60,
        }
    }

    fn request(
        &self,
        container: usize,
        token: &str,
        words: &[&str],
        id: &str,
    ) -> ExecProcessRequest {
        let front = [DEBUG_WORD, token];
        let words: Vec<String> = front.iter().chain(words).map(|word| (*word).into()).collect();
        requests::exec_process(&self.case.pod, container, &words, id, &self.case.host).unwrap()
    }

    fn decide(&self, request: ExecProcessRequest, now_ms: u64) -> Result<DebugExec, Denial> {
        let here = Here { now_ms, document: document() };
        decide_exec(&self.case.policy, &self.case.state, request, &here)
    }

    fn exec(&self, grant: &DebugGrant, words: &[&str]) -> Result<DebugExec, Denial> {
        let token = grant.sign(&key()).unwrap();
        self.decide(self.request(1, &token, words, "d1"), NOW_MS)
    }

    fn carried_out(&mut self, request: ExecProcessRequest, now_ms: u64) {
        let exec = self.decide(request, now_ms).unwrap();
        self.case.state.commit(exec.permit.into_parts().1).unwrap();
    }

    fn denied(&self, request: ExecProcessRequest, now_ms: u64, text: &str) {
        let denial = self.decide(request, now_ms).unwrap_err().to_string();
        assert!(denial.contains(text), "expected {text}: {denial}");
    }
}

fn words(words: &[&str]) -> Command {
    Command::Exact(words.iter().map(|word| (*word).to_owned()).collect())
}

#[test]
fn a_granted_command_runs_as_the_container_does_and_the_token_is_not_among_its_words() {
    let debugged = Debugged::new(with_key());
    let exec = debugged.exec(&debugged.grant(words(&["ps", "-ef"])), &["ps", "-ef"]).unwrap();
    assert_eq!(exec.permit.process.Args, ["ps", "-ef"]);
    assert_eq!(exec.limit_ms, Some(60_000));
    // An ordinary exec that the owner allows is not limited.
    let check = ["/bin/check".to_owned(), "--now".to_owned()];
    let case = &debugged.case;
    let ordinary = requests::exec_process(&case.pod, 1, &check, "e1", &case.host).unwrap();
    assert_eq!(debugged.decide(ordinary, NOW_MS).unwrap().limit_ms, None);
}

#[test]
fn attack_debugging_where_the_owner_named_no_key_or_another() {
    let mut none = with_key();
    none.owner_keys.debug = None;
    let none = Debugged::new(none);
    let grant = none.grant(Command::Any);
    let denial = none.exec(&grant, &["sh"]).unwrap_err().to_string();
    assert!(denial.contains("the owner allows only these commands"), "{denial}");
    assert!(!generate(&none.case.pod, &Options::default()).unwrap().policy.contains("debug_key"));

    let debugged = Debugged::new(with_key());
    let foreign = grant.sign(&SecretKey::from_seed(&[4; 32])).unwrap();
    let signature = "the signature is not of the key";
    debugged.denied(debugged.request(1, &foreign, &["sh"], "d1"), NOW_MS, signature);
    let own = grant.sign(&key()).unwrap();
    let mut changed = own.clone().into_bytes();
    changed[90] = if changed[90] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    debugged.denied(debugged.request(1, &changed, &["sh"], "d1"), NOW_MS, signature);
    for token in ["", "x", "not a token"] {
        debugged.denied(debugged.request(1, token, &["sh"], "d1"), NOW_MS, "debug token");
    }
    debugged.decide(debugged.request(1, &own, &["sh"], "d1"), NOW_MS).unwrap();
}

#[test]
fn attack_a_grant_for_another_guest_policy_container_or_command() {
    let debugged = Debugged::new(with_key());
    let grant = debugged.grant(words(&["ps"]));
    debugged.exec(&grant, &["ps"]).unwrap();
    let denied = |grant: DebugGrant, words: &[&str], text: &str| {
        let denial = debugged.exec(&grant, words).unwrap_err().to_string();
        assert!(denial.contains(text), "expected {text}: {denial}");
    };
    let other = DebugGrant { challenge: Challenge::new([6; 32]), ..grant.clone() };
    denied(other, &["ps"], "not one that this guest waits for");
    let other = DebugGrant { policy: Sha256::of("another"), ..grant.clone() };
    denied(other, &["ps"], "it is for the policy with digest");
    denied(DebugGrant { container: "db".into(), ..grant.clone() }, &["ps"], "not the granted one");
    denied(grant.clone(), &["ps", "-ef"], "found command");
    denied(grant.clone(), &["sh"], "found command");
    denied(grant, &[], "expected anchorhold-debug TOKEN COMMAND");
}

#[test]
fn attack_a_granted_process_that_is_more_than_its_words() {
    let debugged = Debugged::new(with_key());
    let token = debugged.grant(Command::Any).sign(&key()).unwrap();
    let honest = debugged.request(1, &token, &["sh"], "d1");
    debugged.decide(honest.clone(), NOW_MS).unwrap();
    let denied = |change: &dyn Fn(&mut ExecProcessRequest), text: &str| {
        let mut request = honest.clone();
        change(&mut request);
        debugged.denied(request, NOW_MS, text);
    };
    let more = "more than its arguments";
    denied(&|request| request.process.as_mut().unwrap().Env.push("A=B".into()), more);
    denied(&|request| request.process.as_mut().unwrap().Cwd = "/".into(), more);
    denied(&|request| request.process.as_mut().unwrap().User.as_mut().unwrap().UID = 0, more);
    denied(&|request| request.process.as_mut().unwrap().NoNewPrivileges ^= true, more);
    denied(&|request| request.stdin_port = 1, more);
    denied(&|request| request.exec_id = request.container_id.clone(), more);
    denied(&|request| request.process.as_mut().unwrap().Terminal = true, "it has no terminal");
}

#[test]
fn attack_a_grant_of_one_command_used_twice() {
    let mut debugged = Debugged::new(with_key());
    let token = debugged.grant(words(&["ps"])).sign(&key()).unwrap();
    debugged.carried_out(debugged.request(1, &token, &["ps"], "d1"), NOW_MS);
    debugged.denied(debugged.request(1, &token, &["ps"], "d2"), NOW_MS, "its challenge was used");
    // Nor is the challenge good for a second grant, within the first one's time or after.
    let second = debugged.grant(Command::Any).sign(&key()).unwrap();
    debugged.denied(debugged.request(1, &second, &["ps"], "d2"), NOW_MS, "its challenge was used");
    let after = NOW_MS + 60_000;
    for token in [&token, &second] {
        debugged.denied(debugged.request(1, token, &["ps"], "d2"), after, "it was used");
    }
}

#[test]
fn attack_a_session_or_a_challenge_after_its_time() {
    let mut debugged = Debugged::new(with_key());
    let token = debugged.grant(Command::Any).sign(&key()).unwrap();
    let first = debugged.request(1, &token, &["sh"], "d1");
    let last_ms = NOW_MS + CHALLENGE_LIFE_MS - 1;
    debugged.decide(first.clone(), last_ms).unwrap();
    debugged.denied(first.clone(), last_ms + 1, "its time is over");
    debugged.carried_out(first, NOW_MS);
    let again = debugged.request(1, &token, &["ps"], "d2");
    let exec = debugged.decide(again.clone(), NOW_MS + 59_999).unwrap();
    assert_eq!(exec.limit_ms, Some(1));
    debugged.denied(again, NOW_MS + 60_000, "its time is over");
}

#[test]
fn attack_input_output_and_terminal_beyond_the_grant() {
    // web declares stdin, and the pod's logs are closed: neither counts for what a grant runs.
    for (stdin, terminal) in [(false, false), (true, false), (false, true)] {
        let mut debugged = Debugged::new(with_key());
        let grant = DebugGrant { stdin, terminal, ..debugged.grant(Command::Any) };
        let token = grant.sign(&key()).unwrap();
        let mut exec = debugged.request(1, &token, &["sh"], "d1");
        exec.process.as_mut().unwrap().Terminal = terminal;
        debugged.carried_out(exec, NOW_MS);
        let case = &debugged.case;
        let (container_id, exec_id) = (case.id("web"), "d1".to_owned());
        let read = ReadStreamRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            ..Default::default()
        };
        case.allowed(read.clone());
        assert!(case.decide(ReadStreamRequest { exec_id: container_id.clone(), ..read }).is_err());
        let write = WriteStreamRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            ..Default::default()
        };
        assert_eq!(case.decide(write.clone()).is_ok(), stdin, "{grant:?}");
        case.allowed(WriteStreamRequest { exec_id: container_id.clone(), ..write });
        // the end of a terminal's input is a character that is typed
        let close = CloseStdinRequest {
            container_id: container_id.clone(),
            exec_id: exec_id.clone(),
            ..Default::default()
        };
        assert_eq!(case.decide(close).is_ok(), stdin || !terminal, "{grant:?}");
        let resize = TtyWinResizeRequest { container_id, exec_id, row: 1, ..Default::default() };
        assert_eq!(case.decide(resize).is_ok(), terminal, "{grant:?}");
    }
}

#[test]
fn attack_a_host_that_provokes_challenges() {
    let mut debugged = Debugged::new(with_key());
    let state = &mut debugged.case.state;
    let mut last = debugged.challenge;
    for number in 0..1000_u32 {
        let mut bytes = [0xff; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        let given = state.offer_challenge(NOW_MS, Challenge::new(bytes));
        let is_new = usize::try_from(number).unwrap() + 1 < MAX_CHALLENGES;
        assert_eq!(given == Challenge::new(bytes), is_new, "{number}");
        assert!(is_new || given == last);
        last = given;
    }
    // The first one is still good, and there is room again after their time.
    debugged.exec(&debugged.grant(words(&["ps"])), &["ps"]).unwrap();
    let fresh = Challenge::new([1; 32]);
    let later = NOW_MS + CHALLENGE_LIFE_MS;
    assert_eq!(debugged.case.state.offer_challenge(later, fresh), fresh);
}

#[test]
fn attack_a_debug_session_before_the_whole_pod() {
    let mut pod = with_key();
    pod.whole = WholePod::Awaited;
    let debugged = Debugged::new(pod);
    let denial = debugged.exec(&debugged.grant(Command::Any), &["sh"]).unwrap_err();
    assert!(denial.to_string().contains("the whole pod is awaited"), "{denial}");
}

#[test]
fn the_key_is_shown_told_apart_and_refused_for_stock_kata() {
    let text = |pod: &Pod| generate(pod, &Options::default()).unwrap().policy;
    let policy = text(&with_key());
    let key = key().public().to_string();
    let shown = show(&policy).unwrap();
    assert_eq!(shown.debug_key.as_ref(), Some(&key));
    let words = format!("WHOEVER HOLDS THE KEY {key} MAY RUN ANY COMMAND");
    assert!(shown.to_string().contains(&words), "{shown}");
    let mut without = with_key();
    without.owner_keys.debug = None;
    assert!(!show(&text(&without)).unwrap().to_string().contains("KEY"));
    let document = |pod: &Pod| {
        let made = generate(pod, &Options::default()).unwrap();
        PolicyDocument::InitData(made.initdata)
    };
    let (old, new) = (document(&without), document(&with_key()));
    let change = diff(&old, &new).unwrap().to_string();
    assert!(change.contains("debug key") && change.contains(&key), "{change}");
    assert!(
        change.contains("of this generator") && !change.contains("another generator"),
        "{change}"
    );
    let refused = generate(&with_key(), &Options { agent: Agent::Kata, ..Options::default() });
    assert!(refused.unwrap_err().to_string().contains("debug key"));
    assert!(Policy::compile(&policy).unwrap().has_explanations_apart());
}
