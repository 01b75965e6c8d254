//! Names of images: as written, as containerd writes them, and pinned.

use ah_digest::Sha256;

use crate::error::RegistryError;

/// Longest repository with its registry, bytes (distribution, reference).
const MAX_NAME_BYTES: usize = 255;
/// Longest tag, bytes.
const MAX_TAG_BYTES: usize = 128;

/// A name taken apart, completed as Docker and containerd do (`busybox` is `docker.io/library/busybox:latest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Sha256>,
}

impl Reference {
    /// `host[:port]`, Docker Hub being `docker.io`.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag as written.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as written.
    pub(crate) fn digest(&self) -> Option<Sha256> {
        self.digest
    }

    /// Another document of the same repository.
    pub(crate) fn with_digest(&self, digest: Sha256) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

/// Reads a name (distribution, reference: `[registry/]repository[:tag][@digest]`).
pub(crate) fn parse(name: &str) -> Result<Reference, RegistryError> {
    let wrong = |reason: &str| RegistryError::Name {
        name: name.chars().take(300).collect(),
        reason: reason.into(),
    };
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => {
            let digest = Sha256::from_oci(digest).map_err(|error| wrong(&error.to_string()))?;
            (rest, Some(digest))
        }
        None => (name, None),
    };
    // a colon before a slash belongs to a port
    let (rest, tag) = match rest.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
        _ => (rest, None),
    };
    let (registry, repository) = match rest.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path.to_owned()),
        Some(_) => ("docker.io", rest.to_owned()),
        None => ("docker.io", format!("library/{rest}")),
    };
    let (registry, repository) = match (registry, repository) {
        ("docker.io" | "index.docker.io", path) if !path.contains('/') => {
            ("docker.io", format!("library/{path}"))
        }
        ("index.docker.io", path) => ("docker.io", path),
        other => other,
    };
    if !valid_host(registry) {
        return Err(wrong("the registry is no host with an optional port"));
    }
    if registry.len() + repository.len() >= MAX_NAME_BYTES {
        return Err(wrong("it is too long"));
    }
    if !repository.split('/').all(valid_part) {
        return Err(wrong(
            "a repository has lower-case letters, digits, and single separators between them",
        ));
    }
    if !tag.is_none_or(valid_tag) {
        return Err(wrong("a tag has letters, digits, and after the first also . _ -"));
    }
    let (registry, tag) = (registry.to_owned(), tag.map(str::to_owned));
    Ok(Reference { registry, repository, tag, digest })
}

/// What tells a registry from the first part of a repository on Docker Hub.
fn is_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn valid_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(valid_port);
        return port_fits && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port.is_none_or(valid_port) && host.split('.').all(label)
}

fn valid_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// `[a-z0-9]+` with separators `.`, `_`, `__` or dashes between.
fn valid_part(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (part.bytes().next(), part.bytes().last()) else {
        return false;
    };
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let mut separators = separators.filter(|separator| !separator.is_empty());
    word(first)
        && word(last)
        && separators.all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn valid_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
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
    fn names_are_completed_as_docker_and_containerd_do() {
        let check = |name: &str, registry: &str, repository: &str, tag: Option<&str>| {
            let found = parse(name).unwrap();
            let parts = (found.registry(), found.repository(), found.tag());
            assert_eq!(parts, (registry, repository, tag));
        };
        check("busybox", "docker.io", "library/busybox", None);
        check("index.docker.io/busybox:1", "docker.io", "library/busybox", Some("1"));
        check("docker.io/team/app:1.2_x-y", "docker.io", "team/app", Some("1.2_x-y"));
        check("team/app", "docker.io", "team/app", None);
        check("localhost/app", "localhost", "app", None);
        check("host:5000/app", "host:5000", "app", None);
        check("[::1]:5000/a/b:c", "[::1]:5000", "a/b", Some("c"));
        check("Registry.example/a__b/c-d.e---f", "Registry.example", "a__b/c-d.e---f", None);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let long = format!("a/{}", "x".repeat(300));
        for name in [
            "",
            "UPPER",
            "a b",
            "a@sha256:00",
            "a@md5:0123",
            "../a",
            "a:",
            "a/",
            "/a",
            "a//b",
            "a..b",
            "a_-b",
            "-a",
            "a-",
            "a:-x",
            "host:port/a",
            "host:99999/a",
            "[::x]/a",
            "h_st.x/a",
            "a?b",
            "a%2f",
            "ä",
            "a@b@c",
            "http://host/a",
            &long,
        ] {
            assert!(matches!(parse(name), Err(RegistryError::Name { .. })), "{name}");
        }
    }
}
