/// Longest path of an entry, bytes (Linux PATH_MAX).
pub(crate) const MAX_PATH_BYTES: usize = 4096;
/// Longest part of a path, bytes (Linux NAME_MAX).
pub(crate) const MAX_PART_BYTES: usize = 255;

/// Why a path in a layer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins at the root of whoever unpacks it.
    #[error("path is absolute")]
    Absolute,
    /// It climbs.
    #[error("path has a part \"..\"")]
    Parent,
    /// It holds a NUL byte: two readers would see two names.
    #[error("path has a NUL byte")]
    Nul,
    /// It is empty.
    #[error("path is empty")]
    Empty,
    /// It or one of its parts is too long.
    #[error("path is too long: found {found} bytes, expected at most {expected}")]
    TooLong {
        /// Length found.
        found: usize,
        /// Length allowed.
        expected: usize,
    },
}

/// The parts of a relative path; `.` and empty parts are left out, so the root is no parts.
pub(crate) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong { found: path.len(), expected: MAX_PATH_BYTES });
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    if path.starts_with(b"/") {
        return Err(PathError::Absolute);
    }
    let parts: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(PathError::Parent);
    }
    match parts.iter().map(|part| part.len()).max() {
        Some(found) if found > MAX_PART_BYTES => {
            Err(PathError::TooLong { found, expected: MAX_PART_BYTES })
        }
        _ => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: Result<&[&str], PathError>) {
        let found = parts(path.as_bytes());
        let expect = expect.map(|parts| parts.iter().map(|part| part.as_bytes()).collect());
        assert_eq!(found, expect, "{path:?}");
    }

    #[test]
    fn attack_paths_out_of_the_layer_are_refused() {
        check("a/b", Ok(&["a", "b"]));
        check("./a//b/./", Ok(&["a", "b"]));
        check("./", Ok(&[]));
        check("a..b/...", Ok(&["a..b", "..."]));
        check("/a", Err(PathError::Absolute));
        check("..", Err(PathError::Parent));
        check("a/../b", Err(PathError::Parent));
        check("a/..", Err(PathError::Parent));
        check("", Err(PathError::Empty));
        check("a\0b", Err(PathError::Nul));
    }

    #[test]
    fn lengths_end_at_their_maximum() {
        let part = "x".repeat(255);
        check(&part, Ok(&[part.as_str()]));
        let long = "x".repeat(256);
        check(&long, Err(PathError::TooLong { found: 256, expected: 255 }));
        let path = "x/".repeat(2048);
        assert!(parts(path.as_bytes()).is_ok());
        check(&(path + "y"), Err(PathError::TooLong { found: 4097, expected: 4096 }));
    }
}
