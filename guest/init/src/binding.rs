//! The decision that everything else in the guest rests on: is this initdata the one that the report binds?

use ah_digest::{Sha256, Sha384};
use ah_evidence::{RawQuote, SnpReport};
use ah_policy::{InitData, InitDataDigest};
use ah_tee::{REPORT_DATA_BYTES, RawReport, Tee};

use crate::InitError;

/// What the report says that the guest was launched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// HOST_DATA of an SEV-SNP report.
    HostData(Sha256),
    /// MRCONFIGID of a TDX quote.
    ConfigId(Sha384),
}

/// A policy source that the report binds. Only [`check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy<'a>(Form<'a>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    InitData(&'a InitData),
    Aks(Sha256),
}

impl Policy<'_> {
    pub(crate) const fn form(&self) -> &Form<'_> {
        &self.0
    }
}

/// Why the initdata is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The host launched the guest for another initdata than it handed over, or changed it.
    #[error("HOST_DATA is {host_data}, initdata digest is {initdata}")]
    HostData {
        /// From the report.
        host_data: Sha256,
        /// Of the initdata handed over.
        initdata: InitDataDigest,
    },
    /// The same for TDX.
    #[error("MRCONFIGID is {config_id}, initdata digest is {initdata}")]
    ConfigId {
        /// From the quote.
        config_id: Sha384,
        /// Of the initdata handed over.
        initdata: InitDataDigest,
    },
    /// Neither initdata nor the digest of a policy.
    #[error("there is no initdata disk and HOST_DATA is zero, expected one of the two")]
    NothingBound,
    /// TDX has no form without initdata.
    #[error("there is no initdata disk, expected one whose digest is MRCONFIGID")]
    NoInitData,
    /// The report answers another question.
    #[error("report has another REPORT_DATA than was asked for: the host replays a report")]
    Replayed,
}

/// Reads out of `report`, which has to be over `nonce`, what the guest was launched with.
///
/// Its signature is not checked: on hardware it comes from the CPU through the kernel, and the host cannot be in between.
///
/// # Errors
/// The report has not the form of the TEE's reports, or is over other bytes.
pub fn bound(
    tee: Tee,
    report: &RawReport,
    nonce: &[u8; REPORT_DATA_BYTES],
) -> Result<Bound, InitError> {
    let (bound, report_data) = match tee {
        Tee::Software | Tee::Snp => {
            let raw = report.report.as_slice().try_into().map_err(InitError::SnpReport)?;
            let report = SnpReport::parse(&raw).map_err(InitError::SnpReport)?;
            (Bound::HostData(report.host_data), report.report_data)
        }
        Tee::Tdx => {
            let quote = RawQuote::parse(&report.report).map_err(InitError::TdxQuote)?;
            let body = &quote.view().report;
            (Bound::ConfigId(body.mr_config_id), body.report_data)
        }
        Tee::AzureVtpm => return Err(InitError::Report(ah_tee::ReportError::NotSupported { tee })),
    };
    if report_data.as_bytes() == nonce { Ok(bound) } else { Err(Refusal::Replayed.into()) }
}

