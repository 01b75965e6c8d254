use ah_digest::{Sha256, Sha384};
use proptest::prelude::*;

use super::*;
use crate::policy::{LOCAL_AUTHORITY, PodFacts, PolicyError, SOFTWARE_TEE, TeeKind, claim};

fn policy(conditions: &str) -> String {
    format!(
        r#"{{"version":"1.0.0","anyOf":[{{"authority":"https://a.example","allOf":[{conditions}]}}]}}"#
    )
}

fn claims() -> Claims {
    let json = r#"{"text":"abc","flag":false,"num":0,"deep":{"er":{"x":"1"},"list":[1]},"null":null,"float":1.5}"#;
    Claims::from_json(serde_json::from_str(json).unwrap())
}

#[track_caller]
fn check(conditions: &str, met: bool) {
    let decision =
        ReleasePolicy::parse(&policy(conditions)).unwrap().evaluate("https://a.example", &claims());
    assert_eq!(matches!(decision, Decision::Met(_)), met, "{conditions}: {decision:?}");
}

#[track_caller]
fn refused(text: &str, expect: &str) {
    let error = ReleasePolicy::parse(text).unwrap_err().to_string();
    assert!(error.contains(expect), "{text}: {error}");
}

#[test]
fn equals_compares_texts_across_json_types() {
    check(r#"{"claim":"text","equals":"abc"}"#, true);
    check(r#"{"claim":"text","equals":"abC"}"#, false);
    check(r#"{"claim":"text","equals":"ab"}"#, false);
    check(r#"{"claim":"flag","equals":false}"#, true);
    check(r#"{"claim":"flag","equals":"false"}"#, true);
    check(r#"{"claim":"flag","equals":"true"}"#, false);
    check(r#"{"claim":"flag","equals":0}"#, false);
    check(r#"{"claim":"num","equals":0}"#, true);
    check(r#"{"claim":"num","equals":"0"}"#, true);
    check(r#"{"claim":"num","equals":"00"}"#, false);
    check(r#"{"claim":"num","equals":""}"#, false);
}

#[test]
fn dots_walk_objects_and_a_missing_claim_is_not_met() {
    check(r#"{"claim":"deep.er.x","equals":1}"#, true);
    check(r#"{"claim":"deep.er.y","equals":1}"#, false);
    check(r#"{"claim":"deep.er","equals":""}"#, false);
    check(r#"{"claim":"deep.list","equals":1}"#, false);
    check(r#"{"claim":"deep.list.0","equals":1}"#, false);
    check(r#"{"claim":"text.x","equals":""}"#, false);
    check(r#"{"claim":"null","equals":"null"}"#, false);
    check(r#"{"claim":"float","equals":"1.5"}"#, false);
    check(r#"{"claim":"none","equals":""}"#, false);
}

#[test]
fn groups_nest() {
    let (yes, no) = (r#"{"claim":"num","equals":0}"#, r#"{"claim":"num","equals":1}"#);
    check(&format!("{yes},{yes}"), true);
    check(&format!("{yes},{no}"), false);
    check(&format!(r#"{{"anyOf":[{no},{yes}]}}"#), true);
    check(&format!(r#"{{"anyOf":[{no},{no}]}}"#), false);
    check(&format!(r#"{{"anyOf":[{{"allOf":[{yes},{no}]}},{{"allOf":[{yes},{yes}]}}]}}"#), true);
    check(&format!(r#"{{"allOf":[{{"anyOf":[{yes},{no}]}},{no}]}}"#), false);
}

#[test]
fn a_decision_names_what_failed() {
    let text = policy(
        r#"{"claim":"num","equals":"0"},{"claim":"text","equals":"x"},{"claim":"none","equals":1}"#,
    );
    let decision = ReleasePolicy::parse(&text).unwrap().evaluate("https://a.example/", &claims());
    let result = |claim: &str, found: Option<&str>, expected: Scalar| ConditionResult {
        claim: claim.into(),
        operator: Operator::Equals,
        found: found.map(Scalar::from),
        expected,
    };
    let failed =
        vec![result("text", Some("abc"), "x".into()), result("none", None, Scalar::Number(1))];
    assert_eq!(decision, Decision::NotMet(failed));
}

#[test]
fn only_a_trusted_authority_counts() {
    let policy = ReleasePolicy::parse(&policy(r#"{"claim":"num","equals":0}"#)).unwrap();
    assert!(matches!(policy.evaluate("https://a.example/", &claims()), Decision::Met(_)));
    for other in
        ["https://a.exampl", "https://a.example.org", "http://a.example", "https://a.example//", ""]
    {
        assert!(
            matches!(policy.evaluate(other, &claims()), Decision::OtherAuthority { .. }),
            "{other}"
        );
    }
}

#[test]
fn reading_is_strict_and_says_where() {
    let yes = r#"{"claim":"num","equals":0}"#;
    assert!(ReleasePolicy::parse(&policy(yes)).is_ok());
    assert!(ReleasePolicy::parse(&policy(yes).replace("1.0.0", "0.2")).is_ok());
    refused(&policy(yes).replace("1.0.0", "2.0.0"), "version \"2.0.0\"");
    refused(&policy(yes).replace(r#""version":"1.0.0","#, ""), "missing 'version' property");
    refused(&policy(yes).replace(r#""1.0.0""#, "null"), "not JSON of the grammar");
    refused(&policy(yes).replace("\"version\"", "\"x\":1,\"version\""), "not JSON of the grammar");
    refused(&format!("{} x", policy(yes)), "not JSON of the grammar");
    refused(&policy(""), "anyOf[0].allOf: list is empty");
    refused(r#"{"version":"1.0.0","anyOf":[]}"#, "anyOf: list is empty");
    refused(r#"{"version":"1.0.0","anyOf":[{"authority":"https://a"}]}"#, "anyOf[0]: expected");
    refused(&policy(yes).replace("https:", "http:"), "authority \"http://a.example\"");
    refused(&policy(r#"{"claim":"num","notequals":0}"#), "not JSON of the grammar");
    refused(&policy(r#"{"claim":"num","equals":0,"less":1}"#), "anyOf[0].allOf[0]: expected");
    refused(&policy(r#"{"claim":"num"}"#), "anyOf[0].allOf[0]: expected");
    refused(&policy(r#"{"claim":"num","equals":0,"anyOf":[]}"#), "anyOf[0].allOf[0]: expected");
    refused(&policy(r#"{"claim":"num","claim":"x","equals":0}"#), "not JSON of the grammar");
    refused(&policy(r#"{"claim":"a..b","equals":0}"#), "claim \"a..b\"");
    refused(&policy(r#"{"claim":"","equals":0}"#), "claim \"\"");
    refused(&policy(r#"{"allOf":[]}"#), "anyOf[0].allOf[0].allOf: list is empty");
    for value in ["1.5", "[1]", "{}", "18446744073709551615"] {
        refused(
            &policy(&format!(r#"{{"claim":"num","equals":{value}}}"#)),
            "expected a string, true, false",
        );
    }
    refused(&policy(r#"{"claim":"num","equals":null}"#), "anyOf[0].allOf[0]: expected");
}

#[test]
fn size_and_depth_are_bounded() {
    let yes = r#"{"claim":"num","equals":0}"#;
    let wide = |count: usize| policy(&vec![yes; count].join(","));
    assert!(ReleasePolicy::parse(&wide(255)).is_ok());
    assert!(matches!(ReleasePolicy::parse(&wide(256)), Err(PolicyError::TooLarge)));
    let deep = |levels: usize| {
        policy(&format!("{}{yes}{}", r#"{"anyOf":["#.repeat(levels), "]}".repeat(levels)))
    };
    assert!(ReleasePolicy::parse(&deep(7)).is_ok());
    assert!(matches!(ReleasePolicy::parse(&deep(8)), Err(PolicyError::TooLarge)));
    assert!(ReleasePolicy::parse(&deep(1000)).is_err());
    assert!(matches!(ReleasePolicy::parse(&" ".repeat(40_000)), Err(PolicyError::TooLong { .. })));
}

fn facts() -> PodFacts {
    PodFacts {
        tee: TeeKind::Software,
        launch_measurements: vec![Sha384::of(b"guest")],
        host_data: Sha256::of(b"initdata"),
    }
}

fn pod_claims() -> Claims {
    let mut claims = Claims::default();
    claims.insert(claim::TEE, SOFTWARE_TEE);
    claims.insert(claim::LAUNCH_MEASUREMENT, Sha384::of(b"guest").to_string());
    claims.insert(claim::HOST_DATA, Sha256::of(b"initdata").to_string());
    claims.insert(claim::IS_DEBUGGABLE, false);
    claims.insert(claim::MIGRATION_ALLOWED, false);
    claims.insert(claim::VMPL, 0);
    claims
}

#[test]
fn every_fact_of_a_pod_counts() {
    let policy = ReleasePolicy::for_pod(&facts()).unwrap();
    assert!(matches!(policy.evaluate(LOCAL_AUTHORITY, &pod_claims()), Decision::Met(_)));
    let changes: [(&str, Scalar); 6] = [
        (claim::TEE, "sevsnpvm".into()),
        (claim::LAUNCH_MEASUREMENT, Sha384::of(b"guesu").to_string().into()),
        (claim::HOST_DATA, Sha256::of(b"initdatb").to_string().into()),
        (claim::IS_DEBUGGABLE, true.into()),
        (claim::MIGRATION_ALLOWED, true.into()),
        (claim::VMPL, 1.into()),
    ];
    for (name, value) in changes {
        let mut claims = pod_claims();
        claims.insert(name, value);
        let Decision::NotMet(failed) = policy.evaluate(LOCAL_AUTHORITY, &claims) else {
            panic!("{name} is ignored")
        };
        assert_eq!(failed.iter().map(|result| result.claim.as_str()).collect::<Vec<_>>(), [name]);
    }
}

#[test]
fn several_guest_images_are_alternatives_and_none_is_an_error() {
    let launch_measurements = vec![Sha384::of(b"other"), Sha384::of(b"guest")];
    let policy = ReleasePolicy::for_pod(&PodFacts { launch_measurements, ..facts() }).unwrap();
    assert!(matches!(policy.evaluate(LOCAL_AUTHORITY, &pod_claims()), Decision::Met(_)));
    let none = PodFacts { launch_measurements: vec![], ..facts() };
    assert!(matches!(ReleasePolicy::for_pod(&none), Err(PolicyError::NoMeasurement)));
}

/// Whoever is named is believed, and nobody else; what kind of TEE it was is asked of a claim that other issuers have.
#[test]
fn a_pods_policy_can_name_other_authorities() {
    let issuer = "https://attest.example".to_owned();
    let hardware = PodFacts { tee: TeeKind::SevSnp, ..facts() };
    let policy = ReleasePolicy::for_pod_by(&hardware, std::slice::from_ref(&issuer)).unwrap();
    assert_eq!(ReleasePolicy::parse(&policy.to_json()).unwrap(), policy);
    let mut claims = pod_claims();
    claims.insert(claim::TEE, "sevsnpvm");
    assert!(matches!(policy.evaluate(&issuer, &claims), Decision::NotMet(_)));
    claims.insert(claim::ATTESTATION_TYPE, "sevsnpvm");
    assert!(matches!(policy.evaluate(&issuer, &claims), Decision::Met(_)));
    assert!(!matches!(policy.evaluate(LOCAL_AUTHORITY, &claims), Decision::Met(_)));
    let both = [issuer, LOCAL_AUTHORITY.to_owned()];
    let policy = ReleasePolicy::for_pod_by(&hardware, &both).unwrap();
    assert!(matches!(policy.evaluate(LOCAL_AUTHORITY, &claims), Decision::Met(_)));
    for names in [vec![], vec!["http://attest.example".to_owned()], vec!["https://".to_owned()]] {
        assert!(ReleasePolicy::for_pod_by(&hardware, &names).is_err(), "{names:?}");
    }
}

#[test]
fn the_pods_policy_is_pinned_and_reads_back() {
    let policy = ReleasePolicy::for_pod(&facts()).unwrap();
    assert_eq!(ReleasePolicy::parse(&policy.to_json()).unwrap(), policy);
    assert_eq!(ReleasePolicy::parse(&policy.to_json_pretty()).unwrap(), policy);
    assert!(
        policy.to_json().starts_with(
            r#"{"version":"1.0.0","anyOf":[{"authority":"https://anchorhold.dev/verifier","allOf":[{"claim":"x-anchorhold-tee","equals":"software (not confidential)"},"#
        ),
        "{}",
        policy.to_json()
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = ReleasePolicy::parse(&text);
    }

    /// What was read is written so that it reads the same.
    #[test]
    fn policies_round_trip(
        names in proptest::collection::vec("[a-z]{1,4}(\\.[a-z]{1,4}){0,2}", 1..6),
        values in proptest::collection::vec(prop_oneof!["\\PC{0,9}".prop_map(Scalar::from), any::<bool>().prop_map(Scalar::from), any::<i64>().prop_map(Scalar::Number)], 6),
        any in any::<bool>(),
    ) {
        let leaves: Vec<_> = names.into_iter().zip(values)
            .map(|(claim, value)| serde_json::json!({"claim": claim, "equals": value})).collect();
        let group = if any { "anyOf" } else { "allOf" };
        let text = serde_json::json!({"version": "1.0.0", "anyOf": [{"authority": "https://a", "allOf": [{group: leaves}]}]}).to_string();
        let policy = ReleasePolicy::parse(&text).unwrap();
        prop_assert_eq!(ReleasePolicy::parse(&policy.to_json()).unwrap(), policy);
    }
}
