//! The sidecar's /attest/raw: one client, one request after the other, and the sidecar's memory. The guest's socket is played by a thread
//! here that has a report at hand, so what is measured is the sidecar and not a processor.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ah_testkit_figures::Row;
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Machine;

const FOR: Duration = Duration::from_secs(5);
/// The sidecar of AKS and ACI, as the project's goals record it: requests a second one after the other, and MB of memory. It was measured
/// on another day and another machine, so the ratio of rates says little, and no verdict is made of it; memory hardly depends
/// on the machine.
const RECORDED_RATE: f64 = 4450.0;
const RECORDED_MB: f64 = 22.0;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn measure(program: &Path, machine: &Machine, json: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("release.sock");
    serve(&socket, machine)?;
    let mut child = Command::new(program)
        .args(["-port", "0", "-release_socket"])
        .arg(&socket)
        .env_clear()
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut log = BufReader::new(child.stderr.take().context("stderr")?);
    let child = Ended(child);
    let address = address(&mut log)?;
    // What it says later is read, so that it does not wait for a reader.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let mut client = Connection::new(TcpStream::connect(&address)?);
    let body = serde_json::json!({"runtime_data": STANDARD.encode(b"{}")}).to_string();
    let head = "POST /attest/raw HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < FOR {
        client.send(head, body.as_bytes())?;
        let (status, answer) = client.receive()?;
        ensure!(status.contains(" 200 "), "{status}: {}", String::from_utf8_lossy(&answer));
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    let memory = memory_mb(child.0.id())?;
    let rate = Row {
        name: "sidecar, /attest/raw, against a record of AKS' sidecar",
        value: rate,
        unit: "1/s",
        reference: Some(RECORDED_RATE),
        goal: None,
    };
    rate.print(json);
    Row {
        name: "sidecar, memory after that, against the same record",
        value: memory,
        unit: "MB",
        reference: Some(RECORDED_MB),
        goal: Some(("at most half the record", memory <= RECORDED_MB / 2.0)),
    }
    .print(json);
    Ok(())
}

fn address(log: &mut impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    while log.read_line(&mut line)? > 0 {
        if let Some((_, address)) = line.trim().rsplit_once("listens on ") {
            return Ok(address.to_owned());
        }
        line.clear();
    }
    anyhow::bail!("the sidecar did not start")
}

fn memory_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The guest's socket: evidence for whatever is asked, with a report made beforehand.
fn serve(path: &Path, machine: &Machine) -> Result<()> {
    let made = machine.guest.report(&[7; 64])?;
    let (report, auxblob) =
        (STANDARD.encode(made.report.as_bytes()), STANDARD.encode(made.auxblob));
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (report, auxblob) = (report.clone(), auxblob.clone());
            std::thread::spawn(move || answer_all(stream, &report, &auxblob));
        }
    });
    Ok(())
}

fn answer_all(stream: UnixStream, report: &str, auxblob: &str) -> Result<()> {
    let mut connection = Connection::new(stream);
    loop {
        let (_, body) = connection.receive()?;
        let asked: Value = serde_json::from_slice(&body)?;
        let data = asked["runtime_data"].as_str().context("runtime_data")?;
        let answer = format!(
            "{{\"tee\":\"software\",\"report\":\"{report}\",\"auxblob\":\"{auxblob}\",\"runtime_data\":\"{data}\",\"initdata\":null}}"
        );
        connection.send("HTTP/1.1 200 OK\r\ncontent-type: application/json", answer.as_bytes())?;
    }
}

/// One HTTP/1.1 connection, either end of it: heads and bodies with a length.
struct Connection<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Connection<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    fn send(&mut self, head: &str, body: &[u8]) -> Result<()> {
        let mut message = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        message.extend_from_slice(body);
        Ok(self.stream.get_mut().write_all(&message)?)
    }

    /// First line and body.
    fn receive(&mut self) -> Result<(String, Vec<u8>)> {
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the other end hung up");
            let text = line.trim_end();
            if first.is_empty() {
                text.clone_into(&mut first);
            }
            if text.is_empty() {
                break;
            }
            if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((first, body))
    }
}
