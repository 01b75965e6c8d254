//! Other operators, other forms, and properties over generated policies and claims.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const AUTHORITY: &str = "https://a.example";

#[track_caller]
fn check(condition: Value, met: bool) {
    let text =
        json!({"version": "1.0.0", "anyOf": [{"authority": AUTHORITY, "allOf": [condition]}]});
    let policy = ReleasePolicy::parse_with(&text.to_string(), Operators::All).unwrap();
    let claims = json!({"svn": 7, "text": "abc", "digits": "10", "flag": true, "o": {"x": {}}, "null": null});
    let claims = Claims::from_json(claims.as_object().unwrap().clone());
    let decision = policy.evaluate(AUTHORITY, &claims);
    assert_eq!(matches!(decision, Decision::Met(_)), met, "{text}: {decision:?}");
}

#[test]
fn operators_of_the_grammar() {
    check(json!({"claim": "svn", "notEquals": 8}), true);
    check(json!({"claim": "svn", "notEquals": "7"}), false);
    check(json!({"claim": "none", "notEquals": 8}), false);
    check(json!({"claim": "o", "notEquals": 8}), false);
    check(json!({"claim": "svn", "less": 8}), true);
    check(json!({"claim": "svn", "less": 7}), false);
    check(json!({"claim": "svn", "lessOrEquals": "7"}), true);
    check(json!({"claim": "svn", "lessOrEquals": 6}), false);
    check(json!({"claim": "svn", "greater": 6}), true);
    check(json!({"claim": "svn", "greater": 7}), false);
    check(json!({"claim": "svn", "greaterOrEquals": 7}), true);
    check(json!({"claim": "svn", "greaterOrEquals": 8}), false);
    check(json!({"claim": "digits", "greater": 9}), true);
    check(json!({"claim": "text", "greater": 0}), false);
    check(json!({"claim": "flag", "greaterOrEquals": 0}), false);
    check(json!({"claim": "none", "lessOrEquals": 100}), false);
    check(json!({"claim": "o.x", "exists": true}), true);
    check(json!({"claim": "o.y", "exists": "true"}), false);
    check(json!({"claim": "o.y", "exists": false}), true);
    check(json!({"claim": "svn", "exists": "false"}), false);
    check(json!({"claim": "null", "exists": true}), false);
}

#[track_caller]
fn error(text: &str, operators: Operators) -> String {
    ReleasePolicy::parse_with(text, operators).unwrap_err().to_string()
}

#[test]
fn attack_policy_with_an_operator_that_other_vaults_ignore() {
    for operator in Operator::ALL {
        let value = if operator == Operator::Exists { "true" } else { "1" };
        let text = format!(
            r#"{{"version":"1.0.0","anyOf":[{{"authority":"{AUTHORITY}","anyOf":[{{"claim":"a","{operator}":{value}}}]}}]}}"#
        );
        assert!(ReleasePolicy::parse_with(&text, Operators::All).is_ok(), "{operator}");
        match operator.is_equals() {
            true => assert!(ReleasePolicy::parse(&text).is_ok()),
            false => assert!(error(&text, Operators::EqualsOnly).contains("is not allowed here")),
        }
    }
}

