//! `anchorhold collateral fetch` and `import`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ah_collateral::{Folder, Kds, KdsOptions, MAX_FILE_BYTES};
use ah_evidence::{MAX_DOCUMENT_BYTES, Presented, SnpReport};
use ah_verifier::MAX_CRL_BYTES;
use anyhow::{Context, Result};
use serde_json::json;

use crate::cli::CollateralCommand;
use crate::ui::failure;
use crate::verify::read_input;

/// Fetches or files.
pub(crate) async fn run(command: &CollateralCommand) -> Result<()> {
    match command {
        CollateralCommand::Fetch { report, dir, kds, max_wait, json } => {
            let wait = Duration::from_secs(*max_wait);
            let options = KdsOptions {
                base: kds.clone(),
                max_wait: wait,
                // nothing goes on in the background of a command that ends
                stale: Duration::ZERO,
                ..KdsOptions::default()
            };
            fetch(report, dir, options, *json).await
        }
        CollateralCommand::Import { files, dir, json } => import(files, dir, *json),
    }
}

async fn fetch(file: &Path, dir: &Path, options: KdsOptions, as_json: bool) -> Result<()> {
    let bytes = read_input(file, MAX_DOCUMENT_BYTES)?;
    let presented = Presented::read(&bytes).with_context(|| format!("{}", file.display()))?;
    let report = SnpReport::parse(&presented.report)?;
    let kds = Kds::new(Folder::new(dir), options)?;
    let fetched = kds.collateral(&report).await.map_err(|error| {
        let hint = "`anchorhold collateral import` files certificates that came another way";
        failure(format!("{:#}", anyhow::Error::new(error)), hint)
    })?;
    for old in &fetched.old {
        eprintln!("warning: stays as it was: {old}");
    }
    match as_json {
        true => crate::ui::say!(
            "{}",
            json!({ "dir": dir, "downloads": fetched.downloads, "old": fetched.old })
        ),
        false => crate::ui::say!("{} files fetched into {}", fetched.downloads, dir.display()),
    }
    Ok(())
}

fn import(files: &[PathBuf], dir: &Path, as_json: bool) -> Result<()> {
    let folder = Folder::new(dir);
    let mut imported = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let bytes = read_input(file, MAX_FILE_BYTES.max(MAX_CRL_BYTES))?;
        let names = folder.import(&bytes, &name).with_context(|| format!("{}", file.display()))?;
        imported.extend(names);
    }
    match as_json {
        true => crate::ui::say!("{}", json!({ "dir": dir, "files": imported })),
        false => imported.iter().for_each(|name| crate::ui::say!("{name}")),
    }
    Ok(())
}
