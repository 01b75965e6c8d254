//! What a pod's life asks of host, agent and kernel beside its requests: output, input, executed commands, figures, ends.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::sync::Arc;

use ah_pod::requests;
use ah_policy::{AksPolicy, PolicyDocument};
use ah_sandbox::{AgentClient, Created, SandboxError, Stop, Stream};
use ah_testkit_e2e::Scene;
use ah_testkit_images::busybox;
use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// The busybox pod with parts of its own, in a sandbox that is led by the test.
async fn created(annotations: &str, spec: &str) -> Result<(Scene, Created)> {
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: life\n{annotations}spec:\n  restartPolicy: Never\n{spec}"
    );
    let scene = busybox_scene(&yaml)?;
    let config = scene.launch(scene.prepared().await?).await?.served()?;
    let (events, mut stop) = (Arc::new(scene.heard.clone()), Stop::never());
    let created = ah_sandbox::start(config, events, &mut stop).await?;
    Ok((scene, created))
}

fn busybox_scene(yaml: &str) -> Result<Scene> {
    Scene::new(yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })
}

/// Creates and starts the pod's first container; gives its id.
async fn first(created: &Created) -> Result<String> {
    let request = requests::create_container(created.pod(), 0, created.host_values())?;
    created.agent().create_container(&request).await?;
    created.agent().start_container(&request.container_id).await?;
    Ok(request.container_id)
}

