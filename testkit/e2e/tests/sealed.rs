//! Sealed values: a program that knows nothing of keys finds its secrets in its environment and files, and the host finds them nowhere.

use ah_agent_api::FileType;
use ah_agent_api::agent::CopyFileRequest;
use ah_digest::Sha256;
use ah_pod::requests;
use ah_policy::{InitData, PolicyDocument};
use ah_release_api::{Place, Secret, seal};
use ah_sandbox::{Blame, RawCall, SandboxError, Stop, Stream, Tamper};
use ah_testkit_e2e::attack::{on_call, on_create};
use ah_testkit_e2e::{KEY, Scene};
use ah_testkit_images::busybox;
use anchorhold::prepare::Prepared;
use anyhow::{Context, Result, bail};
use protobuf::Message;
use std::sync::Arc;

const SEALING_KEY: [u8; 32] = [9; 32];
const PASSWORD: &str = "correct-horse-battery";
const TOKEN: &str = "token of the file\n";

/// Prints digests: what the host may not read does not leave by the output either.
const SCRIPT: &str = "printf %s \"$DB_PASSWORD\" | sha256sum; sha256sum < /secret/token; stat -L -c %a /secret/token; ls -a /secret/..data | wc -l";

fn sealed(place: &str, value: &str) -> Result<String> {
    let key = Secret::new(SEALING_KEY.to_vec())?;
    let place: Place = place.parse()?;
    Ok(seal(&key, &KEY.parse()?, &place, [1; 12], value.as_bytes())?)
}

/// `more` stands behind the annotations.
fn pod(password: &str, script: &str, more: &str) -> Result<String> {
    let token = sealed("file:/secret/token", TOKEN)?;
    let script = serde_json::Value::from(script);
    Ok(format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: app}}\nstringData: {{token: {token}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata:\n  name: sealed\n  annotations: {{anchorhold.dev/unpinned: '[\"configMap/open\"]'{more}}}\nspec:\n  restartPolicy: Never\n  \
         volumes:\n  - {{name: secret, secret: {{secretName: app, defaultMode: 0400}}}}\n  - {{name: open, configMap: {{name: open}}}}\n  \
         containers:\n  - name: main\n    image: localhost/busybox:1\n    command: [\"/bin/sh\", \"-c\", {script}]\n    \
         env:\n    - {{name: DB_PASSWORD, value: {password}}}\n    \
         volumeMounts:\n    - {{name: secret, mountPath: /secret}}\n    - {{name: open, mountPath: /open}}\n"
    ))
}

fn scene(yaml: &str) -> Result<Scene> {
    Scene::new(yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_program_finds_its_sealed_values_open() -> Result<()> {
    let scene = scene(&pod(&sealed("env:DB_PASSWORD", PASSWORD)?, SCRIPT, "")?)?;
    let prepared = scene.prepared().await?;
    scene.import_key(&prepared, &SEALING_KEY).await?;
    let outcome = scene.start(scene.launch(prepared).await?).await?;
    let digest = |text: &str| format!("{}  -", Sha256::of(text));
    let expect = [digest(PASSWORD), digest(TOKEN), "400".to_owned(), "3".to_owned()];
    assert_eq!(scene.heard.stdout("main"), expect, "{}", scene.heard.everything());
    assert_eq!(outcome.exit_code, 0);
    assert_eq!(scene.heard.decisions().len(), 1, "one exchange opens both");
    Ok(())
}

/// A guest with its key and its pause container, and no other container yet.
async fn created(scene: &Scene) -> Result<ah_sandbox::Created> {
    let prepared = scene.prepared().await?;
    scene.import_key(&prepared, &SEALING_KEY).await?;
    created_from(scene, prepared).await
}

async fn created_from(scene: &Scene, prepared: Prepared) -> Result<ah_sandbox::Created> {
    let config = scene.launch(prepared).await?.served()?;
    let (events, mut stop) = (Arc::new(scene.heard.clone()), Stop::never());
    Ok(ah_sandbox::start(config, events, &mut stop).await?)
}

/// A command that enters the container has the container's environment: the request and the policy have the sealed text.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_the_container_finds_the_value_too() -> Result<()> {
    let command = ["/bin/sh", "-c", "printf %s \"$DB_PASSWORD\" | sha256sum"];
    let allowed = serde_json::json!({"main": [command]});
    let annotation = format!(", anchorhold.dev/exec: '{allowed}'");
    let yaml = pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "sleep 1000", &annotation)?;
    let scene = scene(&yaml)?;
    let created = created(&scene).await?;
    let request = requests::create_container(created.pod(), 0, created.host_values())?;
    let (agent, id) = (created.agent(), &request.container_id);
    agent.create_container(&request).await?;
    agent.start_container(id).await?;
    let words = command.map(str::to_owned);
    let exec = requests::exec_process(created.pod(), 0, &words, "one", created.host_values())?;
    agent.exec_process(&exec).await?;
    let out = agent.read_stream(Stream::Stdout, id, "one", 4096).await?;
    assert_eq!(String::from_utf8_lossy(&out), format!("{}  -\n", Sha256::of(PASSWORD)));
    created.end().await;
    Ok(())
}

