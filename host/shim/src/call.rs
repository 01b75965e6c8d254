//! The command line by which containerd calls a shim (containerd, `core/runtime/v2/README.md`): Go's flags, then a word.

use std::path::PathBuf;

/// What containerd wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The address of the shim for the bundle in the working directory.
    Start,
    /// Clean up after a shim that is gone.
    Delete,
    /// Be the shim.
    Serve,
    /// Say the version.
    Version,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is wanted.
    pub action: Action,
    /// containerd's namespace, `k8s.io` for pods.
    pub namespace: String,
    /// Id of the container.
    pub id: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// The container's bundle; the working directory where it is not said.
    pub bundle: PathBuf,
    /// Whether debug lines are logged.
    pub debug: bool,
}

/// A call that containerd does not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// A flag or word that is not known.
    #[error(
        "found {found:?}, expected -namespace, -id, -address, -publish-binary, -bundle, -debug or one of start, delete\nhint: containerd calls this program, people do not"
    )]
    Unknown {
        /// The word.
        found: String,
    },
    /// A flag at the end.
    #[error("flag {flag} has no value")]
    NoValue {
        /// The flag.
        flag: String,
    },
    /// An id or a namespace that could be a path.
    #[error("{flag}: found {found:?}, expected letters, digits, dots, dashes and underscores")]
    Name {
        /// The flag.
        flag: &'static str,
        /// Its value.
        found: String,
    },
}

impl Call {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, CallError> {
        let mut call = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            bundle: PathBuf::from("."),
            debug: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let flag = argument.trim_start_matches('-');
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut value = || match given.clone().or_else(|| arguments.next()) {
                Some(value) => Ok(value),
                None => Err(CallError::NoValue { flag: argument.clone() }),
            };
            match (argument.starts_with('-'), name) {
                (false, "start") => call.action = Action::Start,
                (false, "delete") => call.action = Action::Delete,
                (true, "v" | "version") => call.action = Action::Version,
                (true, "namespace") => call.namespace = value()?,
                (true, "id") => call.id = value()?,
                (true, "address") => call.address = value()?,
                (true, "bundle") => call.bundle = value()?.into(),
                // events go over the socket beside the address
                (true, "publish-binary") => drop(value()?),
                (true, "debug") => call.debug = given.as_deref() != Some("false"),
                _ => return Err(CallError::Unknown { found: argument }),
            }
        }
        call.check()
    }

    fn check(self) -> Result<Self, CallError> {
        if self.action == Action::Version {
            return Ok(self);
        }
        for (flag, value) in [("-namespace", &self.namespace), ("-id", &self.id)] {
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            let fine = value.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
                && value.bytes().all(plain);
            if !fine {
                return Err(CallError::Name { flag, found: value.clone() });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, CallError> {
        Call::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn containerds_calls_are_read() {
        let flags =
            "-namespace k8s.io -address /r/c.sock -publish-binary /usr/bin/containerd -id a1";
        let start = parse(&format!("{flags} start")).unwrap();
        assert_eq!((start.action, start.id.as_str()), (Action::Start, "a1"));
        let delete = parse(&format!("{flags} -bundle /r/b -debug delete")).unwrap();
        assert_eq!((delete.action, delete.bundle.to_str()), (Action::Delete, Some("/r/b")));
        assert!(delete.debug);
        assert_eq!(parse("--namespace=x --id=y").unwrap().action, Action::Serve);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
    }

    #[test]
    fn other_calls_are_refused() {
        assert!(matches!(parse("-namespace x -id y stop"), Err(CallError::Unknown { .. })));
        assert!(matches!(parse("-namespace x -id"), Err(CallError::NoValue { .. })));
        assert!(matches!(parse("-namespace x -id ../y"), Err(CallError::Name { flag: "-id", .. })));
        assert!(matches!(parse("start"), Err(CallError::Name { flag: "-namespace", .. })));
    }
}