#[test]
fn values_that_an_operator_could_never_meet_are_errors() {
    for (condition, expected) in [
        (r#"{"claim":"a","less":"x"}"#, r#""less" is "x", expected a whole number"#),
        (r#"{"claim":"a","greater":"01"}"#, "expected a whole number"),
        (r#"{"claim":"a","lessOrEquals":true}"#, "expected a whole number"),
        (r#"{"claim":"a","exists":1}"#, r#""exists" is 1, expected true or false"#),
    ] {
        let text = format!(
            r#"{{"version":"1.0.0","anyOf":[{{"authority":"{AUTHORITY}","allOf":[{condition}]}}]}}"#
        );
        let error = error(&text, Operators::All);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_preview_form_reads_as_the_later_one() {
    let preview = format!(
        r#"{{"anyOf":[{{"authority":"{AUTHORITY}","allOf":[{{"claim":"a.b","condition":"equals","value":"1"}}]}}]}}"#
    );
    let later = format!(
        r#"{{"version":"1.0.0","anyOf":[{{"authority":"{AUTHORITY}","allOf":[{{"claim":"a.b","equals":"1"}}]}}]}}"#
    );
    let policy = ReleasePolicy::parse(&preview).unwrap();
    assert_eq!(policy.to_json(), later);
    assert_eq!(ReleasePolicy::parse(&later).unwrap(), policy);

    let versioned = preview.replacen('{', r#"{"version":"1.0.0","#, 1);
    assert!(error(&versioned, Operators::All).contains("anyOf[0].allOf[0]: expected"));
    let half = preview.replace(r#","value":"1""#, "");
    assert!(error(&half, Operators::All).contains("anyOf[0].allOf[0]: expected"));
    let less = preview.replace(r#""equals","value":"1""#, r#""less","value":1"#);
    assert!(error(&less, Operators::EqualsOnly).contains("operator \"less\" is not allowed"));
    assert!(ReleasePolicy::parse_with(&less, Operators::All).is_ok());
    let unknown = preview.replace("\"equals\"", "\"like\"");
    assert!(error(&unknown, Operators::All).contains("operator \"like\""));
}

#[test]
fn only_version_0_2_may_have_a_comma_too_many() {
    let text = |version: &str| {
        format!(
            "{{\"version\":\"{version}\",\"anyOf\":[{{\"authority\":\"{AUTHORITY}\",\"allOf\":[{{\"claim\":\"a\",\"equals\":\",]\\\",}}\"}},\n ]}} , ],}}"
        )
    };
    let policy = ReleasePolicy::parse(&text("0.2")).unwrap();
    let mut claims = Claims::default();
    claims.insert("a", ",]\",}");
    assert!(matches!(policy.evaluate(AUTHORITY, &claims), Decision::Met(_)), "strings stay whole");
    assert!(error(&text("1.0.0"), Operators::All).contains("not JSON of the grammar"));
    assert!(error(&text("0.2").replace(",\n", ",,"), Operators::All).contains("not JSON"));
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        "[a-c]{0,1}".prop_map(Scalar::Text),
        (-2_i64..3).prop_map(Scalar::Number),
        (-2_i64..3).prop_map(|number| Scalar::Text(number.to_string())),
        any::<bool>().prop_map(Scalar::Bool),
        any::<bool>().prop_map(|truth| Scalar::Text(truth.to_string())),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let path = "[a-c](\\.[a-c]){0,1}";
    let leaf = (path, 0..Operator::ALL.len(), scalar()).prop_map(|(claim, operator, value)| {
        let operator = Operator::ALL[operator];
        let operator = if operator.wants(&value).is_some() { Operator::Equals } else { operator };
        Condition::Compare { claim, operator, value }
    });
    leaf.prop_recursive(3, 24, 4, |inner| {
        let list = proptest::collection::vec(inner, 1..4);
        prop_oneof![list.clone().prop_map(Condition::AllOf), list.prop_map(Condition::AnyOf)]
    })
}

fn group() -> impl Strategy<Value = Condition> {
    let list = proptest::collection::vec(condition(), 1..4);
    (list, any::<bool>()).prop_map(|(list, all)| match all {
        true => Condition::AllOf(list),
        false => Condition::AnyOf(list),
    })
}

fn claims() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        4 => scalar().prop_map(|value| serde_json::to_value(value).unwrap()),
        1 => Just(Value::Null),
        1 => Just(json!([0])),
        1 => Just(json!(0.5)),
    ];
    let inner = proptest::collection::btree_map("[a-c]", value.clone(), 0..3)
        .prop_map(|map| Value::Object(map.into_iter().collect()));
    proptest::collection::btree_map("[a-c]", prop_oneof![2 => value, 1 => inner], 0..4)
        .prop_map(|map| map.into_iter().collect())
}

/// The grammar's meaning, written on JSON and texts alone.
fn naive(condition: &Value, claims: &Value) -> bool {
    let list = |name: &str| condition.get(name).and_then(Value::as_array);
    if let Some(list) = list("allOf") {
        return !list.iter().any(|one| !naive(one, claims));
    }
    if let Some(list) = list("anyOf") {
        return list.iter().any(|one| naive(one, claims));
    }
    let pointer = format!("/{}", condition["claim"].as_str().unwrap().replace('.', "/"));
    let found = claims.pointer(&pointer).filter(|found| !found.is_null());
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) => Some(value.to_string()),
        Value::Number(number) if number.is_i64() => Some(value.to_string()),
        _ => None,
    };
    let (name, expected) =
        condition.as_object().unwrap().iter().find(|(name, _)| *name != "claim").unwrap();
    let expected = text(expected).unwrap();
    if name == "exists" {
        return (expected == "true") == found.is_some();
    }
    let Some(found) = found.and_then(text) else { return false };
    let order = match (found.parse::<i64>(), expected.parse::<i64>()) {
        (Ok(found), Ok(expected)) => Some(found.cmp(&expected)),
        _ => None,
    };
    match name.as_str() {
        "equals" => found == expected,
        "notEquals" => found != expected,
        "less" => order.is_some_and(std::cmp::Ordering::is_lt),
        "lessOrEquals" => order.is_some_and(std::cmp::Ordering::is_le),
        "greater" => order.is_some_and(std::cmp::Ordering::is_gt),
        "greaterOrEquals" => order.is_some_and(std::cmp::Ordering::is_ge),
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is written reads back as the same policy, and is written the same again.
    #[test]
    fn print_and_parse_are_inverse(conditions in proptest::collection::vec(group(), 1..3)) {
        let any_of = conditions.into_iter()
            .map(|condition| Authority { name: AUTHORITY.into(), condition }).collect();
        let policy = ReleasePolicy { any_of };
        let text = policy.to_json();
        let read = ReleasePolicy::parse_with(&text, Operators::All).unwrap();
        prop_assert_eq!(&read, &policy);
        prop_assert_eq!(read.to_json(), text);
    }

    /// A decision is what the naive model says, and its list is never empty.
    #[test]
    fn evaluation_is_the_models(condition in group(), claims in claims()) {
        let policy = ReleasePolicy { any_of: vec![Authority { name: AUTHORITY.into(), condition }] };
        let wire: Value = serde_json::from_str(&policy.to_json()).unwrap();
        let expect = naive(&wire["anyOf"][0], &Value::Object(claims.clone()));
        match policy.evaluate(AUTHORITY, &Claims::from_json(claims)) {
            Decision::Met(rests_on) => prop_assert!(expect && !rests_on.is_empty()),
            Decision::NotMet(failed) => prop_assert!(!expect && !failed.is_empty()),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// Whatever is read was within the grammar: it is written and read again.
    #[test]
    fn near_policies_are_read_or_refused(text in r#"\{"version":"(0\.2|1\.0\.0)","anyOf":\[\{"authority":"https://a","(all|any)Of":\[\{"claim":"[a.]{1,3}","(equals|less|exists)":("1"|true|1|null|[0-9.]{1,3})\},?\]\}\],?\}"#) {
        if let Ok(policy) = ReleasePolicy::parse_with(&text, Operators::All) {
            prop_assert_eq!(ReleasePolicy::parse_with(&policy.to_json(), Operators::All).unwrap(), policy);
        }
    }
}
