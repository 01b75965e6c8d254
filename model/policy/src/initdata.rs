//! The initdata document (agent policy convention, transport and binding).

use std::collections::BTreeMap;
use std::fmt;

use ah_digest::{Sha256, Sha384, Sha512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::document::INITDATA_ANNOTATION;
use crate::gzip::{self, MAX_UNPACKED_BYTES};
use crate::{DocumentError, GuestSettings, shortened, toml_text};

/// The only version of the document.
pub const VERSION: &str = "0.1.0";
/// Key of the policy's Rego text.
pub const POLICY_KEY: &str = "policy.rego";
/// Key of the guest settings.
pub const SETTINGS_KEY: &str = "anchorhold.toml";

const WHAT: &str = "initdata";

/// The hash function that the document names for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// 32 bytes: fits SEV-SNP's HOST_DATA.
    Sha256,
    /// 48 bytes: fits TDX's MRCONFIGID.
    Sha384,
    /// 64 bytes: fits no field that this project binds to.
    Sha512,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        })
    }
}

/// The digest of the document's bytes under its own algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitDataDigest {
    /// `sha256`
    Sha256(Sha256),
    /// `sha384`
    Sha384(Sha384),
    /// `sha512`
    Sha512(Sha512),
}

impl fmt::Display for InitDataDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha384(digest) => digest.fmt(f),
            Self::Sha512(digest) => digest.fmt(f),
        }
    }
}

/// An initdata document: the exact bytes, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitData {
    bytes: Vec<u8>,
    algorithm: Algorithm,
    data: BTreeMap<String, String>,
    policy: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
    algorithm: Algorithm,
    data: BTreeMap<String, String>,
}

impl InitData {
    /// Reads a document. Keys of `[data]` other than ours are kept and not looked at: the table is open by convention.
    ///
    /// # Errors
    /// Size, UTF-8, TOML, unknown keys outside `[data]`, version, no policy.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_UNPACKED_BYTES {
            let (found, max) = (bytes.len(), MAX_UNPACKED_BYTES);
            return Err(DocumentError::TooLarge { what: WHAT, found, max });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DocumentError::NotUtf8 { what: WHAT })?;
        let document: Document = toml::from_str(text)
            .map_err(|err| DocumentError::Toml { what: WHAT, detail: err.message().to_owned() })?;
        if document.version != VERSION {
            return Err(DocumentError::Version { found: shortened(&document.version) });
        }
        let policy = document.data.get(POLICY_KEY).cloned().ok_or(DocumentError::NoPolicy)?;
        let (bytes, algorithm, data) = (bytes.to_vec(), document.algorithm, document.data);
        Ok(Self { bytes, algorithm, data, policy })
    }

    /// Writes the canonical document: algorithm sha256, keys sorted, nothing that depends on time or place.
    /// `extra` holds the other keys of `[data]`.
    ///
    /// # Errors
    /// As [`InitData::parse`] for the result; [`DocumentError::Unwritable`] when a value does not read back as written.
    pub fn build(policy: &str, extra: &BTreeMap<String, String>) -> Result<Self, DocumentError> {
        Self::build_for(Algorithm::Sha256, policy, extra)
    }

    /// [`InitData::build`] with another algorithm: sha384 for TDX.
    ///
    /// # Errors
    /// As [`InitData::build`].
    pub fn build_for(
        algorithm: Algorithm,
        policy: &str,
        extra: &BTreeMap<String, String>,
    ) -> Result<Self, DocumentError> {
        let mut data = extra.clone();
        data.insert(POLICY_KEY.to_owned(), policy.to_owned());
        let mut text = format!("version = \"{VERSION}\"\nalgorithm = \"{algorithm}\"\n\n[data]\n");
        for (key, value) in &data {
            let (key, value) = (toml_text::quoted(key), toml_text::value(value));
            text.push_str(&format!("{key} = {value}\n"));
        }
        let built = Self::parse(text.as_bytes())?;
        match data.iter().find(|(key, value)| built.data.get(*key) != Some(value)) {
            Some((key, _)) => Err(DocumentError::Unwritable { key: key.clone() }),
            None => Ok(built),
        }
    }

    /// The exact bytes: what is hashed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The document's algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest of [`InitData::bytes`] under the document's algorithm.
    pub fn digest(&self) -> InitDataDigest {
        match self.algorithm {
            Algorithm::Sha256 => InitDataDigest::Sha256(Sha256::of(&self.bytes)),
            Algorithm::Sha384 => InitDataDigest::Sha384(Sha384::of(&self.bytes)),
            Algorithm::Sha512 => InitDataDigest::Sha512(Sha512::of(&self.bytes)),
        }
    }

    /// SEV-SNP's HOST_DATA (32 bytes; SEV-SNP firmware ABI, SNP_LAUNCH_FINISH). The software TEE has the same field.
    ///
    /// # Errors
    /// [`DocumentError::Algorithm`] unless the algorithm is sha256.
    pub fn host_data_snp(&self) -> Result<Sha256, DocumentError> {
        match self.digest() {
            InitDataDigest::Sha256(digest) => Ok(digest),
            _ => Err(self.misfit(Algorithm::Sha256, "HOST_DATA (32 bytes)")),
        }
    }

    /// TDX's MRCONFIGID (48 bytes; Intel TDX module, TDREPORT).
    ///
    /// # Errors
    /// [`DocumentError::Algorithm`] unless the algorithm is sha384.
    pub fn config_id_tdx(&self) -> Result<Sha384, DocumentError> {
        match self.digest() {
            InitDataDigest::Sha384(digest) => Ok(digest),
            _ => Err(self.misfit(Algorithm::Sha384, "MRCONFIGID (48 bytes)")),
        }
    }

    fn misfit(&self, expected: Algorithm, field: &'static str) -> DocumentError {
        DocumentError::Algorithm { found: self.algorithm, expected, field }
    }

    /// The policy's Rego text.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The value of a key of `[data]`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.data.get(key).map(String::as_str)
    }

    /// The keys of its values, in order; `policy.rego` is one of them.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str)
    }

    /// The guest settings; the defaults when the document has none.
    ///
    /// # Errors
    /// [`DocumentError::Toml`] or [`DocumentError::Address`] when the settings do not fit.
    pub fn guest_settings(&self) -> Result<GuestSettings, DocumentError> {
        self.value(SETTINGS_KEY).map_or_else(|| Ok(GuestSettings::default()), GuestSettings::parse)
    }

    /// The annotation's value: standard base64 of gzip of the bytes.
    pub fn to_annotation(&self) -> String {
        STANDARD.encode(gzip::pack(&self.bytes))
    }

    /// Reads the annotation's value.
    ///
    /// # Errors
    /// Base64, gzip, size, and as [`InitData::parse`].
    pub fn from_annotation(value: &str) -> Result<Self, DocumentError> {
        let packed = STANDARD
            .decode(value)
            .map_err(|_| DocumentError::Base64 { annotation: INITDATA_ANNOTATION })?;
        Self::parse(&gzip::unpack(WHAT, &packed)?)
    }
}
