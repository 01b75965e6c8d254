use super::*;

/// The importer's own form, every member there.
fn whole() -> Value {
    json!({
        "key": {
            "kid": "k1", "kty": "RSA-HSM", "key_ops": ["encrypt"],
            "authority": {"endpoint": "sharedneu.neu.attest.azure.net"},
            "akv": {
                "endpoint": "myhsm.managedhsm.azure.net",
                "api_version": "api-version=7.3-preview",
                "bearer_token": "hush",
            },
        },
        "key_derivation": {"salt": "92a6", "label": "Model Encryption Key"},
        "claims": [
            [{"claim": "x-ms-sevsnpvm-hostdata", "equals": "aa"}, {"claim": "x-ms-sevsnpvm-is-debuggable", "equals": "false"}],
            [{"claim": "x-ms-sevsnpvm-hostdata", "equals": "bb"}],
        ],
        "identity": {"client_id": "me"},
    })
}

fn with(pointer: &str, new: Value) -> Value {
    let mut value = whole();
    *value.pointer_mut(pointer).unwrap() = new;
    value
}

#[track_caller]
fn refused(value: &Value, words: &str) {
    let error = ImportConfig::parse(&value.to_string()).err().unwrap();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{error}: {source}");
    assert!(text.contains(words), "{text}");
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn every_member_is_read() {
    let config = ImportConfig::parse(&whole().to_string()).unwrap();
    assert_eq!((config.name.as_str(), config.kty.name()), ("k1", "RSA-HSM"));
    assert_eq!(config.vault, "myhsm.managedhsm.azure.net");
    assert!(config.is_managed_hsm());
    assert_eq!(config.query, "api-version=7.3-preview");
    assert_eq!(config.bearer_token.as_deref().map(String::as_str), Some("hush"));
    assert_eq!(config.client_id.as_deref(), Some("me"));
    assert_eq!(config.ops, ["encrypt"]);
    let label = "Model Encryption Key".to_owned();
    assert_eq!(config.derivation, Derivation { salt: Some(vec![0x92, 0xa6]), label });
    let policy: Value = serde_json::from_str(&config.policy.to_json()).unwrap();
    assert_eq!(policy["anyOf"].as_array().unwrap().len(), 2);
    assert_eq!(policy["anyOf"][1]["authority"], "https://sharedneu.neu.attest.azure.net");
    assert_eq!(policy["anyOf"][0]["allOf"][1]["equals"], "false");
}

#[test]
fn what_is_left_out_has_the_importers_own_values() {
    let text = r#"{"key":{"kid":"k","authority":{"endpoint":"a"},"akv":{"endpoint":"localhost:8443"}},
        "claims":[{"claim":"c","equals":"v"}]}"#;
    let config = ImportConfig::parse(text).unwrap();
    assert_eq!((config.kty.name(), config.query.as_str()), ("oct-HSM", "api-version=7.4"));
    assert!(config.bearer_token.is_none() && config.client_id.is_none());
    assert_eq!(
        config.derivation,
        Derivation { salt: None, label: "Symmetric Encryption Key".into() }
    );
    let policy: Value = serde_json::from_str(&config.policy.to_json()).unwrap();
    assert_eq!(policy["anyOf"][0]["allOf"][0]["claim"], "c", "one list of claims is one way");
}

#[test]
fn unknown_members_are_named_by_their_path() {
    for (pointer, path) in [
        ("", "claim_s"),
        ("/key", "key.claim_s"),
        ("/key/akv", "key.akv.claim_s"),
        ("/key/authority", "key.authority.claim_s"),
        ("/key_derivation", "key_derivation.claim_s"),
        ("/identity", "identity.claim_s"),
        ("/claims/0/1", "claims[0][1].claim_s"),
    ] {
        let mut value = whole();
        value.pointer_mut(pointer).unwrap()["claim_s"] = 1.into();
        refused(&value, &format!("unknown members: {path}"));
    }
}

#[test]
fn values_that_cannot_be_used_are_named_by_their_path() {
    for (pointer, new, words) in [
        ("/key/kid", json!("a b"), "key.kid is \"a b\""),
        ("/key/kty", json!("OKP"), "key.kty is \"OKP\", expected oct-HSM"),
        ("/key/kty", json!("opaque"), "key.kty is \"opaque\""),
        ("/key/akv/endpoint", json!("http://vault"), "key.akv.endpoint is \"http://vault\""),
        ("/key/akv/endpoint", json!("vault/keys"), "key.akv.endpoint"),
        ("/key/akv/endpoint", json!(""), "key.akv.endpoint"),
        ("/key/authority/endpoint", json!("a?b"), "key.authority.endpoint"),
        ("/key/akv/api_version", json!("7.4"), "key.akv.api_version is \"7.4\""),
        ("/key/akv/api_version", json!("api-version=7&x=1"), "key.akv.api_version"),
        ("/key_derivation/salt", json!("abc"), "key_derivation.salt is \"abc\""),
        ("/claims/0/0/claim", json!(1), "claims[0][0].claim is \"1\""),
        ("/claims/0/0/equals", json!(["aa"]), "claims[0][0].equals"),
        ("/claims/1", json!("x"), "claims[1] is"),
        ("/claims/1/0", json!("x"), "claims[1][0] is"),
    ] {
        refused(&with(pointer, new), words);
    }
    let mut double = whole().to_string();
    double.push_str("{}");
    assert!(matches!(ImportConfig::parse(&double), Err(ImportConfigError::Json(_))));
}

/// A list without claims would be met by any guest that the authority knows.
#[test]
fn attack_a_way_to_the_key_without_any_claim() {
    assert!(ImportConfig::parse(&whole().to_string()).is_ok());
    refused(&with("/claims/1", json!([])), "list is empty");
    refused(&with("/claims", json!([])), "list is empty");
}
