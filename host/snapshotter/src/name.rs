use ah_digest::Sha256;

/// A snapshot's name as containerd's metadata store makes it for its snapshotters: `<namespace>/<number>/<key>`
/// (containerd 1.6 to 2.1, `createKey` of the metadata snapshotter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) key: &'a str,
}

/// What begins the key of a snapshot that a layer is unpacked into (containerd, `snapshots.UnpackKeyPrefix`).
const UNPACK_PREFIX: &str = "extract-";

impl<'a> Name<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (namespace, rest) = text.split_once('/')?;
        let (number, key) = rest.split_once('/')?;
        let number_ok = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        (number_ok && !namespace.is_empty()).then_some(Self { namespace, key })
    }

    /// Whether a layer is unpacked into it.
    pub(crate) fn is_unpacking(self) -> bool {
        self.key.starts_with(UNPACK_PREFIX)
    }

    /// The chain id that the key of an unpacked layer is (OCI image specification, config, layer ChainID).
    pub(crate) fn chain_id(self) -> Option<Sha256> {
        Sha256::from_oci(self.key).ok()
    }
}

/// The chain ids of an image, lowest layer first (OCI image specification, config, layer ChainID).
pub(crate) fn chain_ids(diff_ids: &[Sha256]) -> Vec<Sha256> {
    let mut chain: Vec<Sha256> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => *diff_id,
            Some(below) => Sha256::of(format!("{} {}", below.to_oci(), diff_id.to_oci())),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let check = |text: &str, expect: Option<(&str, &str)>| {
            let found = Name::parse(text).map(|name| (name.namespace, name.key));
            assert_eq!(found, expect, "{text}");
        };
        check("k8s.io/12/extract-1-a sha256:ab", Some(("k8s.io", "extract-1-a sha256:ab")));
        check("default/3/a/b", Some(("default", "a/b")));
        check("default/x/a", None);
        check("default//a", None);
        check("/3/a", None);
        check("a", None);
        assert!(Name::parse("k8s.io/12/extract-1-a sha256:ab").unwrap().is_unpacking());
        assert!(!Name::parse("k8s.io/12/a").unwrap().is_unpacking());
    }

    /// Computed with sha256sum: the second id is that of "sha256:<first> sha256:<diff id>".
    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let (a, b) = (Sha256::of("a"), Sha256::of("b"));
        let expect = Sha256::of(format!("sha256:{a} sha256:{b}"));
        assert_eq!(chain_ids(&[a, b]), [a, expect]);
        assert_eq!(chain_ids(&[]), []);
    }
}
