//! The command line, which init writes: the agent takes nothing from the environment or from files it looks for itself.
//!
//! `anchorhold-agent serve --tee NAME --host-data HEX [--initdata PATH] [--log LEVEL] [--listen vsock:PORT|unix:PATH]
//! [--scratch DISK]`

use std::path::PathBuf;

use ah_digest::Sha256;
use ah_tee::Tee;

use crate::console::Level;

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A vsock port, any CID.
    Vsock(u32),
    /// A unix socket; for tests.
    Unix(PathBuf),
}

/// The agent's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The initdata document that init compared with HOST_DATA. None: the policy comes by SetPolicy (AKS form).
    pub initdata: Option<PathBuf>,
    /// HOST_DATA of the report that init read.
    pub host_data: Option<Sha256>,
    /// Where reports come from.
    pub tee: Tee,
    /// How much the host is told.
    pub log: Level,
    /// Where the agent listens.
    pub listen: Listen,
    /// Name of the scratch disk in `/sys/block`; what is on it is lost.
    pub scratch: Option<String>,
}

/// Why the command line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// An option that does not exist, or twice.
    #[error(
        "argument: found {found:?}, expected serve and then --tee, --host-data, --initdata, --log, --listen, --scratch, each once"
    )]
    Argument {
        /// The argument.
        found: String,
    },
    /// An option without its value, or with one of another form.
    #[error("{option}: found {found:?}, expected {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// The form.
        expected: &'static str,
    },
    /// A needed option is missing.
    #[error("{option} is missing")]
    Missing {
        /// The option.
        option: &'static str,
    },
}

const OPTIONS: [&str; 6] = ["--tee", "--host-data", "--initdata", "--log", "--listen", "--scratch"];

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`CliError`] naming the option.
pub fn parse(arguments: &[String]) -> Result<Settings, CliError> {
    let (first, rest) = arguments.split_first().ok_or(CliError::Missing { option: "serve" })?;
    if first != "serve" {
        return Err(CliError::Argument { found: first.clone() });
    }
    let mut values: [Option<&String>; OPTIONS.len()] = Default::default();
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let at = OPTIONS.iter().position(|o| o == word);
        let slot = at.and_then(|i| values.get_mut(i)).filter(|v| v.is_none());
        match (slot, words.next()) {
            (Some(slot), Some(value)) => *slot = Some(value),
            _ => return Err(CliError::Argument { found: word.clone() }),
        }
    }
    let [tee, host_data, initdata, log, listen, scratch] = values;
    let tee = tee.ok_or(CliError::Missing { option: "--tee" })?;
    let value = |option, found: &String, expected| CliError::Value {
        option,
        found: found.clone(),
        expected,
    };
    let host_data = host_data
        .map(|text| text.parse().map_err(|_| value("--host-data", text, "64 hexadecimal digits")))
        .transpose()?;
    if initdata.is_none() && host_data.is_none() {
        return Err(CliError::Missing { option: "--host-data, without --initdata" });
    }
    Ok(Settings {
        initdata: initdata.map(PathBuf::from),
        host_data,
        tee: tee.parse().map_err(|_| value("--tee", tee, "software, snp, tdx or azure-vtpm"))?,
        log: match log {
            None => Level::Error,
            Some(text) => text.parse().map_err(|_| value("--log", text, "error, info or debug"))?,
        },
        listen: match listen {
            None => Listen::Vsock(ah_agent_api::ports::AGENT),
            Some(text) => parse_listen(text)
                .ok_or_else(|| value("--listen", text, "vsock:PORT or unix:PATH"))?,
        },
        scratch: match scratch {
            Some(name) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                return Err(value("--scratch", name, "the name of a block device"));
            }
            found => found.cloned(),
        },
    })
}

fn parse_listen(text: &str) -> Option<Listen> {
    match text.split_once(':')? {
        ("vsock", port) => port.parse().ok().map(Listen::Vsock),
        ("unix", path) if path.starts_with('/') => Some(Listen::Unix(path.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn settings_are_read() {
        let settings =
            parse(&words("serve --tee software --initdata /run/initdata --log debug")).unwrap();
        assert_eq!(settings.tee, Tee::Software);
        assert_eq!(settings.initdata, Some("/run/initdata".into()));
        assert_eq!(settings.listen, Listen::Vsock(1024));
        assert_eq!(settings.log, Level::Debug);
        assert_eq!(settings.scratch, None);
        let settings = parse(&words("serve --tee software --initdata /x --scratch vdb")).unwrap();
        assert_eq!(settings.scratch.as_deref(), Some("vdb"));
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in [
            "",
            "run --tee software --initdata /x",
            "serve",
            "serve --initdata /x",
            "serve --tee software",
            "serve --tee auto --initdata /x",
            "serve --tee software --tee snp --initdata /x",
            "serve --tee software --initdata",
            "serve --tee software --initdata /x --allow-all yes",
            "serve --tee software --host-data 00",
            "serve --tee software --initdata /x --listen tcp:1",
            "serve --tee software --initdata /x --scratch ../vda",
        ] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }
}
