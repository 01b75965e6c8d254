//! COSE_Sign1 (RFC 9052) as UVM endorsements are written: strictly read, every label once, nothing behind the message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciborium::Value;

/// Tag of COSE_Sign1 (RFC 9052, section 2).
const TAG_SIGN1: u64 = 18;
/// Tag of an epoch date (RFC 8949, section 3.4.2).
const TAG_EPOCH: u64 = 1;
/// How deep values may be inside of each other.
const MAX_DEPTH: usize = 16;
/// Most certificates of a chain.
const MAX_CERTIFICATES: usize = 8;

/// Header labels (RFC 9052, section 3.1; RFC 9360, section 2).
const ALGORITHM: i64 = 1;
const CRITICAL: i64 = 2;
const CONTENT_TYPE: i64 = 3;
const X5CHAIN: i64 = 33;
const X5T: i64 = 34;
/// COSE algorithm of the digest in x5t: SHA-256 (RFC 9054).
const SHA_256: i64 = -16;

/// Why bytes are not such a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Not CBOR, or bytes behind it.
    #[error("{what} is not cbor, or has bytes behind it")]
    Cbor {
        /// Which part.
        what: &'static str,
    },
    /// CBOR of another shape.
    #[error("{what} is of an unexpected type")]
    Type {
        /// Which part.
        what: &'static str,
    },
    /// A header that has to be there.
    #[error("protected headers lack {what}")]
    Missing {
        /// Which.
        what: &'static str,
    },
    /// The same label twice: readers differ in which one they take.
    #[error("headers have a label twice: {label}")]
    Duplicate {
        /// The label.
        label: String,
    },
    /// A critical header is one that nobody here knows.
    #[error("headers that must be understood are not known here")]
    Critical,
    /// A header that decides something stands where it is not signed.
    #[error("header {label} is not protected")]
    Unprotected {
        /// The label.
        label: String,
    },
}

/// A message, not yet believed.
#[derive(Debug)]
pub(crate) struct Sign1 {
    /// As received: what is signed.
    protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) algorithm: i64,
    pub(crate) content_type: Option<String>,
    /// DER, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    /// SHA-256 of the leaf, if the header is there.
    pub(crate) leaf_digest: Option<Vec<u8>>,
    pub(crate) issuer: String,
    pub(crate) feed: String,
    pub(crate) signing_time: SystemTime,
}

impl Sign1 {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, CoseError> {
        let message = match decode(bytes, "message")? {
            Value::Tag(TAG_SIGN1, message) => *message,
            _ => return Err(CoseError::Type { what: "message" }),
        };
        let parts = array(message, "message")?;
        let [protected, unprotected, payload, signature] =
            <[Value; 4]>::try_from(parts).map_err(|_| CoseError::Type { what: "message" })?;
        let protected = bstr(protected, "protected headers")?;
        let headers = Headers::read(decode(&protected, "protected headers")?)?;
        Headers::read(unprotected)?.check_decide_nothing()?;
        headers.message(protected, bstr(payload, "payload")?, bstr(signature, "signature")?)
    }

    /// The bytes that the signature is over: Sig_structure without external data (RFC 9052, section 4.4).
    pub(crate) fn signed_bytes(&self) -> Result<Vec<u8>, CoseError> {
        let structure = Value::Array(vec![
            Value::Text("Signature1".to_owned()),
            Value::Bytes(self.protected.clone()),
            Value::Bytes(Vec::new()),
            Value::Bytes(self.payload.clone()),
        ]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&structure, &mut bytes)
            .map_err(|_| CoseError::Cbor { what: "signature structure" })?;
        Ok(bytes)
    }
}

struct Headers(Vec<(Value, Value)>);

impl Headers {
    fn read(value: Value) -> Result<Self, CoseError> {
        let Value::Map(entries) = value else {
            return Err(CoseError::Type { what: "headers" });
        };
        for (index, (label, _)) in entries.iter().enumerate() {
            if entries.iter().take(index).any(|(other, _)| other == label) {
                return Err(CoseError::Duplicate { label: shown(label) });
            }
        }
        Ok(Self(entries))
    }

