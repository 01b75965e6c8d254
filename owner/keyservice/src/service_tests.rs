use super::*;
use ah_release_api::{KeyKind, WrappedKey};

fn released() -> Result<Released, Refused> {
    let wrapped = WrappedKey {
        service: PublicKey::new([1; 32]),
        encapsulated: PublicKey::new([2; 32]),
        ciphertext: vec![3; 48],
    };
    Ok(Released { kind: KeyKind::Oct, wrapped })
}

#[tokio::test]
async fn attack_release_that_leaves_no_line_in_the_log() {
    let top = tempfile::tempdir().unwrap();
    let options = Options::new(TrustedRoots::amd());
    let service = KeyService::open(&top.path().join("keys"), options).await.unwrap();
    let entry = || LogEntry::new(Event::Release, None, SystemTime::UNIX_EPOCH);
    let answer = service.conclude(entry(), released(), Change::None).await;
    assert!(matches!(answer, Response::Released(_)));
    assert_eq!(service.head().await.unwrap().size, 1);

    service.vault.database().close().await;
    match service.conclude(entry(), released(), Change::None).await {
        Response::Refused(refusal) => assert_eq!(refusal.by, RefusedBy::Service),
        other => panic!("{other:?}"),
    }
}

/// Two replicas: the one that did not see the first request finds it in the database.
#[tokio::test]
async fn attack_nonce_used_at_another_replica() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("keys");
    let open = || KeyService::open(&dir, Options::new(TrustedRoots::amd()));
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    let nonce = one.challenge().unwrap().nonce;
    let now = SystemTime::now();
    let entry = || LogEntry::new(Event::Release, None, now);
    let (first, second) = (one.spend(&nonce, now).unwrap(), other.spend(&nonce, now).unwrap());
    assert!(matches!(one.conclude(entry(), released(), first).await, Response::Released(_)));
    match other.conclude(entry(), released(), second).await {
        Response::Refused(refusal) => assert_eq!(refusal.by, RefusedBy::Nonce),
        answer => panic!("{answer:?}"),
    }
}