/// What the host is told when the pod's values do not open; it is not told the values, and the container never ran.
async fn refused(
    password: &str,
    with_key: bool,
    tamper: Option<Arc<dyn Tamper>>,
) -> Result<SandboxError> {
    refused_pod(&pod(password, "echo ran", "")?, with_key, tamper).await
}

async fn refused_pod(
    yaml: &str,
    with_key: bool,
    tamper: Option<Arc<dyn Tamper>>,
) -> Result<SandboxError> {
    let scene = scene(yaml)?;
    let prepared = scene.prepared().await?;
    if with_key {
        scene.import_key(&prepared, &SEALING_KEY).await?;
    }
    let mut launch = scene.launch(prepared).await?;
    launch.sandbox.tamper = tamper;
    let error = match scene.start(launch).await {
        Ok(outcome) => bail!("not refused: {outcome:?}\n{}", scene.heard.everything()),
        Err(error) => error,
    };
    let heard = format!("{error:?}\n{error}\n{}", scene.heard.everything());
    assert!(!heard.contains(PASSWORD) && !heard.contains(TOKEN.trim()), "{heard}");
    assert!(!heard.contains("ran\n"), "{heard}");
    Ok(error)
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_value_altered_by_the_host_in_one_byte() -> Result<()> {
    let tamper = on_create(|request| {
        let process = request.OCI.mut_or_insert_default().Process.mut_or_insert_default();
        for entry in process.Env.iter_mut().filter(|entry| entry.starts_with("DB_PASSWORD=")) {
            let last = if entry.pop() == Some('A') { 'Q' } else { 'A' };
            entry.push(last);
        }
    });
    let error = refused(&sealed("env:DB_PASSWORD", PASSWORD)?, true, tamper).await?;
    assert_eq!(error.blame(), Blame::Policy, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_value_that_was_altered_before_the_policy_was_made() -> Result<()> {
    let text = sealed("env:DB_PASSWORD", PASSWORD)?;
    // The first byte of the tag: no unused bits of base64 there.
    let at = text.rfind('.').context("no tag")? + 1;
    let other = if text[at..].starts_with('A') { "B" } else { "A" };
    let altered = format!("{}{other}{}", &text[..at], &text[at + 1..]);
    let error = refused(&altered, true, None).await?.to_string();
    assert!(
        error.contains("env:DB_PASSWORD: key demo/message: sealed value does not open"),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_released_is_named_and_nothing_starts() -> Result<()> {
    let error = refused(&sealed("env:DB_PASSWORD", PASSWORD)?, false, None).await?.to_string();
    assert!(
        error.contains("env:DB_PASSWORD: key demo/message: refused by the key store"),
        "{error}"
    );
    Ok(())
}

/// The key's own release policy would let it go; the pod's policy has no rule that lets anybody have keys.
#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_values_under_a_policy_without_a_rule_for_keys() -> Result<()> {
    let scene = scene(&pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "echo ran", "")?)?;
    let mut prepared = scene.prepared().await?;
    let initdata = prepared.initdata.take().context("no initdata")?;
    let text = std::str::from_utf8(initdata.bytes())?;
    let without = InitData::parse(text.replace("ReleaseKeyRequest", "NoRequest").as_bytes())?;
    assert_eq!(without.guest_settings()?, initdata.guest_settings()?);
    prepared.document = PolicyDocument::InitData(without.clone());
    prepared.initdata = Some(without);
    scene.import_key(&prepared, &SEALING_KEY).await?;
    let error = match scene.start(scene.launch(prepared).await?).await {
        Ok(outcome) => bail!("not refused: {outcome:?}\n{}", scene.heard.everything()),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("ReleaseKeyRequest"), "{error}");
    assert!(scene.heard.decisions().is_empty(), "a key was asked for");
    Ok(())
}

/// The runtime's words quote the program that it does not find. That it has the name of a secret stands for all words that quote one.
#[tokio::test(flavor = "multi_thread")]
async fn attack_value_in_the_words_about_a_program_that_does_not_start() -> Result<()> {
    let yaml = pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "echo ran", "")?;
    let yaml = yaml.replace("\"/bin/sh\"", &format!("\"/bin/{PASSWORD}\""));
    let error = refused_pod(&yaml, true, None).await?.to_string();
    assert!(error.contains("/bin/(opened)") && !error.contains(PASSWORD), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_value_in_the_words_about_a_command_that_does_not_start() -> Result<()> {
    let program = format!("/bin/{PASSWORD}");
    let annotation =
        format!(", anchorhold.dev/exec: '{}'", serde_json::json!({"main": [[program]]}));
    let scene = scene(&pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "sleep 1000", &annotation)?)?;
    let created = created(&scene).await?;
    let (pod, host, agent) = (created.pod(), created.host_values(), created.agent());
    let request = requests::create_container(pod, 0, host)?;
    agent.create_container(&request).await?;
    agent.start_container(&request.container_id).await?;
    let exec = requests::exec_process(pod, 0, &[program], "one", host)?;
    let error = agent.exec_process(&exec).await.unwrap_err().to_string();
    assert!(error.contains("/bin/(opened)") && !error.contains(PASSWORD), "{error}");
    created.end().await;
    Ok(())
}

/// The host may choose what an unpinned file holds: it puts the sealed password there, for the program to show it as a greeting.
#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_value_put_into_a_file_that_the_host_chooses() -> Result<()> {
    let password = sealed("env:DB_PASSWORD", PASSWORD)?;
    let text = password.clone();
    let tamper = on_call("CopyFile", move |call| {
        let Ok(mut request) = CopyFileRequest::parse_from_bytes(&call.payload) else {
            return vec![call];
        };
        if FileType::of(&request) != FileType::Directory || !request.path.contains("-open/..") {
            return vec![call];
        }
        request.path.push_str("/greeting");
        request.file_mode = 0o100_644;
        request.data = text.clone().into_bytes();
        request.file_size = i64::try_from(text.len()).unwrap_or_default();
        let file =
            RawCall { payload: request.write_to_bytes().unwrap_or_default(), ..call.clone() };
        vec![call, file]
    });
    let error = refused(&password, true, tamper).await?.to_string();
    let words =
        "file:/open/greeting: sealed value is for env:DB_PASSWORD, found at file:/open/greeting";
    assert!(error.contains(words), "{error}");
    Ok(())
}

/// A host whose create fails after the values were opened could mount what lies there elsewhere with the next one, or copy a part of it again: the policy
/// has it all for copied.
#[tokio::test(flavor = "multi_thread")]
async fn attack_opened_files_of_a_container_that_was_not_made() -> Result<()> {
    let scene = scene(&pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "sleep 1000", "")?)?;
    let created = created(&scene).await?;
    let (pod, host, agent) = (created.pod(), created.host_values(), created.agent());
    let request = requests::create_container(pod, 0, host)?;
    // no disk is there: the policy leaves the place to the host
    let mut failing = request.clone();
    let layer = failing.storages.iter_mut().find(|storage| storage.driver == "blk");
    layer.context("no layer")?.source = "1f/1f".into();
    let failed = agent.create_container(&failing).await.unwrap_err().to_string();
    assert!(failed.contains("open the container's root"), "{failed}");
    let again = agent.create_container(&request).await.unwrap_err().to_string();
    assert!(again.contains("use another id"), "the copies are gone: {again}");
    no_copy_is_taken(&created).await?;
    created.end().await;
    Ok(())
}

/// The same where the host has the key exchange fail.
#[tokio::test(flavor = "multi_thread")]
async fn attack_copies_for_a_container_that_got_no_keys() -> Result<()> {
    let scene = scene(&pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "sleep 1000", "")?)?;
    let prepared = scene.prepared().await?;
    let created = created_from(&scene, prepared).await?;
    let request = requests::create_container(created.pod(), 0, created.host_values())?;
    let failed = created.agent().create_container(&request).await.unwrap_err().to_string();
    assert!(failed.contains(KEY), "{failed}");
    no_copy_is_taken(&created).await?;
    created.end().await;
    Ok(())
}

