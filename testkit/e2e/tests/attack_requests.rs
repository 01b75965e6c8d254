//! The host changes what it asks of the agent. The policy in the guest refuses.

use ah_agent_api::agent::{CopyFileRequest, CreateContainerRequest};
use ah_agent_api::oci::Mount;
use ah_policy::InitData;
use ah_sandbox::{Blame, RawCall, SandboxError, Tamper};
use ah_testkit_e2e::Scene;
use ah_testkit_e2e::attack::{on_call, on_create, on_creates};
use anyhow::{Context, Result, bail};
use protobuf::Message;
use std::sync::Arc;

async fn refusal(tamper: Option<Arc<dyn Tamper>>) -> Result<SandboxError> {
    let scene = Scene::shell("echo ran")?;
    let mut launch = scene.launch(scene.prepared().await?).await?;
    launch.sandbox.tamper = tamper;
    match scene.start(launch).await {
        Ok(outcome) => bail!("not refused: {outcome:?}\n{}", scene.heard.everything()),
        Err(error) => Ok(error),
    }
}

async fn denied(
    alter: impl Fn(&mut CreateContainerRequest) + Send + Sync + 'static,
    text: &str,
) -> Result<()> {
    let error = refusal(on_create(alter)).await?;
    assert_eq!(error.blame(), Blame::Policy, "{error}");
    assert!(error.to_string().contains(text), "{error} does not say {text:?}");
    Ok(())
}

fn process(request: &mut CreateContainerRequest) -> &mut ah_agent_api::oci::Process {
    request.OCI.mut_or_insert_default().Process.mut_or_insert_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_as_they_are_are_allowed() -> Result<()> {
    let scene = Scene::shell("echo ran")?;
    let mut launch = scene.launch(scene.prepared().await?).await?;
    launch.sandbox.tamper = on_create(|_| ());
    assert_eq!(scene.start(launch).await?.exit_code, 0);
    assert_eq!(scene.heard.stdout("main"), ["ran"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_env_variable_added() -> Result<()> {
    denied(|request| process(request).Env.push("LD_PRELOAD=/evil.so".into()), "Env").await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_command_changed() -> Result<()> {
    denied(|request| process(request).Args[2] = "echo other".into(), "Args").await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_mount_of_a_host_path() -> Result<()> {
    let mount = Mount {
        destination: "/host".into(),
        source: "/".into(),
        type_: "bind".into(),
        options: vec!["rbind".into(), "rw".into()],
        ..Mount::default()
    };
    denied(move |request| request.OCI.mut_or_insert_default().Mounts.push(mount.clone()), "ounts")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_extra_container() -> Result<()> {
    let error = refusal(on_creates(|request| {
        let mut extra = request.clone();
        let id = "e".repeat(64);
        let old = std::mem::replace(&mut extra.container_id, id.clone());
        let text = serde_json::to_string(&extra).unwrap_or_default().replace(&old, &id);
        let extra = serde_json::from_str(&text).unwrap_or_default();
        vec![request, extra]
    }))
    .await?;
    assert_eq!(error.blame(), Blame::Policy, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_policy_set_a_second_time() -> Result<()> {
    let policy = "package agent_policy\ndefault CreateContainerRequest := true\n";
    let request =
        ah_agent_api::agent::SetPolicyRequest { policy: policy.into(), ..Default::default() };
    let payload = request.write_to_bytes()?;
    let error = refusal(on_call("CreateContainer", move |call| {
        let set = RawCall { method: "SetPolicy".into(), payload: payload.clone(), ..call.clone() };
        vec![set, call]
    }))
    .await?;
    assert!(matches!(error.blame(), Blame::Policy | Blame::Agent), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_file_copied_into_a_root() -> Result<()> {
    let error = refusal(on_call("CopyFile", |call| {
        let Ok(mut request) = CopyFileRequest::parse_from_bytes(&call.payload) else {
            return vec![call];
        };
        request.path = "/run/kata-containers/abc/rootfs/bin/sh".into();
        vec![RawCall { payload: request.write_to_bytes().unwrap_or_default(), ..call }]
    }))
    .await?;
    assert_eq!(error.blame(), Blame::Policy, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_exec_of_any_command() -> Result<()> {
    let request = ah_agent_api::agent::ExecProcessRequest {
        container_id: "0".repeat(64),
        exec_id: "exec".into(),
        process: protobuf::MessageField::some(ah_agent_api::oci::Process {
            Args: vec!["/bin/sh".into()],
            Cwd: "/".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let payload = request.write_to_bytes()?;
    let error = refusal(on_call("StartContainer", move |call| {
        let exec =
            RawCall { method: "ExecProcess".into(), payload: payload.clone(), ..call.clone() };
        vec![exec, call]
    }))
    .await?;
    assert_eq!(error.blame(), Blame::Policy, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_logs_read_although_the_owner_closed_them() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: quiet\n  annotations:\n    anchorhold.dev/logs: \"false\"\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", \"echo secret; exit 3\"]\n";
    let scene = Scene::new(yaml, |images| {
        images.add("localhost/busybox:1", &ah_testkit_images::busybox()?)?;
        Ok(())
    })?;
    let prepared = scene.prepared().await?;
    let mut launch = scene.launch(prepared).await?;
    // An honest host does not even ask; this one does.
    launch.sandbox.pod.logs = ah_pod::Logs::Readable;
    match scene.start(launch).await {
        Ok(outcome) => assert_eq!(outcome.exit_code, 3),
        Err(error) => assert_eq!(error.blame(), Blame::Policy, "{error}"),
    }
    assert!(!scene.heard.everything().contains("secret"), "{}", scene.heard.everything());
    Ok(())
}

async fn init_refuses(change: impl FnOnce(&InitData) -> Result<Vec<u8>>) -> Result<()> {
    let scene = Scene::shell("echo ran")?;
    let prepared = scene.prepared().await?;
    let disk = change(prepared.initdata.as_ref().context("no initdata")?)?;
    let mut launch = scene.launch(prepared).await?;
    launch.sandbox.initdata_disk = Some(disk);
    match scene.start(launch).await {
        Ok(outcome) => bail!("not refused: {outcome:?}"),
        Err(error) => assert_eq!(error.blame(), Blame::Init, "{error}"),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_policy_replaced() -> Result<()> {
    init_refuses(|_| {
        let policy = "package agent_policy\ndefault CreateContainerRequest := true\n";
        Ok(InitData::build(policy, &Default::default())?.to_disk())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_policy_altered_by_one_byte_with_host_data_kept() -> Result<()> {
    init_refuses(|initdata| {
        let text = String::from_utf8(initdata.bytes().to_vec())?;
        let altered = text.replacen("echo ran", "echo run", 1);
        assert_ne!(text, altered);
        Ok(InitData::parse(altered.as_bytes())?.to_disk())
    })
    .await
}
