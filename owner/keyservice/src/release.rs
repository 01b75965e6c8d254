//! One release request to a decision. Every check either passes or ends it; the key is unsealed after all that concern the evidence.

use std::time::SystemTime;

use ah_digest::Sha256;
use ah_evidence::{Evidence, ReportData};
use ah_release_api::policy::{Claims, ConditionResult, Decision, LOCAL_AUTHORITY, claim};
use ah_release_api::{
    KeyId, Refusal, RefusedBy, ReleaseRequest, Released, RuntimeData, Seed, WrapContext,
};

use crate::environment::{blocking, random32};
use crate::evidence::Guest;
use crate::journal::Change;
use crate::log::{LogEntry, LoggedCondition};
use crate::service::KeyService;
use crate::vault::{Attributes, KeyInfo, Rule, StoredKey};
use crate::weakness::{Weakness, unnamed_weaknesses};

/// Most causes of one error that the log keeps.
const MAX_CAUSES: usize = 16;
/// Longest text of one cause in the log, characters.
const MAX_CAUSE_CHARS: usize = 1000;

/// A no, in two texts: what the peer is told and what the log says.
pub(crate) struct Refused {
    pub(crate) told: Refusal,
    pub(crate) reasons: Vec<String>,
}

impl Refused {
    /// A policy that is not met: the peer is told which claims, with their values.
    pub(crate) fn unmet(failed: &[ConditionResult]) -> Self {
        let words = match failed.len() {
            1 => "1 claim is not met".to_owned(),
            count => format!("{count} claims are not met"),
        };
        Self {
            told: Refusal::unmet(RefusedBy::ReleasePolicy, &words, failed),
            reasons: vec![words],
        }
    }

    pub(crate) fn new(by: RefusedBy, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { told: Refusal::new(by, &reason), reasons: vec![reason] }
    }

    /// The peer gets the error's own words, the log all causes.
    pub(crate) fn of(by: RefusedBy, error: &dyn std::error::Error) -> Self {
        Self { told: Refusal::new(by, &error.to_string()), reasons: causes(error) }
    }

    /// An error of the service: what of it is the operator's business only.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        let told = "the key service failed: its operator finds the cause in its decision log";
        Self { told: Refusal::new(RefusedBy::Service, told), reasons: causes(error) }
    }
}

/// Errors quote what the peer sent, so their texts are cut: a line of the log stays a line.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source())
        .take(MAX_CAUSES)
        .map(|error| shown(&error.to_string()))
        .collect()
}

/// A text that may quote a peer, for a log and for terminals: bounded, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_CAUSE_CHARS).collect()
}

impl KeyService {
    /// Decides, and notes in `entry` what it learns on the way.
    pub(crate) async fn decide(
        &self,
        request: &ReleaseRequest,
        now: SystemTime,
        entry: &mut LogEntry,
        spent: &mut Change,
    ) -> Result<Released, Refused> {
        let evidence = &request.evidence;
        let runtime_data = self.open_statement(request, now, entry, spent)?;
        let guest = self.verify_in_turn(evidence, now).await?;
        let claims = guest.claims;
        check_report_data(evidence, guest.report_data)?;
        // Only a report that was made for this request is one that not anybody could send again and again (`refuse`).
        entry.tee = claims.find(claim::TEE).map(|tee| tee.to_string());
        entry.claims = claims.as_json().clone();
        let key = self.find(&request.key_id).await?;
        entry.key_version = Some(key.info.version.clone());
        let rule =
            releasable(&key.info).map_err(|words| Refused::new(RefusedBy::KeyStore, words))?;
        entry.policy_sha256 = Some(Sha256::of(&rule.text));
        let met = check_rule(rule, LOCAL_AUTHORITY, &claims, entry)?;
        refuse_weak(&unnamed_weaknesses(&claims, &met))?;
        self.wrap(&key, &runtime_data, evidence)
    }

    /// Whoever waits for a turn holds no thread; whoever has one holds a thread beside those that serve others.
    async fn verify_in_turn(&self, evidence: &Evidence, now: SystemTime) -> Result<Guest, Refused> {
        let closed = |_| Refused::new(RefusedBy::Service, "the service ends");
        let _turn = self.verifications().acquire().await.map_err(closed)?;
        blocking(|| self.verify(evidence, now))
    }

