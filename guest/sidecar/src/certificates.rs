//! Certificates for a report: those that the platform gave at the start, those beside the report, or fetched ones, kept by chip and TCB.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ah_evidence::{CertKind, CertTable, Evidence, Product, SigningKey, SnpReport};
use der::pem::LineEnding;
use serde::Deserialize;

use crate::error::{SidecarError, chain};
use crate::reports::read_limited;
use crate::settings::CertCache;

/// Longest answer of a certificate service, bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long fetched certificates are kept. A certificate of a chip and TCB does not change; the intermediate may be issued anew.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Most fetched certificates that are kept; a pod stays on its chip.
const MAX_KEPT: usize = 16;
/// How often a certificate service is asked.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; the third waits twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The certificate that signed reports of a TCB, and its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The TCB, 16 hex digits, in the byte order of whoever wrote it.
    pub tcbm: String,
    /// VCEK or VLEK, PEM.
    pub endorsement: String,
    /// ASK or ASVK, then ARK, PEM.
    pub chain: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thim {
    vcek_cert: String,
    tcbm: String,
    certificate_chain: String,
}

impl Certified {
    /// The document that Azure's THIM hands out: `vcekCert`, `tcbm`, `certificateChain`.
    ///
    /// # Errors
    /// Words.
    pub fn of_thim(json: &[u8]) -> Result<Self, String> {
        let thim: Thim = serde_json::from_slice(json)
            .map_err(|error| format!("thim document is not as expected: {error}"))?;
        if u64::from_str_radix(&thim.tcbm, 16).is_err() {
            let found = crate::error::printable(&thim.tcbm, 40);
            return Err(format!("tcbm is {found:?}, expected up to 16 hex digits"));
        }
        let Thim { vcek_cert, tcbm, certificate_chain } = thim;
        Ok(Self { tcbm, endorsement: vcek_cert, chain: certificate_chain })
    }

    /// The table beside a report, when it is complete.
    fn of_table(evidence: &Evidence, report: &SnpReport) -> Option<Self> {
        let table = CertTable::decode(&evidence.auxblob).ok()?;
        let kind = match report.key_info.signing_key {
            SigningKey::Vlek => CertKind::Vlek,
            SigningKey::Vcek | SigningKey::None => CertKind::Vcek,
        };
        let pem = |kind| pem(table.certificate(kind)?);
        let chain = [pem(CertKind::Ask)?, pem(CertKind::Ark)?].concat();
        Some(Self { tcbm: tcb_text(report), endorsement: pem(kind)?, chain })
    }

    /// Whether these are for REPORTED_TCB. Samples with either byte order exist, so both count; a wrong match would be found by whoever
    /// verifies.
    fn fits(&self, report: &SnpReport) -> bool {
        let tcb = report.reported_tcb.0;
        u64::from_str_radix(&self.tcbm, 16)
            .is_ok_and(|found| found == tcb || found == tcb.swap_bytes())
    }

    /// All certificates, endorsement key first.
    pub fn pem(&self) -> String {
        let end = if self.endorsement.ends_with('\n') { "" } else { "\n" };
        format!("{}{end}{}", self.endorsement, self.chain)
    }
}

fn pem(der: &[u8]) -> Option<String> {
    der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).ok()
}

fn tcb_text(report: &SnpReport) -> String {
    format!("{:016x}", report.reported_tcb.0)
}

/// Finds certificates for reports.
pub struct CertificateFinder {
    at_start: Option<Certified>,
    settings: CertCache,
    client: reqwest::Client,
    kept: Mutex<Kept>,
}

/// By chip id and TCB, with the time of fetching.
type Kept = HashMap<([u8; 64], u64), (Instant, Certified)>;

impl CertificateFinder {
    /// A finder that knows the platform's certificates, if there are any.
    pub fn new(at_start: Option<Certified>, settings: CertCache, client: reqwest::Client) -> Self {
        Self { at_start, settings, client, kept: Mutex::default() }
    }

