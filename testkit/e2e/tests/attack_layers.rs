//! The host changes what it hands over as layers. The kernel's dm-verity or the policy refuses.

use ah_sandbox::{Blame, SandboxError};
use ah_testkit_e2e::Scene;
use ah_testkit_e2e::attack::{self, Where};
use ah_testkit_images::{Entry, LayerSpec, Packing, busybox};
use anchorhold::run::Launch;
use anyhow::Result;

const SCRIPT: &str = "cat /lower /upper";

fn two_layers() -> Result<Scene> {
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: layers\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/two:1\n      command: [\"/bin/sh\", \"-c\", \"{SCRIPT}\"]\n"
    );
    Scene::new(&yaml, |images| {
        let lower = LayerSpec::of(Packing::Gzip, [Entry::file("lower", b"lower\n".to_vec())]);
        let upper = LayerSpec::of(Packing::Gzip, [Entry::file("upper", b"upper\n".to_vec())]);
        images.add("localhost/two:1", &busybox()?.with_layer(lower).with_layer(upper))?;
        Ok(())
    })
}

/// Runs the pod with one thing changed; gives the refusal.
async fn refusal(alter: impl FnOnce(&Scene, &mut Launch) -> Result<()>) -> Result<SandboxError> {
    let scene = two_layers()?;
    let mut launch = scene.launch(scene.prepared().await?).await?;
    alter(&scene, &mut launch)?;
    match scene.start(launch).await {
        Ok(outcome) => anyhow::bail!("not refused: {outcome:?}\n{}", scene.heard.everything()),
        Err(error) => Ok(error),
    }
}

#[track_caller]
fn check(error: &SandboxError, blame: Blame, text: &str) {
    assert_eq!(error.blame(), blame, "{error}");
    assert!(error.to_string().contains(text), "{error} does not say {text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_as_they_are_run() -> Result<()> {
    let scene = two_layers()?;
    assert_eq!(scene.run().await?.exit_code, 0);
    assert_eq!(scene.heard.stdout("main"), ["lower", "upper"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_layer_byte_flipped_on_disk() -> Result<()> {
    let error = refusal(|scene, launch| {
        attack::flip_layer_byte(launch, 0, Where::Block(0), scene.folder())
    })
    .await?;
    check(&error, Blame::Verity, "layer");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_verity_hash_tree_altered() -> Result<()> {
    let error = refusal(|scene, launch| {
        let largest = launch
            .sandbox
            .layers
            .iter()
            .enumerate()
            .max_by_key(|(_, layer)| layer.verity.data_blocks);
        let index = largest.map(|(index, _)| index).unwrap_or_default();
        attack::flip_layer_byte(launch, index, Where::HashTree, scene.folder())
    })
    .await;
    // The last tree block may cover padding that nobody reads; then the pod must have run unharmed.
    match error {
        Ok(error) => check(&error, Blame::Verity, "layer"),
        Err(error) => return Err(error),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_layer_disk_swapped_for_another_valid_layers() -> Result<()> {
    let error = refusal(|_, launch| {
        let paths: Vec<_> = launch.sandbox.layers.iter().map(|layer| layer.path.clone()).collect();
        for (layer, path) in launch.sandbox.layers.iter_mut().zip(paths.into_iter().rev()) {
            layer.path = path;
        }
        Ok(())
    })
    .await?;
    check(&error, Blame::Verity, "layer");
    Ok(())
}

/// The request's storages changed, each the smallest change: the policy refuses.
async fn storages_refused(
    alter: impl Fn(&mut ah_agent_api::agent::CreateContainerRequest) + Send + Sync + 'static,
) -> Result<()> {
    let error = refusal(|_, launch| {
        launch.sandbox.tamper = attack::on_create(alter);
        Ok(())
    })
    .await?;
    check(&error, Blame::Policy, "storages");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_no_layer_storage() -> Result<()> {
    storages_refused(|request| {
        request.storages.clear();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_two_layer_storages_of_one() -> Result<()> {
    storages_refused(|request| {
        let again = request.storages[0].clone();
        request.storages.insert(0, again);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_layers_reordered() -> Result<()> {
    storages_refused(|request| request.storages.swap(0, 1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_root_hash_of_another_layer() -> Result<()> {
    storages_refused(|request| {
        let other = request.storages[1].clone();
        request.storages[0].options = other.options;
        request.storages[0].source = other.source;
        request.storages[0].mount_point = other.mount_point;
    })
    .await
}
