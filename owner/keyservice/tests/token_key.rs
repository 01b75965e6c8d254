//! The key-encryption key in a token, with SoftHSM as the token. Each test runs once more in a process of its own, whose environment says
//! where that process's tokens are.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use ah_keyservice::{
    BackupError, KekError, KekSource, KeyService, Location, OnExisting, Options, PinSource,
    ServiceError, TokenKey, TokenKeyError, VaultError,
};
use ah_release_api::policy::TeeKind;
use ah_release_api::{KeyId, KeyKind, Secret};
use ah_verifier::TrustedRoots;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::ekdf::AesCbcDeriveParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use support::policy;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "1234";
/// Set in the process that has tokens.
const INSIDE: &str = "AH_TEST_TOKENS";

/// The folder of this process's tokens; without one, runs the test again with one and gives `None`.
fn tokens(test: &str) -> Option<PathBuf> {
    if let Ok(folder) = std::env::var(INSIDE) {
        return Some(PathBuf::from(folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let (tokens, conf) = (folder.path().join("tokens"), folder.path().join("softhsm2.conf"));
    std::fs::create_dir(&tokens).unwrap();
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
    std::fs::write(&conf, text).unwrap();
    for label in ["one", "two"] {
        let words =
            ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "567890"];
        let done = Command::new("softhsm2-util")
            .args(words)
            .env("SOFTHSM2_CONF", &conf)
            .output()
            .expect("softhsm2-util of package softhsm2, which `cargo xtask setup` installs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("SOFTHSM2_CONF", &conf)
        .env(INSIDE, folder.path())
        .env("AH_TEST_PIN", PIN)
        .env("AH_TEST_WRONG_PIN", "4321")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("1 passed"), "{said}");
    None
}

fn key(token: &str, key: &str) -> TokenKey {
    TokenKey {
        module: MODULE.into(),
        token: token.into(),
        key: key.into(),
        pin: PinSource::Variable("AH_TEST_PIN".into()),
    }
}

async fn open(database: &Path, key: TokenKey) -> Result<KeyService, ServiceError> {
    let location = Location::Sqlite(database.to_owned());
    let options = Options::new(TrustedRoots::amd());
    KeyService::connect(&location, &KekSource::Token(key), options).await
}

async fn import(service: &KeyService, name: &str) {
    let id: KeyId = name.parse().unwrap();
    let secret = Secret::new(format!("secret of {name}").into_bytes()).unwrap();
    let policy = policy(TeeKind::Software);
    service.import(&id, KeyKind::Oct, &secret, policy, OnExisting::Refuse).await.unwrap();
}

fn token_error(opened: Result<KeyService, ServiceError>) -> TokenKeyError {
    match opened.err().unwrap() {
        ServiceError::Vault(VaultError::Kek(KekError::Token(error))) => {
            let text = error.to_string();
            assert!(text.contains("\nhint: ") && !text.contains(PIN), "{text}");
            error
        }
        other => panic!("{other}"),
    }
}

async fn states(service: &KeyService) -> Vec<Result<String, VaultError>> {
    let all = service.list().await.unwrap().into_iter();
    all.map(|key| key.map(|info| info.id.to_string())).collect()
}

#[tokio::test]
async fn keys_sealed_by_a_token_outlive_the_process() {
    let Some(folder) = tokens("keys_sealed_by_a_token_outlive_the_process") else { return };
    let database = folder.join("keys.db");
    let first = open(&database, key("one", "kek")).await.unwrap();
    import(&first, "a").await;
    let identity = first.identity();
    first.close().await;
    drop(first);
    let again = open(&database, key("one", "kek")).await.unwrap();
    assert_eq!(again.identity(), identity);
    assert_eq!(states(&again).await.pop().unwrap().unwrap(), "a");
    again.close().await;
    let bytes = std::fs::read(&database).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"secret of a"));
    // A PIN in a private file does as well.
    let pin = folder.join("pin");
    ah_keyservice::files::private_file(&pin, ah_keyservice::files::Open::New).unwrap();
    std::fs::write(&pin, format!("{PIN}\n")).unwrap();
    let by_file = TokenKey { pin: PinSource::File(pin), ..key("one", "kek") };
    assert_eq!(open(&database, by_file).await.unwrap().identity(), identity);
}

/// The database's owner cannot choose the key that seals: another token, another label, and a fresh key of the same label are told apart.
#[tokio::test]
async fn attack_another_token_or_label() {
    let Some(folder) = tokens("attack_another_token_or_label") else { return };
    let database = folder.join("keys.db");
    let service = open(&database, key("one", "kek")).await.unwrap();
    import(&service, "a").await;
    service.close().await;
    for wrong in [key("two", "kek"), key("one", "other")] {
        let missing = open(&database, wrong).await.err().unwrap();
        assert!(
            matches!(missing, ServiceError::Vault(VaultError::KekMissing { .. })),
            "no key is made beside a database that has keys: {missing}"
        );
    }
    // The other token gets a key of that label.
    let other = open(&folder.join("other.db"), key("two", "kek")).await.unwrap();
    other.close().await;
    let error = open(&database, key("two", "kek")).await.err().unwrap();
    assert!(matches!(error, ServiceError::Vault(VaultError::OtherKek { .. })), "{error}");
    let nowhere = token_error(open(&database, key("three", "kek")).await);
    assert!(matches!(nowhere, TokenKeyError::Token { count: 0, .. }), "{nowhere}");
    assert!(nowhere.to_string().contains("one"), "{nowhere}");
    assert!(open(&database, key("one", "kek")).await.is_ok());
}

#[tokio::test]
async fn attack_wrong_pin() {
    let Some(folder) = tokens("attack_wrong_pin") else { return };
    let database = folder.join("keys.db");
    let with = |pin: PinSource| TokenKey { pin, ..key("one", "kek") };
    let variable = |name: &str| with(PinSource::Variable(name.into()));
    let refused = token_error(open(&database, variable("AH_TEST_WRONG_PIN")).await);
    assert!(matches!(refused, TokenKeyError::Pin { .. }), "{refused}");
    let none = token_error(open(&database, variable("AH_TEST_NO_PIN")).await);
    assert!(matches!(none, TokenKeyError::NoPin { .. }), "{none}");
    // A PIN that others may read is no secret.
    let file = folder.join("pin");
    std::fs::write(&file, PIN).unwrap();
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    let wide = token_error(open(&database, with(PinSource::File(file.clone()))).await);
    assert!(matches!(wide, TokenKeyError::PinFile(_)), "{wide}");
    mode(0o600);
    assert!(open(&database, with(PinSource::File(file.clone()))).await.is_ok());
    let module = TokenKey { module: file.clone(), ..key("one", "kek") };
    let broken = token_error(open(&database, module).await);
    assert!(matches!(broken, TokenKeyError::Module { .. }), "{broken}");
}

/// Whoever writes the database puts one key's sealed bytes in the place of another's, or changes one of them.
#[tokio::test]
async fn attack_sealed_keys_swapped_or_altered() {
    let Some(folder) = tokens("attack_sealed_keys_swapped_or_altered") else { return };
    let database = folder.join("keys.db");
    let service = open(&database, key("one", "kek")).await.unwrap();
    for name in ["a", "b", "c"] {
        import(&service, name).await;
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let run = async |sql: &str| {
        assert_eq!(sqlx::query(sql).execute(&pool).await.unwrap().rows_affected(), 1);
    };
    let part =
        |column: &str| format!("{column} = (SELECT {column} FROM key_versions WHERE name = 'b')");
    let swap =
        format!("UPDATE key_versions SET {}, {} WHERE name = 'a'", part("nonce"), part("sealed"));
    run(&swap).await;
    run("UPDATE key_versions SET sealed = zeroblob(length(sealed)) WHERE name = 'c'").await;
    let states = states(&service).await;
    let altered =
        |state: &Result<String, VaultError>| matches!(state, Err(VaultError::Altered { .. }));
    assert!(altered(&states[0]) && altered(&states[2]), "{states:?}");
    assert_eq!(states[1].as_deref().ok(), Some("b"), "the token still works: {states:?}");
    service.close().await;
}

/// The first start of several replicas at once: a second key of the label would leave it open which one seals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_make_one_key() {
    if tokens("replicas_that_start_at_once_make_one_key").is_none() {
        return;
    }
    let server = ah_testkit_postgres::Postgres::start().unwrap();
    let url = server.database().unwrap();
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let location = Location::Postgres(url.clone());
        starts.spawn(async move {
            let options = Options::new(TrustedRoots::amd());
            let kek = KekSource::Token(key("one", "kek"));
            let service = KeyService::connect(&location, &kek, options).await.unwrap();
            service.identity()
        });
    }
    let found = starts.join_all().await;
    assert!(found.iter().all(|one| *one == found[0]));
}