/// Everything that a process still writes.
async fn read_all(agent: &AgentClient, stream: Stream, id: &str, exec_id: &str) -> String {
    let mut all = Vec::new();
    while let Ok(data) = agent.read_stream(stream, id, exec_id, 4096).await {
        if data.is_empty() {
            break;
        }
        all.extend(data);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Both streams at once, each far beyond every buffer on the way.
#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_output_arrive_whole() -> Result<()> {
    const LAST: u32 = 700_000;
    let scene = Scene::shell(&format!("seq 1 {LAST} >&2 & seq 1 {LAST}; wait"))?;
    let outcome = scene.run().await?;
    assert_eq!(outcome.exit_code, 0);
    let whole = |lines: Vec<String>| {
        lines.len() == LAST as usize
            && (1..=LAST).zip(&lines).all(|(number, line)| *line == number.to_string())
    };
    assert!(whole(scene.heard.stdout("main")), "stdout is not whole");
    assert!(whole(scene.heard.stderr("main")), "stderr is not whole");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_command_is_executed_and_no_other() -> Result<()> {
    let annotations = "  annotations:\n    anchorhold.dev/exec: '{\"main\": [[\"/bin/sh\", \"-c\", \"echo in; exit 5\"]]}'\n";
    let spec = "  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sleep\", \"1000\"]\n";
    let (_scene, created) = created(annotations, spec).await?;
    let id = first(&created).await?;
    let agent = created.agent();
    let exec = |args: &[&str], exec_id: &str| {
        let args: Vec<String> = args.iter().map(|&arg| arg.into()).collect();
        requests::exec_process(created.pod(), 0, &args, exec_id, created.host_values())
    };
    agent.exec_process(&exec(&["/bin/sh", "-c", "echo in; exit 5"], "one")?).await?;
    assert_eq!(read_all(agent, Stream::Stdout, &id, "one").await, "in\n");
    assert_eq!(agent.wait_process(&id, "one").await?, 5);

    let Err(error) = agent.exec_process(&exec(&["/bin/sh", "-c", "echo in; exit 6"], "two")?).await
    else {
        bail!("a command that the owner did not allow was executed");
    };
    assert!(error.to_string().contains("/process/Args"), "{error}");

    // The container's figures, and its end by a signal.
    let stats = agent.stats(&id).await?;
    let cgroup = stats.cgroup_stats.as_ref().context("no cgroup figures")?;
    let memory = cgroup.memory_stats.as_ref().context("no memory figures")?;
    assert!(memory.usage.as_ref().is_some_and(|usage| usage.usage > 0), "{memory:?}");
    let cpu = cgroup.cpu_stats.as_ref().context("no CPU figures")?;
    assert!(cpu.cpu_usage.as_ref().is_some_and(|usage| usage.total_usage > 0), "{cpu:?}");
    agent.signal_process(&id, "", 9).await?;
    assert_eq!(agent.wait_process(&id, "").await?, 128 + 9);
    agent.remove_container(&id).await?;
    created.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_a_process_that_declares_it() -> Result<()> {
    let spec = "  containers:\n    - name: main\n      image: localhost/busybox:1\n      stdin: true\n      command: [\"/bin/sh\", \"-c\", \"cat; echo end\"]\n";
    let (_scene, created) = created("", spec).await?;
    let id = first(&created).await?;
    let agent = created.agent();
    assert_eq!(agent.write_stdin(&id, "", b"typed\n").await?, 6);
    agent.close_stdin(&id, "").await?;
    assert_eq!(read_all(agent, Stream::Stdout, &id, "").await, "typed\nend\n");
    assert_eq!(agent.wait_process(&id, "").await?, 0);
    created.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_and_echoes() -> Result<()> {
    let spec = "  containers:\n    - name: main\n      image: localhost/busybox:1\n      stdin: true\n      tty: true\n      command: [\"/bin/sh\", \"-c\", \"read line; stty size; echo got $line; tty\"]\n";
    let (_scene, created) = created("", spec).await?;
    let id = first(&created).await?;
    let agent = created.agent();
    agent.resize_tty(&id, "", 33, 101).await?;
    agent.write_stdin(&id, "", b"hello\n").await?;
    let shown = read_all(agent, Stream::Stdout, &id, "").await;
    assert_eq!(shown, "hello\r\n33 101\r\ngot hello\r\n/dev/pts/0\r\n");
    assert_eq!(agent.wait_process(&id, "").await?, 0);
    created.end().await;
    Ok(())
}

/// The kernel's own tables grow with the VM, and so does what the VM has beside the limits.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_pod_has_the_memory_of_its_limits() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: large\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", \"grep MemAvailable /proc/meminfo\"]\n      resources: {limits: {memory: 4Gi}}\n";
    let scene = busybox_scene(yaml)?;
    scene.run().await?;
    let said = scene.heard.stdout("main").concat();
    let kib: u64 = said.split_whitespace().nth(1).context(said.clone())?.parse()?;
    assert!(kib >= 4 << 20, "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_beyond_its_memory_limit_is_ended_and_named() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: hungry\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", \"dd if=/dev/zero of=/dev/null bs=100M count=1; echo survived\"]\n      resources:\n        limits:\n          memory: 32Mi\n";
    let scene = busybox_scene(yaml)?;
    scene.run().await?;
    assert_eq!(scene.heard.out_of_memory(), ["main"], "{}", scene.heard.everything());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_volumes_processes_and_groups() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: shared\nspec:\n  restartPolicy: Never\n  shareProcessNamespace: true\n  securityContext:\n    fsGroup: 4242\n  volumes:\n    - name: common\n      emptyDir: {}\n  containers:\n    - name: writer\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", \"echo shared > /common/file; id -G; sleep 1000\"]\n      volumeMounts:\n        - name: common\n          mountPath: /common\n    - name: reader\n      image: localhost/busybox:1\n      securityContext:\n        runAsUser: 1000\n      command: [\"/bin/sh\", \"-c\", \"until test -s /common/file; do sleep 0.1; done; cat /common/file; echo mine > /common/mine && stat -c %g /common/mine; grep -lx sleep /proc/[0-9]*/comm | wc -l\"]\n      volumeMounts:\n        - name: common\n          mountPath: /common\n";
    let scene = busybox_scene(yaml)?;
    let config = scene.launch(scene.prepared().await?).await?;
    let (stop, stopped) = Stop::new();
    let served = config.served()?;
    let heard = scene.heard.clone();
    let run = tokio::spawn(ah_sandbox::run(served, Arc::new(heard.clone()), stopped));
    while heard.stdout("reader").len() < 3 && !run.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop.end_now();
    run.await??;
    assert_eq!(heard.stdout("reader"), ["shared", "4242", "1"], "{}", heard.everything());
    let groups = heard.stdout("writer").pop().unwrap_or_default();
    assert!(groups.split(' ').any(|group| group == "4242"), "{groups}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployments_pod_runs() -> Result<()> {
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: web}\n    spec:\n      containers:\n        - name: main\n          image: localhost/busybox:1\n          command: [\"/bin/sh\", \"-c\", \"hostname | grep -c '^web-'\"]\n";
    let scene = busybox_scene(yaml)?;
    assert_eq!(scene.run().await?.exit_code, 0, "{}", scene.heard.everything());
    assert_eq!(scene.heard.stdout("main"), ["1"]);
    Ok(())
}

/// The folder of the images as one file, as `skopeo copy … oci-archive:` writes it.
#[tokio::test(flavor = "multi_thread")]
async fn images_come_from_an_archive() -> Result<()> {
    let scene = Scene::shell("echo from an archive")?.with_archive()?;
    assert_eq!(scene.run().await?.exit_code, 0, "{}", scene.heard.everything());
    assert_eq!(scene.heard.stdout("main"), ["from an archive"]);
    Ok(())
}

/// A pod of the form that older AKS clusters run: no initdata, the policy text by SetPolicy, its digest in HOST_DATA.
async fn aks_form(change: impl FnOnce(&mut String)) -> Result<(Scene, Result<i32, SandboxError>)> {
    let scene = Scene::shell("echo by leave of the policy")?;
    let mut prepared = scene.prepared().await?;
    let policy = AksPolicy::new(prepared.document.policy())?;
    prepared.document = PolicyDocument::Aks(policy);
    prepared.initdata = None;
    let mut launch = scene.launch(prepared).await?;
    change(launch.sandbox.policy_text.as_mut().context("no policy text")?);
    let outcome = scene.start(launch).await.map(|outcome| outcome.exit_code);
    Ok((scene, outcome))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_text_is_taken_before_anything_else() -> Result<()> {
    let (scene, exit_code) = aks_form(|_| ()).await?;
    assert_eq!(exit_code?, 0, "{}", scene.heard.everything());
    assert_eq!(scene.heard.stdout("main"), ["by leave of the policy"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_policy_text_altered_by_one_byte() -> Result<()> {
    let (_scene, refused) = aks_form(|text| text.push('\n')).await?;
    let Err(error) = refused else { bail!("not refused") };
    assert!(error.to_string().contains("HOST_DATA"), "{error}");
    Ok(())
}

/// Programs, guest image, images and pod where every user can read them, and a home for a user without any right.
fn for_everybody(scene: &Scene) -> Result<TempDir> {
    let place = tempfile::Builder::new().prefix("ah").tempdir_in("/tmp")?;
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("bin"))?;
    fs::copy(scene.program()?, at("bin/anchorhold"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let bridge = std::env::split_paths(&path).map(|folder| folder.join(BRIDGE));
    if let Some(bridge) = bridge.into_iter().find(|file| file.is_file()) {
        fs::copy(bridge, at("bin").join(BRIDGE))?;
    }
    for (name, from) in [("guest", scene.image().folder.clone()), ("images", scene.images())] {
        run(Command::new("cp").arg("-r").arg(from).arg(at(name)))?;
    }
    fs::copy(scene.file(), at("pod.yaml"))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(place.path()))?;
    fs::create_dir(at("home"))?;
    fs::set_permissions(at("home"), fs::Permissions::from_mode(0o700))?;
    if is_root() {
        std::os::unix::fs::chown(at("home"), Some(NOBODY), Some(NOBODY))?;
    }
    Ok(place)
}

const BRIDGE: &str = "vhost-device-vsock";
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?}: {text}");
    Ok(())
}

#[test]
fn a_pod_runs_for_a_user_without_any_right() -> Result<()> {
    let scene = Scene::shell("echo for everybody")?;
    let place = for_everybody(&scene)?;
    let at = |name: &str| place.path().join(name);
    let mut command = match is_root() {
        true => Command::new("setpriv"),
        false => Command::new("env"),
    };
    if is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", "env"]);
    }
    let path = std::env::join_paths([at("bin"), "/usr/bin".into(), "/bin".into()])?;
    command.arg("-i").arg(joined("PATH=", path.as_ref())).arg(joined("HOME=", at("home").as_ref()));
    command.arg("anchorhold").args(["run", "--tee", "software", "-f"]).arg(at("pod.yaml"));
    command.arg("--images").arg(at("images")).arg("--guest").arg(at("guest"));
    let output = command.output()?;
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[main] for everybody\n", "{talk}");
    Ok(())
}

fn joined(name: &str, value: &std::ffi::OsStr) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push(value);
    text
}
