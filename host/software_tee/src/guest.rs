//! One launched guest: its identity is fixed, it may ask for any number of reports.

use std::io::{Read, Write};
use std::sync::Arc;

use ah_digest::{Digest, Sha384};
use ah_evidence::{
    GuestPolicy, HostData, KeyInfo, MitigationVectors, PlatformInfo, ReportData, ReportWithCerts,
    SigningKey, SnpReport, TcbVersion, Version,
};

use crate::SoftwareTeeError;
use crate::processor::{CPUID, FIRMWARE, Inner, PRODUCT, TCB};

/// PLATFORM_INFO of the machine that is played: SMT off, ECC on, alias check complete.
const PLATFORM_INFO: PlatformInfo = PlatformInfo(1 << 2 | 1 << 5);

/// A guest that the software TEE launched.
pub struct SoftwareGuest {
    tee: Arc<Inner>,
    measurement: Sha384,
    host_data: HostData,
    policy: GuestPolicy,
    report_id: [u8; 32],
}

impl SoftwareGuest {
    pub(crate) fn new(
        tee: Arc<Inner>,
        measurement: Sha384,
        host_data: HostData,
        policy: GuestPolicy,
    ) -> Result<Self, SoftwareTeeError> {
        let mut report_id = [0; 32];
        getrandom::fill(&mut report_id).map_err(SoftwareTeeError::Randomness)?;
        Ok(Self { tee, measurement, host_data, policy, report_id })
    }

    /// The launch digest, as it stands in every report of this guest.
    pub fn measurement(&self) -> Sha384 {
        self.measurement
    }

    /// A fresh report over `report_data`.
    ///
    /// # Errors
    /// [`SoftwareTeeError::Crypto`].
    pub fn report(&self, report_data: &[u8; 64]) -> Result<ReportWithCerts, SoftwareTeeError> {
        let report = self.tee.sign(&self.fields(ReportData::new(*report_data)))?;
        Ok(ReportWithCerts { report, auxblob: self.tee.cert_table.clone() })
    }

    /// One exchange of the software report service: 64 bytes in, one response out.
    ///
    /// # Errors
    /// [`SoftwareTeeError::Exchange`] if the guest hangs up early.
    pub fn serve(&self, mut stream: impl Read + Write) -> Result<(), SoftwareTeeError> {
        let mut report_data = [0; 64];
        stream.read_exact(&mut report_data).map_err(SoftwareTeeError::Exchange)?;
        let response = self.report(&report_data)?.encode()?;
        stream.write_all(&response).map_err(SoftwareTeeError::Exchange)?;
        stream.flush().map_err(SoftwareTeeError::Exchange)
    }

    fn fields(&self, report_data: ReportData) -> SnpReport {
        // The layout of the product has a place for every part that is set.
        let tcb = TCB.version(PRODUCT).unwrap_or(TcbVersion(0));
        SnpReport {
            version: Version::V5(CPUID, MitigationVectors { launch: 0, current: 0 }),
            guest_svn: 0,
            policy: self.policy,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: 0,
            current_tcb: tcb,
            platform_info: PLATFORM_INFO,
            key_info: KeyInfo {
                author_key: false,
                mask_chip_key: false,
                signing_key: SigningKey::Vcek,
            },
            report_data,
            measurement: self.measurement,
            host_data: self.host_data,
            id_key_digest: Digest::new([0; 48]),
            author_key_digest: Digest::new([0; 48]),
            report_id: self.report_id,
            report_id_ma: [0xFF; 32],
            reported_tcb: tcb,
            chip_id: self.tee.chip_id,
            committed_tcb: tcb,
            current_firmware: FIRMWARE,
            committed_firmware: FIRMWARE,
            launch_tcb: tcb,
        }
    }
}

impl std::fmt::Debug for SoftwareGuest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftwareGuest({})", self.measurement)
    }
}
