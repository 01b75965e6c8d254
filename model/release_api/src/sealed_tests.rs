use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> Secret {
    Secret::new(vec![byte; SEALING_KEY_BYTES]).unwrap()
}

fn env(name: &str) -> Place {
    Place::Env(name.to_owned())
}

fn id(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn sealed(value: &[u8]) -> String {
    seal(&key(7), &id("demo/db"), &env("DB_PASSWORD"), [1; 12], value).unwrap()
}

fn opened(text: &str) -> Result<Vec<u8>, SealedError> {
    Sealed::parse(text, &env("DB_PASSWORD"))?.open(&key(7)).map(|value| value.to_vec())
}

/// The same text with another header in the place of its own.
fn with_header(text: &str, alter: impl Fn(&str) -> String) -> String {
    let rest = text.strip_prefix(PREFIX).unwrap();
    let (head, rest) = rest.split_once('.').unwrap();
    let json = String::from_utf8(decode(head).unwrap()).unwrap();
    let altered = alter(&json);
    assert_ne!(json, altered, "the header is changed");
    format!("{PREFIX}{}.{rest}", URL_SAFE_NO_PAD.encode(altered))
}

#[test]
fn the_form_is_pinned_and_opens() {
    let text = sealed(b"sesame");
    let header = r#"{"alg":"dir","enc":"A256GCM","typ":"anchorhold-sealed/1","kid":"demo/db","for":"env:DB_PASSWORD"}"#;
    let head = URL_SAFE_NO_PAD.encode(header);
    assert_eq!(text, format!("sealed.{head}..AQEBAQEBAQEBAQEB.{BODY_AND_TAG}"));
    assert_eq!(opened(&text).unwrap(), b"sesame");
    assert!(is_sealed(text.as_bytes()));
    assert_eq!(Sealed::parse(&text, &env("DB_PASSWORD")).unwrap().key_id(), &id("demo/db"));
}

/// By another implementation (Python, cryptography 48, AESGCM) from the same key, iv, header and value.
const BODY_AND_TAG: &str = "BYT61v3a._E6-anPOjyEiCTSI9qAkcw";

#[test]
fn other_texts_that_begin_so_are_not_taken_for_sealed() {
    for text in ["", "sealed", "sealed.", "sealed.orders.v1.created", "Sealed.eyJ", "x sealed.eyJ"]
    {
        assert!(!is_sealed(text.as_bytes()), "{text}");
    }
    assert!(is_sealed(b"sealed.eyJ"));
    let other = "sealed.fakejwsheader.eyJ2ZXJzaW9uIjoiMC4xLjAifQ.fakesignature";
    assert!(is_sealed(other.as_bytes()));
    assert_eq!(opened(other), Err(SealedError::OtherForm));
}

#[test]
fn attack_sealed_value_in_another_place() {
    let text = sealed(b"sesame");
    for place in [env("NODE_NAME"), env("DB_PASSWOR"), Place::File("/DB_PASSWORD".into())] {
        let found = Sealed::parse(&text, &place);
        assert_eq!(
            found,
            Err(SealedError::Place { found: env("DB_PASSWORD"), expected: place.clone() })
        );
        // The host writes the place that it wants into the header.
        let moved = with_header(&text, |json| json.replace("env:DB_PASSWORD", &place.to_string()));
        let moved = Sealed::parse(&moved, &place).unwrap();
        assert_eq!(moved.open(&key(7)), Err(SealedError::DoesNotOpen));
    }
}

#[test]
fn attack_other_key_or_other_key_id() {
    let text = sealed(b"sesame");
    let parsed = Sealed::parse(&text, &env("DB_PASSWORD")).unwrap();
    assert_eq!(parsed.open(&key(8)), Err(SealedError::DoesNotOpen));
    let short = Secret::new(vec![7; 31]).unwrap();
    assert_eq!(parsed.open(&short), Err(SealedError::KeyLength { found: 31 }));
    let renamed = with_header(&text, |json| json.replace("demo/db", "demo/dc"));
    assert_eq!(opened(&renamed), Err(SealedError::DoesNotOpen));
}

#[test]
fn attack_any_bit_of_a_sealed_value() {
    let text = sealed(b"sesame");
    for at in 0..text.len() {
        for bit in 0..7 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(altered) = String::from_utf8(bytes) else { continue };
            assert!(opened(&altered).is_err(), "byte {at}, bit {bit}: {altered}");
        }
    }
}

