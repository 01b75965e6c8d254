//! One list of cases, on SQLite and on PostgreSQL.

mod support;

use std::sync::Arc;

use ah_digest::Sha256;
use ah_keyservice::{
    Audit, Event, KekSource, KeyChange, KeyService, KeyType, Location, Material, NewKey,
    OnExisting, Options, Rule, ServiceError, SignedHead, VaultError, merkle,
};
use ah_release_api::policy::TeeKind;
use ah_release_api::{KeyId, KeyKind, RefusedBy, Secret};
use ah_testkit_postgres::Postgres;
use ah_verifier::TrustedRoots;
use support::*;

/// Where one case keeps its service.
struct Place {
    location: Location,
    folder: tempfile::TempDir,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A name that no URL would take as it is.
        Self { location: Location::Sqlite(folder.path().join("a?b %41#.db")), folder }
    }

    fn postgres(server: &Postgres) -> Self {
        Self {
            location: Location::Postgres(server.database().unwrap()),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn kek(&self) -> KekSource {
        KekSource::File(self.folder.path().join("kek"))
    }

    async fn open(&self) -> KeyService {
        KeyService::connect(&self.location, &self.kek(), Options::new(TrustedRoots::amd()))
            .await
            .unwrap()
    }
}

fn id(name: &str) -> KeyId {
    name.parse().unwrap()
}

async fn import(
    service: &KeyService,
    name: &str,
    on_existing: OnExisting,
) -> Result<(), ServiceError> {
    let secret = Secret::new(format!("secret of {name}").into_bytes()).unwrap();
    service
        .import(&id(name), KeyKind::Oct, &secret, policy(TeeKind::Software), on_existing)
        .await
        .map(drop)
}

async fn names(service: &KeyService) -> Vec<String> {
    service.list().await.unwrap().into_iter().map(|key| key.unwrap().id.to_string()).collect()
}

async fn audit(service: &KeyService, pinned: Option<SignedHead>) -> SignedHead {
    let mut audit = Audit::begin(service.head().await.unwrap(), pinned).unwrap();
    for entry in service.entries(0, u64::MAX).await.unwrap() {
        audit.entry(entry.body.as_bytes());
    }
    audit.finish().unwrap()
}

async fn keys_and_log_outlive_the_process(place: Place) {
    let first = place.open().await;
    for name in ["b", "a", "Z/9"] {
        import(&first, name, OnExisting::Refuse).await.unwrap();
    }
    let (identity, head) = (first.identity(), first.head().await.unwrap());
    first.close().await;
    let again = place.open().await;
    assert_eq!(again.identity(), identity);
    assert_eq!(names(&again).await, ["Z/9", "a", "b"]);
    assert!(again.delete(&id("a")).await.unwrap());
    assert!(!again.delete(&id("a")).await.unwrap());
    assert_eq!(names(&again).await, ["Z/9", "b"]);
    let now = audit(&again, Some(head.clone())).await;
    assert_eq!((head.size, now.size), (3, 4), "a deletion that deleted nothing leaves no entry");
}

async fn a_name_is_imported_once_unless_replaced(place: Place) {
    let service = place.open().await;
    import(&service, "a", OnExisting::Refuse).await.unwrap();
    let refused = import(&service, "a", OnExisting::Refuse).await;
    assert!(
        matches!(refused, Err(ServiceError::Vault(VaultError::Exists(name))) if name == id("a"))
    );
    assert_eq!(service.head().await.unwrap().size, 1, "what was not done is not in the log");
    let first = service.info(&id("a"), None).await.unwrap();
    import(&service, "a", OnExisting::AddVersion).await.unwrap();
    let second = service.info(&id("a"), None).await.unwrap();
    assert_eq!((first.ordinal, second.ordinal), (1, 2));
    assert_eq!(service.info(&id("a"), Some(&first.version)).await.unwrap(), first);
    assert_eq!(service.versions(&id("a"), 0, 10).await.unwrap().len(), 2);
    assert_eq!(service.versions(&id("a"), 1, 10).await.unwrap().len(), 1);
    import(&service, "a", OnExisting::Replace).await.unwrap();
    assert_eq!(service.versions(&id("a"), 0, 10).await.unwrap().len(), 1);
    assert!(service.info(&id("a"), Some(&first.version)).await.is_err());
    assert_eq!(service.page("", 1).await.unwrap().len(), 1);
    assert_eq!(service.page("a", 1).await.unwrap().len(), 0);
}

async fn attributes_change_and_immutable_rules_do_not(place: Place) {
    let service = place.open().await;
    import(&service, "a", OnExisting::Refuse).await.unwrap();
    let change = KeyChange { enabled: Some(false), expires_s: Some(5), ..KeyChange::default() };
    let changed = service.update(&id("a"), None, &change, Some("me")).await.unwrap();
    assert_eq!(service.info(&id("a"), None).await.unwrap(), changed);
    assert_eq!((changed.attributes.enabled, changed.attributes.expires_s), (false, Some(5)));
    let last = service.entries(1, 1).await.unwrap().pop().unwrap();
    assert!(
        last.body.contains(r#""event":"update""#) && last.body.contains(r#""caller":"me""#),
        "{}",
        last.body
    );
    let bad = KeyChange { ops: Some(vec!["steal".into()]), ..KeyChange::default() };
    assert!(service.update(&id("a"), None, &bad, None).await.is_err());
    assert!(service.update(&id("b"), None, &change, None).await.is_err());

    let rule = |immutable| Rule::parse(&policy(TeeKind::SevSnp).to_json(), immutable).unwrap();
    let declare = KeyChange { rule: Some(rule(true)), ..KeyChange::default() };
    service.update(&id("a"), None, &declare, None).await.unwrap();
    let loosen = KeyChange { rule: Some(rule(false)), ..KeyChange::default() };
    let refused = service.update(&id("a"), None, &loosen, None).await;
    assert!(matches!(refused, Err(ServiceError::Vault(VaultError::Immutable(_)))), "{refused:?}");
    assert!(
        import(&service, "a", OnExisting::AddVersion).await.is_err(),
        "nor by a further version"
    );
    let rotated = service.rotate(&id("a"), None).await.unwrap();
    assert_eq!(
        (rotated.ordinal, rotated.attributes.enabled),
        (2, false),
        "a disabled key stays so"
    );
    // a further version without a rule would have no rule to keep
    let bare = NewKey {
        id: id("a"),
        kty: KeyType::OCT,
        material: Material::of_bytes(vec![1]).unwrap(),
        ops: Vec::new(),
        enabled: true,
        exportable: false,
        not_before_s: None,
        expires_s: None,
        rule: None,
    };
    let refused = service.put(bare, Event::Import, OnExisting::AddVersion, None).await;
    assert!(matches!(refused, Err(ServiceError::Vault(VaultError::Immutable(_)))), "{refused:?}");
}

async fn attack_exportable_key_without_a_policy(place: Place) {
    let service = place.open().await;
    let key = |exportable| NewKey {
        id: id("a"),
        kty: KeyType::OCT,
        material: Material::of_bytes(vec![1]).unwrap(),
        ops: Vec::new(),
        enabled: true,
        exportable,
        not_before_s: None,
        expires_s: None,
        rule: None,
    };
    let refused = service.put(key(true), Event::Import, OnExisting::Refuse, None).await;
    assert!(matches!(refused, Err(ServiceError::Vault(VaultError::NoPolicy))));
    assert!(service.put(key(false), Event::Import, OnExisting::Refuse, None).await.is_ok());
}

async fn proofs_of_the_log_verify(place: Place) {
    let service = place.open().await;
    let mut heads = vec![service.head().await.unwrap()];
    for number in 0..13 {
        import(&service, &format!("k{number}"), OnExisting::Refuse).await.unwrap();
        heads.push(service.head().await.unwrap());
    }
    for head in &heads {
        let proof = service.prove_consistency(head.size).await.unwrap();
        let old = (head.size, &head.root);
        assert!(
            merkle::extends(old, (proof.head.size, &proof.head.root), &proof.path),
            "{}",
            head.size
        );
        audit(&service, Some(head.clone())).await;
    }
    for seq in 0..13 {
        let proof = service.prove_inclusion(seq).await.unwrap();
        let leaf = merkle::leaf_hash(proof.entry.body.as_bytes());
        assert!(
            merkle::includes(&proof.head.root, proof.head.size, seq, &leaf, &proof.path),
            "{seq}"
        );
    }
    assert!(matches!(
        service.prove_inclusion(13).await,
        Err(ServiceError::NoEntry { found: 13, size: 13 })
    ));
    assert!(service.prove_consistency(14).await.is_err());
}

/// Many writers, two replicas: every entry has its place.
async fn replicas_write_one_log(place: Place) {
    let (one, other) = (Arc::new(place.open().await), Arc::new(place.open().await));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let service = if number % 2 == 0 { one.clone() } else { other.clone() };
        tasks.spawn(async move {
            import(&service, &format!("k{number}"), OnExisting::Refuse).await.unwrap()
        });
        let service = if number % 3 == 0 { one.clone() } else { other.clone() };
        tasks.spawn(
            async move { import(&service, "shared", OnExisting::AddVersion).await.unwrap() },
        );
    }
    tasks.join_all().await;
    assert_eq!(audit(&one, None).await.size, 80);
    assert_eq!(audit(&other, None).await.root, audit(&one, None).await.root);
    assert_eq!(names(&one).await.len(), 41);
    let versions = other.versions(&id("shared"), 0, 100).await.unwrap();
    let ordinals: Vec<_> = versions.into_iter().map(|key| key.unwrap().ordinal).collect();
    assert_eq!(ordinals, (1..=40).collect::<Vec<_>>());
}

async fn guests_get_their_keys(place: Place) {
    let roots = TrustedRoots::amd().danger_with_software_root(Processor::a().ark).unwrap();
    let Place { location, folder } = place;
    let world = World::at(&location, folder, roots, policy(TeeKind::Software)).await;
    world.assert_released().await;
    let (request, _) = world.request().await;
    released(world.send(&request).await);
    refused(world.send(&request).await, RefusedBy::Nonce, "used before");
    let disable = KeyChange { enabled: Some(false), ..KeyChange::default() };
    world.service.update(&key_id(), None, &disable, None).await.unwrap();
    refused(world.ask(|_| {}).await, RefusedBy::KeyStore, "is disabled");
}

/// The first start of several replicas at once: one of them makes what all share.
async fn replicas_that_start_at_once_share_all_secrets(place: Place) {
    let place = Arc::new(place);
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..6u8 {
        let place = place.clone();
        starts.spawn(async move {
            let service = place.open().await;
            let shared = service.shared_secret("x", || Ok(vec![number; 32])).await.unwrap();
            (service.identity(), shared)
        });
    }
    let found = starts.join_all().await;
    assert!(found.iter().all(|one| *one == found[0]), "{}", found.len());
    let names = std::fs::read_dir(place.folder.path()).unwrap();
    let keks = names
        .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("kek"));
    assert_eq!(keks.count(), 1);
}

