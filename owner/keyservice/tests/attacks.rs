//! What an attacker sends to the key service, each beside the honest request that differs least.

mod support;

use ah_digest::{Sha256, Sha384};
use ah_evidence::{GuestPolicy, Tee};
use ah_release_api::policy::{TeeKind, claim};
use ah_release_api::{
    GuestKey, Nonce, PublicKey, RefusedBy, ReleasePolicy, RuntimeData, Seed, WrapError,
};
use ah_verifier::TrustedRoots;
use support::*;

fn amd_and_a() -> TrustedRoots {
    TrustedRoots::amd().danger_with_software_root(Processor::a().ark).unwrap()
}

#[tokio::test]
async fn the_expected_guest_gets_its_key() {
    World::new().await.assert_released().await;
}

#[tokio::test]
async fn attack_report_replayed_with_an_old_nonce() {
    let world = World::new().await;
    let (request, key) = world.request().await;
    let first = released(world.send(&request).await);
    assert!(open(&world.service, &request, &key, &first).is_ok());
    refused(world.send(&request).await, RefusedBy::Nonce, "used before");

    let (late, _) = world.request().await;
    world.clock.0.fetch_add(121, std::sync::atomic::Ordering::SeqCst);
    refused(world.send(&late).await, RefusedBy::Nonce, "expired");
    world.assert_released().await;
}

/// The report is fresh, and the challenge is of the attacker's making, or of another service.
#[tokio::test]
async fn attack_report_with_a_nonce_of_the_attackers_choice() {
    let (world, other) = (World::new().await, World::new().await);
    for nonce in [Nonce::new([0; 32]), other.nonce().await] {
        let data = RuntimeData { nonce, key_id: key_id(), public_key: PublicKey::new([9; 32]) };
        let answer = world
            .ask(|request| {
                request.evidence = evidence(&world.processor, &world.guest, data.to_bytes());
            })
            .await;
        refused(answer, RefusedBy::Nonce, "not one that this service gave out");
    }
}

#[tokio::test]
async fn attack_nonce_survives_a_refused_request() {
    let world = World::new().await;
    let (mut request, _) = world.request().await;
    let good = request.clone();
    request.evidence.report[0x50] ^= 1;
    refused(world.send(&request).await, RefusedBy::Verifier, "signature");
    refused(world.send(&good).await, RefusedBy::Nonce, "used before");
}

#[tokio::test]
async fn attack_wrapped_key_opened_with_another_private_key() {
    let world = World::new().await;
    let (request, key) = world.request().await;
    let released = released(world.send(&request).await);
    let thief = GuestKey::from_seed(&Seed::new([43; 32]));
    let stolen = open(&world.service, &request, &thief, &released);
    assert_eq!(stolen.err(), Some(WrapError::DoesNotOpen));
    assert!(open(&world.service, &request, &key, &released).is_ok());
}

/// The host puts its own public key into the statement, or its own key id, and keeps the guest's report.
#[tokio::test]
async fn attack_runtime_data_that_the_report_does_not_bind() {
    let world = World::new().await;
    let answer = world
        .ask(|request| {
            let mut data = RuntimeData::parse(&request.evidence.runtime_data).unwrap();
            data.public_key = GuestKey::from_seed(&Seed::new([43; 32])).public();
            request.evidence.runtime_data = data.to_bytes();
        })
        .await;
    refused(answer, RefusedBy::ReportData, "REPORT_DATA is not SHA-256");
    let other_key = world.ask(|request| request.key_id = "demo/other".parse().unwrap()).await;
    refused(other_key, RefusedBy::Request, "another key");
    let spaced = world.ask(|request| request.evidence.runtime_data.push(b' ')).await;
    refused(spaced, RefusedBy::Request, "canonical");
    world.assert_released().await;
}

/// The launch measurement covers kernel, initrd and command line; a change of one is another measurement.
#[tokio::test]
async fn attack_guest_kernel_initrd_or_command_line_altered() {
    let mut world = World::new().await;
    world.assert_released().await;
    for altered in ["Kernel initrd cmdline", "kernel Initrd cmdline", "kernel initrd Cmdline"] {
        let measurement = Sha384::of(altered);
        world.guest = Guest { measurement, ..Guest::expected() };
        let refusal =
            refused(world.ask(|_| {}).await, RefusedBy::ReleasePolicy, claim::LAUNCH_MEASUREMENT);
        assert_eq!(refusal.unmet.len(), 1);
        assert_eq!(refusal.unmet[0].found, Some(measurement.to_string().into()));
        assert_eq!(refusal.unmet[0].expected, Guest::expected().measurement.to_string().into());
    }
}

