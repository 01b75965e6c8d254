//! Pods that run: on a real VM, under their policy, to their end.

use std::collections::BTreeSet;

use ah_sandbox::StageName;
use ah_testkit_e2e::{Scene, static_program};
use ah_testkit_images::{LayerSpec, Packing, awkward_layer, busybox, listing, program};
use anyhow::Result;

const SECRET: [u8; 32] = [7; 32];
const MESSAGE: &str = "only this pod can read this";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_prints_and_its_exit_code_is_the_pods() -> Result<()> {
    let scene = Scene::shell("echo out; echo err >&2; exit 7")?;
    let outcome = scene.run().await?;
    assert_eq!(outcome.exit_code, 7);
    assert_eq!(scene.heard.stdout("main"), ["out"]);
    assert_eq!(scene.heard.stderr("main"), ["err"]);
    let names: Vec<StageName> = scene.heard.stages().iter().map(|stage| stage.name).collect();
    assert_eq!(names.last(), Some(&StageName::VmEnded));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_what_its_spec_says() -> Result<()> {
    let script = "id -u; id -g; pwd; hostname; echo $GREETING; cat /proc/1/comm; \
        cat /etc/hostname; grep -c . /proc/mounts >/dev/null && echo mounts; \
        touch /written && echo writable; dd if=/proc/kcore of=/dev/null bs=1 count=1 2>/dev/null || echo masked; \
        echo x > /proc/sys/kernel/hostname 2>/dev/null || echo readonly";
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: spec\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/busybox:1\n      workingDir: /tmp\n      command: [\"/bin/sh\", \"-c\", {}]\n      env:\n        - name: GREETING\n          value: hello\n",
        serde_json::Value::from(script)
    );
    let scene = Scene::new(&yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })?;
    let outcome = scene.run().await?;
    let expect =
        ["0", "0", "/tmp", "spec", "hello", "sh", "spec", "mounts", "writable", "readonly"];
    let heard = scene.heard.stdout("main");
    let heard: Vec<&str> =
        heard.iter().map(String::as_str).filter(|line| *line != "masked").collect();
    assert_eq!(heard, expect, "{}", scene.heard.everything());
    assert_eq!(outcome.exit_code, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sealed_message_is_opened_with_the_released_key() -> Result<()> {
    let scene = Scene::sealed_message(&SECRET, MESSAGE)?;
    let prepared = scene.prepared().await?;
    scene.import_key(&prepared, &SECRET).await?;
    let launch = scene.launch(prepared).await?;
    let outcome = scene.start(launch).await?;
    assert_eq!(outcome.exit_code, 0, "{}", scene.heard.everything());
    let last = scene.heard.stdout("sealed-message").pop().unwrap_or_default();
    assert!(last.ends_with(MESSAGE), "{}", scene.heard.everything());
    let decisions = scene.heard.decisions();
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    assert_eq!(decisions[0].tee.as_deref(), Some("software (not confidential)"));
    Ok(())
}

/// The kernel's view of our EROFS and overlay, file by file with every attribute, against the tar.
#[tokio::test(flavor = "multi_thread")]
async fn the_guests_kernel_reads_a_layer_as_its_tar_says() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: layers\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/awkward:1\n      args: [\"/\"]\n      # trusted.* attributes are shown to none but it\n      securityContext: {capabilities: {add: [SYS_ADMIN]}}\n";
    let tar = awkward_layer();
    let layer = LayerSpec { tar: tar.clone(), packing: Packing::Zstd };
    let list_tree = static_program("examples/list_tree");
    let image = program(&list_tree, "/list_tree")?.with_layer(layer);
    let scene = Scene::new(yaml, |images| {
        images.add("localhost/awkward:1", &image)?;
        Ok(())
    })?;
    let outcome = scene.run().await?;
    assert_eq!(outcome.exit_code, 0, "{}", scene.heard.everything());
    let text = listing::text(&listing::from_tar(&tar)?);
    let expected: Vec<String> =
        text.lines().filter(|line| compared(line)).map(without_links).collect();
    assert!(expected.len() > 700, "only {} files to compare", expected.len());
    let heard = whole_lines(scene.heard.stdout("main"));
    let heard: BTreeSet<String> = heard.iter().map(|line| without_links(line)).collect();
    for line in &expected {
        assert!(heard.contains(line), "{line:?} is not what the kernel shows:\n{heard:#?}");
    }
    Ok(())
}

/// The host passes a line on in parts of 16 KiB.
fn whole_lines(parts: Vec<String>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for part in parts {
        line += &part;
        if part.len() < 16 << 10 {
            lines.push(std::mem::take(&mut line));
        }
    }
    lines
}

/// Everything but what the runtime mounts over, and the root itself, which is the overlay's.
fn compared(line: &str) -> bool {
    let path = line.split('\t').next().unwrap_or_default();
    let mounted =
        ["/dev", "/proc", "/sys", "/run", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    // In /etc the runtime makes what it mounts on, which changes the folder's time.
    path != "/"
        && path != "/etc"
        && !mounted.iter().any(|mount| path == *mount || path.starts_with(&format!("{mount}/")))
}

/// overlayfs counts the links of a merged directory as one.
fn without_links(line: &str) -> String {
    let mut fields: Vec<&str> = line.split('\t').collect();
    if fields.get(1) == Some(&"d") && fields.len() > 7 {
        fields[7] = "-";
    }
    fields.join("\t")
}
