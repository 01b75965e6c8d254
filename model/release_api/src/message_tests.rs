use super::*;
use crate::PublicKey;

const CHALLENGE: &str = r#"{"protocol":"anchorhold-key-release/1","message":{"challenge":{}}}"#;

#[track_caller]
fn refused(text: &str, expect: &str) {
    let error = Request::from_json(text.as_bytes()).unwrap_err();
    assert!(
        format!("{error} {:?}", std::error::Error::source(&error)).contains(expect),
        "{text}: {error:?}"
    );
}

#[test]
fn requests_are_read_strictly() {
    assert_eq!(Request::from_json(CHALLENGE.as_bytes()).unwrap(), Request::Challenge {});
    assert_eq!(Request::Challenge {}.to_json().unwrap(), CHALLENGE.as_bytes());
    refused(&format!("{CHALLENGE} x"), "not JSON");
    refused(&format!("{CHALLENGE}{CHALLENGE}"), "not JSON");
    refused(&CHALLENGE.replace("{}", r#"{"x":1}"#), "unknown field");
    refused(&CHALLENGE.replace("\"protocol\"", "\"x\":1,\"protocol\""), "unknown field");
    refused(&CHALLENGE.replace("challenge", "chalenge"), "unknown variant");
    refused(&CHALLENGE.replace("release/1", "release/2"), "release/2");
    refused(&CHALLENGE.replace("release/1", "release/2").replace("{}", r#"{"x":1}"#), "release/2");
    refused(
        &CHALLENGE.replace(r#""challenge":{}"#, r#""challenge":{},"challenge":{}"#),
        "not JSON",
    );
    refused(&" ".repeat(frame::MAX_BODY_BYTES + 1), "bytes, expected at most");
    refused("", "not JSON");
    refused(&"[".repeat(100_000), "not JSON");
}

#[test]
fn answers_round_trip() {
    let answers = [
        Response::Challenge(Challenge { nonce: Nonce::new([3; 32]), expires_in_s: 60 }),
        Response::Released(Released {
            kind: KeyKind::Oct,
            wrapped: WrappedKey {
                service: PublicKey::new([1; 32]),
                encapsulated: PublicKey::new([2; 32]),
                ciphertext: vec![9; 48],
            },
        }),
        Response::Refused(Refusal::new(RefusedBy::Nonce, "nonce was used before")),
    ];
    for answer in answers {
        assert_eq!(Response::from_json(&answer.to_json().unwrap()).unwrap(), answer);
    }
}

#[test]
fn a_refusal_is_bounded_and_readable() {
    let failed = vec![
        ConditionResult {
            claim: "a\n".repeat(300),
            operator: Operator::Equals,
            found: None,
            expected: "x".repeat(900).into()
        };
        MAX_UNMET + 1
    ];
    let refusal = Refusal::unmet(RefusedBy::ReleasePolicy, &"ä\u{1b}".repeat(2000), &failed);
    assert_eq!(refusal.reason, "ä".repeat(MAX_REASON_CHARS));
    assert_eq!(refusal.unmet.len(), MAX_UNMET);
    assert_eq!(refusal.unmet[0].claim, "a".repeat(MAX_VALUE_CHARS));

    let one = |operator| {
        let (found, expected) = (Some(1.into()), "0".into());
        let one = [ConditionResult { claim: "vmpl".into(), operator, found, expected }];
        Refusal::unmet(RefusedBy::ReleasePolicy, "1 claim is not met", &one)
    };
    let start = "refused by the key's release policy: 1 claim is not met; vmpl: found 1, expected ";
    assert_eq!(one(Operator::Equals).to_string(), format!("{start}0"));
    assert_eq!(one(Operator::LessOrEquals).to_string(), format!("{start}at most 0"));
    let json = |operator| serde_json::to_string(&one(operator)).unwrap();
    assert!(!json(Operator::Equals).contains("operator"), "older guests read it");
    assert!(json(Operator::Less).contains(r#""operator":"less""#));
}

/// The host writes the refusal itself.
#[test]
fn attack_refusal_that_would_write_to_a_terminal() {
    let text = r#"{"protocol":"anchorhold-key-release/1","message":{"refused":{"by":"nonce","reason":"a\u001b[2Jb","unmet":[{"claim":"c\u0007","found":"\u001bf","expected":1}]}}}"#;
    let Response::Refused(refusal) = Response::from_json(text.as_bytes()).unwrap() else {
        panic!()
    };
    assert_eq!(
        refusal.to_string(),
        "refused by the key service's nonce check: a[2Jb; c: found f, expected 1"
    );
}
