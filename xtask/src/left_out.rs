//! What tests left out: a test that cannot run on this machine prints a line `skipped: REASON` and passes. Nobody sees that of a test that
//! passed, but in the report (JUnit's XML) that nextest writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use roxmltree::Document;

use crate::cmd::target;

const MARK: &str = "skipped";

/// The report of the tests of one run.
pub(crate) struct Report(PathBuf);

impl Report {
    /// Before the run: what an earlier one has left is taken away.
    pub(crate) fn of_next_run() -> Result<Self> {
        let file = target().join("nextest/default/junit.xml");
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| file.display().to_string())
            }
            _ => Ok(Self(file)),
        }
    }

    /// Each reason once, with how many tests gave it; `None` where the run wrote no report.
    pub(crate) fn reasons(&self) -> Result<Option<Vec<String>>> {
        let text = match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| self.0.display().to_string())?,
        };
        let reasons = reasons(&text).with_context(|| self.0.display().to_string())?;
        Ok(Some(reasons))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

fn reasons(report: &str) -> Result<Vec<String>> {
    let report = Document::parse(report)?;
    let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
    for test in report.descendants().filter(|node| node.has_tag_name("testcase")) {
        let texts = test.descendants().filter(|node| node.is_text());
        let lines = texts.filter_map(|node| node.text()).flat_map(str::lines);
        let mut said: Vec<&str> = lines.filter_map(reason).collect();
        said.sort_unstable();
        said.dedup();
        said.into_iter().for_each(|reason| *counted.entry(reason).or_default() += 1);
    }
    let line = |(reason, tests)| match tests {
        1 => format!("{reason} (1 test)"),
        tests => format!("{reason} ({tests} tests)"),
    };
    Ok(counted.into_iter().map(line).collect())
}

/// The words behind `skipped` with or without a colon.
fn reason(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix(MARK)?;
    let said = rest.strip_prefix(':').or_else(|| rest.starts_with(' ').then_some(rest))?;
    Some(said.trim()).filter(|said| !said.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tests: &[&str]) -> String {
        let tests = tests.iter().map(|said| {
            format!("<testcase name=\"t\"><system-out>{said}</system-out><system-err></system-err></testcase>")
        });
        format!("<testsuites><testsuite>{}</testsuite></testsuites>", tests.collect::<String>())
    }

    #[track_caller]
    fn check(tests: &[&str], expect: &[&str]) {
        assert_eq!(reasons(&report(tests)).unwrap(), expect);
    }

    #[test]
    fn each_reason_is_told_once_with_the_number_of_tests() {
        check(&["running 1 test\ntest one ... ok\n"], &[]);
        check(&["skipped: no &lt;tar&gt;\n"], &["no <tar> (1 test)"]);
        check(
            &["skipped: b\nskipped: b", "skipped a", "x\n skipped: b"],
            &["a (1 test)", "b (2 tests)"],
        );
        check(&["1 skipped: of many\nskippedx\nskipped:\n"], &[]);
        assert!(reasons("<testsuites>").is_err());
    }
}
