//! `anchorhold secret seal`: a secret as a text that the pod's guest opens.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ah_release_api::{KeyId, MAX_SEALED_BYTES, Place, SEALING_KEY_BYTES, Secret, is_sealed, seal};
use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

use crate::cli::{Seal, SecretCommand};
use crate::ui::{self, failure};

/// `anchorhold secret …`
pub(crate) fn run(command: &SecretCommand) -> Result<()> {
    match command {
        SecretCommand::Seal(options) => run_seal(options),
    }
}

fn run_seal(options: &Seal) -> Result<()> {
    let key_id: KeyId = options.key_id.parse()?;
    let place: Place = match (&options.env, &options.file) {
        (Some(name), _) => format!("env:{name}").parse()?,
        (None, Some(name)) => format!("file:{name}").parse()?,
        (None, None) => bail!("neither --env nor --file is given"),
    };
    let value = value(options, &place)?;
    let key = match options.new_key {
        true => new_key(&options.key_file)?,
        false => read_key(&options.key_file)?,
    };
    let mut iv = [0; 12];
    getrandom::fill(&mut iv).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    ui::say!("{}", seal(&key, &key_id, &place, iv, &value)?);
    Ok(())
}

/// The secret, in a form that its place can have.
fn value(options: &Seal, place: &Place) -> Result<Zeroizing<Vec<u8>>> {
    let mut value = read(&options.from)?;
    if matches!(place, Place::Env(_)) {
        if !options.keep_newline && value.last() == Some(&b'\n') {
            value.pop();
            eprintln!("note: the newline at the end is left out (--keep-newline keeps it)");
        }
        if std::str::from_utf8(&value).is_err() || value.contains(&0) {
            return Err(failure(
                "the secret is not UTF-8 without zero bytes, as a variable's value has to be",
                "--file takes any bytes",
            ));
        }
    }
    if is_sealed(&value) {
        bail!("the secret is a sealed value already");
    }
    Ok(value)
}

/// Reads a file or standard input, up to what can be sealed.
fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(fs::File::open(file).with_context(|| format!("reading {}", file.display()))?)
    };
    // Room for all of it: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SEALED_BYTES + 2));
    let most = u64::try_from(MAX_SEALED_BYTES)? + 1;
    source
        .by_ref()
        .take(most)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", file.display()))?;
    Ok(bytes)
}

fn read_key(file: &Path) -> Result<Secret> {
    let bytes = read(file)?;
    if bytes.len() != SEALING_KEY_BYTES {
        return Err(failure(
            format!(
                "{} has {} bytes, expected {SEALING_KEY_BYTES}: a key as it is, in no encoding",
                file.display(),
                bytes.len()
            ),
            "--new-key makes one; the same bytes are what `anchorhold key import --from` takes",
        ));
    }
    ui::warn_if_others_read(file);
    Ok(Secret::new(bytes.to_vec())?)
}

/// Makes a key and writes it to a file that is not there yet, for its owner's eyes alone.
fn new_key(file: &Path) -> Result<Secret> {
    let mut bytes = Zeroizing::new([0; SEALING_KEY_BYTES]);
    getrandom::fill(bytes.as_mut_slice())
        .map_err(|error| anyhow::anyhow!("no randomness for a new key: {error}"))?;
    let opened = fs::File::options().write(true).create_new(true).mode(0o600).open(file);
    let mut out = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(failure(
                format!("{} is there already", file.display()),
                "leave --new-key out to seal with it, or name another file",
            ));
        }
        other => other.with_context(|| format!("making {}", file.display()))?,
    };
    out.write_all(bytes.as_slice()).with_context(|| format!("writing {}", file.display()))?;
    eprintln!("made {}: import it with `anchorhold key import`, and keep it", file.display());
    Ok(Secret::new(bytes.to_vec())?)
}
