//! The attestation service as the sidecar sees it: evidence in, token out (MAA REST, `/attest/SevSnpVM`).

use ah_evidence::Evidence;
use serde_json::{Map, Value, json};

use crate::base64;
use crate::certificates::Certified;
use crate::error::{SidecarError, chain, printable};
use crate::reports::read_limited;

/// Longest answer, bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The version that the known sidecar asks for.
const API_VERSION: &str = "2020-10-01";

/// A client of attestation services.
pub struct MaaClient {
    client: reqwest::Client,
    user_agent: String,
}

impl MaaClient {
    /// A client that calls itself `user_agent`; an empty one stands for this program's name.
    pub fn new(client: reqwest::Client, user_agent: &str) -> Self {
        let user_agent = match user_agent {
            "" => concat!("anchorhold-sidecar/", env!("CARGO_PKG_VERSION")).to_owned(),
            name => name.to_owned(),
        };
        Self { client, user_agent }
    }

    /// A token about `evidence`.
    ///
    /// # Errors
    /// [`SidecarError::Request`] for an endpoint that is none, [`SidecarError::Maa`].
    pub async fn token(
        &self,
        endpoint: &str,
        evidence: &Evidence,
        certified: &Certified,
        reference_info: &[u8],
    ) -> Result<String, SidecarError> {
        let path = format!("attest/SevSnpVM?api-version={API_VERSION}");
        let url = endpoint_url(endpoint, &path)?;
        let failed = |words: String| SidecarError::Maa { endpoint: endpoint.to_owned(), words };
        let body = body(evidence, certified, reference_info)
            .ok_or(SidecarError::Internal("no randomness"))?;
        let answer = self
            .client
            .post(url)
            .header("User-Agent", &self.user_agent)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .map_err(|error| failed(chain(&error)))?;
        let status = answer.status().as_u16();
        let bytes = read_limited(answer, MAX_ANSWER_BYTES).await.map_err(failed)?;
        if !(200..=207).contains(&status) {
            let words = printable(&String::from_utf8_lossy(&bytes), 700);
            return Err(failed(format!("answers {status}: {words}")));
        }
        token(&bytes).ok_or_else(|| failed("answer holds no token".to_owned()))
    }
}

fn body(evidence: &Evidence, certified: &Certified, reference_info: &[u8]) -> Option<Value> {
    let mut report = json!({
        "SnpReport": base64::to_padded_url(&evidence.report),
        "VcekCertChain": base64::to_padded_url(certified.pem().as_bytes()),
    });
    if !reference_info.is_empty() {
        let uvm = json!({"Uvm": [base64::to_padded_url(reference_info)]});
        report["Endorsements"] = base64::to_padded_url(uvm.to_string().as_bytes()).into();
    }
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce).ok()?;
    // The known sidecar calls everything JSON, and has what is not refused by the service.
    let is_object = serde_json::from_slice::<Map<String, Value>>(&evidence.runtime_data).is_ok();
    Some(json!({
        "report": base64::to_padded_url(report.to_string().as_bytes()),
        "runtimeData": {
            "data": base64::to_padded_url(&evidence.runtime_data),
            "dataType": if is_object { "JSON" } else { "Binary" },
        },
        "initTimeData": {"data": "", "dataType": ""},
        "nonce": u64::from_le_bytes(nonce),
    }))
}

/// The member `token`, in any case.
fn token(answer: &[u8]) -> Option<String> {
    let answer: Map<String, Value> = serde_json::from_slice(answer).ok()?;
    let (_, token) = answer.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("token"))?;
    token.as_str().filter(|token| !token.is_empty()).map(str::to_owned)
}

/// `https://{endpoint}/{path}` for an endpoint of the form `host[:port][/path]`, and nothing that would make it another address.
pub(crate) fn endpoint_url(endpoint: &str, path: &str) -> Result<reqwest::Url, SidecarError> {
    let wrong = || {
        let found = printable(endpoint, 200);
        SidecarError::Request(format!("endpoint is {found:?}, expected host[:port][/path]"))
    };
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '/' | '_' | '[' | ']');
    let rooted = endpoint.is_empty() || endpoint.starts_with('/') || endpoint.contains("//");
    if rooted || !endpoint.chars().all(plain) {
        return Err(wrong());
    }
    let url = format!("https://{}/{path}", endpoint.trim_end_matches('/'));
    reqwest::Url::parse(&url).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts() {
        let url = |endpoint| endpoint_url(endpoint, "p?q=1").map(|url| url.to_string());
        assert_eq!(url("h.example").unwrap(), "https://h.example/p?q=1");
        assert_eq!(url("localhost:8443/a/").unwrap(), "https://localhost:8443/a/p?q=1");
        assert_eq!(url("[::1]:1").unwrap(), "https://[::1]:1/p?q=1");
        for bad in ["", "https://h", "user@h", "h?x", "h#x", "h\\x", "h x", "/h", "h:99999", "h%2f"]
        {
            assert!(matches!(url(bad), Err(SidecarError::Request(_))), "{bad}");
        }
    }

    #[test]
    fn tokens_are_found_in_any_case() {
        assert_eq!(token(br#"{"Token":"x"}"#).as_deref(), Some("x"));
        assert_eq!(token(br#"{"token":""}"#), None);
        assert_eq!(token(br#"{"tokens":"x"}"#), None);
        assert_eq!(token(b"[]"), None);
    }
}
