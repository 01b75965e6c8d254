//! The host starts another guest than the owner measured, or lies in the report: the key service refuses.

use std::fs;
use std::path::Path;

use ah_evidence::GuestPolicy;
use ah_keyservice::Verdict;
use ah_testkit_e2e::Scene;
use anchorhold::keys::Accept;
use anchorhold::run::Launch;
use anyhow::Result;

const SECRET: [u8; 32] = [9; 32];
const MESSAGE: &str = "only this pod can read this";

/// Runs the sealed-message pod with one thing changed: it boots, asks, and gets no key. Gives the log's reasons and
/// the claims that were not met.
async fn release_refused(
    accept: Accept,
    alter: impl FnOnce(&Scene, &mut Launch) -> Result<()>,
) -> Result<String> {
    let scene = Scene::sealed_message(&SECRET, MESSAGE)?;
    let prepared = scene.prepared().await?;
    scene.import_key(&prepared, &SECRET).await?;
    let mut launch = scene.launch_with(prepared, accept).await?;
    alter(&scene, &mut launch)?;
    let outcome = scene.start(launch).await?;
    let everything = scene.heard.everything();
    assert_ne!(outcome.exit_code, 0, "{everything}");
    assert!(!everything.contains(MESSAGE), "{everything}");
    let decisions = scene.heard.decisions();
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0].decision, Verdict::Refused, "{decisions:?}");
    // The workload, too, hears who refused.
    assert!(everything.contains("no key: refused by"), "{everything}");
    let claims = decisions[0].conditions.iter().map(|condition| &condition.claim);
    Ok(decisions[0].reasons.iter().chain(claims).cloned().collect::<Vec<_>>().join("; "))
}

#[track_caller]
fn check(reasons: &str, text: &str) {
    assert!(reasons.contains(text), "{reasons} does not say {text:?}");
}

fn with_zero_appended(file: &Path, folder: &Path) -> Result<std::path::PathBuf> {
    let copy = folder.join("altered");
    let mut bytes = fs::read(file)?;
    bytes.push(0);
    fs::write(&copy, bytes)?;
    Ok(copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_guest_kernel_altered() -> Result<()> {
    let reasons = release_refused(Accept::DangerSoftwareTee, |scene, launch| {
        launch.sandbox.guest.kernel =
            with_zero_appended(&launch.sandbox.guest.kernel, scene.folder())?;
        Ok(())
    })
    .await?;
    check(&reasons, "launchmeasurement");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_guest_initrd_altered() -> Result<()> {
    let reasons = release_refused(Accept::DangerSoftwareTee, |scene, launch| {
        launch.sandbox.guest.initrd =
            with_zero_appended(&launch.sandbox.guest.initrd, scene.folder())?;
        Ok(())
    })
    .await?;
    check(&reasons, "launchmeasurement");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_guest_command_line_altered() -> Result<()> {
    let reasons = release_refused(Accept::DangerSoftwareTee, |_, launch| {
        launch.sandbox.guest.cmdline.push_str(" loglevel=3");
        Ok(())
    })
    .await?;
    check(&reasons, "launchmeasurement");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_report_with_debug_policy() -> Result<()> {
    let reasons = release_refused(Accept::DangerSoftwareTee, |_, launch| {
        launch.guest_policy = GuestPolicy::STRICT.with_debug();
        Ok(())
    })
    .await?;
    check(&reasons, "debug");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_software_root_without_the_danger_option() -> Result<()> {
    let reasons = release_refused(Accept::Hardware, |_, _| Ok(())).await?;
    check(&reasons, "root");
    Ok(())
}

/// The host hands over its own policy and its digest: the guest starts, and the key service sees another HOST_DATA.
#[tokio::test(flavor = "multi_thread")]
async fn attack_policy_replaced_with_its_host_data() -> Result<()> {
    let reasons = release_refused(Accept::DangerSoftwareTee, |_, launch| {
        let disk = launch.sandbox.initdata_disk.take().unwrap_or_default();
        let initdata = ah_policy::InitData::from_disk(&disk)?;
        let text = format!("{}\n# another byte\n", initdata.policy());
        let settings = initdata.value("anchorhold.toml").unwrap_or_default().to_owned();
        let extra = [("anchorhold.toml".to_owned(), settings)].into();
        let other = ah_policy::InitData::build(&text, &extra)?;
        launch.host_data = other.host_data_snp()?;
        launch.sandbox.initdata_disk = Some(other.to_disk());
        Ok(())
    })
    .await?;
    check(&reasons, "hostdata");
    Ok(())
}