/// Of several that change a secret at once one does, and the log says so once.
async fn a_shared_secret_is_changed_by_one(place: Place) {
    let (one, other) = (Arc::new(place.open().await), Arc::new(place.open().await));
    let make = || Ok(b"first".to_vec());
    assert_eq!(one.shared_secret("x", make).await.unwrap().as_slice(), b"first");
    let words = || "x changed".to_owned();
    assert!(!other.change_shared_secret("x", b"else", b"new", words()).await.unwrap());
    assert!(!other.change_shared_secret("y", b"first", b"new", words()).await.unwrap());
    assert_eq!(one.head().await.unwrap().size, 0, "what was not done is not in the log");
    let mut changes = tokio::task::JoinSet::new();
    for number in 0..8u8 {
        let service = if number % 2 == 0 { one.clone() } else { other.clone() };
        changes.spawn(async move {
            let new = [number; 32];
            let done = service.change_shared_secret("x", b"first", &new, format!("to {number}"));
            done.await.unwrap().then_some(number)
        });
    }
    let winners: Vec<u8> = changes.join_all().await.into_iter().flatten().collect();
    let [winner] = winners.as_slice() else { panic!("{winners:?}") };
    let found = other.shared_secret("x", || unreachable!()).await.unwrap();
    assert_eq!(found.as_slice(), [*winner; 32]);
    let entries = one.entries(0, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    let body = &entries[0].body;
    assert!(
        body.contains(r#""event":"secret""#) && body.contains(&format!("to {winner}")),
        "{body}"
    );
    audit(&one, None).await;
}

/// The writer finds a log that is shorter than what it wrote, or another one.
async fn attack_log_rolled_back_under_a_running_service(place: Place) {
    let service = place.open().await;
    import(&service, "a", OnExisting::Refuse).await.unwrap();
    import(&service, "b", OnExisting::Refuse).await.unwrap();
    execute(&place.location, "UPDATE log_tree SET size = 0, peaks = ").await;
    let refused = import(&service, "c", OnExisting::Refuse).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("rolled back: found 0 entries, expected at least 2"), "{error}");
    assert_eq!(names(&service).await, ["a", "b"]);
}

/// Plays who can write the database; `sql` ends with an empty byte string.
async fn execute(location: &Location, sql: &str) {
    match location {
        Location::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            sqlx::query(&format!("{sql}x''")).execute(&pool).await.unwrap();
            pool.close().await;
        }
        Location::Postgres(url) => {
            let pool = sqlx::PgPool::connect(url).await.unwrap();
            sqlx::query(&format!("{sql}''::bytea")).execute(&pool).await.unwrap();
            pool.close().await;
        }
    }
}

