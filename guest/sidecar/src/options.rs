//! What the sidecar is started with: the known sidecar's flags, environment and `SkrSideCarArgs`, and two flags of our own.
//!
//! | flag | environment | meaning |
//! |---|---|---|
//! | `-base64` | `SkrSideCarArgs` | settings, base64 of JSON |
//! | `-port` | `Port` | port on localhost, 8080; 0 lets the kernel choose |
//! | `-server_type` | `ServerType` | `http` or `grpc` |
//! | `-loglevel` | `LogLevel` | `trace` to `error`, `warning` |
//! | `-logfile` | `LogFile` | where the log goes instead of stderr |
//! | `-ca_file` | `SSL_CERT_FILE` | PEM of the roots that servers may lead to |
//! | `-release_socket` | `AnchorholdReleaseSocket` | the guest's socket, `/run/anchorhold/release.sock` |
//!
//! Flags are written as Go's are: `-name value`, `-name=value`, one or two dashes. A flag wins over the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::settings::Settings;

/// Where the guest puts its release socket in containers that are given it.
pub const RELEASE_SOCKET: &str = "/run/anchorhold/release.sock";

const FLAGS: [(&str, Option<&str>); 11] = [
    ("base64", Some("SkrSideCarArgs")),
    ("port", Some("Port")),
    ("server_type", Some("ServerType")),
    ("loglevel", Some("LogLevel")),
    ("logfile", Some("LogFile")),
    ("ca_file", Some("SSL_CERT_FILE")),
    ("release_socket", Some("AnchorholdReleaseSocket")),
    ("allowTestingMismatchedTCB", None),
    ("infile", None),
    ("keypath", None),
    ("outfile", None),
];

/// Why the sidecar cannot be started so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A flag that is not known.
    #[error(
        "flag {found:?} is not known, expected one of -base64 -port -server_type -loglevel -logfile -ca_file -release_socket"
    )]
    Flag {
        /// What was found.
        found: String,
    },
    /// A flag without its value.
    #[error("flag -{0} has no value")]
    Value(String),
    /// A value that does not fit.
    #[error("{what} is {found:?}, expected {expected}")]
    Field {
        /// Which.
        what: &'static str,
        /// What was found.
        found: String,
        /// What fits.
        expected: &'static str,
    },
    /// Certificates of another TCB than the report's prove nothing of it.
    #[error("-allowTestingMismatchedTCB is not supported: no switch here removes a check")]
    MismatchedTcb,
    /// The one-shot wrapping of image keys.
    #[error(
        "-infile, -keypath and -outfile are not supported\nhint: wrap the key with openssl pkeyutl, RSA-OAEP with SHA-256"
    )]
    OneShot,
    /// Settings that cannot be read.
    #[error("SkrSideCarArgs is not base64 of settings in JSON: {0}")]
    Settings(String),
}

/// How applications talk to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerType {
    /// JSON over HTTP.
    Http,
    /// The key-provider protocol.
    Grpc,
}

/// What the sidecar is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Port on localhost.
    pub port: u16,
    /// Protocol.
    pub server_type: ServerType,
    /// Least important level that is logged.
    pub log_level: tracing::Level,
    /// Where the log goes instead of stderr.
    pub log_file: Option<PathBuf>,
    /// Roots, PEM.
    pub ca_file: Option<PathBuf>,
    /// The guest's socket.
    pub release_socket: PathBuf,
    /// The rest.
    pub settings: Settings,
}

impl Options {
    /// Reads flags (without the program's name) and environment.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn parse(
        args: impl IntoIterator<Item = String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, OptionsError> {
        let flags = read_flags(args)?;
        if flags.get("allowTestingMismatchedTCB").is_some_and(|value| value != "false") {
            return Err(OptionsError::MismatchedTcb);
        }
        if ["infile", "keypath", "outfile"].iter().any(|flag| flags.contains_key(*flag)) {
            return Err(OptionsError::OneShot);
        }
        let value = |name: &str| {
            let env_name = FLAGS.iter().find(|(flag, _)| *flag == name).and_then(|(_, env)| *env);
            let found = flags.get(name).cloned().or_else(|| env(env_name?));
            found.filter(|value| !value.is_empty())
        };
        let port = value("port").unwrap_or_else(|| "8080".to_owned());
        Ok(Self {
            port: port.parse().map_err(|_| OptionsError::Field {
                what: "port",
                found: port,
                expected: "0 to 65535",
            })?,
            server_type: server_type(value("server_type"))?,
            log_level: log_level(value("loglevel"))?,
            log_file: value("logfile").map(PathBuf::from),
            ca_file: value("ca_file").map(PathBuf::from),
            release_socket: value("release_socket")
                .map_or_else(|| PathBuf::from(RELEASE_SOCKET), PathBuf::from),
            settings: match value("base64") {
                Some(text) => Settings::parse(&text)?,
                None => Settings::default(),
            },
        })
    }
}

