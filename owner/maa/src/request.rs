//! Bodies of attestation requests (MAA REST, api-version 2020-10-01 to 2025-06-01), read strictly.
//!
//! Names are exact and unknown ones are errors: a member that is not understood might be a wish that is not granted. Binary values are
//! base64url, with or without padding. An empty `runtimeData` or `initTimeData` is none, for the sidecar of AKS sends such.

use ah_evidence::{RawReport, ReportError};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::base64url;

/// Versions of the protocol that are answered alike here.
pub const API_VERSIONS: [&str; 6] = [
    "2018-09-01-preview",
    "2020-10-01",
    "2022-08-01",
    "2022-09-01-preview",
    "2023-04-01-preview",
    "2025-06-01",
];

/// Longest runtime data and init-time data, bytes.
pub const MAX_DATA_BYTES: usize = 64 * 1024;
/// Longest nonce, bytes.
const MAX_NONCE_BYTES: usize = 512;
/// Most UVM endorsements in one request.
const MAX_ENDORSEMENTS: usize = 8;

/// Why a body is not a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The api-version is missing or not known.
    #[error("api-version is {found:?}, expected one of {}", API_VERSIONS.join(", "))]
    ApiVersion {
        /// What was found.
        found: String,
    },
    /// Not JSON of the shape.
    #[error("{what} is not JSON of the expected shape")]
    Json {
        /// Which part.
        what: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// Not base64url.
    #[error("{what} is not base64url")]
    Base64 {
        /// Which part.
        what: &'static str,
        /// The cause.
        source: base64::DecodeError,
    },
    /// A member that has to be there.
    #[error("{what} is missing")]
    Missing {
        /// Which part.
        what: &'static str,
    },
    /// Longer than anything honest.
    #[error("{what} has {found} bytes, expected at most {most}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Length found, bytes.
        found: usize,
        /// Most, bytes.
        most: usize,
    },
    /// A data type that the protocol does not know.
    #[error("dataType of {what} is {found:?}, expected \"JSON\" or \"Binary\"")]
    DataType {
        /// Which part.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// Something that has to be a JSON object, or is said to be one by its dataType.
    #[error("{what} is not a JSON object")]
    NotAnObject {
        /// Which part.
        what: &'static str,
    },
    /// A nonce of another kind than text or whole number.
    #[error(
        "nonce is {found}, expected a string of at most {MAX_NONCE_BYTES} bytes or a whole number"
    )]
    Nonce {
        /// What was found.
        found: String,
    },
    /// A policy of the caller's own: its token would prove nothing, so none is made.
    #[error(
        "draftPolicyForAttestation is not supported: a token made under it could not be relied on"
    )]
    DraftPolicy,
    /// Too many endorsements.
    #[error("Endorsements holds {found} UVM documents, expected at most {MAX_ENDORSEMENTS}")]
    Endorsements {
        /// How many.
        found: usize,
    },
    /// The report has another size.
    #[error("SnpReport is not a report")]
    Report(#[source] ReportError),
}

/// Data that a report binds by its SHA-256.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundData {
    /// The bytes that are hashed.
    pub bytes: Vec<u8>,
    /// The JSON object that the bytes are, when the request says so.
    pub object: Option<Map<String, Value>>,
}

/// What every request carries beside its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// Bound by REPORT_DATA.
    pub runtime_data: Option<BoundData>,
    /// Bound by HOST_DATA.
    pub init_time_data: Option<BoundData>,
    /// Returned in the token; numbers as their decimal text.
    pub nonce: Option<String>,
}

/// A request for a token about a SEV-SNP guest.
#[derive(Debug, Clone)]
pub struct SnpRequest {
    /// The report.
    pub report: RawReport,
    /// VCEK or VLEK and its chain, PEM.
    pub certificates: Vec<u8>,
    /// UVM endorsements, COSE_Sign1 each.
    pub endorsements: Vec<Vec<u8>>,
    /// The rest.
    pub context: Context,
}

