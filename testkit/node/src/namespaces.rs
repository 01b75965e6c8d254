use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Made in the new namespaces before anything is started there. What containerd, CNI and kubelet keep at fixed places
/// (network namespaces, sockets of shims, addresses given out, logs) goes to memory that ends with the mount namespace.
const SETUP: &str = "
set -e
mount --make-rprivate /
for dir in /run/netns /run/containerd /var/lib/cni /var/log/pods /var/log/containers; do
    mkdir -p $dir
    mount -t tmpfs tmpfs $dir
done
/bin/busybox ip link set lo up
echo ready
# The first process of a pid namespace is its reaper, and its end is the end of all: it waits until nobody holds the other
# end of its input, which ends with the test's process, however that ends.
cat > /dev/null
";

/// How long a process may take to show up.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Namespaces for processes, mounts and network.
#[derive(Debug)]
pub struct Namespaces {
    holder: Child,
    first: u32,
}

/// A program that runs in [`Namespaces`].
#[derive(Debug)]
pub struct Daemon {
    name: String,
    entering: Child,
    pid: u32,
    log: PathBuf,
}

impl Namespaces {
    /// Makes them.
    ///
    /// # Errors
    /// When `unshare` cannot, as without root.
    pub fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"])
            .args(["sh", "-c", SETUP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != "ready" {
            let _ = holder.kill();
            let output = holder.wait_with_output()?;
            bail!("namespaces not made: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let first = child_of(holder.id())?;
        Ok(Self { holder, first })
    }

    /// A command that runs in them.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--mount", "--net", "--pid", "--"]);
        command.arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Starts a program that goes on, with its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, name: &str, mut command: Command, log: &Path) -> Result<Daemon> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let entering = command.spawn().with_context(|| format!("start {name}"))?;
        let pid = child_of(entering.id()).with_context(|| format!("start {name}"))?;
        Ok(Daemon { name: name.to_owned(), entering, pid, log: log.to_owned() })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The first process's end is the end of all in its namespace.
        let _ = kill("KILL", self.first);
        let _ = self.holder.wait();
    }
}

impl Daemon {
    /// Its process id, as the test sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.entering.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = self.log();
                let lines: Vec<&str> = log.lines().rev().take(20).collect();
                let lines: Vec<&str> = lines.into_iter().rev().collect();
                bail!("{} has ended: {status}\n{}", self.name, lines.join("\n"))
            }
        }
    }

    /// Sends a signal (`TERM`, `KILL`) and waits for the end.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn end(mut self, signal: &str) -> Result<()> {
        kill(signal, self.pid)?;
        self.entering.wait()?;
        Ok(())
    }
}

fn kill(signal: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status()?;
    if !status.success() {
        bail!("kill -s {signal} {pid}: {status}");
    }
    Ok(())
}

/// The one child of a process, once it has one.
fn child_of(pid: u32) -> Result<u32> {
    let begun = Instant::now();
    loop {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        if let Some(child) = text.split_whitespace().next() {
            return Ok(child.parse()?);
        }
        if begun.elapsed() > START_LIMIT {
            bail!("process {pid} has started nothing in {} s", START_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
