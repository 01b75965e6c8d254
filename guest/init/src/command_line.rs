//! The kernel command line: measured, so its words are the owner's, and still read strictly.

use std::fmt;
use std::str::FromStr;

use ah_tee::{Tee, UnknownTee};

const PREFIX: &str = "anchorhold.";

/// What the command line tells init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLine {
    /// `anchorhold.tee=`: where reports come from. No default.
    pub tee: Tee,
    /// `anchorhold.log=`: how much goes to the console, which the host reads. Default: errors.
    pub log: LogLevel,
    /// `anchorhold.confidential=false`: a VM for isolation alone, whose node may ask anything of it. The word changes the measurement
    /// and nothing else, so that no key which an owner has for a confidential guest is released to such a one. Default: true.
    pub confidential: bool,
}

/// How much goes to the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Errors only.
    #[default]
    Error,
    /// What happens.
    Info,
    /// What happens, with times.
    Debug,
}

impl LogLevel {
    /// The name used on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a command line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// There is no `anchorhold.tee=`.
    #[error("command line has no anchorhold.tee=, expected exactly one")]
    NoTee,
    /// A setting is there twice.
    #[error("command line has {0} more than once")]
    Twice(&'static str),
    /// A word starts like a setting and is none.
    #[error("command line has an unknown setting: {0:?}")]
    Unknown(String),
    /// The TEE is unknown.
    #[error("command line has an unknown tee")]
    Tee(#[source] UnknownTee),
    /// The log level is unknown.
    #[error("command line has log level {0:?}, expected error, info or debug")]
    Log(String),
}

impl FromStr for CommandLine {
    type Err = CommandLineError;

    fn from_str(text: &str) -> Result<Self, CommandLineError> {
        let (mut tee, mut log, mut confidential) = (None, None, None);
        for word in text.split_ascii_whitespace().filter(|word| word.starts_with(PREFIX)) {
            match word.split_once('=') {
                Some(("anchorhold.tee", name)) => {
                    once(&mut tee, "anchorhold.tee", name.parse().map_err(CommandLineError::Tee)?)?;
                }
                Some(("anchorhold.log", name)) => {
                    once(&mut log, "anchorhold.log", log_level(name)?)?
                }
                Some(("anchorhold.confidential", "false")) => {
                    once(&mut confidential, "anchorhold.confidential", false)?;
                }
                _ => return Err(CommandLineError::Unknown(word.chars().take(80).collect())),
            }
        }
        Ok(Self {
            tee: tee.ok_or(CommandLineError::NoTee)?,
            log: log.unwrap_or_default(),
            confidential: confidential.unwrap_or(true),
        })
    }
}

fn once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), CommandLineError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(CommandLineError::Twice(name)),
    }
}

fn log_level(name: &str) -> Result<LogLevel, CommandLineError> {
    [LogLevel::Error, LogLevel::Info, LogLevel::Debug]
        .into_iter()
        .find(|level| level.name() == name)
        .ok_or_else(|| CommandLineError::Log(name.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(Tee, LogLevel), CommandLineError>) {
        assert_eq!(text.parse::<CommandLine>().map(|line| (line.tee, line.log)), expect, "{text}");
    }

    #[test]
    fn exactly_one_tee_and_known_settings_only() {
        let kernel = "console=ttyS0 quiet panic=-1";
        check(&format!("{kernel} anchorhold.tee=snp\n"), Ok((Tee::Snp, LogLevel::Error)));
        check("anchorhold.log=debug anchorhold.tee=software", Ok((Tee::Software, LogLevel::Debug)));
        check(kernel, Err(CommandLineError::NoTee));
        check(
            "anchorhold.tee=snp anchorhold.tee=snp",
            Err(CommandLineError::Twice("anchorhold.tee")),
        );
        check(
            "anchorhold.tee=snp anchorhold.log=info anchorhold.log=info",
            Err(CommandLineError::Twice("anchorhold.log")),
        );
        check("anchorhold.tee=snp anchorhold.log=all", Err(CommandLineError::Log("all".into())));
        let isolation: CommandLine =
            "anchorhold.tee=snp anchorhold.confidential=false".parse().unwrap();
        assert!(!isolation.confidential);
        for word in [
            "anchorhold.confidential=true",
            "anchorhold.debug",
            "anchorhold.policy=off",
            "anchorhold.tee",
            "anchorhold.",
        ] {
            check(
                &format!("anchorhold.tee=snp {word}"),
                Err(CommandLineError::Unknown(word.to_owned())),
            );
        }
        assert!(matches!("anchorhold.tee=".parse::<CommandLine>(), Err(CommandLineError::Tee(_))));
        assert!(matches!(
            "anchorhold.tee=auto".parse::<CommandLine>(),
            Err(CommandLineError::Tee(_))
        ));
    }
}
