//! Claims that make a guest weaker than it need be, and that a release policy has to name before a key goes there.

use ah_evidence::TdAttributes;
use ah_release_api::policy::{
    Claims, ConditionResult, HARDWARE_TEE, Scalar, TDX_VM, claim, quote_claim,
};

/// What makes a guest weaker than a guest need be. A policy that says nothing of it does not mean to allow it.
pub(crate) struct Weakness {
    pub(crate) claim: &'static str,
    pub(crate) words: &'static str,
}

/// The weaknesses of the guest that `claims` describe and that none of the comparisons in `met` names. A met `equals` names the weak
/// value itself, so the owner wrote it down; `exists` or `less` name none.
pub(crate) fn unnamed_weaknesses(claims: &Claims, met: &[ConditionResult]) -> Vec<Weakness> {
    weaknesses(claims, met, |claim, strong| {
        claims.find(claim).is_none_or(|found| !strong.contains(&found.to_string().as_str()))
    })
}

/// The same for claims of others, who need not make every claim: one that is not made is no weakness, but one that is there and no plain value
/// is, and bits of a TDX guest's attributes are read where no claim is about them.
pub(crate) fn unnamed_weaknesses_of_token(
    claims: &Claims,
    met: &[ConditionResult],
) -> Vec<Weakness> {
    let mut found = weaknesses(claims, met, |claim, strong| {
        let is_strong = |found: Scalar| strong.contains(&found.to_string().as_str());
        is_there(claims, claim) && !claims.find(claim).is_some_and(is_strong)
    });
    found.extend(weak_attributes(claims, met));
    found
}