    /// Certificates for the report in `evidence`.
    ///
    /// # Errors
    /// [`SidecarError::Certificates`].
    pub async fn find(
        &self,
        evidence: &Evidence,
        report: &SnpReport,
    ) -> Result<Certified, SidecarError> {
        if let Some(found) = self.at_start.as_ref().filter(|found| found.fits(report)) {
            return Ok(found.clone());
        }
        if let Some(found) = Certified::of_table(evidence, report) {
            return Ok(found);
        }
        let key = (report.chip_id.0, report.reported_tcb.0);
        if let Some(found) = self.kept(&key) {
            return Ok(found);
        }
        let fetched = self.fetch(report).await.map_err(SidecarError::Certificates)?;
        if !fetched.fits(report) {
            let words =
                format!("fetched ones are for tcb {}, expected {}", fetched.tcbm, tcb_text(report));
            return Err(SidecarError::Certificates(words));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), fetched.clone()));
        Ok(fetched)
    }

    fn kept(&self, key: &([u8; 64], u64)) -> Option<Certified> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(since, _)| since.elapsed() < KEEP).map(|(_, found)| found.clone())
    }

    async fn fetch(&self, report: &SnpReport) -> Result<Certified, String> {
        match self.settings.endpoint_type.as_str() {
            "AzCache" => self.fetch_azure(report).await,
            "LocalTHIM" => {
                let endpoint = self.endpoint("169.254.169.254/metadata/THIM/amd/certification");
                let json = self.get(&format!("http://{endpoint}"), true).await?;
                Certified::of_thim(&json)
            }
            _ => self.fetch_amd(report).await,
        }
    }

    async fn fetch_amd(&self, report: &SnpReport) -> Result<Certified, String> {
        let line = match self.settings.tee_type.as_str() {
            "" => report
                .product()
                .ok_or("the report names no product line, and certcache.tee_type is empty")?
                .name(),
            line => line,
        };
        let base = format!("https://{}/{line}", self.endpoint("kdsintf.amd.com/vcek/v1"));
        let path = amd_path(report, line)?;
        let vcek = self.get(&format!("{base}/{path}"), false).await?;
        let chain = self.get(&format!("{base}/cert_chain"), false).await?;
        let chain = String::from_utf8(chain).map_err(|_| "certificate chain is not pem")?;
        let endorsement = pem(&vcek).ok_or("vcek has no pem form")?;
        Ok(Certified { tcbm: tcb_text(report), endorsement, chain })
    }

    async fn fetch_azure(&self, report: &SnpReport) -> Result<Certified, String> {
        let or = |value: &str, otherwise: &str| match value {
            "" => otherwise.to_owned(),
            value => value.to_owned(),
        };
        let tee = or(&self.settings.tee_type, "SevSnpVM");
        let version = or(&self.settings.api_version, "api-version=2020-10-15-preview");
        let mut query = version;
        if !self.settings.client_id.is_empty() {
            query = format!("{query}&{}", self.settings.client_id);
        }
        let endpoint = self.endpoint("global.acccache.azure.net");
        let (chip, tcb) = (hex::encode(report.chip_id.0), tcb_text(report));
        let url = format!("https://{endpoint}/{tee}/certificates/{chip}/{tcb}?{query}");
        let text = String::from_utf8(self.get(&url, false).await?)
            .map_err(|_| "certificate chain is not pem")?;
        const END: &str = "-----END CERTIFICATE-----\n";
        let (vcek, chain) = text.split_once(END).ok_or("certificate chain is not pem")?;
        let endorsement = format!("{vcek}{END}");
        Ok(Certified { tcbm: tcb, endorsement, chain: chain.to_owned() })
    }

    fn endpoint<'a>(&'a self, otherwise: &'a str) -> &'a str {
        match self.settings.endpoint.as_str() {
            "" => otherwise,
            endpoint => endpoint,
        }
    }

    /// A body, asked for up to three times while the answer may be another one later.
    async fn get(&self, url: &str, metadata: bool) -> Result<Vec<u8>, String> {
        let mut words = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE.saturating_mul(attempt)).await;
            }
            let mut request = self.client.get(url);
            if metadata {
                request = request.header("Metadata", "true");
            }
            match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    return read_limited(answer, MAX_ANSWER_BYTES).await;
                }
                Ok(answer) => {
                    let status = answer.status();
                    words = format!("{url} answers {status}");
                    if !(matches!(status.as_u16(), 408 | 429) || status.is_server_error()) {
                        break;
                    }
                }
                Err(error) => words = chain(&error),
            }
        }
        Err(words)
    }
}

/// The part of a KDS address behind the product line: chip id and TCB (AMD document 57230, section 4). Turin has short chip ids and a TCB
/// part of its own.
fn amd_path(report: &SnpReport, line: &str) -> Result<String, String> {
    let lines = [Product::Milan, Product::Genoa, Product::Turin, Product::Venice];
    let product = lines
        .into_iter()
        .find(|product| product.name().eq_ignore_ascii_case(line))
        .ok_or_else(|| format!("product line {line:?} is not known"))?;
    let tcb = report
        .reported_tcb
        .parts(product)
        .ok_or_else(|| format!("REPORTED_TCB has not the form of {line}"))?;
    let rest = format!(
        "blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode
    );
    let chip = hex::encode(report.chip_id.0);
    Ok(match product.has_fmc() {
        true => format!("{}?fmcSPL={:02}&{rest}", chip.get(..16).unwrap_or_default(), tcb.fmc),
        false => format!("{chip}?{rest}"),
    })
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
