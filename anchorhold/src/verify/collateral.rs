//! Certificates for a report, from wherever the options say.

use std::path::Path;

use ah_collateral::{Certificates, Folder, MAX_FILE_BYTES};
use ah_evidence::{CertTable, Presented, SnpReport};
use ah_verifier::{Collateral, Revocation, TrustedRoots};
use anyhow::{Context, Result};

use super::input::read;
use crate::cli::Chain;
use crate::ui::failure;

const WHERE: &str = "--vek and --ask name certificate files, --collateral a folder that `anchorhold collateral` fills";

/// From the files that were named; else from the folder; else from what came with the report.
pub(super) fn of_report(presented: &Presented, chain: &Chain) -> Result<Collateral> {
    let revocation = match &chain.crl {
        Some(file) => ah_collateral::read_revocation_list(file)?,
        None => Revocation::NotChecked { reason: "no revocation list was given".to_owned() },
    };
    let named = [&chain.vek, &chain.ask, &chain.ark].into_iter().flatten();
    let named: Vec<&Path> = named
        .map(|file| file.as_path())
        .chain(chain.certificate.iter().map(|file| file.as_path()))
        .collect();
    if named.is_empty()
        && let Some(folder) = &chain.collateral
    {
        return from_folder(folder, presented, revocation);
    }
    let mut certificates = Certificates::default();
    for file in &named {
        ah_collateral::read_certificates(&mut certificates, file)?;
    }
    if named.is_empty() {
        let table = CertTable::decode(&presented.auxblob).context("certificate table")?;
        certificates.add_table(&table)?;
        if let Some(pem) = &presented.pem {
            certificates.add_any(pem, "certificates beside the report")?;
        }
    }
    certificates.collateral(revocation).map_err(|error| failure(error, WHERE))
}

fn from_folder(folder: &Path, presented: &Presented, revocation: Revocation) -> Result<Collateral> {
    let report = SnpReport::parse(&presented.report)?;
    let found = Folder::new(folder).collateral(&report);
    let mut found = found.map_err(|error| failure(error, WHERE))?;
    if matches!(revocation, Revocation::List(_)) {
        found.revocation = revocation;
    }
    Ok(found)
}

/// AMD's roots, and the one that the option with `danger` in its name adds.
pub(super) fn roots(chain: &Chain) -> Result<TrustedRoots> {
    let roots = TrustedRoots::amd();
    let Some(file) = &chain.danger_trust_root else { return Ok(roots) };
    let bytes = read(file, MAX_FILE_BYTES)?;
    let der = match bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        true => ah_collateral::der_of_pem(&bytes)?,
        false => bytes,
    };
    Ok(roots.danger_with_software_root(&der)?)
}
