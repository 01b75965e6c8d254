//! Keys and sealed values: released to the pod that they are for, and to no other.

use std::fs;
use std::path::Path;
use std::process::Command;

use ah_testkit_images::busybox;

use crate::site::{
    KeyServe, LIMIT, RUNTIME_CLASS, anchorhold, cluster, program, succeeds, target,
    until_no_vm_is_left, with_policy, with_policy_of,
};

const MESSAGE: &str = "The key went to one pod.";
const DEPLOYMENT: &str = include_str!("../../../../examples/sealed-message/deployment.yaml");

/// The example from nothing: images, policy, key, `kubectl apply`, `kubectl logs`. Then the cluster's owner makes a Deployment of his own of
/// the same image, with a policy of his own that the guest is content with: the key service is not.
#[tokio::test(flavor = "multi_thread")]
async fn attack_a_key_goes_to_the_deployment_and_not_to_one_with_another_command() {
    let Some((cluster, folder)) = cluster().await else { return };
    let (folder, layout) = (folder.path(), folder.path().join("images"));
    let key = folder.join("key");
    let mut images = Command::new(program("demo-images"));
    images.arg("--out").arg(&layout).arg("--key-out").arg(&key);
    succeeds(images.args(["--message", MESSAGE]));
    let node = cluster.node();
    node.import_layout(&layout, &["localhost/anchorhold/sealed-message:demo"]).await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();

    let yaml = with_policy_of(folder, DEPLOYMENT, &layout);
    let mut import = anchorhold(folder);
    import.args(["key", "import", "demo/message", "--tee", "software"]);
    import.arg("--danger-accept-software-tee").arg("--for").arg(&yaml).arg("--from").arg(&key);
    succeeds(import.arg("--guest").arg(target().join("guest-image")));
    let _served = KeyServe::start(folder);

    cluster.apply(&fs::read_to_string(yaml).unwrap()).unwrap();
    let logs = ["logs", "deployment/sealed-message"];
    let said = cluster.wait_for(&logs, LIMIT, |said| said.contains("the message is: "));
    let said = said.unwrap_or_else(|error| panic!("{error}\n{}", node.logs()));
    assert!(said.contains(MESSAGE), "{said}");
    let up = ["get", "deployment", "sealed-message", "-o", "jsonpath={.status.readyReplicas}"];
    cluster.wait_for(&up, LIMIT, |ready| ready == "1").unwrap();
    cluster.kubectl(&["delete", "deployment", "sealed-message"]).unwrap();

    let changed = DEPLOYMENT.replace("\"demo/message\", ", "\"demo/message\", \"again\", ");
    let changed = changed.replace("name: sealed-message\nspec", "name: copied\nspec");
    assert_ne!(changed, DEPLOYMENT);
    let yaml = with_policy_of(folder, &changed, &layout);
    cluster.apply(&fs::read_to_string(yaml).unwrap()).unwrap();
    let logs = ["logs", "deployment/copied"];
    let said =
        cluster.wait_for(&logs, LIMIT, |said| said.contains("sealed-message: no key")).unwrap();
    assert!(said.contains("x-ms-sevsnpvm-hostdata") && !said.contains(MESSAGE), "{said}");
}

const PASSWORD: &str = "correct-horse-battery";
const TOKEN: &str = "token of the file";

/// A Secret with a sealed file, and a pod with that and a sealed variable, whose command prints what it finds.
fn sealed_pod(folder: &Path) -> String {
    let seal = |place: [&str; 2], value: &str| {
        let (key, secret) = (folder.join("db.key"), folder.join("secret"));
        fs::write(&secret, value).unwrap();
        let mut seal = anchorhold(folder);
        seal.args(["secret", "seal", "--key-id", "demo/db"]).args(place);
        seal.arg("--from").arg(&secret).arg("--key-file").arg(&key);
        if !key.exists() {
            seal.arg("--new-key");
        }
        let output = seal.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let password = seal(["--env", "DB_PASSWORD"], PASSWORD);
    let token = seal(["--file", "/secret/token"], TOKEN);
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: app}}
stringData: {{token: {token}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: opened}}
spec:
  runtimeClassName: anchorhold-cc
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  volumes:
  - {{name: secret, secret: {{secretName: app}}}}
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "echo $DB_PASSWORD; cat /secret/token"]
    env: [{{name: DB_PASSWORD, value: {password}}}]
    volumeMounts: [{{name: secret, mountPath: /secret}}]
"#
    )
}

/// The cluster's owner makes a pod of his own with the sealed texts that he reads, and a policy that the guest is content with.
#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_values_open_in_their_pod_and_not_in_one_with_another_policy() {
    let Some((cluster, folder)) = cluster().await else { return };
    let folder = folder.path();
    let (name, image) = ("localhost/busybox:1", busybox().unwrap());
    let yaml = sealed_pod(folder);
    let pod = with_policy(folder, &yaml, name, &image);
    let mut import = anchorhold(folder);
    import.args(["key", "import", "demo/db", "--tee", "software", "--danger-accept-software-tee"]);
    import.arg("--for").arg(folder.join("out.yaml")).arg("--from").arg(folder.join("db.key"));
    succeeds(import.arg("--guest").arg(target().join("guest-image")));
    let _served = KeyServe::start(folder);
    let node = cluster.node();
    node.import(&[(name, &image)]).await.unwrap();
    node.forget_tag(name).await.unwrap();
    cluster.apply(RUNTIME_CLASS).unwrap();
    let describe = || cluster.kubectl(&["describe", "pod", "opened"]).unwrap();

    cluster.apply(&pod).unwrap();
    let phase = cluster.wait_for_end("opened", LIMIT);
    let phase = phase.unwrap_or_else(|error| panic!("{error}\n{}", node.logs()));
    assert_eq!(phase, "Succeeded", "{}\n{}", describe(), node.logs());
    let logs = cluster.kubectl(&["logs", "opened"]).unwrap();
    assert_eq!(logs.lines().collect::<Vec<_>>(), [PASSWORD, TOKEN]);
    cluster.kubectl(&["delete", "pod", "opened", "--grace-period=0"]).unwrap();

    let changed = yaml.replace("cat /secret/token", "cat /secret/token; id");
    assert_ne!(changed, yaml);
    let changed = with_policy_of(folder, &changed, &folder.join("layout"));
    cluster.apply(&fs::read_to_string(changed).unwrap()).unwrap();
    assert_eq!(cluster.wait_for_end("opened", LIMIT).unwrap(), "Failed");
    let told = describe();
    let words = "env:DB_PASSWORD: key demo/db: refused by the key's release policy";
    assert!(told.contains(words), "{told}");
    for told in [told, node.logs()] {
        assert!(!told.contains(PASSWORD) && !told.contains(TOKEN), "{told}");
    }
    cluster.kubectl(&["delete", "pod", "opened", "--grace-period=0"]).unwrap();
    until_no_vm_is_left(&cluster);
}
