//! Seals a message: `seal KEY-FILE MESSAGE` prints the sealed text. A key file that is not there is made, 32 random bytes, mode 0600.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [key_file, message] = arguments.as_slice() else {
        return Err("usage: seal KEY-FILE MESSAGE".into());
    };
    let mut nonce = [0; 12];
    getrandom::fill(&mut nonce).map_err(|error| error.to_string())?;
    let key = key(Path::new(key_file))?;
    println!("{}", ah_example_sealed_message::seal(&key, nonce, message.as_bytes())?);
    Ok(())
}

fn key(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut key = vec![0; 32];
    getrandom::fill(&mut key).map_err(|error| error.to_string())?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(&key)?;
            Ok(key)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(std::fs::read(path)?),
        Err(error) => Err(error.into()),
    }
}
