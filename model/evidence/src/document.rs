//! The evidence document: what a guest hands to a relying party, as JSON.
//!
//! | key | value |
//! |---|---|
//! | `tee` | `snp`, `software` or `tdx`: a label for people; a verifier decides by the chain's root |
//! | `report` | base64: SNP report (1184 bytes) or TDX quote |
//! | `auxblob` | base64: SNP certificate table, or empty |
//! | `runtime_data` | base64: what REPORT_DATA is the hash of |
//! | `initdata` | base64: what HOST_DATA is the hash of, or null |
//!
//! All keys are required, others refused, nothing may follow the document. Base64 is the standard alphabet, padded, canonical.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::report_data::ReportData;
use crate::service::MAX_AUXBLOB_BYTES;
use crate::snp::{RawReport, ReportError};
use crate::tdx::{RawQuote, TdxError};

/// Largest document, bytes.
pub const MAX_DOCUMENT_BYTES: usize = 24 * 1024 * 1024;
/// Largest initdata document, bytes.
pub const MAX_INITDATA_BYTES: usize = 16 * 1024 * 1024;
const MAX_REPORT_BYTES: usize = 64 * 1024;
const MAX_RUNTIME_DATA_BYTES: usize = 64 * 1024;

/// What kind of machine a piece of evidence says it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// A program in the place of the security processor. Protects nothing.
    Software,
    /// Intel TDX.
    Tdx,
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snp => "snp",
            Self::Software => "software (not confidential)",
            Self::Tdx => "tdx",
        })
    }
}

/// One evidence document, unverified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Label for people.
    pub tee: Tee,
    /// Report or quote as received from the machine.
    #[serde(with = "base64_bytes")]
    pub report: Vec<u8>,
    /// Certificate table as received beside the report; empty where there was none.
    #[serde(with = "base64_bytes")]
    pub auxblob: Vec<u8>,
    /// The bytes that REPORT_DATA is the hash of.
    #[serde(with = "base64_bytes")]
    pub runtime_data: Vec<u8>,
    /// The initdata document that HOST_DATA is the hash of, if the sender hands it over.
    #[serde(with = "base64_or_null")]
    pub initdata: Option<Vec<u8>>,
}

