//! Files and options that are read before anything is decided.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::ui::failure;

/// All of a file, or of standard input for `-`, up to `limit` bytes.
pub(crate) fn read(file: &Path, limit: usize) -> Result<Vec<u8>> {
    let name = file.display();
    let mut source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(stdin()),
        false => Box::new(File::open(file).with_context(|| format!("reading {name}"))?),
    };
    let mut bytes = Vec::new();
    let most = u64::try_from(limit)?.saturating_add(1);
    source
        .by_ref()
        .take(most)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {name}"))?;
    if bytes.len() > limit {
        bail!("{name} has more than {limit} bytes");
    }
    Ok(bytes)
}

/// The same as text.
pub(super) fn read_text(file: &Path, limit: usize) -> Result<String> {
    String::from_utf8(read(file, limit)?)
        .map_err(|_| anyhow::anyhow!("{} is not utf-8 text", file.display()))
}

/// The time that counts: the one that was said, or now.
pub(super) fn now(said: Option<&str>) -> Result<SystemTime> {
    let Some(text) = said else { return Ok(SystemTime::now()) };
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        failure(format!("{text:?} is no time"), "RFC 3339, as in 2026-01-31T12:00:00Z")
    })?;
    Ok(time.into())
}

/// A time for people.
pub(super) fn shown(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "out of range".to_owned(), |t| t.to_string())
}