#[tokio::test]
async fn attack_host_data_differs() {
    let mut world = World::new().await;
    world.assert_released().await;
    world.guest.host_data = Sha256::of(b"initdatb");
    let refusal = refused(world.ask(|_| {}).await, RefusedBy::ReleasePolicy, claim::HOST_DATA);
    assert_eq!(refusal.unmet.len(), 1);
}

#[tokio::test]
async fn attack_report_with_debug_policy() {
    let mut world = World::new().await;
    world.assert_released().await;
    world.guest.policy = GuestPolicy::STRICT.with_debug();
    let refusal = refused(world.ask(|_| {}).await, RefusedBy::ReleasePolicy, claim::IS_DEBUGGABLE);
    assert_eq!((refusal.unmet.len(), &refusal.unmet[0].found), (1, &Some(true.into())));
    world.guest.policy = GuestPolicy::STRICT.with_migration();
    refused(world.ask(|_| {}).await, RefusedBy::ReleasePolicy, claim::MIGRATION_ALLOWED);
    world.guest = Guest { vmpl: 1, ..Guest::expected() };
    refused(world.ask(|_| {}).await, RefusedBy::ReleasePolicy, claim::VMPL);
}

/// A policy as people write them for a cloud's vault names the measurement only.
fn measurement_and(more: &str) -> ReleasePolicy {
    let measurement = Guest::expected().measurement;
    ReleasePolicy::parse(&format!(
        r#"{{"version":"1.0.0","anyOf":[{{"authority":"https://anchorhold.dev/verifier","allOf":[
            {{"claim":"x-ms-sevsnpvm-launchmeasurement","equals":"{measurement}"}}{more}]}}]}}"#
    ))
    .unwrap()
}

#[tokio::test]
async fn attack_policy_that_is_silent_about_a_weakness() {
    let software = r#",{"claim":"x-anchorhold-tee","equals":"software (not confidential)"}"#;
    let debug = r#",{"claim":"x-ms-sevsnpvm-is-debuggable","equals":"true"}"#;
    let world = World::with(amd_and_a(), measurement_and("")).await;
    refused(world.ask(|_| {}).await, RefusedBy::Appraisal, "the TEE is a program");

    let mut world = World::with(amd_and_a(), measurement_and(software)).await;
    world.assert_released().await;
    world.guest.policy = GuestPolicy::STRICT.with_debug();
    refused(world.ask(|_| {}).await, RefusedBy::Appraisal, "the guest is debuggable");
    world.guest = Guest { vmpl: 3, ..Guest::expected() };
    refused(world.ask(|_| {}).await, RefusedBy::Appraisal, "privilege level");

    let mut world = World::with(amd_and_a(), measurement_and(&format!("{software}{debug}"))).await;
    world.guest.policy = GuestPolicy::STRICT.with_debug();
    world.assert_released().await;
}

#[tokio::test]
async fn attack_report_signed_by_another_root() {
    let mut world = World::new().await;
    world.assert_released().await;
    world.processor = Processor::b();
    refused(world.ask(|_| {}).await, RefusedBy::Verifier, "root certificate is not trusted");
}

#[tokio::test]
async fn attack_report_of_another_processor_with_a_trusted_chain() {
    let world = World::new().await;
    let answer = world
        .ask(|request| {
            let runtime_data = request.evidence.runtime_data.clone();
            request.evidence.report = evidence(&Processor::b(), &world.guest, runtime_data).report;
        })
        .await;
    refused(answer, RefusedBy::Verifier, "signature does not verify");
}

#[tokio::test]
async fn attack_software_root_without_the_danger_option() {
    let world = World::with(TrustedRoots::amd(), policy(TeeKind::Software)).await;
    let refusal =
        refused(world.ask(|_| {}).await, RefusedBy::Verifier, "root certificate is not trusted");
    assert!(refusal.reason.contains("expected a root of AMD's"), "{refusal}");
    World::new().await.assert_released().await;
}

/// The root is trusted for tests, the key is meant for hardware.
#[tokio::test]
async fn attack_software_tee_in_the_place_of_hardware() {
    let world = World::with(amd_and_a(), policy(TeeKind::SevSnp)).await;
    let refusal = refused(world.ask(|_| {}).await, RefusedBy::ReleasePolicy, claim::TEE);
    assert_eq!(refusal.unmet[0].found, Some("software (not confidential)".into()));
    let labelled = World::new().await.ask(|request| request.evidence.tee = Tee::Snp).await;
    refused(labelled, RefusedBy::Verifier, "labelled snp");
}

#[tokio::test]
async fn attack_evidence_with_trailing_bytes() {
    let world = World::new().await;
    let report = world.ask(|request| request.evidence.report.push(0)).await;
    refused(report, RefusedBy::Verifier, "no snp report");
    let table = world.ask(|request| request.evidence.auxblob.push(0)).await;
    refused(table, RefusedBy::Verifier, "stray bytes");
    let (request, _) = world.request().await;
    let mut message = ah_release_api::Request::Release(Box::new(request)).to_json().unwrap();
    message.push(b'x');
    let answer =
        ah_release_api::Response::from_json(&world.service.handle(&message).await).unwrap();
    refused(answer, RefusedBy::Request, "not JSON");
    message.pop();
    released(ah_release_api::Response::from_json(&world.service.handle(&message).await).unwrap());
}

