//! The demo's workload: asks for its key, opens a sealed message, prints it.
//!
//! Arguments: the key id (else environment `KEY_ID`, else `demo/message`). The sealed message: environment `SEALED_MESSAGE`,
//! else the file named by `SEALED_MESSAGE_FILE`, else `/sealed-message`. The socket: `RELEASE_SOCKET`, else
//! `/run/anchorhold/release.sock`.
#![forbid(unsafe_code)]

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use ah_example_sealed_message::{fetch_key, open};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealed-message: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let key_id = env::args()
        .nth(1)
        .or_else(|| env::var("KEY_ID").ok())
        .unwrap_or_else(|| "demo/message".into());
    let socket =
        env::var_os("RELEASE_SOCKET").unwrap_or_else(|| "/run/anchorhold/release.sock".into());
    let sealed = sealed_message()?;
    println!("sealed-message: asking for key {key_id}");
    let key = fetch_key(&PathBuf::from(socket), &key_id)?;
    let message = open(&key, &sealed)?;
    let mut out = std::io::stdout().lock();
    out.write_all(b"sealed-message: the message is: ")?;
    out.write_all(&message)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn sealed_message() -> Result<String, String> {
    if let Ok(text) = env::var("SEALED_MESSAGE") {
        return Ok(text);
    }
    let path = PathBuf::from(
        env::var_os("SEALED_MESSAGE_FILE").unwrap_or_else(|| "/sealed-message".into()),
    );
    std::fs::read_to_string(&path)
        .map_err(|error| format!("sealed message {} cannot be read: {error}", path.display()))
}
