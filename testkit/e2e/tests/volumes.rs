//! Volumes of files and parts of volumes: as a container sees them, and as a hostile host would like them.

use ah_agent_api::FileType;
use ah_agent_api::agent::CopyFileRequest;
use ah_sandbox::{Blame, RawCall, SandboxError};
use ah_testkit_e2e::Scene;
use ah_testkit_e2e::attack::on_call;
use ah_testkit_images::busybox;
use anyhow::{Result, bail};
use protobuf::Message;

const OBJECTS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n  greeting: hello\n  run: \"#!/bin/sh\\necho it runs\\n\"\n---\n\
     apiVersion: v1\nkind: Secret\nmetadata: {name: app}\nstringData: {password: sesame}\n---\n";

const VOLUMES: &str = "  volumes:\n  \
    - name: config\n    configMap: {name: app}\n  \
    - name: script\n    configMap: {name: app, defaultMode: 0755, items: [{key: run, path: bin/run}]}\n  \
    - name: secret\n    secret: {secretName: app, defaultMode: 0400}\n  \
    - name: info\n    downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: uid, fieldRef: {fieldPath: metadata.uid}}]}\n  \
    - name: scratch\n    emptyDir: {}\n";

const MOUNTS: &str = "      volumeMounts:\n      \
    - {name: config, mountPath: /etc/app}\n      \
    - {name: config, mountPath: /srv/one, subPath: greeting}\n      \
    - {name: script, mountPath: /opt/app}\n      \
    - {name: secret, mountPath: /secret}\n      \
    - {name: info, mountPath: /info}\n      \
    - {name: scratch, mountPath: /scratch}\n      \
    - {name: scratch, mountPath: /part, subPath: a/b}\n";

fn pod(script: &str) -> String {
    let script = serde_json::Value::from(script);
    format!(
        "{OBJECTS}apiVersion: v1\nkind: Pod\nmetadata:\n  name: volumes\nspec:\n  restartPolicy: Never\n  automountServiceAccountToken: true\n{VOLUMES}  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", {script}]\n{MOUNTS}"
    )
}

fn scene(yaml: &str) -> Result<Scene> {
    Scene::new(yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_volumes() -> Result<()> {
    let script = "cat /etc/app/greeting; echo; readlink /etc/app/greeting; cat /srv/one; echo; /opt/app/bin/run; \
        cat /secret/password; echo; stat -L -c %a /secret/password; cat /info/name; echo; test -s /info/uid && echo uid; \
        touch /etc/app/new 2>/dev/null || echo read-only; \
        echo x > /part/file; cat /scratch/a/b/file; \
        ls /var/run/secrets/kubernetes.io/serviceaccount; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo";
    let scene = scene(&pod(script))?;
    let outcome = scene.run().await?;
    let expect = [
        "hello",
        "..data/greeting",
        "hello",
        "it runs",
        "sesame",
        "400",
        "volumes",
        "uid",
        "read-only",
        "x",
        "ca.crt",
        "namespace",
        "token",
        "default",
    ];
    assert_eq!(scene.heard.stdout("main"), expect, "{}", scene.heard.everything());
    assert_eq!(outcome.exit_code, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_link_put_in_the_place_of_a_volume_s_part() -> Result<()> {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: parts\nspec:\n  restartPolicy: Never\n  volumes:\n  - {name: v, emptyDir: {}}\n  \
        initContainers:\n  - name: evil\n    image: localhost/busybox:1\n    command: [\"/bin/sh\", \"-c\", \"ln -s /run/anchorhold /v/part\"]\n    \
        volumeMounts: [{name: v, mountPath: /v}]\n  \
        containers:\n  - name: main\n    image: localhost/busybox:1\n    command: [\"/bin/sh\", \"-c\", \"ls /part; echo ran\"]\n    \
        volumeMounts: [{name: v, mountPath: /part, subPath: part}]\n";
    let scene = scene(yaml)?;
    match scene.run().await {
        Ok(outcome) => bail!("not refused: {outcome:?}\n{}", scene.heard.everything()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("no folder"), "{text}");
        }
    }
    assert!(!scene.heard.everything().contains("ran"), "{}", scene.heard.everything());
    Ok(())
}

/// The pod's copies are altered; the refusal.
async fn altered(
    alter: impl Fn(CopyFileRequest) -> Vec<CopyFileRequest> + Send + Sync + 'static,
) -> Result<SandboxError> {
    let scene = scene(&pod("echo ran"))?;
    let mut launch = scene.launch(scene.prepared().await?).await?;
    launch.sandbox.tamper = on_call("CopyFile", move |call| {
        let Ok(request) = CopyFileRequest::parse_from_bytes(&call.payload) else {
            return vec![call];
        };
        let again = |request: CopyFileRequest| RawCall {
            payload: request.write_to_bytes().unwrap_or_default(),
            ..call.clone()
        };
        alter(request).into_iter().map(again).collect()
    });
    match scene.start(launch).await {
        Ok(outcome) => bail!("not refused: {outcome:?}\n{}", scene.heard.everything()),
        Err(error) => {
            assert!(!scene.heard.everything().contains("ran"), "{}", scene.heard.everything());
            Ok(error)
        }
    }
}

async fn denied(
    alter: impl Fn(CopyFileRequest) -> Vec<CopyFileRequest> + Send + Sync + 'static,
) -> Result<()> {
    let error = altered(alter).await?;
    assert_eq!(error.blame(), Blame::Policy, "{error}");
    Ok(())
}

fn is_greeting(request: &CopyFileRequest) -> bool {
    FileType::of(request) == FileType::Regular && request.path.ends_with("/greeting")
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_config_map_changed_by_one_byte() -> Result<()> {
    denied(|mut request| {
        if is_greeting(&request) {
            request.data[0] ^= 1;
        }
        vec![request]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_config_map_without_a_file() -> Result<()> {
    // The copy is not made; what the host is told is that it is a folder that is there already.
    denied(|mut request| {
        if is_greeting(&request) {
            request.path.truncate(request.path.len() - "/greeting".len());
            request.file_mode = 0o040_755;
            request.file_size = 0;
            request.data.clear();
        }
        vec![request]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_config_map_with_one_more_file() -> Result<()> {
    denied(|request| {
        let mut more = request.clone();
        more.path = more.path.replace("/greeting", "/added");
        if is_greeting(&request) { vec![request, more] } else { vec![request] }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_link_of_a_config_map_that_leads_out() -> Result<()> {
    denied(|mut request| {
        if FileType::of(&request) == FileType::Symlink && request.path.ends_with("/greeting") {
            request.data = b"/run/anchorhold/initdata.toml".to_vec();
        }
        vec![request]
    })
    .await
}
