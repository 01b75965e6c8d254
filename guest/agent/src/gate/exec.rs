//! Execs, and the debug sessions that an owner's key may grant: a denied exec is answered with a challenge, a granted one ends when
//! its session's time is over.

use std::sync::Arc;
use std::time::Duration;

use ah_agent_api::agent::ExecProcessRequest;
use ah_grant::{Challenge, DEBUG_WORD};
use ah_permit::{CHALLENGE_LIFE_MS, Denial, Here, Policy, State, decide_exec};

use super::{Gate, Response as _, denied};
use crate::console::{Level, in_this_trace, tell};
use crate::effects::Effects;
use crate::failure::Failure;

impl<E: Effects> Gate<E> {
    /// Decides, carries out and commits under the lock.
    pub(super) async fn exec(&self, request: ExecProcessRequest) -> Result<Vec<u8>, Failure> {
        let mut rules = self.rules.lock().await;
        let here = Here { now_ms: self.effects.now_ms(), document: rules.document()? };
        let (policy, state) = rules.stand()?;
        for (container_id, exit_code) in self.effects.exits() {
            state.note_exit(&container_id, exit_code);
        }
        let exec = match decide_exec(policy, state, request, &here) {
            Ok(exec) => exec,
            Err(denial) => return Err(self.with_challenge(policy, state, denial, &here)?),
        };
        if exec.permit.is_repeat() {
            return ().bytes();
        }
        self.effects.exec_process(&exec.permit).await?;
        if let Some(limit_ms) = exec.limit_ms {
            self.end_later(&exec.permit, limit_ms);
        }
        let (_, changes) = exec.permit.into_parts();
        state.commit(changes).map_err(|e| Failure::effect("commit", &e))?;
        ().bytes()
    }

    /// What the host is told: where the policy names a debug key, with a challenge for it.
    fn with_challenge(
        &self,
        policy: &Policy,
        state: &mut State,
        denial: Denial,
        here: &Here,
    ) -> Result<Failure, Failure> {
        if policy.debug_key().is_none() {
            return Ok(denied(denial));
        }
        let drawn = Challenge::new(self.effects.draw()?);
        let challenge = state.offer_challenge(here.now_ms, drawn);
        let minutes = CHALLENGE_LIFE_MS / 60_000;
        Ok(Failure::Denied {
            text: format!(
                "{denial}\n  debug challenge {challenge}, good for at most {minutes} minutes\n  \
                 hint: anchorhold debug grant --key KEY --policy POD.yaml --container NAME --challenge {challenge} -- COMMAND\n  \
                 prints a token; then execute: {DEBUG_WORD} TOKEN COMMAND"
            ),
        })
    }

    /// Ends the process when its session does.
    fn end_later(&self, request: &ExecProcessRequest, limit_ms: u64) {
        let (container_id, exec_id) = (request.container_id.clone(), request.exec_id.clone());
        let effects = Arc::clone(&self.effects);
        tokio::spawn(in_this_trace(async move {
            tokio::time::sleep(Duration::from_millis(limit_ms)).await;
            if let Err(e) = effects.end_process(&container_id, &exec_id).await {
                tell(Level::Error, &format!("end of a debug session: {e}"));
            }
        }));
    }
}
