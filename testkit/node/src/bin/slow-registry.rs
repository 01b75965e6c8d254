//! A registry for tests that gives one OCI layout's images under any name, in plain HTTP on a free port of loopback, as slowly as it is told.
//!
//! `slow-registry LAYOUT PACE`: the file PACE says how a blob of more than 64 KiB is sent, and is looked at all the time. `stall`: its first
//! half, and then nothing while the word stands there. A number: so many bytes each 10 ms. The first line on standard output is the address.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const PAUSE: Duration = Duration::from_millis(10);
/// Manifests and configs are sent as fast as it goes.
const SMALL_BYTES: usize = 64 * 1024;

#[derive(Clone)]
struct Registry {
    layout: PathBuf,
    pace: PathBuf,
}

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let layout = args.next().context("expected LAYOUT PACE")?;
    let pace = args.next().context("expected LAYOUT PACE")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let registry = Registry { layout: layout.clone(), pace: pace.clone() };
        let stream = stream?;
        // whoever has gone away meanwhile has seen enough
        std::thread::spawn(move || drop(registry.answer(&stream)));
    }
    Ok(())
}

impl Registry {
    /// One request (OCI distribution specification 1.1, "Pulling manifests" and "Pulling blobs"); the connection ends with the answer.
    fn answer(&self, stream: &TcpStream) -> Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().context("no request")??;
        for line in lines {
            if line?.is_empty() {
                break;
            }
        }
        let (method, rest) = first.split_once(' ').context("no method")?;
        let path = rest.split(' ').next().unwrap_or_default();
        let found = match path.rsplit_once('/') {
            _ if path == "/v2/" => Some((String::new(), "application/json".into(), Vec::new())),
            Some((of, name)) if of.ends_with("/manifests") => self.manifest(name)?,
            Some((of, digest)) if of.ends_with("/blobs") => {
                let blob = self.blob(digest)?;
                blob.map(|bytes| (digest.into(), "application/octet-stream".into(), bytes))
            }
            _ => None,
        };
        let mut stream = stream;
        let Some((digest, kind, body)) = found else {
            write!(
                stream,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )?;
            return Ok(());
        };
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        if method == "HEAD" { Ok(()) } else { self.send(stream, &body) }
    }

    /// Digest, media type and bytes of the layout's one manifest for a tag, or of the manifest with this digest.
    fn manifest(&self, name: &str) -> Result<Option<(String, String, Vec<u8>)>> {
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json"))?)?;
        let all = index["manifests"].as_array().context("no manifests")?;
        let is_it = |found: &&Value| !name.contains(':') || found["digest"] == name;
        let Some(found) = all.iter().find(is_it) else { return Ok(None) };
        let word = |key: &str| found[key].as_str().map(str::to_owned).context("no descriptor");
        let (digest, kind) = (word("digest")?, word("mediaType")?);
        Ok(self.blob(&digest)?.map(|bytes| (digest, kind, bytes)))
    }

    fn blob(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let hex = digest.strip_prefix("sha256:").context("another digest")?;
        ensure!(hex.chars().all(|letter| letter.is_ascii_hexdigit()), "{hex} is no digest");
        match fs::read(self.layout.join("blobs/sha256").join(hex)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => Ok(Some(bytes?)),
        }
    }

    fn send(&self, mut stream: &TcpStream, body: &[u8]) -> Result<()> {
        let mut left = body;
        while !left.is_empty() {
            let at_once = if body.len() <= SMALL_BYTES {
                body.len()
            } else {
                std::thread::sleep(PAUSE);
                bytes_at_once(&self.pace, left.len() > body.len() / 2)?
            };
            let (now, later) = left.split_at(at_once.min(left.len()));
            stream.write_all(now)?;
            left = later;
        }
        Ok(())
    }
}

fn bytes_at_once(pace: &Path, is_first_half: bool) -> Result<usize> {
    let text = fs::read_to_string(pace)?;
    match text.trim() {
        "stall" if is_first_half => Ok(SMALL_BYTES),
        "stall" => Ok(0),
        number => number.parse().with_context(|| format!("pace '{number}'")),
    }
}