#[tokio::test]
async fn attack_report_altered_in_any_field() {
    let world = World::new().await;
    for offset in [0x00, 0x08, 0x30, 0x50, 0x90, 0xc0, 0x180, 0x1a0, 0x2a0, 0x2e8] {
        let answer = world.ask(|request| request.evidence.report[offset] ^= 1).await;
        match answer {
            ah_release_api::Response::Refused(refusal) => {
                assert_eq!(refusal.by, RefusedBy::Verifier)
            }
            other => panic!("{offset:#x}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn attack_certificates_missing_or_foreign() {
    let world = World::new().await;
    let none = world.ask(|request| request.evidence.auxblob.clear()).await;
    refused(none, RefusedBy::Verifier, "no Vcek certificate");
    let foreign = world
        .ask(|request| {
            let runtime_data = request.evidence.runtime_data.clone();
            request.evidence.auxblob =
                evidence(&Processor::b(), &world.guest, runtime_data).auxblob;
        })
        .await;
    refused(foreign, RefusedBy::Verifier, "not trusted");
}

#[tokio::test]
async fn attack_row_swapped_in_the_database() {
    let world = World::new().await;
    world.assert_released().await;
    let loose =
        measurement_and(r#",{"claim":"x-anchorhold-tee","equals":"software (not confidential)"}"#);
    let secret = ah_release_api::Secret::new(b"worthless".to_vec()).unwrap();
    let id = "demo/loose".parse().unwrap();
    let kind = ah_release_api::KeyKind::Oct;
    world
        .service
        .import(&id, kind, &secret, loose, ah_keyservice::OnExisting::Refuse)
        .await
        .unwrap();
    let pool = sqlx::SqlitePool::connect_with(
        sqlx::sqlite::SqliteConnectOptions::new().filename(world.dir().join("keys.sqlite3")),
    )
    .await
    .unwrap();
    let swap = "UPDATE key_versions SET policy = (SELECT policy FROM key_versions WHERE name = 'demo/loose') WHERE name = 'demo/message'";
    assert_eq!(sqlx::query(swap).execute(&pool).await.unwrap().rows_affected(), 1);
    refused(world.ask(|_| {}).await, RefusedBy::Service, "decision log");
    let last = world.seen.lock().unwrap().last().cloned().unwrap();
    assert!(last.reasons[0].contains("altered in the database"), "{:?}", last.reasons);
}

#[tokio::test]
async fn attack_public_key_that_agrees_on_no_secret() {
    let world = World::new().await;
    let nonce = world.nonce().await;
    let data = RuntimeData { nonce, key_id: key_id(), public_key: PublicKey::new([0; 32]) };
    let answer = world
        .ask(|request| {
            request.evidence = evidence(&world.processor, &world.guest, data.to_bytes());
        })
        .await;
    refused(answer, RefusedBy::Request, "small order");
}

/// One challenge, many requests at once: the nonce goes to one of them.
#[tokio::test(flavor = "multi_thread")]
async fn attack_nonce_raced() {
    let world = World::new().await;
    let (request, _) = world.request().await;
    let mut tasks = tokio::task::JoinSet::new();
    let world = std::sync::Arc::new(world);
    for _ in 0..16 {
        let (world, request) = (world.clone(), request.clone());
        tasks.spawn(async move { world.send(&request).await });
    }
    let answers = tasks.join_all().await;
    let released =
        answers.iter().filter(|answer| matches!(answer, ah_release_api::Response::Released(_)));
    assert_eq!(released.count(), 1);
}

/// Where a list is required, evidence without one gets nothing; the host's silence about revocation is no proof.
#[tokio::test]
async fn attack_evidence_without_a_revocation_list_where_one_is_required() {
    use ah_collateral::{ListNeed, RevocationLists};
    for (need, released) in [(ListNeed::Optional, true), (ListNeed::Required, false)] {
        let roots = TrustedRoots::amd().danger_with_software_root(Processor::a().ark).unwrap();
        let lists = RevocationLists { need, ..RevocationLists::default() };
        let options = ah_keyservice::Options { lists, ..ah_keyservice::Options::new(roots) };
        let world = World::with_options(options, policy(TeeKind::Software)).await;
        match released {
            true => world.assert_released().await,
            false => {
                let answer = world.ask(|_| {}).await;
                refused(answer, RefusedBy::Verifier, "cannot be checked for revocation");
            }
        }
    }
}