    /// The statement that the report is to bind: for this key, and for a challenge of ours that nobody answered yet.
    fn open_statement(
        &self,
        request: &ReleaseRequest,
        now: SystemTime,
        entry: &mut LogEntry,
        spent: &mut Change,
    ) -> Result<RuntimeData, Refused> {
        let refuse = |reason: &str| Err(Refused::new(RefusedBy::Request, reason));
        if request.evidence.initdata.is_some() {
            return refuse(
                "evidence carries initdata, expected null: HOST_DATA stands for it here",
            );
        }
        entry.runtime_data_sha256 = Some(Sha256::of(&request.evidence.runtime_data));
        let data = RuntimeData::parse(&request.evidence.runtime_data)
            .map_err(|error| Refused::of(RefusedBy::Request, &error))?;
        if data.key_id != request.key_id {
            return refuse("runtime data is for another key than the request");
        }
        *spent =
            self.spend(&data.nonce, now).map_err(|error| Refused::of(RefusedBy::Nonce, &error))?;
        Ok(data)
    }

    async fn find(&self, id: &KeyId) -> Result<StoredKey, Refused> {
        match self.vault().find(id, None).await {
            Ok(Some(key)) => Ok(key),
            Ok(None) => Err(Refused::new(RefusedBy::KeyStore, format!("there is no key {id}"))),
            Err(error) => Err(Refused::internal(&error)),
        }
    }

    fn wrap(
        &self,
        key: &StoredKey,
        data: &RuntimeData,
        evidence: &Evidence,
    ) -> Result<Released, Refused> {
        let context = WrapContext {
            key_id: key.info.id.clone(),
            kind: key.info.kind(),
            runtime_data: Sha256::of(&evidence.runtime_data),
        };
        let seed = random32(self.environment()).map_err(|error| Refused::internal(&error))?;
        let wrapped = self
            .vault()
            .identity()
            .wrap(&key.secret, &data.public_key, &context, Seed::new(*seed))
            .map_err(|error| Refused::of(RefusedBy::Request, &error))?;
        Ok(Released { kind: key.info.kind(), wrapped })
    }
}

fn check_report_data(evidence: &Evidence, found: ReportData) -> Result<(), Refused> {
    let expected = evidence.expected_report_data();
    match found == expected {
        true => Ok(()),
        false => {
            let words = format!(
                "REPORT_DATA is not SHA-256 of the runtime data: found {found}, expected {expected}"
            );
            Err(Refused::new(RefusedBy::ReportData, words))
        }
    }
}

/// The rule that a key is released under, if it is released at all.
pub(crate) fn releasable(key: &KeyInfo) -> Result<&Rule, String> {
    let Attributes { enabled, exportable, .. } = key.attributes;
    match &key.rule {
        _ if !enabled => Err(format!("key {} is disabled", key.id)),
        Some(rule) if exportable => Ok(rule),
        _ => Err(format!("key {} is not exportable", key.id)),
    }
}

/// What of a key's policy is met by these claims of an authority.
pub(crate) fn check_rule(
    rule: &Rule,
    authority: &str,
    claims: &Claims,
    entry: &mut LogEntry,
) -> Result<Vec<ConditionResult>, Refused> {
    match rule.policy.evaluate(authority, claims) {
        Decision::Met(met) => {
            entry.conditions = met.iter().map(LoggedCondition::from).collect();
            Ok(met)
        }
        Decision::NotMet(failed) => {
            entry.conditions = failed.iter().map(LoggedCondition::from).collect();
            Err(Refused::unmet(&failed))
        }
        Decision::OtherAuthority { found, expected } => {
            let words = format!(
                "policy trusts other authorities: found {found}, expected {}",
                expected.join(" or ")
            );
            Err(Refused::new(RefusedBy::ReleasePolicy, words))
        }
    }
}

/// Weaknesses that the policy does not allow by naming them.
pub(crate) fn refuse_weak(weaknesses: &[Weakness]) -> Result<(), Refused> {
    let reasons: Vec<String> = weaknesses
        .iter()
        .map(|weak| {
            format!("{}; the key's policy does not allow that by naming {}", weak.words, weak.claim)
        })
        .collect();
    match reasons.is_empty() {
        true => Ok(()),
        false => {
            Err(Refused { told: Refusal::new(RefusedBy::Appraisal, &reasons.join("; ")), reasons })
        }
    }
}
