//! Claims that make a guest weaker than it need be, and that a release policy has to name before a key goes there.

use ah_release_api::policy::{Claims, ConditionResult, HARDWARE_TEE, TDX_VM, claim, quote_claim};

/// What makes a guest weaker than a guest need be. A policy that says nothing of it does not mean to allow it.
pub(crate) struct Weakness {
    pub(crate) claim: &'static str,
    pub(crate) words: &'static str,
}

/// The weaknesses of the guest that `claims` describe and that none of the comparisons in `met` names. A met `equals` names the weak
/// value itself, so the owner wrote it down; `exists` or `less` name none.
pub(crate) fn unnamed_weaknesses(claims: &Claims, met: &[ConditionResult]) -> Vec<Weakness> {
    weaknesses(strong(claims), met, |claim, strong| {
        claims.find(claim).is_none_or(|found| found.to_string() != strong)
    })
}

/// The same for claims of others, who need not make every claim: one that is not made is no weakness.
pub(crate) fn unnamed_weaknesses_of_token(
    claims: &Claims,
    met: &[ConditionResult],
) -> Vec<Weakness> {
    weaknesses(strong(claims), met, |claim, strong| {
        claims.find(claim).is_some_and(|found| found.to_string() != strong)
    })
}

/// Claim, the value of a guest that is not weak, and what it means otherwise.
type Strong = (&'static str, &'static str, &'static str);

const NOT_CONFIDENTIAL: &str = "the TEE is a program, so the guest is not confidential";
const DEBUGGABLE: &str = "the guest is debuggable, so its host can read its memory";
const MIGRATABLE: &str = "a migration agent can read the guest's memory";

const SNP: &[Strong] = &[
    (claim::TEE, HARDWARE_TEE, NOT_CONFIDENTIAL),
    (claim::IS_DEBUGGABLE, "false", DEBUGGABLE),
    (claim::MIGRATION_ALLOWED, "false", MIGRATABLE),
    (claim::VMPL, "0", "the report comes from a privilege level below the guest's highest"),
];

const TDX: &[Strong] = &[
    (claim::TEE, TDX_VM, NOT_CONFIDENTIAL),
    (quote_claim::DEBUG, "false", DEBUGGABLE),
    (quote_claim::MIGRATABLE, "false", MIGRATABLE),
    (quote_claim::TCB_STATUS, "UpToDate", "Intel knows of weaknesses in the platform's versions"),
];

/// What is looked at follows from the kind of guest, which its verifier says.
fn strong(claims: &Claims) -> &'static [Strong] {
    match claims.find(claim::ATTESTATION_TYPE) {
        Some(kind) if kind.to_string() == TDX_VM => TDX,
        _ => SNP,
    }
}

fn weaknesses(
    strong: &[Strong],
    met: &[ConditionResult],
    is_weak: impl Fn(&str, &str) -> bool,
) -> Vec<Weakness> {
    strong
        .iter()
        .copied()
        .filter(|(claim, strong, _)| is_weak(claim, strong))
        .filter(|(claim, ..)| {
            !met.iter().any(|result| result.claim == *claim && result.operator.is_equals())
        })
        .map(|(claim, _, words)| Weakness { claim, words })
        .collect()
}

#[cfg(test)]
mod tests {
    use ah_release_api::policy::{Operator, Scalar};

    use super::*;

    /// `exists` and `less` are met by a debuggable guest too: whoever wrote them did not name one.
    #[test]
    fn attack_weak_guest_under_a_policy_that_only_mentions_the_claim() {
        let mut claims = Claims::default();
        claims.insert(claim::TEE, HARDWARE_TEE);
        claims.insert(claim::IS_DEBUGGABLE, false);
        claims.insert(claim::MIGRATION_ALLOWED, false);
        claims.insert(claim::VMPL, 1);
        let met = |operator, expected: Scalar| ConditionResult {
            claim: claim::VMPL.into(),
            operator,
            found: claims.find(claim::VMPL),
            expected,
        };
        let unnamed = |met| unnamed_weaknesses(&claims, &[met]).len();
        assert_eq!(unnamed(met(Operator::Equals, 1.into())), 0);
        assert_eq!(unnamed(met(Operator::Less, 2.into())), 1);
        assert_eq!(unnamed(met(Operator::Exists, true.into())), 1);
    }

    /// A TDX guest has weaknesses of its own, under names of its own.
    #[test]
    fn attack_weak_tdx_guest_under_a_policy_that_does_not_name_it() {
        let mut good = Claims::default();
        good.insert(claim::TEE, TDX_VM);
        good.insert(claim::ATTESTATION_TYPE, TDX_VM);
        good.insert(quote_claim::DEBUG, false);
        good.insert(quote_claim::MIGRATABLE, false);
        good.insert(quote_claim::TCB_STATUS, "UpToDate");
        let named = |claims: &Claims, name: &str| {
            let found = claims.find(name);
            let expected = found.clone().unwrap();
            let met =
                ConditionResult { claim: name.into(), operator: Operator::Equals, found, expected };
            unnamed_weaknesses(claims, &[met]).len()
        };
        let changes: [(&str, Scalar); 4] = [
            (claim::TEE, "software (not confidential)".into()),
            (quote_claim::DEBUG, true.into()),
            (quote_claim::MIGRATABLE, true.into()),
            (quote_claim::TCB_STATUS, "OutOfDate".into()),
        ];
        assert!(unnamed_weaknesses(&good, &[]).is_empty());
        for (name, value) in changes {
            let mut weak = good.clone();
            weak.insert(name, value);
            let found = unnamed_weaknesses(&weak, &[]);
            assert_eq!(found.iter().map(|weak| weak.claim).collect::<Vec<_>>(), [name]);
            assert_eq!(unnamed_weaknesses_of_token(&weak, &[]).len(), 1, "{name}");
            assert_eq!(named(&weak, name), 0, "{name}: an owner who names it means it");
        }
    }
}
