//! The forms in which reports are handed around, told apart by their contents.
//!
//! | form | what it is |
//! |---|---|
//! | report | 1184 bytes |
//! | response | what the guest device answers: status, size, 24 zeros, report, zeros (SNP_GET_REPORT) |
//! | extended report | report, then a certificate table |
//! | text | any of these in hex or base64, either alphabet, padded or not |
//! | hcl | blob of a confidential VM's vTPM: header of 32 bytes, report, runtime data |
//! | evidence | our own document, see [`Evidence`] |
//! | maa | `{"SnpReport","VcekCertChain","Endorsements"}`, or a whole attestation request around it |
//! | sidecar | `{"report"}` in hex, or `{"evidence","endorsements","endorsed_tcb","uvm_endorsements"}` |
//!
//! Nothing here is believed. Documents that are not ours may have more keys than are read.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::bytes::{Reader, Short};
use crate::document::{Evidence, EvidenceError, MAX_DOCUMENT_BYTES};
use crate::hcl::{self, HclError};
use crate::snp::{RawReport, ReportError, SNP_REPORT_BYTES};

/// Forms may be inside of each other, so deep and no deeper.
const MAX_DEPTH: usize = 4;
const RESPONSE_HEADER_BYTES: usize = 32;

const LAX: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LAX);
const URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LAX);

/// Which form it was, the innermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The report alone.
    Report,
    /// The guest device's answer.
    Response,
    /// Report and certificate table.
    Extended,
    /// A vTPM's blob.
    Hcl,
    /// Our own document.
    Evidence,
    /// What an attestation service is asked with.
    Maa,
    /// What a key-release sidecar answers.
    Sidecar,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Report => "report",
            Self::Response => "report response",
            Self::Extended => "extended report",
            Self::Hcl => "hcl blob",
            Self::Evidence => "evidence document",
            Self::Maa => "attestation request",
            Self::Sidecar => "sidecar answer",
        })
    }
}

/// A report, and all that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Which form it was.
    pub form: Form,
    /// The report.
    pub report: RawReport,
    /// Certificate table; empty where there was none.
    pub auxblob: Vec<u8>,
    /// Certificates in PEM.
    pub pem: Option<Vec<u8>>,
    /// What REPORT_DATA has to be the hash of.
    pub runtime_data: Option<Vec<u8>>,
    /// What HOST_DATA has to be the hash of.
    pub initdata: Option<Vec<u8>>,
    /// UVM endorsements (COSE_Sign1), which give reference values.
    pub uvm_endorsements: Vec<Vec<u8>>,
}

/// Why bytes are in none of the forms.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// Larger than any of them.
    #[error("input has {found} bytes, expected at most {MAX_DOCUMENT_BYTES}")]
    TooLarge {
        /// Length found, bytes.
        found: usize,
    },
    /// None of the forms.
    #[error(
        "input is in no known form, expected a report of {SNP_REPORT_BYTES} bytes, one with its certificate table, hex or base64 of them, an hcl blob or a json document"
    )]
    Unknown,
    /// A form in a form in a form.
    #[error("input is wrapped more than {MAX_DEPTH} times")]
    Depth,
    /// JSON with none of the keys that the forms have.
    #[error(
        "json document has none of the keys tee, SnpReport, evidence, report and attestation_report"
    )]
    Keys,
    /// JSON that is broken, or whose values are of other types.
    #[error("json document is malformed")]
    Json(#[source] serde_json::Error),
    /// A value that is neither hex nor base64 of what it should be.
    #[error("{key:?} is not base64")]
    Base64 {
        /// Which key.
        key: &'static str,
    },
    /// Our own document, broken.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// A vTPM's blob, broken.
    #[error(transparent)]
    Hcl(#[from] HclError),
    /// No report where one has to be.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl Presented {
    pub(crate) fn of(form: Form, report: RawReport) -> Self {
        Self {
            form,
            report,
            auxblob: Vec::new(),
            pem: None,
            runtime_data: None,
            initdata: None,
            uvm_endorsements: Vec::new(),
        }
    }

    /// Finds out which form `bytes` are in, and takes them apart.
    ///
    /// # Errors
    /// [`FormError`], a variant per cause.
    pub fn read(bytes: &[u8]) -> Result<Self, FormError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(FormError::TooLarge { found: bytes.len() });
        }
        read(bytes, 0)
    }
}

