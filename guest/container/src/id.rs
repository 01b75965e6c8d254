//! Container and exec ids: the host chooses them and they become names of folders, cgroups and sockets.

use std::fmt;

/// Longest accepted id, in bytes. containerd and `anchorhold run` use 64 hexadecimal digits.
const MAX_ID_BYTES: usize = 128;

/// Names below `/run/kata-containers` that are not containers; a container of such a name would have its root inside them.
const RESERVED: [&str; 3] = ["layers", "sandbox", "shared"];

/// Why an id is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, too long, or a character outside the pattern.
    #[error("id: found {found:?}, expected [A-Za-z0-9][A-Za-z0-9_.-]* of at most 128 bytes")]
    Pattern {
        /// The id, cut to 128 characters.
        found: String,
    },
    /// A name that the agent uses itself.
    #[error("id: found {found:?}, which is a folder of the agent's own")]
    Reserved {
        /// The id.
        found: String,
    },
}

/// A container's id: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 128 bytes, none of the agent's own folder names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// A process's id inside its container, by the same pattern. The first process has none: see [`ExecId::parse`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecId(String);

fn check(text: &str) -> Result<(), IdError> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && text.len() <= MAX_ID_BYTES {
        Ok(())
    } else {
        Err(IdError::Pattern { found: text.chars().take(MAX_ID_BYTES).collect() })
    }
}

impl ContainerId {
    /// Checks `text` against the pattern.
    ///
    /// # Errors
    /// [`IdError`] when it does not fit.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text)?;
        if RESERVED.contains(&text) {
            return Err(IdError::Reserved { found: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExecId {
    /// Checks `text`; an empty text means the container's first process and gives `None`, as does the container's own id (the
    /// Kata runtime names the first process so).
    ///
    /// # Errors
    /// [`IdError`] when it does not fit.
    pub fn parse(text: &str, container: &ContainerId) -> Result<Option<Self>, IdError> {
        if text.is_empty() || text == container.as_str() {
            return Ok(None);
        }
        check(text)?;
        Ok(Some(Self(text.to_owned())))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_or_refused_by_pattern() {
        let long = "a".repeat(MAX_ID_BYTES);
        for ok in ["a", "0f", "web-1.2_x", long.as_str()] {
            assert_eq!(ContainerId::parse(ok).map(|id| id.0), Ok(ok.to_owned()));
        }
        let longer = "a".repeat(MAX_ID_BYTES + 1);
        for bad in ["", ".", "..", "-a", "a/b", "a\0", "a b", "ä", longer.as_str()] {
            assert!(matches!(ContainerId::parse(bad), Err(IdError::Pattern { .. })), "{bad:?}");
        }
    }

    #[test]
    fn attack_container_named_like_a_folder_of_the_agent() {
        for name in RESERVED {
            assert!(matches!(ContainerId::parse(name), Err(IdError::Reserved { .. })));
        }
        assert!(ContainerId::parse("shared1").is_ok());
    }

    #[test]
    fn empty_exec_id_is_the_first_process() {
        let cid = ContainerId::parse("c1").unwrap();
        assert_eq!(ExecId::parse("", &cid), Ok(None));
        assert_eq!(ExecId::parse("c1", &cid), Ok(None));
        assert_eq!(ExecId::parse("e1", &cid), Ok(Some(ExecId("e1".into()))));
        assert!(ExecId::parse("../e", &cid).is_err());
    }
}