/// A backup is restored under the key in the token, and under no other.
#[tokio::test]
async fn attack_backup_restored_under_another_token_key() {
    let Some(folder) = tokens("attack_backup_restored_under_another_token_key") else { return };
    let service = open(&folder.join("keys.db"), key("one", "kek")).await.unwrap();
    import(&service, "a").await;
    let mut backup = Vec::new();
    service.backup(&mut backup).await.unwrap();
    service.close().await;
    let other = open(&folder.join("other.db"), key("two", "kek")).await.unwrap();
    other.close().await;
    let restore = async |key: TokenKey| {
        let location = Location::Sqlite(folder.join("restored.db"));
        KeyService::restore(&location, &KekSource::Token(key), &mut backup.as_slice()).await
    };
    let missing = restore(key("one", "other")).await.unwrap_err();
    assert!(matches!(missing, BackupError::NoKek { .. }), "{missing}");
    let wrong = restore(key("two", "kek")).await.unwrap_err();
    let is_other =
        |error: &ServiceError| matches!(error, ServiceError::Vault(VaultError::OtherKek { .. }));
    assert!(matches!(&wrong, BackupError::Service(error) if is_other(error)), "{wrong}");
    assert_eq!(restore(key("one", "kek")).await.unwrap().keys, 1);
    let again = open(&folder.join("restored.db"), key("one", "kek")).await.unwrap();
    assert_eq!(states(&again).await.pop().unwrap().unwrap(), "a");
}

