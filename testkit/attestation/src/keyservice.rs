//! The key service as a process, on SQLite in a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ah_testkit_figures::{Row, percentile};
use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Method};
use serde_json::Value;

const STARTS: usize = 11;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Folder and configuration.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    program: PathBuf,
}

/// A running service, ended when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) url: String,
    ca: Vec<u8>,
    token: String,
}

impl Site {
    /// A service that believes the software TEE with this root (DER).
    pub(crate) fn new(program: &Path, root: Option<&[u8]>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let state = folder.path().join("state");
        let mut text = format!(
            "listen = \"127.0.0.1:0\"\nstate = {state:?}\n[limits]\nrequests_per_second = 1000000\n"
        );
        if let Some(root) = root {
            let path = folder.path().join("root.der");
            std::fs::write(&path, root)?;
            text = format!("danger_software_root = {path:?}\n{text}");
        }
        std::fs::write(folder.path().join("config.toml"), text)?;
        Ok(Self { folder, program: program.to_owned() })
    }

    /// Starts the service, and waits for the line that says that it listens.
    pub(crate) fn start(&self) -> Result<Running> {
        let mut child = Command::new(&self.program)
            .args(["keyservice", "serve", "--config"])
            .arg(self.folder.path().join("config.toml"))
            .env("HOME", self.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| self.program.display().to_string())?;
        let mut url = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut url)?;
        let mut running = Running { child, url: url.trim().into(), ca: vec![], token: "".into() };
        ensure!(running.url.starts_with("https://"), "the service did not start: {url:?}");
        let state = self.folder.path().join("state");
        running.ca = std::fs::read(state.join("ca.pem"))?;
        running.token = std::fs::read_to_string(state.join("first-token"))?.trim().to_owned();
        Ok(running)
    }
}

impl Running {
    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Result<Client> {
        let root = reqwest::Certificate::from_pem(&self.ca)?;
        Ok(Client::builder().tls_certs_only([root]).no_proxy().timeout(TIMEOUT).build()?)
    }

    /// One request of the owner's.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let mut request =
            client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.text().await?);
        Ok(answer.json().await?)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// From the start of the process to the line that it listens, with its state made before.
pub(crate) fn measure_start(program: &Path, json: bool) -> Result<()> {
    let site = Site::new(program, None)?;
    let timed = || -> Result<f64> {
        let start = Instant::now();
        let mut running = site.start()?;
        let seconds = start.elapsed().as_secs_f64();
        running.kill()?;
        Ok(seconds * 1000.0)
    };
    let first = timed()?;
    let mut later = (0..STARTS).map(|_| timed()).collect::<Result<Vec<_>>>()?;
    let value = percentile(&mut later, 0.5);
    let first = Row {
        name: "key service, first start (keys are made)",
        value: first,
        unit: "ms",
        reference: None,
        goal: None,
    };
    first.print(json);
    Row {
        name: "key service, start",
        value,
        unit: "ms",
        reference: None,
        goal: Some(("under 100 ms", value < 100.0)),
    }
    .print(json);
    Ok(())
}