/// Claim, the values of a guest that is not weak, and what another one means.
type Strong = (&'static str, &'static [&'static str], &'static str);

const NOT_CONFIDENTIAL: &str = "the TEE is a program, so the guest is not confidential";
const DEBUGGABLE: &str = "the guest is debuggable, so its host can read its memory";
const MIGRATABLE: &str = "a migration agent can read the guest's memory";
const OTHER_ATTRIBUTES: &str =
    "the guest has attributes that let its host profile or step it, or that are unknown";
const UNREADABLE: &str = "the guest's attributes are not 16 hex digits";
const UNTOLD: &str = "the token does not say what attributes the guest has";

const SNP: &[Strong] = &[
    (claim::IS_DEBUGGABLE, &["false"], DEBUGGABLE),
    (claim::MIGRATION_ALLOWED, &["false"], MIGRATABLE),
    (claim::VMPL, &["0"], "the report comes from a privilege level below the guest's highest"),
];

const TDX: &[Strong] = &[
    (quote_claim::DEBUG, &["false"], DEBUGGABLE),
    (quote_claim::MIGRATABLE, &["false"], MIGRATABLE),
    (quote_claim::OTHER_ATTRIBUTES, &[quote_claim::NO_ATTRIBUTES], OTHER_ATTRIBUTES),
    (
        quote_claim::SERVICE_TD,
        &[quote_claim::NO_SERVICE_TD],
        "a service guest is bound to the guest, which may read its memory",
    ),
    (
        quote_claim::TCB_STATUS,
        &["UpToDate"],
        "Intel knows of weaknesses in the platform's versions",
    ),
];

/// What is looked at follows from the kind of guest, which its verifier says; where it does not say, everything is.
fn strong(claims: &Claims) -> Vec<Strong> {
    let kind = claims.find(claim::ATTESTATION_TYPE).map(|kind| kind.to_string());
    let (tee, tables): (&[&str], &[&[Strong]]) = match kind.as_deref() {
        Some(TDX_VM) => (&[TDX_VM], &[TDX]),
        Some(_) => (&[HARDWARE_TEE], &[SNP]),
        None => (&[HARDWARE_TEE, TDX_VM], &[SNP, TDX]),
    };
    let tee: Strong = (claim::TEE, tee, NOT_CONFIDENTIAL);
    std::iter::once(tee).chain(tables.concat()).collect()
}

fn weaknesses(
    claims: &Claims,
    met: &[ConditionResult],
    is_weak: impl Fn(&str, &[&str]) -> bool,
) -> Vec<Weakness> {
    strong(claims)
        .into_iter()
        .filter(|(claim, strong, _)| is_weak(claim, strong) && !is_named(met, claim))
        .map(|(claim, _, words)| Weakness { claim, words })
        .collect()
}

fn is_named(met: &[ConditionResult], claim: &str) -> bool {
    met.iter().any(|result| result.claim == claim && result.operator.is_equals())
}

/// Whether the claim is made, with whatever value.
fn is_there(claims: &Claims, claim: &str) -> bool {
    claims.as_json().contains_key(claim)
}

/// What the bits of a token's `tdx_td_attributes` say beyond its other claims. A policy that names the bits names all of them.
fn weak_attributes(claims: &Claims, met: &[ConditionResult]) -> Vec<Weakness> {
    let kind = claims.find(claim::ATTESTATION_TYPE).map(|kind| kind.to_string());
    let kind = kind.as_deref();
    if kind == Some(HARDWARE_TEE) || is_named(met, quote_claim::ATTRIBUTES) {
        return Vec::new();
    }
    let weak = |words| Weakness { claim: quote_claim::ATTRIBUTES, words };
    if !is_there(claims, quote_claim::ATTRIBUTES) {
        let ours = [quote_claim::DEBUG, quote_claim::MIGRATABLE, quote_claim::OTHER_ATTRIBUTES];
        let untold = kind == Some(TDX_VM) && !ours.iter().all(|claim| is_there(claims, claim));
        return untold.then(|| weak(UNTOLD)).into_iter().collect();
    }
    let Some(bits) = attributes(claims) else { return vec![weak(UNREADABLE)] };
    [
        (quote_claim::DEBUG, bits.debug(), DEBUGGABLE),
        (quote_claim::MIGRATABLE, bits.migratable(), MIGRATABLE),
        (quote_claim::OTHER_ATTRIBUTES, bits.other() != 0, OTHER_ATTRIBUTES),
    ]
    .into_iter()
    .filter(|(claim, is_weak, _)| *is_weak && !is_there(claims, claim))
    .map(|(_, _, words)| weak(words))
    .collect()
}

fn attributes(claims: &Claims) -> Option<TdAttributes> {
    let mut bytes = [0; 8];
    let text = claims.find(quote_claim::ATTRIBUTES)?.to_string();
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(TdAttributes(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use ah_release_api::policy::Operator;
    use serde_json::json;

    use super::*;

    /// Claims of a guest that is not weak.
    fn sound(kind: &str) -> Claims {
        let mut claims = Claims::default();
        claims.insert(claim::TEE, kind);
        claims.insert(claim::ATTESTATION_TYPE, kind);
        for (claim, values, _) in strong(&claims).into_iter().skip(1) {
            claims.insert(claim, values[0]);
        }
        assert!(unnamed_weaknesses(&claims, &[]).is_empty());
        claims
    }

    fn changed(claims: &Claims, name: &str, value: impl Into<Scalar>) -> Claims {
        let mut claims = claims.clone();
        claims.insert(name, value);
        claims
    }

    fn without(claims: &Claims, name: &str) -> Claims {
        let mut claims = claims.as_json().clone();
        claims.remove(name).unwrap();
        Claims::from_json(claims)
    }

    fn found(weaknesses: Vec<Weakness>) -> Vec<&'static str> {
        weaknesses.into_iter().map(|weak| weak.claim).collect()
    }

    /// A policy that names this claim's value.
    fn naming(claims: &Claims, name: &str) -> [ConditionResult; 1] {
        let found = claims.find(name);
        let expected = found.clone().unwrap();
        [ConditionResult { claim: name.into(), operator: Operator::Equals, found, expected }]
    }

    /// `exists` and `less` are met by a debuggable guest too: whoever wrote them did not name one.
    #[test]
    fn attack_weak_guest_under_a_policy_that_only_mentions_the_claim() {
        let claims = changed(&sound(HARDWARE_TEE), claim::VMPL, 1);
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
        let good = sound(TDX_VM);
        let service = format!("{}01", "0".repeat(94));
        let changes: [(&str, Scalar); 9] = [
            (claim::TEE, "software (not confidential)".into()),
            (quote_claim::DEBUG, true.into()),
            (quote_claim::MIGRATABLE, true.into()),
            (quote_claim::OTHER_ATTRIBUTES, "1000000000000000".into()),
            (quote_claim::OTHER_ATTRIBUTES, "2000000000000000".into()),
            (quote_claim::OTHER_ATTRIBUTES, "4000000000000000".into()),
            (quote_claim::OTHER_ATTRIBUTES, "0000000000000001".into()),
            (quote_claim::SERVICE_TD, service.into()),
            (quote_claim::TCB_STATUS, "OutOfDate".into()),
        ];
        for (name, value) in changes {
            let weak = changed(&good, name, value);
            assert_eq!(found(unnamed_weaknesses(&weak, &[])), [name]);
            assert_eq!(found(unnamed_weaknesses_of_token(&weak, &[])), [name]);
            let met = naming(&weak, name);
            assert!(unnamed_weaknesses(&weak, &met).is_empty(), "{name}: who names it means it");
            assert_eq!(found(unnamed_weaknesses(&without(&good, name), &[])), [name]);
        }
    }

    /// Attestation services of others have no claim for each bit, but give the bits.
    #[test]
    fn attack_tdx_token_of_another_issuer_with_weak_attribute_bits() {
        let mut token = sound(TDX_VM);
        for ours in
            [quote_claim::MIGRATABLE, quote_claim::OTHER_ATTRIBUTES, quote_claim::SERVICE_TD]
        {
            token = without(&token, ours);
        }
        let of = |token: &Claims, text: &str| {
            let claims = changed(token, quote_claim::ATTRIBUTES, text);
            let met = naming(&claims, quote_claim::ATTRIBUTES);
            assert!(unnamed_weaknesses_of_token(&claims, &met).is_empty(), "{text}: named");
            unnamed_weaknesses_of_token(&claims, &[]).len()
        };
        // No exceptions for pages that are gone, protection keys, performance counters: no weaknesses.
        for text in ["0000000000000000", "0000001000000000", "0000005000000080"] {
            assert_eq!(of(&token, text), 0, "{text}");
        }
        for text in ["1000001000000000", "2000001000000000", "4000001000000000", "0000003000000000"]
        {
            assert_eq!(of(&token, text), 1, "{text}");
        }
        for text in ["", "00000010000000", "000000100000000g", "0x00001000000000"] {
            assert_eq!(of(&token, text), 1, "{text}: unreadable");
        }
        assert_eq!(of(&without(&token, quote_claim::DEBUG), "0100001000000000"), 1);
        let list = json!({"tdx_td_attributes": ["0000001000000000"]});
        let list = Claims::from_json(list.as_object().unwrap().clone());
        assert_eq!(found(unnamed_weaknesses_of_token(&list, &[])), [quote_claim::ATTRIBUTES]);
    }

    /// Whoever leaves the kind out is judged by all that is known of any kind.
    #[test]
    fn attack_weak_guest_in_a_token_without_a_kind() {
        for kind in [HARDWARE_TEE, TDX_VM] {
            let good = without(&sound(kind), claim::ATTESTATION_TYPE);
            assert!(unnamed_weaknesses_of_token(&good, &[]).is_empty(), "{kind}");
            for (name, ..) in strong(&sound(kind)) {
                let weak = changed(&good, name, "x");
                assert_eq!(found(unnamed_weaknesses_of_token(&weak, &[])), [name]);
            }
        }
        let bits = changed(&Claims::default(), quote_claim::ATTRIBUTES, "1000001000000000");
        assert_eq!(unnamed_weaknesses_of_token(&bits, &[]).len(), 1);
    }

    /// A claim that is no plain value is one that was made all the same.
    #[test]
    fn attack_weakness_in_a_list_or_an_object() {
        for kind in [HARDWARE_TEE, TDX_VM] {
            let good = sound(kind);
            for (name, strong, _) in strong(&good) {
                let strong = strong[0];
                for value in [json!([strong]), json!({"x": strong}), json!(null), json!(0.5)] {
                    let mut claims = good.as_json().clone();
                    claims.insert(name.to_owned(), value);
                    let claims = Claims::from_json(claims);
                    assert_eq!(found(unnamed_weaknesses_of_token(&claims, &[])), [name]);
                }
            }
        }
    }

    /// Without bits and without claims about each of them nobody knows what the host may do to the guest.
    #[test]
    fn attack_tdx_token_that_does_not_tell_the_attributes() {
        let good = sound(TDX_VM);
        for name in [quote_claim::DEBUG, quote_claim::MIGRATABLE, quote_claim::OTHER_ATTRIBUTES] {
            let token = without(&good, name);
            let bits = changed(&token, quote_claim::ATTRIBUTES, "0000001000000000");
            assert!(unnamed_weaknesses_of_token(&bits, &[]).is_empty(), "{name}: the bits tell");
            assert_eq!(found(unnamed_weaknesses_of_token(&token, &[])), [quote_claim::ATTRIBUTES]);
        }
    }
}
