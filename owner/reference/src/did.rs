//! `did:x509` identifiers, version 0, with one `eku` policy: whose certificate chain it is, and for what its leaf is made.

use std::fmt;
use std::str::FromStr;

use ah_digest::Sha256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use const_oid::ObjectIdentifier;

/// An issuer: a certificate authority by its digest, and the extended key usage that the leaf must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DidX509 {
    /// SHA-256 of a certificate authority of the chain, DER.
    pub authority: Sha256,
    /// Extended key usage of the leaf.
    pub key_usage: ObjectIdentifier,
}

/// Why a text is not such an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "issuer is {found:?}, expected did:x509:0:sha256:(43 characters of base64url)::eku:(object identifier)"
)]
pub struct DidError {
    /// Text found.
    pub found: String,
}

impl FromStr for DidX509 {
    type Err = DidError;

    fn from_str(text: &str) -> Result<Self, DidError> {
        parse(text).ok_or_else(|| DidError { found: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<DidX509> {
    let rest = text.strip_prefix("did:x509:0:sha256:")?;
    let (digest, policy) = rest.split_once("::")?;
    let oid = policy.strip_prefix("eku:")?;
    let digest: [u8; 32] = URL_SAFE_NO_PAD.decode(digest).ok()?.try_into().ok()?;
    let did =
        DidX509 { authority: Sha256::new(digest), key_usage: ObjectIdentifier::new(oid).ok()? };
    // One text an issuer: leading zeros and the like are refused.
    (did.to_string() == text).then_some(did)
}

impl fmt::Display for DidX509 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = URL_SAFE_NO_PAD.encode(self.authority.as_bytes());
        write!(f, "did:x509:0:sha256:{digest}::eku:{}", self.key_usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_strictly() {
        let text = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";
        let did: DidX509 = text.parse().unwrap();
        assert_eq!(did.to_string(), text);
        for (from, to) in [
            ("did:x509:0", "did:x509:1"),
            ("sha256", "sha384"),
            ("pt9s", "pt9"),
            ("pt9s", "pt9t"),
            ("::eku", ":eku"),
            ("::eku:", "::subject:CN:"),
            (".59.1.2", ".59.1.2::san:dns:x"),
            (".59.1.2", ".59.01.2"),
            (".59.1.2", ""),
        ] {
            let other = text.replace(from, to);
            let parsed = other.parse::<DidX509>();
            assert!(parsed.is_err() || parsed != Ok(did.clone()), "{other}");
        }
    }
}
