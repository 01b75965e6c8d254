//! Debug sessions: execs that the owner's key grants to this guest, once and for a time.
//!
//! Everything is an input: the caller says what time it is on the guest's own clock and draws the random bytes. A grant is for one
//! challenge of this guest; the exec that first shows it uses the challenge up and opens a session. A grant of exact words is good for
//! that exec alone, one of any command until its time is over.

use ah_agent_api::agent::ExecProcessRequest;
use ah_digest::Sha256;
use ah_grant::{Challenge, Command, DEBUG_WORD, DebugGrant, OwnerKey, SignedGrant};
use regorus::Value;
use serde_json::json;

use crate::decision::{Permit, decide, decide_granted};
use crate::denial::Denial;
use crate::engine::Policy;
use crate::state::State;

/// How long a challenge waits for its grant, milliseconds.
pub const CHALLENGE_LIFE_MS: u64 = 600_000;
/// Most challenges that wait. A host that provokes more gets the last one again, so that it neither fills the memory nor drives out
/// the one that the owner is signing.
pub const MAX_CHALLENGES: usize = 8;
/// Most sessions at once.
pub const MAX_SESSIONS: usize = 32;

const RULE: &str = "ExecProcessRequest";

/// What the guest knows beside the request.
#[derive(Debug, Clone, Copy)]
pub struct Here {
    /// Time since boot on the guest's own clock, milliseconds; never goes back.
    pub now_ms: u64,
    /// SHA-256 of the policy's document.
    pub document: Sha256,
}

/// A permitted exec.
#[derive(Debug)]
pub struct DebugExec {
    /// The permission.
    pub permit: Permit<ExecProcessRequest>,
    /// How long the process may run, milliseconds; `None` where no debug session limits it.
    pub limit_ms: Option<u64>,
}

/// What waits and what runs; part of the [`State`].
#[derive(Debug, Clone, Default)]
pub(crate) struct DebugSessions {
    waiting: Vec<Waiting>,
    open: Vec<Session>,
}

#[derive(Debug, Clone)]
struct Waiting {
    challenge: Challenge,
    until_ms: u64,
}

#[derive(Debug, Clone)]
struct Session {
    challenge: Challenge,
    token: Sha256,
    until_ms: u64,
}

/// What a granted exec changes beside the rules' state.
#[derive(Debug, Clone)]
pub(crate) enum DebugChange {
    /// The challenge is used up, and a session begins.
    Begin { challenge: Challenge, token: Sha256, until_ms: u64 },
    /// One more exec of a session.
    GoOn,
}

