//! The vault's signed answer: a compact JWS whose chain leads to a root that is trusted for the vault's own name.

use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::{
    ECDSA_P256_SHA256, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
};

use crate::base64;
use crate::error::printable;
use crate::tls::Tls;

/// Most certificates in a chain.
const MAX_CHAIN: usize = 10;

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    x5c: Vec<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

/// The payload of `jws`, if the vault at `host` signed it. The header's other members are the vault's affair: the chain says who signed.
pub(crate) fn open(jws: &str, host: &str, tls: &Tls) -> Result<Vec<u8>, String> {
    let parts: Vec<&str> = jws.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        return Err(format!("signed answer has {} parts, expected 3", parts.len()));
    };
    let decode = |part: &str, what: &str| {
        base64::url(part).map_err(|error| format!("{what} of the signed answer: {error}"))
    };
    let parsed: Header = serde_json::from_slice(&decode(header, "header")?)
        .map_err(|error| format!("header of the signed answer: {error}"))?;
    if parsed.crit.is_some() {
        return Err("header of the signed answer has extensions that are not known".to_owned());
    }
    let chain = certificates(&parsed.x5c)?;
    let (leaf, above) = chain.split_first().ok_or("signed answer carries no certificate")?;
    tls.check_server(leaf, above, host)
        .map_err(|words| format!("certificate of the signed answer: {words}"))?;
    let message = format!("{header}.{payload}");
    check_signature(leaf, &parsed.alg, message.as_bytes(), &decode(signature, "signature")?)?;
    decode(payload, "payload")
}

fn certificates(x5c: &[String]) -> Result<Vec<CertificateDer<'static>>, String> {
    if x5c.len() > MAX_CHAIN {
        return Err(format!("signed answer carries {} certificates", x5c.len()));
    }
    x5c.iter()
        .map(|text| {
            base64::standard(text)
                .map(CertificateDer::from)
                .map_err(|error| format!("x5c of the signed answer: {error}"))
        })
        .collect()
}

fn check_signature(
    leaf: &CertificateDer<'_>,
    alg: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|error| format!("certificate of the signed answer: {error}"))?;
    let checked = match alg {
        "RS256" => leaf.verify_signature(RSA_PKCS1_2048_8192_SHA256, message, signature),
        "PS256" => leaf.verify_signature(RSA_PSS_2048_8192_SHA256_LEGACY_KEY, message, signature),
        "ES256" => {
            let der =
                ecdsa_der(signature).ok_or("signature of the signed answer is not r and s")?;
            leaf.verify_signature(ECDSA_P256_SHA256, message, &der)
        }
        _ => {
            let found = printable(alg, 20);
            return Err(format!(
                "signed answer names algorithm {found:?}, expected RS256, PS256 or ES256"
            ));
        }
    };
    checked.map_err(|_| "signature of the signed answer is not its certificate's".to_owned())
}

/// JOSE writes r and s side by side, certificates' libraries want them as ASN.1.
fn ecdsa_der(fixed: &[u8]) -> Option<Vec<u8>> {
    use der::Encode as _;
    use der::asn1::UintRef;
    let (r, s) = (fixed.len() == 64).then(|| fixed.split_at_checked(32))??;
    let (r, s) = (UintRef::new(r).ok()?, UintRef::new(s).ok()?);
    let length = (r.encoded_len().ok()? + s.encoded_len().ok()?).ok()?;
    let mut bytes = der::Header::new(der::Tag::Sequence, length).ok()?.to_der().ok()?;
    bytes.extend(r.to_der().ok()?);
    bytes.extend(s.to_der().ok()?);
    Some(bytes)
}
