//! What a running pod does: exec, and output into the log.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use ah_testkit_figures::{Row, median};
use anyhow::{Result, ensure};

use crate::Options;
use crate::site::{LIMIT, POLL, RUNC, Site, VM, until};

const EXECS: usize = 21;
/// Lines of 64 bytes, 8 MiB.
const LINES: usize = 131_072;
const LINE: &str = "what a container prints, in lines of sixty-four bytes, feed it in";

pub(crate) async fn measure(site: &Site, options: &Options) -> Result<()> {
    let (vm, runc) = (exec(site, VM).await?, exec(site, RUNC).await?);
    let name = "exec round trip, without a policy; against runc";
    Row { name, value: vm, unit: "ms", reference: Some(runc), goal: None }.print(options.json);
    let (vm, runc) = (log(site, VM).await?, log(site, RUNC).await?);
    let name = "log throughput, 8 MiB in lines of 64 bytes, without a policy; against runc";
    Row { name, value: vm, unit: "MiB/s", reference: Some(runc), goal: None }.print(options.json);
    Ok(())
}

/// Milliseconds of an ExecSync of a program that ends at once.
async fn exec(site: &Site, handler: &str) -> Result<f64> {
    let (running, _) = site.run(handler, "echo up; exec sleep 1000000").await?;
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let begun = Instant::now();
        let answer = running.container.exec(&["true"]).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.exit_code == 0, "exec ended with {}", answer.exit_code);
    }
    running.pod.remove().await?;
    Ok(median(&mut times))
}

/// MiB a second, from the first line in the log to the last.
async fn log(site: &Site, handler: &str) -> Result<f64> {
    let line = &LINE[..63];
    let script =
        format!("echo begin; sleep 1; echo first; yes '{line}' | head -n {LINES}; echo last");
    let (running, _) = site.run(handler, &script).await?;
    until(&running.container, |text| text.contains("first\n")).await?;
    let begun = Instant::now();
    let path = running.container.log_path();
    while !ends_with(path, b" last\n")? {
        ensure!(begun.elapsed() < LIMIT, "not printed within {LIMIT:?}");
        tokio::time::sleep(POLL).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let found = running.container.output()?.lines().filter(|found| *found == line).count();
    ensure!(found == LINES, "the log has {found} lines, expected {LINES}");
    running.pod.remove().await?;
    Ok(LINES as f64 * 64.0 / 1048576.0 / seconds)
}

/// The end of a file alone: reading all of it would take the time that is measured.
fn ends_with(path: &Path, end: &[u8]) -> Result<bool> {
    let file = File::open(path)?;
    let mut found = vec![0; end.len()];
    let Some(at) = file.metadata()?.len().checked_sub(end.len() as u64) else { return Ok(false) };
    file.read_exact_at(&mut found, at)?;
    Ok(found == end)
}
