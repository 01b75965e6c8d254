//! The demo's workload: asks for its key, opens a sealed message, prints it.
//!
//! Arguments: the key id (else environment `KEY_ID`, else `demo/message`), then `--stay` for a program that goes on until SIGTERM,
//! as a Deployment wants it. The sealed message: environment `SEALED_MESSAGE`,
//! else the file named by `SEALED_MESSAGE_FILE`, else `/sealed-message`. The socket: `RELEASE_SOCKET`, else
//! `/run/anchorhold/release.sock`.
#![forbid(unsafe_code)]

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use ah_example_sealed_message::{fetch_key, open};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

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
    let (options, words): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|word| word.starts_with("--"));
    let stay = match options.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => false,
        ["--stay"] => true,
        found => return Err(format!("found {found:?}, expected --stay or no option").into()),
    };
    // before the message, so that whoever has seen it can end the program
    let mut signals = if stay { Some(Signals::new([SIGINT, SIGTERM])?) } else { None };
    let key_id = words
        .into_iter()
        .next()
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
    out.flush()?;
    // a first process has no default for signals: without this SIGTERM would do nothing
    signals.as_mut().map(|signals| signals.forever().next());
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