async fn no_copy_is_taken(created: &ah_sandbox::Created) -> Result<()> {
    for copy in &requests::copy_container_files(created.pod(), 0, created.host_values())? {
        let refused = created.agent().copy_file(copy).await.unwrap_err().to_string();
        assert!(refused.contains("use another id"), "{}: {refused}", copy.path);
    }
    Ok(())
}

/// Late, a sealed text is not opened any more, and is not handed to the program as it is.
#[tokio::test(flavor = "multi_thread")]
async fn attack_sealed_text_put_into_a_running_containers_volume() -> Result<()> {
    let scene = scene(&pod(&sealed("env:DB_PASSWORD", PASSWORD)?, "sleep 1000", "")?)?;
    let created = created(&scene).await?;
    let (pod, host, agent) = (created.pod(), created.host_values(), created.agent());
    agent.create_container(&requests::create_container(pod, 0, host)?).await?;
    let copies = requests::copy_container_files(pod, 0, host)?;
    let folder = copies.iter().find(|copy| copy.path.ends_with("-open")).context("no volume")?;
    let late = |text: String| CopyFileRequest {
        path: format!("{}/..2031_01_01_00_00_00.1/word", folder.path),
        file_mode: 0o100_644,
        dir_mode: 0o750,
        file_size: i64::try_from(text.len()).unwrap_or(i64::MAX),
        data: text.into(),
        ..Default::default()
    };
    agent.copy_file(&late("plain".to_owned())).await?;
    let text = sealed("file:/open/word", PASSWORD)?;
    let refused = agent.copy_file(&late(text)).await.unwrap_err().to_string();
    assert!(refused.contains("a container that is made already"), "{refused}");
    created.end().await;
    Ok(())
}
