//! `SkrSideCarArgs`: base64 of JSON, as the known sidecar takes it.

use serde::Deserialize;

use crate::base64;
use crate::options::OptionsError;

/// `SkrSideCarArgs`. All members may be left out; the names are the known sidecar's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where certificates are fetched.
    pub certcache: CertCache,
    /// Which identity asks for tokens.
    pub identity: Identity,
    /// For the attestation service.
    pub maaconfig: MaaConfig,
    /// Members that are not known, by their paths: logged, since a misspelt one would be a wish that is not granted.
    #[serde(skip)]
    pub unknown: Vec<String>,
}

/// Where certificates are fetched when none at hand fits the report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertCache {
    /// `AMD` (also when empty), `AzCache` or `LocalTHIM`.
    pub endpoint_type: String,
    /// Host and path; empty for the type's own.
    pub endpoint: String,
    /// AMD: product line, empty for the report's. AzCache: `SevSnpVM`.
    pub tee_type: String,
    /// A whole query fragment.
    pub api_version: String,
    /// A whole query fragment.
    pub client_id: String,
}

/// Which identity asks for tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// Client id of a user-assigned identity.
    pub client_id: String,
}

/// For the attestation service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MaaConfig {
    /// `User-Agent` of requests.
    pub user_agent: String,
}

impl Settings {
    /// Reads `SkrSideCarArgs`.
    ///
    /// # Errors
    /// [`OptionsError::Settings`], [`OptionsError::Field`].
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let words = |error: &dyn std::fmt::Display| OptionsError::Settings(error.to_string());
        let json = base64::standard(text.trim()).map_err(|error| words(&error))?;
        let mut unknown = Vec::new();
        let mut deserializer = serde_json::Deserializer::from_slice(&json);
        let settings: Self = serde_ignored::deserialize(&mut deserializer, |path| {
            unknown.push(path.to_string());
        })
        .map_err(|error| words(&error))?;
        deserializer.end().map_err(|error| words(&error))?;
        match settings.certcache.endpoint_type.as_str() {
            "" | "AMD" | "AzCache" | "LocalTHIM" => Ok(Self { unknown, ..settings }),
            found => Err(OptionsError::Field {
                what: "certcache.endpoint_type",
                found: found.to_owned(),
                expected: "AMD, AzCache or LocalTHIM",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_the_known_sidecars() {
        let parse = |json: &str| Settings::parse(&base64::to_standard(json.as_bytes()));
        let settings = parse(
            r#"{"certcache":{"endpoint_type":"AzCache","endpoint":"h/p","tee_type":"SevSnpVM","api_version":"api-version=1","client_id":"clientId=x"},"identity":{"client_id":"c"},"maaconfig":{"user_agent":"u"}}"#,
        )
        .unwrap();
        assert_eq!(settings.certcache.endpoint, "h/p");
        assert_eq!((&*settings.identity.client_id, &*settings.maaconfig.user_agent), ("c", "u"));
        assert_eq!(parse("{}").unwrap(), Settings::default());
        let odd = parse(r#"{"certcache":{"tee":"x"},"extra":1}"#).unwrap();
        assert_eq!(odd.unknown, ["certcache.tee", "extra"]);
        assert!(parse(r#"{"certcache":{"endpoint_type":"amd"}}"#).is_err());
        assert!(parse("{} {}").is_err());
    }
}