fn read(bytes: &[u8], depth: usize) -> Result<Presented, FormError> {
    if depth >= MAX_DEPTH {
        return Err(FormError::Depth);
    }
    if bytes.len() == SNP_REPORT_BYTES {
        return Ok(Presented::of(Form::Report, RawReport::try_from(bytes)?));
    }
    if hcl::is_hcl(bytes) {
        return Ok(hcl::read(bytes)?);
    }
    if let Some(presented) = read_response(bytes).or_else(|| read_extended(bytes)) {
        return Ok(presented);
    }
    match bytes.trim_ascii_start().first() {
        Some(b'{') => read_json(bytes, depth),
        _ => read(&text(bytes).ok_or(FormError::Unknown)?, depth.saturating_add(1)),
    }
}

/// Status 0, size 1184, zeros, report, zeros up to 4000 bytes.
fn read_response(bytes: &[u8]) -> Option<Presented> {
    let header = || -> Result<bool, Short> {
        let mut reader = Reader::new(bytes);
        let (status, size) = (reader.u32()?, reader.u32()?);
        let reserved = reader.array::<24>()? == [0; 24];
        let is_size = usize::try_from(size) == Ok(SNP_REPORT_BYTES);
        Ok(status == 0 && is_size && reserved)
    };
    let rest = bytes.get(RESPONSE_HEADER_BYTES..).filter(|_| header() == Ok(true))?;
    let (report, padding) = rest.split_at_checked(SNP_REPORT_BYTES)?;
    let is_padding = padding.len() < 4096 && padding.iter().all(|byte| *byte == 0);
    let report = RawReport::try_from(report).ok().filter(|_| is_padding)?;
    Some(Presented::of(Form::Response, report))
}

/// A version that is known at the start, and behind the report more bytes.
fn read_extended(bytes: &[u8]) -> Option<Presented> {
    let (report, table) = bytes.split_at_checked(SNP_REPORT_BYTES)?;
    let report = RawReport::try_from(report).ok()?;
    let known = matches!(report.version_number(), 2..=5);
    let presented = Presented::of(Form::Extended, report);
    known.then(|| Presented { auxblob: table.to_vec(), ..presented })
}

/// Bytes of hex or base64 text; white space does not count.
fn text(bytes: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let text = text.strip_prefix(b"0x").unwrap_or(&text);
    if text.is_empty() {
        return None;
    }
    hex(text).or_else(|| STANDARD.decode(text).ok()).or_else(|| URL.decode(text).ok())
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    match rest.is_empty() {
        true => pairs.iter().map(pair).collect(),
        false => None,
    }
}

#[derive(Deserialize)]
struct Maa {
    #[serde(rename = "SnpReport")]
    report: String,
    #[serde(rename = "VcekCertChain", default)]
    chain: String,
    #[serde(rename = "Endorsements", default)]
    endorsements: Option<String>,
}

#[derive(Deserialize)]
struct MaaRequest {
    report: String,
    #[serde(rename = "runtimeData", default)]
    runtime_data: Option<MaaData>,
}

#[derive(Deserialize)]
struct MaaData {
    data: String,
}

#[derive(Deserialize)]
struct Uvm {
    #[serde(rename = "Uvm", default)]
    uvm: Vec<String>,
}

#[derive(Deserialize)]
struct Sidecar {
    evidence: String,
    endorsements: String,
    #[serde(default)]
    uvm_endorsements: String,
}

