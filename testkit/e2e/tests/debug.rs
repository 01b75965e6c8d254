//! A debug session of the owner's, in a real VM: granted by a key, once and for a time; and what a host makes of it.

use std::sync::Arc;

use ah_grant::{Command, DEBUG_WORD, DebugGrant, SecretKey};
use ah_pod::requests;
use ah_sandbox::{AgentClient, Created, Stop, Stream};
use ah_testkit_e2e::Scene;
use ah_testkit_images::busybox;
use anyhow::{Context, Result, bail};

/// A pod that sleeps, prints nothing to the host, and whose owner may debug it.
fn yaml(key: &SecretKey) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: quiet\n  annotations:\n    anchorhold.dev/logs: \"false\"\n    \
         anchorhold.dev/debug-key: {}\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      \
         image: localhost/busybox:1\n      command: [\"/bin/sleep\", \"1000\"]\n",
        key.public()
    )
}

async fn read_all(agent: &AgentClient, id: &str, exec_id: &str) -> String {
    let mut all = Vec::new();
    while let Ok(data) = agent.read_stream(Stream::Stdout, id, exec_id, 4096).await {
        if data.is_empty() {
            break;
        }
        all.extend(data);
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn exec(created: &Created, words: &[&str], exec_id: &str) -> Result<()> {
    let words: Vec<String> = words.iter().map(|&word| word.into()).collect();
    let (pod, host) = (created.pod(), created.host_values());
    created.agent().exec_process(&requests::exec_process(pod, 0, &words, exec_id, host)?).await?;
    Ok(())
}

/// What a denied exec says.
async fn denied(created: &Created, words: &[&str], exec_id: &str) -> Result<String> {
    match exec(created, words, exec_id).await {
        Ok(()) => bail!("{words:?} was executed"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_a_debug_token_again_beside_what_the_owner_granted() -> Result<()> {
    let key = SecretKey::from_seed(&[11; 32]);
    let scene = Scene::new(&yaml(&key), |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })?;
    let prepared = scene.prepared().await?;
    let policy = prepared.document.host_data_snp()?;
    let config = scene.launch(prepared).await?.served()?;
    let (events, mut stop) = (Arc::new(scene.heard.clone()), Stop::never());
    let created = ah_sandbox::start(config, events, &mut stop).await?;
    let (pod, host) = (created.pod(), created.host_values());
    let request = requests::create_container(pod, 0, host)?;
    let (agent, id) = (created.agent(), request.container_id.clone());
    agent.create_container(&request).await?;
    agent.start_container(&id).await?;

    // A denial carries the challenge; what the owner signs for it runs, and its output comes out though the pod's does not.
    let told = denied(&created, &["/bin/echo", "here"], "e1").await?;
    let (_, rest) = told.split_once("debug challenge ").context(told.clone())?;
    let challenge = rest.split_once(',').context("no end of the challenge")?.0.parse()?;
    let grant = DebugGrant {
        challenge,
        policy,
        container: "main".into(),
        command: Command::Exact(vec!["/bin/echo".into(), "here".into()]),
        stdin: false,
        terminal: false,
        seconds: 600,
    };
    let foreign = grant.sign(&SecretKey::from_seed(&[12; 32]))?;
    let refused = denied(&created, &[DEBUG_WORD, &foreign, "/bin/echo", "here"], "e2").await?;
    assert!(refused.contains("not of the key"), "{refused}");
    let token = grant.sign(&key)?;
    let refused = denied(&created, &[DEBUG_WORD, &token, "/bin/sh"], "e3").await?;
    assert!(refused.contains("found command"), "{refused}");
    exec(&created, &[DEBUG_WORD, &token, "/bin/echo", "here"], "e4").await?;
    assert_eq!(read_all(agent, &id, "e4").await, "here\n");
    assert_eq!(agent.wait_process(&id, "e4").await?, 0);
    let refused = denied(&created, &[DEBUG_WORD, &token, "/bin/echo", "here"], "e5").await?;
    assert!(refused.contains("its challenge was used"), "{refused}");

    // A session ends what runs in it: the shell waits for input that nobody granted, and is killed.
    let (_, rest) = refused.split_once("debug challenge ").context(refused.clone())?;
    let challenge = rest.split_once(',').context("no end of the challenge")?.0.parse()?;
    let session = DebugGrant { challenge, command: Command::Any, seconds: 1, ..grant };
    let token = session.sign(&key)?;
    exec(&created, &[DEBUG_WORD, &token, "/bin/sleep", "1000"], "e6").await?;
    assert!(agent.write_stdin(&id, "e6", b"x").await.is_err(), "input was not granted");
    assert_eq!(agent.wait_process(&id, "e6").await?, 128 + 9);
    let refused = denied(&created, &[DEBUG_WORD, &token, "/bin/echo", "here"], "e7").await?;
    assert!(refused.contains("its time is over"), "{refused}");
    created.end().await;
    Ok(())
}
