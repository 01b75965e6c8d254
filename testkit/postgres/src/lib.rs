//! A PostgreSQL server of a test's own, on a unix socket in a temporary folder.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long the server may take to answer.
const START: Duration = Duration::from_secs(60);
/// Whom root runs the server as, since it refuses to run as root.
const USER: &str = "postgres";

/// A running server, which loses nothing unless the machine itself stops. It ends with the value, and with the process that made it.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    server: Child,
    programs: PathBuf,
    databases: AtomicUsize,
}

impl Postgres {
    /// Makes a cluster and starts its server. Call it on a thread that lives as long as the server shall.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("ah-pg-").tempdir_in("/tmp")?;
        let user = owner(folder.path())?;
        let data = folder.path().join("data");
        let made = command(&programs.join("initdb"), user)
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-D",
            ])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .context("starting initdb")?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        let log = fs::File::create(folder.path().join("log"))?;
        let server = command(&programs.join("postgres"), user)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "max_connections=60",
                "-c",
                "shared_buffers=16MB",
                "-c",
                "fsync=off",
                "-k",
            ])
            .arg(folder.path())
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .context("starting postgres")?;
        let mut postgres = Self { folder, server, programs, databases: AtomicUsize::new(0) };
        postgres.wait()?;
        Ok(postgres)
    }

    /// URL of a fresh, empty database.
    ///
    /// # Errors
    /// When the server refuses to make one.
    pub fn database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.query("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://postgres@localhost/{name}?host={}", self.folder.path().display()))
    }

    fn query(&self, database: &str, sql: &str) -> Result<()> {
        let done = Command::new(self.programs.join("psql"))
            .arg("-h")
            .arg(self.folder.path())
            .args(["-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1", "-qc", sql])
            .output()
            .context("starting psql")?;
        match done.status.success() {
            true => Ok(()),
            false => bail!("psql: {}", String::from_utf8_lossy(&done.stderr)),
        }
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while let Err(error) = self.query("postgres", "SELECT 1") {
            if let Some(status) = self.server.try_wait()? {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("postgres ended with {status}: {log}");
            }
            if start.elapsed() > START {
                return Err(error.context("postgres does not answer"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is its fast shutdown: it ends its children and removes its shared memory.
        if let Some(pid) =
            i32::try_from(self.server.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.server.wait();
    }
}

/// Debian keeps the programs of each version in a folder of its own.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed: cargo xtask setup does that")?;
    let mut found: Vec<PathBuf> =
        versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect();
    found.retain(|path| path.join("postgres").exists());
    found.sort();
    found.pop().context("/usr/lib/postgresql has no server: cargo xtask setup installs one")
}

/// Gives the folder to whom the server runs as; `None` where that is us.
fn owner(folder: &Path) -> Result<Option<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let id = |flag: &str| -> Result<u32> {
        let output = Command::new("id").args([flag, USER]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    chown(folder, Some(id("-u")?), Some(id("-g")?))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    debug_assert_ne!(fs::metadata(folder)?.uid(), 0);
    Ok(Some(USER))
}

/// A program as that user, that ends when we do.
fn command(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    command
}