/// Plays who administers token "one": makes a key from these attributes beside what every AES key has, or takes all of this label away.
struct Administrator(Pkcs11);

impl Administrator {
    fn new() -> Self {
        let module = Pkcs11::new(MODULE).unwrap();
        let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        Self(module)
    }

    fn make(&self, label: &str, value: &[u8], more: &[Attribute]) {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(label.into()),
            Attribute::Value(value.to_vec()),
            Attribute::Token(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        template.extend_from_slice(more);
        self.with_session(|session| {
            session.create_object(&template).unwrap();
        });
    }

    /// The same key under another label too.
    fn copy(&self, label: &str, to: &str) {
        self.with_session(|session| {
            let key = session.find_objects(&[Attribute::Label(label.into())]).unwrap()[0];
            session.copy_object(key, &[Attribute::Label(to.into())]).unwrap();
        });
    }

    /// Makes a key in the token that may leave it at first, and then no longer.
    fn make_late(&self, label: &str) {
        let template = [
            Attribute::Label(label.into()),
            Attribute::ValueLen(32.into()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
        ];
        let stays = [Attribute::Sensitive(true), Attribute::Extractable(false)];
        self.with_session(|session| {
            let key = session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
            session.update_attributes(key, &stays).unwrap();
        });
    }

    /// Makes a key out of another one in the token, that was never out of it either; who can seal with that one makes the same bytes.
    fn derive(&self, label: &str) {
        let base = [
            Attribute::ValueLen(32.into()),
            Attribute::Token(false),
            Attribute::Derive(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(32.into()),
            Attribute::Label(label.into()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        let told = [AttributeType::NeverExtractable, AttributeType::AlwaysSensitive];
        let (iv, data) = ([0; 16], [0; 32]);
        let mechanism = Mechanism::AesCbcEncryptData(AesCbcDeriveParams::new(iv, &data));
        self.with_session(|session| {
            let base = session.generate_key(&Mechanism::AesKeyGen, &base).unwrap();
            let key = session.derive_key(&mechanism, base, &template).unwrap();
            let told = session.get_attributes(key, &told).unwrap();
            assert!(told.contains(&Attribute::NeverExtractable(true)), "{told:?}");
            assert!(told.contains(&Attribute::AlwaysSensitive(true)), "{told:?}");
        });
    }

    fn destroy(&self, label: &str) {
        self.with_session(|session| {
            for key in session.find_objects(&[Attribute::Label(label.into())]).unwrap() {
                session.destroy_object(key).unwrap();
            }
        });
    }

    fn with_session(&self, act: impl FnOnce(&cryptoki::session::Session)) {
        let slots = self.0.get_slots_with_initialized_token().unwrap().into_iter();
        let is_one = |slot: &_| self.0.get_token_info(*slot).unwrap().label().trim_end() == "one";
        let session = self.0.open_rw_session(slots.into_iter().find(is_one).unwrap()).unwrap();
        let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
        act(&session);
    }
}

/// What a key needs to stay in its token.
const STAYS: [Attribute; 3] =
    [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false)];

#[tokio::test]
async fn attack_key_that_can_leave_its_token() {
    let Some(folder) = tokens("attack_key_that_can_leave_its_token") else { return };
    let administrator = Administrator::new();
    let private = || Attribute::Private(true);
    administrator.make(
        "shown",
        &[7; 32],
        &[private(), Attribute::Sensitive(false), Attribute::Extractable(false)],
    );
    administrator.make(
        "wrapped",
        &[7; 32],
        &[private(), Attribute::Sensitive(true), Attribute::Extractable(true)],
    );
    administrator.make("short", &[7; 16], &STAYS);
    for label in ["shown", "wrapped", "short"] {
        let refused = token_error(open(&folder.join("keys.db"), key("one", label)).await);
        assert!(matches!(refused, TokenKeyError::Readable { .. }), "{label}: {refused}");
    }
    let service = open(&folder.join("keys.db"), key("one", "stays")).await.unwrap();
    import(&service, "a").await;
    // One more of that label: it is not clear which one seals.
    administrator.make("stays", &[8; 32], &STAYS);
    let refused = token_error(open(&folder.join("keys.db"), key("one", "stays")).await);
    assert!(matches!(refused, TokenKeyError::ManyKeys { count: 2, .. }), "{refused}");
}

/// Whoever set the token up put a key there that is known outside, which the token says stays in it.
#[tokio::test]
async fn attack_key_that_came_from_outside_or_was_there() {
    let Some(folder) = tokens("attack_key_that_came_from_outside_or_was_there") else { return };
    let administrator = Administrator::new();
    let database = folder.join("keys.db");
    administrator.make("imported", &[7; 32], &STAYS);
    administrator.make_late("late");
    administrator.derive("derived");
    for label in ["imported", "late", "derived"] {
        let refused = token_error(open(&database, key("one", label)).await);
        assert!(matches!(refused, TokenKeyError::Imported { .. }), "{label}: {refused}");
    }
    let service = open(&database, key("one", "made")).await.unwrap();
    import(&service, "a").await;
    service.close().await;
    // Made in the token for another service, and never out of it.
    let other = folder.join("other.db");
    open(&other, key("one", "made")).await.unwrap().close().await;
    // Behind the first start, a key is known by what it sealed.
    administrator.make("other", &[9; 32], &STAYS);
    let other = open(&database, key("one", "other")).await.err().unwrap();
    assert!(matches!(other, ServiceError::Vault(VaultError::OtherKek { .. })), "{other}");
}

/// Whoever administers the token puts a key that is known outside in the place of the one that seals.
#[tokio::test]
async fn attack_key_exchanged_while_the_service_runs() {
    let Some(folder) = tokens("attack_key_exchanged_while_the_service_runs") else { return };
    let administrator = Administrator::new();
    let service = open(&folder.join("keys.db"), key("one", "kek")).await.unwrap();
    administrator.copy("kek", "kept");
    import(&service, "a").await;
    // The same key again, as after a token's restore: the service finds it.
    administrator.destroy("kek");
    administrator.copy("kept", "kek");
    import(&service, "b").await;
    administrator.destroy("kek");
    administrator.make("kek", &[8; 32], &STAYS);
    for _ in 0..2 {
        let id: KeyId = "c".parse().unwrap();
        let secret = Secret::new(b"secret of c".to_vec()).unwrap();
        let policy = policy(TeeKind::Software);
        let refused = service.import(&id, KeyKind::Oct, &secret, policy, OnExisting::Refuse).await;
        match refused.err().unwrap() {
            ServiceError::Vault(VaultError::Kek(KekError::Token(error))) => {
                assert!(matches!(error, TokenKeyError::Changed { .. }), "{error}");
            }
            other => panic!("{other}"),
        }
    }
    let states = states(&service).await;
    assert!(states.len() == 2 && states.iter().all(Result::is_err), "{states:?}");
    administrator.destroy("kek");
    administrator.copy("kept", "kek");
    import(&service, "c").await;
}

/// Three wrong PINs lock a token, so one that is refused is not tried for each key that is opened.
#[tokio::test]
async fn a_pin_that_is_refused_later_is_tried_once() {
    let Some(folder) = tokens("a_pin_that_is_refused_later_is_tried_once") else { return };
    let administrator = Administrator::new();
    let pin = folder.join("pin");
    ah_keyservice::files::private_file(&pin, ah_keyservice::files::Open::New).unwrap();
    std::fs::write(&pin, PIN).unwrap();
    let by_file = TokenKey { pin: PinSource::File(pin.clone()), ..key("one", "kek") };
    let service = open(&folder.join("keys.db"), by_file).await.unwrap();
    import(&service, "a").await;
    std::fs::write(&pin, "4321").unwrap();
    administrator.copy("kek", "kept");
    administrator.destroy("kek");
    administrator.copy("kept", "kek");
    let refused = async || match states(&service).await.pop().unwrap().err().unwrap() {
        VaultError::Kek(KekError::Token(TokenKeyError::Pin { .. })) => {}
        other => panic!("{other}"),
    };
    refused().await;
    std::fs::write(&pin, PIN).unwrap();
    refused().await;
}
