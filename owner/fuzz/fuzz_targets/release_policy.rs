//! Invariant: a release policy that is read is written and read again to the same; where `equals` is the only operator, it is met by no
//! guest without claims; and nobody but the authorities that it names is believed.
#![no_main]

use ah_release_api::ReleasePolicy;
use ah_release_api::policy::{Claims, Decision, Operators};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(policy) = ReleasePolicy::parse_with(text, Operators::All) else {
        assert!(ReleasePolicy::parse(text).is_err(), "fewer operators are no wider grammar");
        return;
    };
    let written = policy.to_json();
    let again = ReleasePolicy::parse_with(&written, Operators::All);
    assert_eq!(again.expect("what is written is read"), policy);
    assert_eq!(ReleasePolicy::parse(text).is_ok(), ReleasePolicy::parse(&written).is_ok());
    let narrow = ReleasePolicy::parse(text).is_ok();
    let json: serde_json::Value = serde_json::from_str(&written).expect("what is written is JSON");
    let authorities = json["anyOf"].as_array().expect("a list of authorities");
    let names: Vec<&str> = authorities.iter().filter_map(|one| one["authority"].as_str()).collect();
    assert_eq!(names.len(), authorities.len());
    for name in &names {
        let met = matches!(policy.evaluate(name, &Claims::default()), Decision::Met(_));
        assert!(!(narrow && met), "without claims nothing is equal: {written}");
    }
    let nobody = policy.evaluate("https://nobody.invalid", &Claims::default());
    let named = names.iter().any(|name| name.contains("nobody.invalid"));
    assert!(named || !matches!(nobody, Decision::Met(_)), "an authority that is not named");
});
