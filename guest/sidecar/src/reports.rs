//! Reports from the guest's release socket. There is no second source and no stand-in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ah_evidence::Evidence;

use crate::base64;
use crate::error::{SidecarError, chain, printable};

/// Longest answer, bytes: a report with its certificates is 10 KB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// A little more than the socket gives its connections.
const TIMEOUT: Duration = Duration::from_secs(65);

/// The guest's socket.
#[derive(Debug, Clone)]
pub struct ReleaseSocket {
    client: reqwest::Client,
    path: PathBuf,
}

impl ReleaseSocket {
    /// The socket at `path`; it need not be there yet.
    ///
    /// # Errors
    /// Words.
    pub fn new(path: &Path) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .unix_socket(path)
            .tls_certs_only([])
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Self { client, path: path.to_owned() })
    }

    /// A report whose REPORT_DATA is SHA-256 of `runtime_data`, then zeros, and what came with it.
    ///
    /// # Errors
    /// [`SidecarError::Report`].
    pub async fn evidence(&self, runtime_data: &[u8]) -> Result<Evidence, SidecarError> {
        if !self.path.exists() {
            return Err(SidecarError::Report(format!(
                "{} is not there\nhint: the pod's policy has to give this container the release socket",
                self.path.display()
            )));
        }
        let body = serde_json::json!({"runtime_data": base64::to_standard(runtime_data)});
        let failed = |error: &dyn std::error::Error| SidecarError::Report(chain(error));
        let answer = self
            .client
            .post("http://release.socket/v1/evidence")
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let status = answer.status();
        let bytes = read_limited(answer, MAX_ANSWER_BYTES).await.map_err(SidecarError::Report)?;
        if !status.is_success() {
            let words = printable(&String::from_utf8_lossy(&bytes), 500);
            return Err(SidecarError::Report(format!("release socket answers {status}: {words}")));
        }
        let evidence = Evidence::from_json(&bytes).map_err(|error| failed(&error))?;
        match evidence.runtime_data == runtime_data {
            true => Ok(evidence),
            false => Err(SidecarError::Report("release socket answers for other data".to_owned())),
        }
    }
}

/// The body, if it is not longer than `most` bytes.
pub(crate) async fn read_limited(
    mut answer: reqwest::Response,
    most: usize,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| chain(&error))? {
        if bytes.len().saturating_add(part.len()) > most {
            return Err(format!("answer is over {most} bytes long"));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}
