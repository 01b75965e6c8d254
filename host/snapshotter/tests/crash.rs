//! The program without containerd: whatever it was doing when it is killed, what it has answered is there afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ah_containerd_api::snapshots::{
    CommitSnapshotRequest, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use ah_containerd_api::{Client, Code, Status};

const LIMIT: Duration = Duration::from_secs(60);

struct Program(Child);

impl Program {
    async fn start(folder: &Path) -> (Self, Client) {
        let child = Command::new(env!("CARGO_BIN_EXE_anchorhold-snapshotter"))
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--socket")
            .arg(folder.join("socket"))
            .arg("--containerd")
            .arg(folder.join("nobody"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = Client::new(&folder.join("socket"));
        let begun = Instant::now();
        while client.stream(ListSnapshotsRequest::default()).await.is_err() {
            assert!(begun.elapsed() < LIMIT, "the program does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (Self(child), client)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was answered, and the name of the operation that was not.
#[derive(Default)]
struct Told {
    names: BTreeSet<String>,
    open: BTreeSet<String>,
}

/// Makes, commits and removes snapshots until the other end is gone.
async fn work(client: Client, told: Arc<Mutex<Told>>, round: usize) {
    for number in 0.. {
        let (key, name) =
            (format!("k8s.io/{round}/key-{number}"), format!("k8s.io/{round}/{number}"));
        if step(&client, &told, &key, &name, number % 3 == 0).await.is_err() {
            return;
        }
    }
}

async fn step(
    client: &Client,
    told: &Mutex<Told>,
    key: &str,
    name: &str,
    removed: bool,
) -> Result<(), Status> {
    let begin = |name: &str| told.lock().unwrap().open.insert(name.into());
    let end = |gone: &str, there: Option<&str>| {
        let mut told = told.lock().unwrap();
        told.names.remove(gone);
        told.names.extend(there.map(str::to_owned));
        told.open.clear();
    };
    let (key, name) = (key.to_owned(), name.to_owned());
    begin(&key);
    let prepare = PrepareSnapshotRequest { key: key.clone(), ..Default::default() };
    client.call(prepare).await?;
    end("", Some(&key));
    begin(&key);
    begin(&name);
    let commit =
        CommitSnapshotRequest { key: key.clone(), name: name.clone(), ..Default::default() };
    client.call(commit).await?;
    end(&key, Some(&name));
    if removed {
        begin(&name);
        client.call(RemoveSnapshotRequest { key: name.clone(), ..Default::default() }).await?;
        end(&name, None);
    }
    Ok(())
}

async fn names(client: &Client) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut responses = client.stream(ListSnapshotsRequest::default()).await.unwrap();
    while let Some(response) = responses.next().await.unwrap() {
        names.extend(response.info.into_iter().map(|info| info.name));
    }
    names
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    for round in 0..12 {
        let (program, client) = Program::start(folder.path()).await;
        let working = tokio::spawn(work(client, Arc::clone(&told), round));
        // Another moment of the work each time.
        tokio::time::sleep(Duration::from_millis(20 + 7 * round as u64)).await;
        program.kill();
        working.await.unwrap();

        let (program, client) = Program::start(folder.path()).await;
        let found = names(&client).await;
        {
            let mut told = told.lock().unwrap();
            let open = std::mem::take(&mut told.open);
            let (a, b) = (&found - &open, &told.names - &open);
            assert_eq!(a, b, "round {round}");
            told.names = found.clone();
        }
        let snapshots = folder.path().join("root/snapshots");
        assert_eq!(fs::read_dir(snapshots).unwrap().count(), 2 * found.len(), "round {round}");
        program.kill();
    }
    assert!(!told.lock().unwrap().names.is_empty());
}

#[tokio::test]
async fn one_process_uses_a_folder_and_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (_program, client) = Program::start(folder.path()).await;
    let run = |root: &str, socket: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_anchorhold-snapshotter"))
            .arg("--root")
            .arg(folder.path().join(root))
            .arg("--socket")
            .arg(folder.path().join(socket))
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run("root", "other").contains("in use by another anchorhold-snapshotter"));
    assert!(run("other", "socket").contains("somebody listens on"));
    let missing = RemoveSnapshotRequest { key: "none".into(), ..Default::default() };
    assert_eq!(client.call(missing).await.unwrap_err().code(), Code::NotFound);
}
