//! A platform team's container in an owner's pod, in a real VM: signed, added without another policy; and what a host makes of it.

use ah_grant::SecretKey;
use ah_policy::fragment_to_annotation;
use ah_policygen::make_fragment;
use ah_testkit_e2e::Scene;
use ah_testkit_images::busybox;
use anyhow::{Result, bail};

const PROXY: &str = "    - name: proxy\n      image: localhost/busybox:1\n      command: [\"/bin/echo\", \"beside\"]\n";

fn scene(yaml: &str) -> Result<Scene> {
    Scene::new(yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })
}

fn yaml(annotations: &str, containers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: host\n{annotations}spec:\n  restartPolicy: Never\n  containers:\n{containers}"
    )
}

/// The owner's pod with its policy, as somebody else has changed it: with a fragment of this key and a container more.
async fn injected(owned: &str, fragment: Option<&SecretKey>) -> Result<Scene> {
    let platforms = scene(&yaml("", PROXY))?.prepared().await?.pod;
    let mut text = format!("{owned}{PROXY}");
    if let Some(key) = fragment {
        let fragment = make_fragment(&platforms, "mesh", 3)?.sign(key)?;
        let value = fragment_to_annotation(&fragment);
        let with = format!("annotations:\n    anchorhold.dev/fragment: {value}\n");
        text = text.replacen("annotations:\n", &with, 1);
    }
    scene(&text)
}

async fn refused(scene: &Scene) -> Result<String> {
    match scene.run().await {
        Ok(outcome) => bail!("the pod ran: {outcome:?}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_a_container_beside_the_policy_and_one_that_a_named_key_adds() -> Result<()> {
    let key = SecretKey::from_seed(&[21; 32]);
    let annotations = format!(
        "  annotations:\n    anchorhold.dev/fragments: issuer=platform key={} feed=mesh min-version=3\n",
        key.public()
    );
    let main = "    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/echo\", \"own\"]\n";
    let owned = scene(&yaml(&annotations, main))?.prepared().await?.yaml;

    let added = injected(&owned, Some(&key)).await?;
    assert_eq!(added.run().await?.exit_code, 0);
    assert_eq!(added.heard.stdout("main"), ["own"]);
    assert_eq!(added.heard.stdout("proxy"), ["beside"]);

    let without = injected(&owned, None).await?;
    let told = refused(&without).await?;
    assert!(told.contains("no container of this name is declared"), "{told}");

    let foreign = injected(&owned, Some(&SecretKey::from_seed(&[22; 32]))).await?;
    let told = refused(&foreign).await?;
    assert!(told.contains("the signature is not of a key"), "{told}");
    Ok(())
}
