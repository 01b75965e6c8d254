//! The certificate document of Azure's THIM (`/metadata/THIM/amd/certification`).

use ah_evidence::TcbVersion;
use serde::Deserialize;

use crate::CollateralError;
use crate::certificates::Certificates;

/// What THIM hands out. Unknown keys are passed over: the document is Azure's, and nothing in it is believed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThimCertificates {
    vcek_cert: String,
    certificate_chain: String,
    tcbm: String,
}

impl ThimCertificates {
    /// Reads the document.
    ///
    /// # Errors
    /// [`CollateralError::Thim`].
    pub fn parse(json: &[u8]) -> Result<Self, CollateralError> {
        serde_json::from_slice(json).map_err(CollateralError::Thim)
    }

    /// Adds VCEK and chain.
    ///
    /// # Errors
    /// As [`Certificates::add_any`].
    pub fn add_to(&self, certificates: &mut Certificates) -> Result<(), CollateralError> {
        certificates.add_any(self.vcek_cert.as_bytes(), "vcekCert")?;
        certificates.add_any(self.certificate_chain.as_bytes(), "certificateChain")
    }

    /// True if the certificates are said to be for this TCB. The field is 16 hex digits, found in both byte orders.
    pub fn is_for(&self, tcb: TcbVersion) -> bool {
        let Ok(number) = u64::from_str_radix(&self.tcbm, 16) else { return false };
        self.tcbm.len() == 16 && (number == tcb.0 || number.swap_bytes() == tcb.0)
    }
}