impl DebugSessions {
    pub(crate) fn commit(&mut self, change: DebugChange) {
        if let DebugChange::Begin { challenge, token, until_ms } = change {
            self.waiting.retain(|waiting| waiting.challenge != challenge);
            self.open.push(Session { challenge, token, until_ms });
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.waiting.retain(|waiting| now_ms < waiting.until_ms);
        self.open.retain(|session| now_ms < session.until_ms);
    }

    fn waits_for(&self, challenge: &Challenge, now_ms: u64) -> bool {
        let waits =
            |waiting: &Waiting| waiting.challenge == *challenge && now_ms < waiting.until_ms;
        self.waiting.iter().any(waits)
    }

    fn session(&self, challenge: &Challenge, now_ms: u64) -> Option<&Session> {
        let is = |session: &&Session| session.challenge == *challenge && now_ms < session.until_ms;
        self.open.iter().find(is)
    }
}

impl State {
    /// A challenge for whoever wants to debug: a new one of these bytes, or the last one where [`MAX_CHALLENGES`] wait already.
    pub fn offer_challenge(&mut self, now_ms: u64, drawn: Challenge) -> Challenge {
        let sessions = self.debug_mut();
        sessions.forget_old(now_ms);
        match sessions.waiting.last() {
            Some(last) if sessions.waiting.len() >= MAX_CHALLENGES => last.challenge,
            _ => {
                let until_ms = now_ms.saturating_add(CHALLENGE_LIFE_MS);
                sessions.waiting.push(Waiting { challenge: drawn, until_ms });
                drawn
            }
        }
    }
}

/// Decides an exec: by the policy's rules, or where the policy has a debug key and the first word is [`DEBUG_WORD`], by the grant
/// behind that word and then by the policy's rule for such execs. The two words are taken out of what is permitted.
///
/// # Errors
/// [`Denial`].
pub fn decide_exec(
    policy: &Policy,
    state: &State,
    request: ExecProcessRequest,
    here: &Here,
) -> Result<DebugExec, Denial> {
    let words = request.process.as_ref().map(|process| process.Args.as_slice()).unwrap_or_default();
    let token = match words {
        [first, token, ..] if first == DEBUG_WORD => token.clone(),
        [first] if first == DEBUG_WORD && policy.debug_key().is_some() => return Err(no_token()),
        _ => {
            return decide(policy, state, request)
                .map(|permit| DebugExec { permit, limit_ms: None });
        }
    };
    let Some(key) = policy.debug_key() else {
        return decide(policy, state, request).map(|permit| DebugExec { permit, limit_ms: None });
    };
    decide_token(policy, state, request, &token, &key, here)
}

fn decide_token(
    policy: &Policy,
    state: &State,
    request: ExecProcessRequest,
    token: &str,
    key: &OwnerKey,
    here: &Here,
) -> Result<DebugExec, Denial> {
    let because = |text: String| Denial::because(RULE, text);
    let signed = SignedGrant::from_token(token).map_err(|err| because(err.to_string()))?;
    let grant = signed.verify(key).map_err(|err| because(err.to_string()))?;
    if grant.policy != here.document {
        let found = grant.policy;
        return Err(because(format!(
            "debug grant: it is for the policy with digest {found}, this is {}",
            here.document
        )));
    }
    let change = change(state, &grant, Sha256::of(token), here.now_ms)?;
    let request = without_token(request);
    compare(&grant, &request)?;
    let said = json!({
        "container": grant.container,
        "stdin": grant.stdin,
        "terminal": grant.terminal,
    });
    let seen = state.seen_with_grant(Value::from(said));
    let limit_ms = match &change {
        DebugChange::Begin { until_ms, .. } => Some(*until_ms),
        DebugChange::GoOn => {
            state.debug().session(&grant.challenge, here.now_ms).map(|s| s.until_ms)
        }
    };
    let limit_ms = limit_ms.map(|until_ms| until_ms.saturating_sub(here.now_ms));
    let permit = decide_granted(policy, state, &seen, request, change)?;
    Ok(DebugExec { permit, limit_ms })
}

/// Whether the grant's challenge is one that waits, or one whose session this very token has opened.
fn change(
    state: &State,
    grant: &DebugGrant,
    token: Sha256,
    now_ms: u64,
) -> Result<DebugChange, Denial> {
    let sessions = state.debug();
    let challenge = grant.challenge;
    if sessions.waits_for(&challenge, now_ms) {
        let running = sessions.open.iter().filter(|session| now_ms < session.until_ms).count();
        if running >= MAX_SESSIONS {
            let text = format!("debug grant: {MAX_SESSIONS} sessions are open already");
            return Err(Denial::because(RULE, text));
        }
        let until_ms = now_ms.saturating_add(u64::from(grant.seconds).saturating_mul(1000));
        return Ok(DebugChange::Begin { challenge, token, until_ms });
    }
    let session = sessions.session(&challenge, now_ms);
    let text = match (session, &grant.command) {
        (Some(session), Command::Any) if session.token == token => return Ok(DebugChange::GoOn),
        (Some(_), _) => "debug grant: its challenge was used: a grant of one command is for once",
        (None, _) => {
            "debug grant: its challenge is not one that this guest waits for: it is another's, its time is over, or it was used"
        }
    };
    Err(Denial::because(RULE, text.to_owned()))
}

/// The request without the two words in front.
fn without_token(mut request: ExecProcessRequest) -> ExecProcessRequest {
    if let Some(process) = request.process.as_mut() {
        process.Args = process.Args.split_off(process.Args.len().min(2));
    }
    request
}

/// What the grant says of words and terminal; the container's name is the rules' to know.
fn compare(grant: &DebugGrant, request: &ExecProcessRequest) -> Result<(), Denial> {
    let because = |text: String| Err(Denial::because(RULE, text));
    let Some(process) = request.process.as_ref() else { return Err(no_token()) };
    match &grant.command {
        _ if process.Args.is_empty() => return Err(no_token()),
        Command::Exact(words) if *words != process.Args => {
            return because(format!(
                "debug grant: found command {:?}, expected {words:?}",
                process.Args
            ));
        }
        Command::Exact(_) | Command::Any => {}
    }
    match process.Terminal && !grant.terminal {
        true => {
            because("debug grant: it has no terminal: sign it with --tty, or leave -t out".into())
        }
        false => Ok(()),
    }
}

fn no_token() -> Denial {
    Denial::because(RULE, format!("expected {DEBUG_WORD} TOKEN COMMAND…"))
}
