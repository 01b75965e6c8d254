//! Fragments of a policy in a pod's annotation: opaque texts to whoever carries them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::DocumentError;
use crate::gzip;

/// Annotation of fragments: for each the standard base64 of its gzip, separated by commas.
pub const FRAGMENT_ANNOTATION: &str = "anchorhold.dev/fragment";
/// Most fragments of a pod.
pub const MAX_FRAGMENTS: usize = 16;

/// The annotation's value for one fragment.
pub fn fragment_to_annotation(text: &str) -> String {
    STANDARD.encode(gzip::pack(text.as_bytes()))
}

/// The fragments of an annotation's value.
///
/// # Errors
/// Base64, gzip, UTF-8, size and number.
pub fn fragments_from_annotation(value: &str) -> Result<Vec<String>, DocumentError> {
    let found = value.split(',').count();
    if found > MAX_FRAGMENTS {
        return Err(DocumentError::TooLarge {
            what: "list of fragments",
            found,
            max: MAX_FRAGMENTS,
        });
    }
    value.split(',').map(|one| fragment(one.trim())).collect()
}

fn fragment(value: &str) -> Result<String, DocumentError> {
    let annotation = FRAGMENT_ANNOTATION;
    let packed = STANDARD.decode(value).map_err(|_| DocumentError::Base64 { annotation })?;
    let bytes = gzip::unpack("policy fragment", &packed)?;
    String::from_utf8(bytes).map_err(|_| DocumentError::NotUtf8 { what: "policy fragment" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_carries_fragments_whole_or_is_refused() {
        let (one, two) = (fragment_to_annotation("one\n"), fragment_to_annotation("two"));
        let both = fragments_from_annotation(&format!("{one}, {two}")).unwrap();
        assert_eq!(both, ["one\n", "two"]);
        for bad in [String::new(), "AAAA".into(), format!("{one},"), one[4..].to_owned()] {
            assert!(fragments_from_annotation(&bad).is_err(), "{bad}");
        }
        assert!(fragments_from_annotation(&vec![one; MAX_FRAGMENTS + 1].join(",")).is_err());
    }
}
