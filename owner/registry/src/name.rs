//! Names of images: as written, as containerd writes them, and pinned.

use ah_digest::Sha256;
use oci_spec::distribution::{ParseError, Reference};

use crate::error::RegistryError;

/// Reads a name as Docker and containerd do (`busybox` is `docker.io/library/busybox:latest`).
pub(crate) fn parse(name: &str) -> Result<Reference, RegistryError> {
    let wrong =
        |reason: String| RegistryError::Name { name: name.chars().take(300).collect(), reason };
    let reference: Reference =
        name.parse().map_err(|error: ParseError| wrong(error.to_string()))?;
    if let Some(digest) = reference.digest() {
        Sha256::from_oci(digest).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(reference)
}

/// The digest in a name.
pub(crate) fn digest(reference: &Reference) -> Option<Sha256> {
    reference.digest().and_then(|digest| Sha256::from_oci(digest).ok())
}

/// `registry/repository@sha256:…`, as containerd names a pinned image.
pub(crate) fn canonical(reference: &Reference, digest: &Sha256) -> String {
    format!("{}/{}@{}", reference.registry(), reference.repository(), digest.to_oci())
}

/// The name as written with its digest: the tag stays, for people.
pub(crate) fn pinned(name: &str, digest: &Sha256) -> String {
    match name.contains('@') {
        true => name.into(),
        false => format!("{name}@{}", digest.to_oci()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_pinned_as_written_and_canonical_for_requests() {
        let digest = Sha256::of("manifest");
        let check = |name: &str, expect_canonical: &str, expect_pinned: &str| {
            let reference = parse(name).unwrap();
            assert_eq!(
                canonical(&reference, &digest),
                format!("{expect_canonical}@{}", digest.to_oci())
            );
            let pinned = pinned(name, &digest);
            assert_eq!(pinned, format!("{expect_pinned}@{}", digest.to_oci()));
            let again = parse(&pinned).unwrap();
            assert_eq!(canonical(&again, &digest), canonical(&reference, &digest));
        };
        check("busybox", "docker.io/library/busybox", "busybox");
        check("busybox:1.36", "docker.io/library/busybox", "busybox:1.36");
        check("localhost:5000/a/b:c", "localhost:5000/a/b", "localhost:5000/a/b:c");
        let full = format!("quay.io/x/y@{}", digest.to_oci());
        check(&full, "quay.io/x/y", "quay.io/x/y");
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["", "UPPER", "a b", "a@sha256:00", "a@md5:0123", "../a", "a:"] {
            assert!(matches!(parse(name), Err(RegistryError::Name { .. })), "{name}");
        }
    }
}