async fn backup(service: &KeyService) -> Vec<u8> {
    let mut bytes = Vec::new();
    service.backup(&mut bytes).await.unwrap();
    bytes
}

/// From the place to a fresh SQLite file, with writers at work meanwhile.
async fn a_backup_of_a_running_service_restores(place: Place) {
    let service = Arc::new(place.open().await);
    for number in 0..20 {
        import(&service, &format!("k{number}"), OnExisting::Refuse).await.unwrap();
    }
    let busy = tokio::spawn({
        let service = service.clone();
        async move {
            for number in 20..40 {
                import(&service, &format!("k{number}"), OnExisting::Refuse).await.unwrap();
            }
        }
    });
    let bytes = backup(&service).await;
    busy.await.unwrap();
    assert!(!bytes.windows(9).any(|window| window == b"secret of"));
    let target = Location::Sqlite(place.folder.path().join("restored.db"));
    let restored = KeyService::restore(&target, &place.kek(), &mut bytes.as_slice()).await.unwrap();
    assert!(
        (20..=40).contains(&restored.keys) && restored.entries == restored.keys as u64,
        "{restored:?}"
    );
    let options = Options::new(TrustedRoots::amd());
    let again = KeyService::connect(&target, &place.kek(), options).await.unwrap();
    assert_eq!(again.identity(), service.identity());
    let head = audit(&again, None).await;
    audit(&service, Some(head)).await;
    let refused = KeyService::restore(&target, &place.kek(), &mut bytes.as_slice()).await;
    assert!(refused.unwrap_err().to_string().contains("not empty"));
}

