//! Whatever ends `anchorhold run`, no process, socket or file of the VM stays.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ah_testkit_e2e::Scene;
use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Longest wait for something that should happen soon on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

struct Running {
    child: Child,
    runtime: TempDir,
    first_line: String,
}

/// Starts `anchorhold run` with a runtime folder of its own and waits for the pod's first line.
fn started(scene: &Scene) -> Result<Running> {
    let runtime = tempfile::Builder::new().prefix("ah").tempdir_in("/tmp")?;
    let mut child = Command::new(scene.program()?)
        .args(scene.run_arguments())
        .env("XDG_RUNTIME_DIR", runtime.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut first_line = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut first_line)?;
    Ok(Running { child, runtime, first_line })
}

impl Running {
    fn signal(&self, name: &str) -> Result<()> {
        let status =
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill -s {name} failed");
        Ok(())
    }

    /// Waits for the end, and for nothing to be left.
    fn leaves_nothing(mut self) -> Result<()> {
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(start.elapsed() < PATIENCE, "anchorhold run does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        loop {
            let (files, processes) = (files(self.runtime.path())?, processes(self.runtime.path())?);
            if files.is_empty() && processes.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("left behind: files {files:?}, processes {processes:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Files below a folder, the folders that every user's runtime may keep left out.
fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// Processes whose arguments name the runtime folder: QEMU, the vsock device, the supervisor's children.
fn processes(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(bytes) = fs::read(entry?.path().join("cmdline")) else { continue };
        let arguments = String::from_utf8_lossy(&bytes).replace('\0', " ");
        if arguments.contains(&folder) {
            found.push(arguments);
        }
    }
    Ok(found)
}

const WAITS: &str = "echo up; sleep 1000";

#[test]
fn a_pod_that_ends_leaves_nothing() -> Result<()> {
    let running = started(&Scene::shell("echo up")?)?;
    assert_eq!(running.first_line, "[main] up\n");
    running.leaves_nothing()
}

#[test]
fn ctrl_c_leaves_nothing() -> Result<()> {
    let running = started(&Scene::shell(WAITS)?)?;
    assert!(!processes(running.runtime.path())?.is_empty(), "the test sees no process of the VM");
    running.signal("INT")?;
    running.signal("INT")?;
    running.leaves_nothing()
}

#[test]
fn kill_9_of_the_launcher_leaves_nothing() -> Result<()> {
    let running = started(&Scene::shell(WAITS)?)?;
    assert!(!files(running.runtime.path())?.is_empty(), "the test sees no file of the VM");
    running.signal("KILL")?;
    running.leaves_nothing()
}

/// QEMU killed from outside is a crash of the guest for everybody else.
#[test]
fn a_guest_that_crashes_leaves_nothing() -> Result<()> {
    let running = started(&Scene::shell(WAITS)?)?;
    let folder = running.runtime.path().display().to_string();
    let status =
        Command::new("pkill").args(["-9", "-f", &format!("qemu-system.*{folder}")]).status()?;
    assert!(status.success(), "no QEMU to kill");
    running.leaves_nothing()
}

#[test]
fn a_host_port_leads_into_the_container() -> Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: served\nspec:\n  restartPolicy: Never\n  containers:\n    - name: main\n      image: localhost/busybox:1\n      command: [\"/bin/sh\", \"-c\", \"echo up; echo hello | nc -l -p 8080\"]\n      ports:\n        - {{ containerPort: 8080, hostPort: {port}, hostIP: 127.0.0.1 }}\n"
    );
    let scene = Scene::new(&yaml, |images| {
        images.add("localhost/busybox:1", &ah_testkit_images::busybox()?)?;
        Ok(())
    })?;
    let running = started(&scene)?;
    let start = Instant::now();
    // The user-mode network accepts before the container listens, and then resets: ask again.
    let answer = loop {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let _ = stream.write_all(b"\n");
            let _ = stream.read_to_string(&mut answer);
        }
        if !answer.is_empty() || start.elapsed() > PATIENCE {
            break answer;
        }
    };
    assert_eq!(answer, "hello\n");
    running.signal("TERM")?;
    running.signal("TERM")?;
    running.leaves_nothing()
}