/// Why a text is not evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// Larger than a limit.
    #[error("evidence: {part} has {found} bytes, expected at most {limit}")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// Length found, bytes.
        found: usize,
        /// Limit, bytes.
        limit: usize,
    },
    /// Not the JSON document that is expected.
    #[error("evidence is not the expected json document")]
    Json(#[source] serde_json::Error),
    /// The report is not an SNP report.
    #[error("evidence holds no snp report")]
    Report(#[source] ReportError),
    /// The quote is not a TDX quote.
    #[error("evidence holds no tdx quote")]
    Quote(#[source] TdxError),
    /// The evidence is of TDX, and an SNP report was asked for.
    #[error("evidence holds a tdx quote, expected an snp report")]
    TdxNotSupported,
}

impl Evidence {
    /// Reads a document.
    ///
    /// # Errors
    /// [`EvidenceError::TooLarge`], [`EvidenceError::Json`] (unknown, missing or repeated key, wrong base64, trailing bytes), and
    /// [`EvidenceError::Report`] or [`EvidenceError::Quote`] where the report has not the form of its label.
    pub fn from_json(json: &[u8]) -> Result<Self, EvidenceError> {
        limit("document", json.len(), MAX_DOCUMENT_BYTES)?;
        let evidence: Self = serde_json::from_slice(json).map_err(EvidenceError::Json)?;
        evidence.check()?;
        Ok(evidence)
    }

    /// The document.
    ///
    /// # Errors
    /// As [`Evidence::from_json`]: what could not be read is not written.
    pub fn to_json(&self) -> Result<String, EvidenceError> {
        self.check()?;
        serde_json::to_string(self).map_err(EvidenceError::Json)
    }

    /// The SNP report in it.
    ///
    /// # Errors
    /// [`EvidenceError::TdxNotSupported`] for a TDX quote, [`EvidenceError::Report`] for wrong lengths.
    pub fn snp_report(&self) -> Result<RawReport, EvidenceError> {
        match self.tee {
            Tee::Snp | Tee::Software => {
                RawReport::try_from(self.report.as_slice()).map_err(EvidenceError::Report)
            }
            Tee::Tdx => Err(EvidenceError::TdxNotSupported),
        }
    }

    /// The TDX quote in it; None for evidence of another kind.
    ///
    /// # Errors
    /// [`EvidenceError::Quote`].
    pub fn tdx_quote(&self) -> Result<Option<RawQuote>, EvidenceError> {
        match self.tee {
            Tee::Tdx => RawQuote::parse(&self.report).map(Some).map_err(EvidenceError::Quote),
            Tee::Snp | Tee::Software => Ok(None),
        }
    }

    /// REPORT_DATA that a report over this runtime data must carry.
    pub fn expected_report_data(&self) -> ReportData {
        ReportData::for_runtime_data(&self.runtime_data)
    }

    fn check(&self) -> Result<(), EvidenceError> {
        limit("report", self.report.len(), MAX_REPORT_BYTES)?;
        limit("auxblob", self.auxblob.len(), MAX_AUXBLOB_BYTES)?;
        limit("runtime data", self.runtime_data.len(), MAX_RUNTIME_DATA_BYTES)?;
        limit("initdata", self.initdata.as_ref().map_or(0, Vec::len), MAX_INITDATA_BYTES)?;
        match self.tee {
            Tee::Snp | Tee::Software => self.snp_report().map(drop),
            Tee::Tdx => self.tdx_quote().map(drop),
        }
    }
}

fn limit(part: &'static str, found: usize, limit: usize) -> Result<(), EvidenceError> {
    match found > limit {
        true => Err(EvidenceError::TooLarge { part, found, limit }),
        false => Ok(()),
    }
}

fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn decode<E: serde::de::Error>(text: &str) -> Result<Vec<u8>, E> {
    STANDARD.decode(text).map_err(|error| E::custom(format_args!("not base64: {error}")))
}

mod base64_bytes {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        decode(&std::borrow::Cow::<'de, str>::deserialize(from)?)
    }
}

mod base64_or_null {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.map(|text| decode(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::SNP_REPORT_BYTES;
    use proptest::prelude::*;

    fn evidence() -> Evidence {
        Evidence {
            tee: Tee::Software,
            report: vec![5; SNP_REPORT_BYTES],
            auxblob: vec![],
            runtime_data: b"nonce".to_vec(),
            initdata: None,
        }
    }

    fn refused(json: &str) -> bool {
        matches!(Evidence::from_json(json.as_bytes()), Err(EvidenceError::Json(_)))
    }

    #[test]
    fn a_document_round_trips() {
        let with = Evidence { initdata: Some(b"x".to_vec()), ..evidence() };
        for evidence in [evidence(), with] {
            let json = evidence.to_json().unwrap();
            assert_eq!(Evidence::from_json(json.as_bytes()).unwrap(), evidence);
        }
    }

    #[test]
    fn attack_evidence_with_trailing_bytes() {
        let json = evidence().to_json().unwrap();
        assert!(Evidence::from_json(json.as_bytes()).is_ok());
        assert!(refused(&format!("{json}x")));
        assert!(refused(&format!("{json}{{}}")));
        let mut longer = evidence();
        longer.report.push(0);
        let expect = ReportError::Length { found: SNP_REPORT_BYTES + 1 };
        assert!(matches!(longer.to_json(), Err(EvidenceError::Report(found)) if found == expect));
        let json = serde_json::to_string(&longer).unwrap();
        assert!(
            matches!(Evidence::from_json(json.as_bytes()), Err(EvidenceError::Report(e)) if e == expect)
        );
    }

    #[test]
    fn keys_are_strict() {
        let json = evidence().to_json().unwrap();
        assert!(refused(&json.replacen('{', r#"{"extra":1,"#, 1)));
        assert!(refused(&json.replacen('{', r#"{"tee":"snp","#, 1)), "repeated key");
        assert!(refused(&json.replace(r#","initdata":null"#, "")), "missing key");
        assert!(refused(&json.replace("software", "sgx")));
        assert!(refused(&json.replace("bm9uY2U=", "bm9uY2U")), "unpadded");
        assert!(refused(&json.replace("bm9uY2U=", "bm9uY2V=")), "not canonical");
    }

    #[test]
    fn parts_are_bounded() {
        let large = Evidence { auxblob: vec![0; MAX_AUXBLOB_BYTES + 1], ..evidence() };
        let json = serde_json::to_string(&large).unwrap();
        assert!(matches!(
            Evidence::from_json(json.as_bytes()),
            Err(EvidenceError::TooLarge { part: "auxblob", .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(aux in prop::collection::vec(any::<u8>(), 0..300), data in prop::collection::vec(any::<u8>(), 0..300)) {
            let evidence = Evidence { auxblob: aux, runtime_data: data, ..evidence() };
            let json = evidence.to_json().unwrap();
            prop_assert_eq!(Evidence::from_json(json.as_bytes()).unwrap(), evidence);
        }
    }
}