fn read_json(bytes: &[u8], depth: usize) -> Result<Presented, FormError> {
    let value: Value = serde_json::from_slice(bytes).map_err(FormError::Json)?;
    let deeper = depth.saturating_add(1);
    let has = |key: &str| value.get(key).is_some();
    if has("tee") {
        return read_evidence(bytes);
    }
    if has("SnpReport") {
        return read_maa(&typed(value)?, deeper);
    }
    if has("runtimeData") {
        return read_request(&typed(value)?, deeper);
    }
    if has("evidence") && has("endorsements") {
        return read_sidecar(&typed(value)?, deeper);
    }
    for key in ["report", "attestation_report"] {
        if let Some(text) = value.get(key).and_then(Value::as_str) {
            let inner = read(text.as_bytes(), deeper)?;
            return Ok(Presented { form: Form::Sidecar, ..inner });
        }
    }
    match value.get("evidence") {
        Some(inner @ Value::Object(_)) => read(inner.to_string().as_bytes(), deeper),
        _ => Err(FormError::Keys),
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, FormError> {
    serde_json::from_value(value).map_err(FormError::Json)
}

fn read_evidence(bytes: &[u8]) -> Result<Presented, FormError> {
    let evidence = Evidence::from_json(bytes)?;
    let report = evidence.snp_report()?;
    Ok(Presented {
        auxblob: evidence.auxblob,
        runtime_data: Some(evidence.runtime_data),
        initdata: evidence.initdata,
        ..Presented::of(Form::Evidence, report)
    })
}

fn read_maa(maa: &Maa, depth: usize) -> Result<Presented, FormError> {
    let inner = read(&decode("SnpReport", &maa.report)?, depth)?;
    let chain = decode("VcekCertChain", &maa.chain)?;
    let uvm = match &maa.endorsements {
        None => Vec::new(),
        Some(text) => {
            let json = decode("Endorsements", text)?;
            let uvm: Uvm = serde_json::from_slice(&json).map_err(FormError::Json)?;
            uvm.uvm.iter().map(|text| decode("Uvm", text)).collect::<Result<_, _>>()?
        }
    };
    let pem = (!chain.is_empty()).then_some(chain);
    Ok(Presented { form: Form::Maa, pem, uvm_endorsements: uvm, ..inner })
}

fn read_request(request: &MaaRequest, depth: usize) -> Result<Presented, FormError> {
    let inner = read(&decode("report", &request.report)?, depth)?;
    let data = request.runtime_data.as_ref().map(|data| decode("data", &data.data));
    Ok(Presented { form: Form::Maa, runtime_data: data.transpose()?, ..inner })
}

fn read_sidecar(sidecar: &Sidecar, depth: usize) -> Result<Presented, FormError> {
    let inner = read(&decode("evidence", &sidecar.evidence)?, depth)?;
    let pem = decode("endorsements", &sidecar.endorsements)?;
    let uvm = decode("uvm_endorsements", &sidecar.uvm_endorsements)?;
    let uvm_endorsements = if uvm.is_empty() { Vec::new() } else { vec![uvm] };
    Ok(Presented { form: Form::Sidecar, pem: Some(pem), uvm_endorsements, ..inner })
}

fn decode(key: &'static str, text: &str) -> Result<Vec<u8>, FormError> {
    let engines = [STANDARD, URL];
    let mut decoded = engines.iter().filter_map(|engine| engine.decode(text.trim()).ok());
    decoded.next().ok_or(FormError::Base64 { key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD as PADDED, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    fn report() -> Vec<u8> {
        let mut bytes = vec![0xFB; SNP_REPORT_BYTES];
        bytes[..4].copy_from_slice(&[2, 0, 0, 0]);
        bytes
    }

    fn check(bytes: &[u8], form: Form) -> Presented {
        let presented = Presented::read(bytes).unwrap();
        assert_eq!(presented.form, form);
        assert_eq!(presented.report.as_bytes().as_slice(), report());
        presented
    }

    fn response() -> Vec<u8> {
        let mut bytes = vec![0; 4000];
        bytes[4..8].copy_from_slice(&1184u32.to_le_bytes());
        bytes[32..32 + SNP_REPORT_BYTES].copy_from_slice(&report());
        bytes
    }

    #[test]
    fn bytes_and_texts_of_them_are_told_apart() {
        check(&report(), Form::Report);
        check(&response(), Form::Response);
        let extended = check(&[report(), vec![7; 100]].concat(), Form::Extended);
        assert_eq!(extended.auxblob, [7; 100]);
        let hex: String = report().iter().map(|byte| format!("{byte:02x}")).collect();
        check(hex.as_bytes(), Form::Report);
        check(format!("0x{}\n", hex.to_uppercase()).as_bytes(), Form::Report);
        let base64 = PADDED.encode(report());
        check(base64.as_bytes(), Form::Report);
        let (start, rest) = base64.split_at(76);
        check(format!("{start}\n{rest}\n").as_bytes(), Form::Report);
        check(URL_SAFE_NO_PAD.encode(response()).as_bytes(), Form::Response);
    }

    #[test]
    fn documents_are_told_apart() {
        let evidence = Evidence {
            tee: crate::Tee::Snp,
            report: report(),
            auxblob: vec![1],
            runtime_data: b"nonce".to_vec(),
            initdata: Some(b"x".to_vec()),
        };
        let own = check(evidence.to_json().unwrap().as_bytes(), Form::Evidence);
        assert_eq!((own.runtime_data.unwrap(), own.auxblob), (b"nonce".to_vec(), vec![1]));
        let uvm = URL_SAFE_NO_PAD.encode(format!(r#"{{"Uvm":["{}"]}}"#, PADDED.encode("cose")));
        let maa = format!(
            r#"{{"SnpReport":"{}","VcekCertChain":"{}","Endorsements":"{uvm}"}}"#,
            URL_SAFE_NO_PAD.encode(report()),
            URL_SAFE_NO_PAD.encode("pem"),
        );
        let inner = check(maa.as_bytes(), Form::Maa);
        assert_eq!(inner.uvm_endorsements, [b"cose".to_vec()]);
        assert_eq!(inner.pem.as_deref(), Some(b"pem".as_slice()));
        let request = format!(
            r#"{{"report":"{}","runtimeData":{{"data":"{}","dataType":"JSON"}},"nonce":1}}"#,
            URL_SAFE_NO_PAD.encode(&maa),
            URL_SAFE_NO_PAD.encode("{}"),
        );
        assert_eq!(check(request.as_bytes(), Form::Maa).runtime_data.unwrap(), b"{}");
        let combined = format!(
            r#"{{"endorsed_tcb":"00","evidence":"{}","endorsements":"{}","uvm_endorsements":""}}"#,
            PADDED.encode(report()),
            PADDED.encode("pem"),
        );
        assert!(check(combined.as_bytes(), Form::Sidecar).uvm_endorsements.is_empty());
        let hex: String = report().iter().map(|byte| format!("{byte:02x}")).collect();
        check(format!(r#"{{"report":"{hex}"}}"#).as_bytes(), Form::Sidecar);
    }

    #[test]
    fn what_is_no_report_is_said_to_be_none() {
        let refused = |bytes: &[u8]| Presented::read(bytes).unwrap_err();
        assert!(matches!(refused(b""), FormError::Unknown));
        assert!(matches!(refused(b"hello, world"), FormError::Unknown));
        assert!(matches!(refused(&report()[..1183]), FormError::Unknown));
        assert!(matches!(refused(b"{}"), FormError::Keys));
        assert!(matches!(refused(b"{"), FormError::Json(_)));
        assert!(matches!(refused(br#"{"SnpReport":"%"}"#), FormError::Base64 { .. }));
        assert!(matches!(refused(br#"{"tee":"snp"}"#), FormError::Evidence(_)));
        let mut nested = PADDED.encode(report());
        for _ in 0..MAX_DEPTH {
            nested = PADDED.encode(nested);
        }
        assert!(matches!(refused(nested.as_bytes()), FormError::Depth));
        let mut other = response();
        other[3999] = 1;
        assert!(matches!(refused(&other), FormError::Unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = Presented::read(&bytes);
        }
    }
}