/// Compares, in constant time, and without cutting or padding any digest.
///
/// Without initdata, HOST_DATA is the SHA-256 of the policy text that the agent will be sent first (the AKS form).
///
/// # Errors
/// [`Refusal`], or the initdata's algorithm does not fit the TEE's field.
pub fn check<'a>(bound: &Bound, initdata: Option<&'a InitData>) -> Result<Policy<'a>, InitError> {
    match (bound, initdata) {
        (Bound::HostData(host_data), Some(document)) => {
            if document.host_data_snp().map_err(InitError::InitData)? == *host_data {
                return Ok(Policy(Form::InitData(document)));
            }
            let (host_data, initdata) = (*host_data, document.digest());
            Err(Refusal::HostData { host_data, initdata }.into())
        }
        (Bound::ConfigId(config_id), Some(document)) => {
            if document.config_id_tdx().map_err(InitError::InitData)? == *config_id {
                return Ok(Policy(Form::InitData(document)));
            }
            let (config_id, initdata) = (*config_id, document.digest());
            Err(Refusal::ConfigId { config_id, initdata }.into())
        }
        (Bound::HostData(host_data), None) if *host_data.as_bytes() == [0; 32] => {
            Err(Refusal::NothingBound.into())
        }
        (Bound::HostData(host_data), None) => Ok(Policy(Form::Aks(*host_data))),
        (Bound::ConfigId(_), None) => Err(Refusal::NoInitData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ah_policy::Algorithm;
    use std::collections::BTreeMap;

    const POLICY: &str = "package agent_policy\n\ndefault CreateContainerRequest := false\n";

    fn document(algorithm: Algorithm, policy: &str) -> InitData {
        InitData::build_for(algorithm, policy, &BTreeMap::new()).unwrap()
    }

    fn host_data(document: &InitData) -> Bound {
        Bound::HostData(document.host_data_snp().unwrap())
    }

    fn refusal(result: Result<Policy<'_>, InitError>) -> Refusal {
        match result {
            Err(InitError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// A report of version 3 with the fields that count here.
    fn snp_report(host_data: u8, report_data: u8) -> RawReport {
        let mut report = vec![0; ah_evidence::SNP_REPORT_BYTES];
        report[0] = 3;
        report[0x0a] = 2;
        report[0x34] = 1;
        report[0x50..0x90].fill(report_data);
        report[0xc0..0xe0].fill(host_data);
        (report[0x188], report[0x189]) = (0x19, 1);
        RawReport { report, auxblob: Vec::new() }
    }

    #[test]
    fn host_data_is_read_from_a_report_over_the_nonce() {
        let expect = Bound::HostData(Sha256::new([5; 32]));
        for tee in [Tee::Software, Tee::Snp] {
            assert_eq!(bound(tee, &snp_report(5, 9), &[9; 64]).unwrap(), expect);
        }
        assert!(matches!(
            bound(Tee::Tdx, &snp_report(5, 9), &[9; 64]),
            Err(InitError::TdxQuote(_))
        ));
        assert!(matches!(
            bound(Tee::AzureVtpm, &snp_report(5, 9), &[9; 64]),
            Err(InitError::Report(_))
        ));
    }

    #[test]
    fn attack_report_of_another_boot_replayed_to_init() {
        let mut nonce = [9; 64];
        nonce[63] = 8;
        let result = bound(Tee::Snp, &snp_report(5, 9), &nonce);
        assert!(matches!(result, Err(InitError::Refused(Refusal::Replayed))));
    }

    #[test]
    fn attack_report_with_trailing_bytes_given_to_init() {
        let mut report = snp_report(5, 9);
        report.report.push(0);
        assert!(matches!(bound(Tee::Snp, &report, &[9; 64]), Err(InitError::SnpReport(_))));
        report.report.truncate(1183);
        assert!(matches!(bound(Tee::Snp, &report, &[9; 64]), Err(InitError::SnpReport(_))));
    }

    #[test]
    fn the_bound_initdata_is_accepted() {
        let snp = document(Algorithm::Sha256, POLICY);
        assert_eq!(check(&host_data(&snp), Some(&snp)).unwrap().form(), &Form::InitData(&snp));
        let tdx = document(Algorithm::Sha384, POLICY);
        let bound = Bound::ConfigId(tdx.config_id_tdx().unwrap());
        assert_eq!(check(&bound, Some(&tdx)).unwrap().form(), &Form::InitData(&tdx));
    }

    #[test]
    fn attack_policy_replaced() {
        let owners = document(Algorithm::Sha256, POLICY);
        let hosts = document(
            Algorithm::Sha256,
            "package agent_policy\n\ndefault CreateContainerRequest := true\n",
        );
        let refusal = refusal(check(&host_data(&owners), Some(&hosts)));
        assert!(matches!(refusal, Refusal::HostData { .. }));
        let text = refusal.to_string();
        assert!(
            text.contains(&owners.digest().to_string())
                && text.contains(&hosts.digest().to_string())
        );
    }

    #[test]
    fn attack_policy_altered_by_one_byte_with_host_data_kept() {
        let owners = document(Algorithm::Sha256, POLICY);
        for at in 0..owners.bytes().len() {
            let mut bytes = owners.bytes().to_vec();
            bytes[at] ^= 1;
            // A byte that breaks the TOML is refused even before.
            let Ok(altered) = InitData::parse(&bytes) else { continue };
            if altered.algorithm() == Algorithm::Sha256 {
                assert!(matches!(
                    refusal(check(&host_data(&owners), Some(&altered))),
                    Refusal::HostData { .. }
                ));
            }
        }
    }

    #[test]
    fn attack_digest_of_another_length_is_never_cut_or_padded() {
        let owners = document(Algorithm::Sha256, POLICY);
        for algorithm in [Algorithm::Sha384, Algorithm::Sha512] {
            let other = document(algorithm, POLICY);
            assert!(matches!(
                check(&host_data(&owners), Some(&other)),
                Err(InitError::InitData(_))
            ));
        }
        let bound = Bound::ConfigId(Sha384::new([0; 48]));
        assert!(matches!(check(&bound, Some(&owners)), Err(InitError::InitData(_))));
    }

    #[test]
    fn attack_initdata_disk_left_out() {
        let owners = document(Algorithm::Sha256, POLICY);
        let bound = host_data(&owners);
        // The agent then takes only a policy text with exactly this SHA-256, which no policy text has: the preimage is a TOML document.
        let digest = owners.host_data_snp().unwrap();
        assert_eq!(check(&bound, None).unwrap().form(), &Form::Aks(digest));
        let zero = Bound::HostData(Sha256::new([0; 32]));
        assert_eq!(refusal(check(&zero, None)), Refusal::NothingBound);
        let tdx = Bound::ConfigId(Sha384::new([1; 48]));
        assert_eq!(refusal(check(&tdx, None)), Refusal::NoInitData);
    }
}