    /// What is not signed may not decide anything. The time stamp of a third party is left alone.
    fn check_decide_nothing(&self) -> Result<(), CoseError> {
        let deciding = |label: &Value| label.is_integer() || label.as_text() != Some("timestamp");
        match self.0.iter().find(|(label, _)| deciding(label)) {
            Some((label, _)) => Err(CoseError::Unprotected { label: shown(label) }),
            None => Ok(()),
        }
    }

    fn message(
        mut self,
        protected: Vec<u8>,
        payload: Vec<u8>,
        signature: Vec<u8>,
    ) -> Result<Sign1, CoseError> {
        if self.take(&Value::from(CRITICAL)).is_some() {
            return Err(CoseError::Critical);
        }
        let algorithm = integer(self.required(&Value::from(ALGORITHM), "alg")?, "alg")?;
        let content_type = self.take(&Value::from(CONTENT_TYPE));
        let chain = self.required(&Value::from(X5CHAIN), "x5chain")?;
        let digest = self.take(&Value::from(X5T));
        let time = self.required(&Value::from("signingtime"), "signingtime")?;
        Ok(Sign1 {
            protected,
            payload,
            signature,
            algorithm,
            content_type: content_type.map(|value| text(value, "content type")).transpose()?,
            chain: certificates(chain)?,
            leaf_digest: digest.map(thumbprint).transpose()?,
            issuer: text(self.required(&Value::from("iss"), "iss")?, "iss")?,
            feed: text(self.required(&Value::from("feed"), "feed")?, "feed")?,
            signing_time: date(time)?,
        })
    }

    fn take(&mut self, label: &Value) -> Option<Value> {
        let index = self.0.iter().position(|(found, _)| found == label)?;
        Some(self.0.swap_remove(index).1)
    }

    fn required(&mut self, label: &Value, what: &'static str) -> Result<Value, CoseError> {
        self.take(label).ok_or(CoseError::Missing { what })
    }
}

fn decode(bytes: &[u8], what: &'static str) -> Result<Value, CoseError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| CoseError::Cbor { what })?;
    match rest.is_empty() {
        true => Ok(value),
        false => Err(CoseError::Cbor { what }),
    }
}

fn array(value: Value, what: &'static str) -> Result<Vec<Value>, CoseError> {
    value.into_array().map_err(|_| CoseError::Type { what })
}

fn bstr(value: Value, what: &'static str) -> Result<Vec<u8>, CoseError> {
    value.into_bytes().map_err(|_| CoseError::Type { what })
}

fn text(value: Value, what: &'static str) -> Result<String, CoseError> {
    value.into_text().map_err(|_| CoseError::Type { what })
}

fn integer(value: Value, what: &'static str) -> Result<i64, CoseError> {
    let integer = value.into_integer().ok().and_then(|integer| i64::try_from(integer).ok());
    integer.ok_or(CoseError::Type { what })
}

/// One certificate, or an array of them (RFC 9360).
fn certificates(value: Value) -> Result<Vec<Vec<u8>>, CoseError> {
    let what = "x5chain";
    let chain = match value {
        Value::Bytes(one) => vec![one],
        more => array(more, what)?
            .into_iter()
            .map(|one| bstr(one, what))
            .collect::<Result<Vec<_>, _>>()?,
    };
    match chain.len() <= MAX_CERTIFICATES {
        true => Ok(chain),
        false => Err(CoseError::Type { what }),
    }
}

fn thumbprint(value: Value) -> Result<Vec<u8>, CoseError> {
    let what = "x5t";
    let [algorithm, digest] =
        <[Value; 2]>::try_from(array(value, what)?).map_err(|_| CoseError::Type { what })?;
    match integer(algorithm, what)? == SHA_256 {
        true => bstr(digest, what),
        false => Err(CoseError::Type { what }),
    }
}

fn date(value: Value) -> Result<SystemTime, CoseError> {
    let what = "signingtime";
    let Value::Tag(TAG_EPOCH, seconds) = value else { return Err(CoseError::Type { what }) };
    let seconds = u64::try_from(integer(*seconds, what)?).map_err(|_| CoseError::Type { what })?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(CoseError::Type { what })
}

fn shown(label: &Value) -> String {
    match (label.as_text(), label.as_integer()) {
        (Some(text), _) => format!("{text:?}"),
        (_, Some(integer)) => i128::from(integer).to_string(),
        _ => "of another type".to_owned(),
    }
}