/// Whoever keeps the backups is the adversary.
async fn attack_backup_altered(place: Place) {
    let service = place.open().await;
    import(&service, "a", OnExisting::Refuse).await.unwrap();
    import(&service, "b", OnExisting::Refuse).await.unwrap();
    let good = String::from_utf8(backup(&service).await).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    // The adversary knows the format, so it mends the end.
    let mend = |lines: &[String]| {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let end =
            serde_json::json!({"end": {"rows": lines.len() - 1, "sha256": Sha256::of(&body)}});
        format!("{body}{end}\n")
    };
    let body: Vec<String> =
        lines[..lines.len() - 1].iter().map(|line| (*line).to_owned()).collect();
    let edit =
        |from: &str, to: &str| body.iter().map(|line| line.replace(from, to)).collect::<Vec<_>>();
    let without =
        |word: &str| body.iter().filter(|line| !line.contains(word)).cloned().collect::<Vec<_>>();
    let cases = [
        (lines[..lines.len() - 1].join("\n") + "\n", "the backup was cut"),
        (good.replacen("import", "release", 1), "lines before it were changed"),
        (mend(&edit(r#""enabled":1"#, r#""enabled":0"#)), "do not open"),
        (mend(&edit("import", "delete")), "decision log does not give the root"),
        (mend(&without(r#""table":"log_entries""#)), "decision log does not give the root"),
        (mend(&edit("key_versions", "pg_catalog")), "unknown table"),
        (mend(&edit("backup/1", "backup/2")), "no backup of a version"),
    ];
    for (number, (text, expect)) in cases.into_iter().enumerate() {
        let target = Location::Sqlite(place.folder.path().join(format!("{number}.db")));
        let error = KeyService::restore(&target, &place.kek(), &mut text.as_bytes())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expect), "{number}: {error}");
        assert!(
            KeyService::restore(&target, &place.kek(), &mut good.as_bytes()).await.is_ok(),
            "{number}: nothing is left"
        );
    }
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Place::sqlite()).await;
            })*
        }

        /// One test, since a server takes a second to start.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn on_postgresql() {
            let server = Postgres::start().unwrap();
            $(
                eprintln!("{}", stringify!($case));
                $case(Place::postgres(&server)).await;
            )*
        }
    };
}

cases![
    keys_and_log_outlive_the_process,
    a_name_is_imported_once_unless_replaced,
    attributes_change_and_immutable_rules_do_not,
    attack_exportable_key_without_a_policy,
    proofs_of_the_log_verify,
    replicas_write_one_log,
    replicas_that_start_at_once_share_all_secrets,
    a_shared_secret_is_changed_by_one,
    guests_get_their_keys,
    attack_log_rolled_back_under_a_running_service,
    a_backup_of_a_running_service_restores,
    attack_backup_altered,
];
