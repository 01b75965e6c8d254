use std::path::Path;
use std::process::Command;
use std::str::FromStr;

/// containerd's version, as far as its configuration depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerdVersion {
    /// 1 of 1.6.20.
    pub major: u32,
    /// 6 of 1.6.20.
    pub minor: u32,
}

/// Why the version is not known.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The text is no version.
    #[error("version of containerd is not understood: found {found:?}, expected a text as 1.6.20")]
    Text {
        /// The text, at most 80 characters of it.
        found: String,
    },
    /// The program did not run.
    #[error("{program} --version did not run")]
    Run {
        /// The program.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl ContainerdVersion {
    /// The oldest that is known to work.
    pub const OLDEST: Self = Self { major: 1, minor: 6 };
    /// The first that takes a snapshotter for each runtime.
    pub(crate) const RUNTIME_SNAPSHOTTER: Self = Self { major: 1, minor: 7 };

    /// Asks the program, which prints `containerd PACKAGE VERSION REVISION`.
    ///
    /// # Errors
    /// [`VersionError`].
    pub fn of_program(program: &Path) -> Result<Self, VersionError> {
        let ran = Command::new(program).arg("--version").output();
        let failed = |source| VersionError::Run { program: program.display().to_string(), source };
        let text = String::from_utf8_lossy(&ran.map_err(failed)?.stdout).into_owned();
        match text.split_whitespace().nth(2) {
            Some(version) => version.parse(),
            None => Err(unknown(&text)),
        }
    }
}

impl FromStr for ContainerdVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.trim_start_matches('v').split(['.', '~', '-', '+']);
        let mut number = || parts.next().and_then(|part| part.parse().ok());
        match (number(), number()) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(unknown(text)),
        }
    }
}

impl std::fmt::Display for ContainerdVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn unknown(text: &str) -> VersionError {
    VersionError::Text { found: text.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let check = |text: &str, expect: Option<(u32, u32)>| {
            let found = text.parse::<ContainerdVersion>().ok().map(|v| (v.major, v.minor));
            assert_eq!(found, expect, "{text}");
        };
        check("1.6.20~ds1", Some((1, 6)));
        check("v2.1.0", Some((2, 1)));
        check("2.1-rc.1", Some((2, 1)));
        check("1", None);
        check("unknown", None);
    }
}
