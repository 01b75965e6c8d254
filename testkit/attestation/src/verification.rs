//! Verification of an SNP report with certificates that are at hand: chain and signature, on one core.

use std::time::{Duration, Instant, SystemTime};

use ah_testkit_figures::Row;
use ah_verifier::{Revocation, TrustedRoots, verify};
use anyhow::Result;

use crate::Machine;

const FOR: Duration = Duration::from_secs(3);

pub(crate) fn measure(machine: &Machine, json: bool) -> Result<()> {
    let made = machine.guest.report(&[7; 64])?;
    let revocation = Revocation::NotChecked { reason: "a benchmark".into() };
    let collateral = ah_collateral::from_cert_table(&made.auxblob, revocation)?;
    let roots = TrustedRoots::amd().danger_with_software_root(machine.tee.root_der())?;
    let (start, now) = (Instant::now(), SystemTime::now());
    let mut count = 0u32;
    while start.elapsed() < FOR {
        verify(&made.report, &collateral, now, &roots)?;
        count += 1;
    }
    let value = f64::from(count) / start.elapsed().as_secs_f64();
    Row {
        name: "SNP verification, collateral at hand, one core",
        value,
        unit: "1/s",
        reference: None,
        goal: Some(("at least 1500/s", value >= 1500.0)),
    }
    .print(json);
    Ok(())
}
