//! Settings of the guest that the owner decides: the initdata key `anchorhold.toml`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{DocumentError, shortened};

/// The settings. Unknown keys are refused: a misspelt setting must not be a missing one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSettings {
    /// Where containers get keys. Without it the release socket answers that there is no key service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_service: Option<KeyService>,
}

/// `[key_service]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyService {
    /// Address as the guest reaches it. The way there is untrusted: what comes back is wrapped to the guest's own key.
    pub address: ServiceAddress,
    /// Whose keys the guest takes. Required: else whoever answers at the address, the host first of all, could hand the
    /// containers a key that it knows.
    pub public_key: ServicePublicKey,
}

/// The X25519 public key that a key service is known by; text form standard base64 with padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePublicKey(pub [u8; 32]);

/// A service address; text form `vsock://CID:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceAddress {
    /// A vsock port.
    Vsock {
        /// Context id; the host is 2.
        cid: u32,
        /// Port.
        port: u32,
    },
}

impl GuestSettings {
    /// Reads the settings' TOML.
    ///
    /// # Errors
    /// [`DocumentError::Toml`] for syntax, unknown and missing keys, wrong types, addresses and public keys of another form.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        toml::from_str(text).map_err(|err| DocumentError::Toml {
            what: "anchorhold.toml",
            detail: err.message().to_owned(),
        })
    }

    /// Writes the settings' TOML.
    pub fn to_toml(&self) -> String {
        match &self.key_service {
            Some(KeyService { address, public_key }) => {
                format!("[key_service]\naddress = \"{address}\"\npublic_key = \"{public_key}\"\n")
            }
            None => String::new(),
        }
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Vsock { cid, port } = self;
        write!(f, "vsock://{cid}:{port}")
    }
}

impl FromStr for ServiceAddress {
    type Err = DocumentError;

    fn from_str(text: &str) -> Result<Self, DocumentError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        text.strip_prefix("vsock://")
            .and_then(|rest| rest.split_once(':'))
            .and_then(|(cid, port)| Some(Self::Vsock { cid: number(cid)?, port: number(port)? }))
            .ok_or_else(|| DocumentError::Address { found: shortened(text) })
    }
}

impl Serialize for ServiceAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServiceAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ServicePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for ServicePublicKey {
    type Err = DocumentError;

    fn from_str(text: &str) -> Result<Self, DocumentError> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| DocumentError::ServicePublicKey { found: shortened(text) })
    }
}

impl Serialize for ServicePublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServicePublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