#[test]
fn attack_header_of_another_algorithm_or_with_more_in_it() {
    let text = sealed(b"sesame");
    let check = |from: &str, to: &str| opened(&with_header(&text, |json| json.replace(from, to)));
    for (from, to, member) in [
        (r#""dir""#, r#""none""#, "alg"),
        ("A256GCM", "A128GCM", "enc"),
        ("sealed/1", "sealed/2", "typ"),
    ] {
        let found = check(from, to);
        assert!(matches!(&found, Err(SealedError::Member { member: m, .. }) if *m == member));
    }
    for (from, to) in [
        (r#"{"alg""#, r#"{"zip":"DEF","alg""#),
        (r#"{"alg""#, r#"{"alg":"dir","alg""#),
        (r#","for":"env:DB_PASSWORD""#, ""),
        ("demo/db", "../db"),
        ("env:DB_PASSWORD", "DB_PASSWORD"),
        ("}", "} {}"),
    ] {
        assert!(matches!(check(from, to), Err(SealedError::Header { .. })), "{from} {to}");
    }
    // The same header with a space has the same meaning and other bytes.
    assert_eq!(check(r#":"dir""#, r#": "dir""#), Err(SealedError::DoesNotOpen));
}

#[test]
fn other_numbers_and_forms_of_parts_are_refused() {
    let text = sealed(b"sesame");
    let parts: Vec<&str> = text.split('.').collect();
    let [_, head, _, iv, body, tag] = parts[..] else { panic!("{text}") };
    for altered in [
        format!("sealed.{head}.{iv}.{body}.{tag}"),
        format!("sealed.{head}..{iv}.{body}.{tag}."),
        format!("sealed.{head}.AA.{iv}.{body}.{tag}"),
        format!("sealed.{head}..{iv}AA.{body}.{tag}"),
        format!("sealed.{head}..{iv}.{body}=.{tag}"),
        format!("sealed.{head}..{iv}.{body}.{tag}=="),
        format!("sealed.{head}..{iv}.{body}.AAAA"),
        format!("sealed.{head}..{iv}.{body}\n.{tag}"),
        format!("{text}\n"),
        format!(" {text}"),
    ] {
        assert!(matches!(opened(&altered), Err(SealedError::Form { .. })), "{altered}");
    }
    let long = "a".repeat(MAX_SEALED_BYTES + 1);
    assert_eq!(opened(&long), Err(SealedError::TooLong { found: MAX_SEALED_BYTES + 1 }));
    let value = vec![0; MAX_SEALED_BYTES];
    let found = seal(&key(7), &id("k"), &env("A"), [1; 12], &value);
    assert!(matches!(found, Err(SealedError::TooLong { .. })));
}

#[test]
fn places_have_one_form() {
    for text in ["env:A", "env:my.name-1", "file:/password", "file:/a/b", "file:/..data"] {
        assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
    }
    let long = format!("env:{}", "a".repeat(1025));
    for text in [
        "",
        "A",
        "env:",
        "file:",
        "env:A=B",
        "file:a/b",
        "file:/",
        "file:/a/",
        "file:/a//b",
        "file:/a/./b",
        "file:/a/..",
        "dir:a",
        "env:a\0",
        &long,
    ] {
        assert!(matches!(text.parse::<Place>(), Err(SealedError::PlaceForm { .. })), "{text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens(value in proptest::collection::vec(any::<u8>(), 0..300), iv: [u8; 12], name in "[A-Z_]{1,20}") {
        let text = seal(&key(3), &id("k"), &env(&name), iv, &value).unwrap();
        let opened = Sealed::parse(&text, &env(&name)).unwrap().open(&key(3)).unwrap();
        prop_assert_eq!(opened.as_slice(), value.as_slice());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(sealed\\.)?[A-Za-z0-9_.-]{0,120}") {
        prop_assert!(Sealed::parse(&text, &env("A")).is_err());
    }
}
