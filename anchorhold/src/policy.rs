//! `anchorhold policy generate`, `show` and `explain`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use ah_policygen::Explained;
use anyhow::{Context, Result};
use serde_json::json;

use crate::cli::Generate;
use crate::dirs::Dirs;
use crate::keys::{policy_of, read_text};
use crate::prepare;

/// Pins tags and adds the annotation.
pub(crate) async fn generate(dirs: &Dirs, options: &Generate) -> Result<()> {
    let prepared = prepare::generate(dirs, &options.source).await?;
    let digest = prepared.document.host_data_snp()?;
    match &options.output {
        None => print!("{}", prepared.yaml),
        Some(file) => {
            fs::write(file, &prepared.yaml)
                .with_context(|| format!("writing {}", file.display()))?;
        }
    }
    let policy_bytes = prepared.document.policy().len();
    let annotation_bytes = prepared.initdata.map_or(0, |initdata| initdata.to_annotation().len());
    if options.json {
        println!(
            "{}",
            json!({ "host_data": digest, "policy_bytes": policy_bytes, "annotation_bytes": annotation_bytes })
        );
    } else {
        eprintln!("policy: {policy_bytes} bytes, annotation {annotation_bytes} bytes");
        eprintln!("initdata digest (HOST_DATA): {digest}");
        if let Some(file) = &options.output {
            eprintln!("written to {}", file.display());
        }
    }
    Ok(())
}

/// The policy in people's words.
pub(crate) fn show(file: &Path, as_json: bool) -> Result<()> {
    let document = policy_of(file)?;
    let shown = ah_policygen::show(document.policy())?;
    if as_json {
        println!("{}", serde_json::to_string(&shown)?);
    } else {
        println!("{shown}");
        println!("HOST_DATA: {}", document.host_data_snp()?);
    }
    Ok(())
}

/// Which rule and field denied a request; the exit code says allowed (0) or denied (1).
pub(crate) fn explain(file: &Path, request: &Path, as_json: bool) -> Result<ExitCode> {
    let document = policy_of(file)?;
    let explained = ah_policygen::explain(document.policy(), &read_text(request)?)?;
    if as_json {
        println!("{}", serde_json::to_string(&explained)?);
    } else {
        println!("{explained}");
    }
    Ok(match explained {
        Explained::Allowed { .. } => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
