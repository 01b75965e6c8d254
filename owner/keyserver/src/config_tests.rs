use ah_collateral::ListNeed;

use super::*;

fn check(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).map_err(|error| error.to_string())
}

#[test]
fn nothing_written_is_the_usual_service_on_loopback() {
    assert_eq!(check(""), Ok(Config::default()));
    assert!(Config::default().listen.ip().is_loopback());
}

#[test]
fn every_error_says_what_to_do() {
    let cases = [
        ("listn = 1", "unknown field `listn`"),
        ("listen = \"localhost\"", "line 1"),
        ("[tls]\ncert = \"x\"", "unknown field `cert`"),
        ("url = \"http://x\"", "expected https://host"),
        ("url = \"https://x/\"", "expected https://host"),
        ("database = \"mysql://u:secret@h\"", "found \"mysql\""),
        ("[key_encryption_key]\nfile = \"a\"\nenvironment = \"B\"", "one of them"),
        (
            "[key_encryption_key.pkcs11]\nmodule = \"m\"\ntoken = \"t\"\nkey = \"k\"",
            "one of pin_file and pin_environment",
        ),
        ("[key_encryption_key.pkcs11]\nmodule = \"m\"\npin = \"1\"", "unknown field `pin`"),
        ("[tls]\nkey = \"x\"", "both or none"),
        ("[token_keys]\nrotate_after = \"90\"", "1h to 3650d"),
        ("[token_keys]\nrotate_after = \"0h\"", "1h to 3650d"),
        ("[token_keys]\nrotate_after = \"4000d\"", "1h to 3650d"),
        ("[token_keys]\nrotate_after = \"+1d\"", "1h to 3650d"),
        ("[tdx]\nfolder = \"x\"", "unknown field `folder`"),
        ("[snp]\nkds = \"https://x\"", "snp.collateral beside it"),
        ("[snp]\ncollateral = \"/c\"\nkds = \"kds\"", "https address"),
        ("[snp]\nlist_max_age = \"soon\"", "1h to 3650d"),
        ("[snp]\nrevocation = \"maybe\"", "unknown variant `maybe`"),
        ("[[attestation]]\nissuer = \"https://x\"", "one of jwks_file and jwks_url"),
        ("[[attestation]]\nissuer = \"https://x\"\njwks_url = \"http://x\"", "an https address"),
        (
            "[[provider]]\nissuer = \"https://x\"\naudience = \"y\"\njwks_file = \"z\"\n[[provider.rule]]\nsubject = \"s\"\nroles = [\"owner\"]",
            "unknown variant `owner`",
        ),
    ];
    for (text, expect) in cases {
        let error = check(text).unwrap_err();
        assert!(error.contains(expect) && error.contains("\nhint: "), "{text}: {error}");
        assert!(!error.contains("secret"));
    }
    let missing = Config::read(Path::new("/nonexistent/x.toml")).unwrap_err().to_string();
    assert!(missing.contains("hint: "), "{missing}");
}

#[test]
fn a_key_in_a_token_is_read() {
    let text = "[key_encryption_key.pkcs11]\nmodule = \"/lib/m.so\"\ntoken = \"t\"\nkey = \"k\"\npin_environment = \"PIN\"";
    let expected = TokenKey {
        module: "/lib/m.so".into(),
        token: "t".into(),
        key: "k".into(),
        pin: PinSource::Variable("PIN".into()),
    };
    assert_eq!(check(text).unwrap().kek(), KekSource::Token(expected));
    let both = format!("{text}\n[key_encryption_key]\nfile = \"f\"");
    assert!(check(&both).is_err());
}

#[test]
fn token_keys_change_every_ninety_days_unless_told() {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    assert_eq!(Config::default().rotate_after(), days(90));
    for (text, expect) in [("7d", days(7)), ("48h", days(2)), ("1h", Duration::from_secs(3600))] {
        let config = check(&format!("[token_keys]\nrotate_after = {text:?}")).unwrap();
        assert_eq!(config.rotate_after(), expect);
    }
}

#[test]
fn revocation_lists_are_optional_unless_told() {
    let lists = |text: &str| check(text).unwrap().snp.lists();
    let usual = lists("");
    assert_eq!((usual.need, usual.max_age), (ListNeed::Optional, None));
    assert!(usual.folder.is_none());
    let strict =
        lists("[snp]\ncollateral = \"/c\"\nrevocation = \"required\"\nlist_max_age = \"30d\"");
    let month = Duration::from_secs(30 * 24 * 3600);
    assert_eq!((strict.need, strict.max_age), (ListNeed::Required, Some(month)));
    assert_eq!(strict.folder.unwrap().path(), Path::new("/c"));
}

/// In the clear, whoever is on the way answers in the service's place.
#[test]
fn attack_revocation_lists_from_an_address_that_others_can_answer_for() {
    let kds = |url: &str| check(&format!("[snp]\ncollateral = \"/c\"\nkds = {url:?}"));
    for url in [
        "https://kdsintf.amd.com",
        "http://127.0.0.1:9",
        "http://127.1.2.3/mirror",
        "http://[::1]:9",
        "http://localhost:9",
    ] {
        assert_eq!(kds(url).unwrap().snp.kds.as_deref(), Some(url));
    }
    for url in [
        "http://kdsintf.amd.com",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://localhost@mirror.example",
        "http://10.0.0.1",
        "http://[::2]",
        "ftp://127.0.0.1",
    ] {
        let error = kds(url).unwrap_err();
        assert!(error.contains("expected an https address, or http on loopback"), "{url}: {error}");
    }
}