/// A request for a token about a TDX guest.
#[derive(Debug, Clone, PartialEq)]
pub struct TdxRequest {
    /// The quote.
    pub quote: Vec<u8>,
    /// The rest.
    pub context: Context,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BodyWire {
    report: Option<String>,
    quote: Option<String>,
    runtime_data: Option<DataWire>,
    init_time_data: Option<DataWire>,
    draft_policy_for_attestation: Option<String>,
    nonce: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DataWire {
    data: Option<String>,
    data_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct ReportWire {
    snp_report: String,
    vcek_cert_chain: String,
    endorsements: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct EndorsementsWire {
    uvm: Vec<String>,
}

/// Whether `version` is one that is answered.
///
/// # Errors
/// [`RequestError::ApiVersion`].
pub fn check_api_version(version: Option<&str>) -> Result<(), RequestError> {
    match version {
        Some(version) if API_VERSIONS.contains(&version) => Ok(()),
        found => Err(RequestError::ApiVersion { found: found.unwrap_or_default().to_owned() }),
    }
}

impl SnpRequest {
    /// Reads the body of `POST /attest/SevSnpVm`.
    ///
    /// # Errors
    /// [`RequestError`], naming the part.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut body: BodyWire = json(body, "body")?;
        if body.quote.is_some() {
            return Err(RequestError::Missing { what: "report (a quote is for /attest/TdxVm)" });
        }
        let report = body.report.take().ok_or(RequestError::Missing { what: "report" })?;
        let report: ReportWire = json(&bytes(&report, "report")?, "report")?;
        let raw = bytes(&report.snp_report, "SnpReport")?;
        Ok(Self {
            report: RawReport::try_from(raw.as_slice()).map_err(RequestError::Report)?,
            certificates: bytes(&report.vcek_cert_chain, "VcekCertChain")?,
            endorsements: endorsements(report.endorsements.as_deref())?,
            context: context(body)?,
        })
    }
}

impl TdxRequest {
    /// Reads the body of `POST /attest/TdxVm`.
    ///
    /// # Errors
    /// [`RequestError`], naming the part.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut body: BodyWire = json(body, "body")?;
        if body.report.is_some() {
            return Err(RequestError::Missing { what: "quote (a report is for /attest/SevSnpVm)" });
        }
        let quote = body.quote.take().ok_or(RequestError::Missing { what: "quote" })?;
        Ok(Self { quote: bytes(&quote, "quote")?, context: context(body)? })
    }
}

fn endorsements(text: Option<&str>) -> Result<Vec<Vec<u8>>, RequestError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Vec::new()) };
    let wire: EndorsementsWire = json(&bytes(text, "Endorsements")?, "Endorsements")?;
    match wire.uvm.len() {
        found if found > MAX_ENDORSEMENTS => Err(RequestError::Endorsements { found }),
        _ => wire.uvm.iter().map(|document| bytes(document, "Endorsements.Uvm")).collect(),
    }
}

fn context(body: BodyWire) -> Result<Context, RequestError> {
    if body.draft_policy_for_attestation.is_some_and(|policy| !policy.is_empty()) {
        return Err(RequestError::DraftPolicy);
    }
    Ok(Context {
        runtime_data: bound(body.runtime_data, "runtimeData")?,
        init_time_data: bound(body.init_time_data, "initTimeData")?,
        nonce: body.nonce.map(nonce).transpose()?,
    })
}

fn nonce(value: Value) -> Result<String, RequestError> {
    match value {
        Value::String(text) if text.len() <= MAX_NONCE_BYTES => Ok(text),
        Value::Number(number) if number.is_u64() => Ok(number.to_string()),
        Value::String(text) => {
            Err(RequestError::Nonce { found: format!("a string of {} bytes", text.len()) })
        }
        other => Err(RequestError::Nonce { found: kind(&other).to_owned() }),
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number that is no whole one",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn bound(wire: Option<DataWire>, what: &'static str) -> Result<Option<BoundData>, RequestError> {
    let Some(DataWire { data, data_type }) = wire else { return Ok(None) };
    let data = data.unwrap_or_default();
    let data_type = data_type.unwrap_or_default();
    if data.is_empty() {
        return match data_type.as_str() {
            "" | "JSON" | "Binary" => Ok(None),
            _ => Err(RequestError::DataType { what, found: data_type }),
        };
    }
    let bytes = bytes(&data, what)?;
    if bytes.len() > MAX_DATA_BYTES {
        let found = bytes.len();
        return Err(RequestError::TooLong { what, found, most: MAX_DATA_BYTES });
    }
    let object = match data_type.to_ascii_lowercase().as_str() {
        "json" => {
            let object = serde_json::from_slice(&bytes);
            Some(object.map_err(|_| RequestError::NotAnObject { what })?)
        }
        "binary" => None,
        _ => return Err(RequestError::DataType { what, found: data_type }),
    };
    Ok(Some(BoundData { bytes, object }))
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, RequestError> {
    // The library would take a list for the members in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(RequestError::NotAnObject { what });
    }
    serde_json::from_slice(bytes).map_err(|source| RequestError::Json { what, source })
}

fn bytes(text: &str, what: &'static str) -> Result<Vec<u8>, RequestError> {
    base64url::decode(text).map_err(|source| RequestError::Base64 { what, source })
}
