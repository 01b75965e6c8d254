//! Claims that make a guest weaker than it need be, and that a release policy has to name before a key goes there.

use ah_release_api::policy::{Claims, ConditionResult, HARDWARE_TEE, claim};

/// What makes a guest weaker than a guest need be. A policy that says nothing of it does not mean to allow it.
pub(crate) struct Weakness {
    pub(crate) claim: &'static str,
    pub(crate) words: &'static str,
}

/// The weaknesses of the guest that `claims` describe and that none of the comparisons in `met` names. A met `equals` names the weak
/// value itself, so the owner wrote it down; `exists` or `less` name none.
pub(crate) fn unnamed_weaknesses(claims: &Claims, met: &[ConditionResult]) -> Vec<Weakness> {
    weaknesses(met, |claim, strong| {
        claims.find(claim).is_none_or(|found| found.to_string() != strong)
    })
}

/// The same for claims of others, who need not make every claim: one that is not made is no weakness.
pub(crate) fn unnamed_weaknesses_of_token(
    claims: &Claims,
    met: &[ConditionResult],
) -> Vec<Weakness> {
    weaknesses(met, |claim, strong| {
        claims.find(claim).is_some_and(|found| found.to_string() != strong)
    })
}

fn weaknesses(met: &[ConditionResult], is_weak: impl Fn(&str, &str) -> bool) -> Vec<Weakness> {
    let strong: [(&str, &str, &str); 4] = [
        (claim::TEE, HARDWARE_TEE, "the TEE is a program, so the guest is not confidential"),
        (claim::IS_DEBUGGABLE, "false", "the guest is debuggable, so its host can read its memory"),
        (claim::MIGRATION_ALLOWED, "false", "a migration agent can read the guest's memory"),
        (claim::VMPL, "0", "the report comes from a privilege level below the guest's highest"),
    ];
    strong
        .into_iter()
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
}