fn read_flags(
    args: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<&'static str, String>, OptionsError> {
    let mut flags = BTreeMap::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let unknown = || OptionsError::Flag { found: arg.clone() };
        let body = arg.strip_prefix('-').ok_or_else(unknown)?;
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let (name, _) = FLAGS.iter().find(|(flag, _)| *flag == name).ok_or_else(unknown)?;
        let value = match inline {
            Some(value) => value,
            // A truth value stands alone.
            None if *name == "allowTestingMismatchedTCB" => "true".to_owned(),
            None => args.next().ok_or_else(|| OptionsError::Value((*name).to_owned()))?,
        };
        flags.insert(*name, value);
    }
    Ok(flags)
}

fn server_type(value: Option<String>) -> Result<ServerType, OptionsError> {
    match value.as_deref() {
        None | Some("http") => Ok(ServerType::Http),
        Some("grpc") => Ok(ServerType::Grpc),
        Some(found) => Err(OptionsError::Field {
            what: "server_type",
            found: found.to_owned(),
            expected: "http or grpc",
        }),
    }
}

fn log_level(value: Option<String>) -> Result<tracing::Level, OptionsError> {
    match value.as_deref() {
        Some("trace") => Ok(tracing::Level::TRACE),
        Some("debug") => Ok(tracing::Level::DEBUG),
        Some("info") => Ok(tracing::Level::INFO),
        None | Some("warning" | "warn") => Ok(tracing::Level::WARN),
        Some("error" | "fatal" | "panic") => Ok(tracing::Level::ERROR),
        Some(found) => Err(OptionsError::Field {
            what: "loglevel",
            found: found.to_owned(),
            expected: "trace, debug, info, warning or error",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Options, OptionsError> {
        let find = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Options::parse(args.iter().map(|arg| (*arg).to_owned()), find)
    }

    #[test]
    fn flags_are_written_as_go_does_and_win_over_the_environment() {
        let options = parse(&[], &[]).unwrap();
        assert_eq!((options.port, options.server_type), (8080, ServerType::Http));
        assert_eq!(options.log_level, tracing::Level::WARN);
        for args in [&["-port", "9000"][..], &["--port=9000"], &["-port=9000"]] {
            assert_eq!(parse(args, &[("Port", "1")]).unwrap().port, 9000);
        }
        assert_eq!(parse(&[], &[("Port", "9001")]).unwrap().port, 9001);
        assert_eq!(parse(&[], &[("Port", "")]).unwrap().port, 8080);
        let grpc = parse(&[], &[("ServerType", "grpc")]).unwrap();
        assert_eq!(grpc.server_type, ServerType::Grpc);
    }

    #[test]
    fn wrong_starts_are_named() {
        let words = |args: &[&str]| parse(args, &[]).unwrap_err().to_string();
        assert!(words(&["-hostname", "x"]).contains("\"-hostname\" is not known"));
        assert!(words(&["port", "1"]).contains("\"port\" is not known"));
        assert_eq!(words(&["-port"]), "flag -port has no value");
        assert!(words(&["-port", "65536"]).contains("expected 0 to 65535"));
        assert!(words(&["-server_type", "ftp"]).contains("expected http or grpc"));
        assert!(words(&["-loglevel", "loud"]).contains("loglevel is \"loud\""));
        assert!(words(&["-infile", "x"]).contains("are not supported"));
        assert!(words(&["-base64", "?"]).contains("SkrSideCarArgs is not base64"));
    }

    #[test]
    fn attack_switch_that_takes_certificates_of_another_tcb() {
        assert!(parse(&["-allowTestingMismatchedTCB=false"], &[]).is_ok());
        for args in [&["-allowTestingMismatchedTCB"], &["-allowTestingMismatchedTCB=true"]] {
            assert_eq!(parse(args, &[]), Err(OptionsError::MismatchedTcb));
        }
    }
}
