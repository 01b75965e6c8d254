//! The decision that everything else in the guest rests on: is this initdata the one that the report binds?

use ah_digest::Sha256;
use ah_evidence::SnpReport;
use ah_policy::{InitData, InitDataDigest};
use ah_tee::{REPORT_DATA_BYTES, RawReport, Tee};

use crate::InitError;

/// What the report says that the guest was launched with: HOST_DATA of an SEV-SNP report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound(pub Sha256);

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
    /// Neither initdata nor the digest of a policy.
    #[error("there is no initdata disk and HOST_DATA is zero, expected one of the two")]
    NothingBound,
    /// The report answers another question.
    #[error("report has another REPORT_DATA than was asked for: the host replays a report")]
    Replayed,
}

/// Reads out of `report`, which has to be over `nonce`, what the guest was launched with.
///
/// Its signature is not checked: an SEV-SNP report comes from the security processor under a key that the host does not have
/// (SEV-SNP ABI 7.1, VMPCK), so nobody can be in between. A TDX quote is made by a service of the host's; a guest that believed
/// its MRCONFIGID would take any policy from whoever writes one. What a TDX guest can believe is its TDREPORT.
///
/// # Errors
/// The report has not the form of the TEE's reports, is over other bytes, or comes from the host.
pub fn bound(
    tee: Tee,
    report: &RawReport,
    nonce: &[u8; REPORT_DATA_BYTES],
) -> Result<Bound, InitError> {
    match tee {
        Tee::Software | Tee::Snp => {}
        Tee::Tdx => return Err(InitError::QuoteOfHost(tee)),
        Tee::AzureVtpm => return Err(InitError::Report(ah_tee::ReportError::NotSupported { tee })),
    }
    let raw = report.report.as_slice().try_into().map_err(InitError::SnpReport)?;
    let report = SnpReport::parse(&raw).map_err(InitError::SnpReport)?;
    match report.report_data.as_bytes() == nonce {
        true => Ok(Bound(report.host_data)),
        false => Err(Refusal::Replayed.into()),
    }
}

/// Compares, in constant time, and without cutting or padding any digest.
///
/// Without initdata, HOST_DATA is the SHA-256 of the policy text that the agent will be sent first (the AKS form).
///
/// # Errors
/// [`Refusal`], or the initdata's algorithm does not fit the TEE's field.
pub fn check<'a>(bound: &Bound, initdata: Option<&'a InitData>) -> Result<Policy<'a>, InitError> {
    let Bound(host_data) = *bound;
    match initdata {
        Some(document) => {
            if document.host_data_snp().map_err(InitError::InitData)? == host_data {
                return Ok(Policy(Form::InitData(document)));
            }
            Err(Refusal::HostData { host_data, initdata: document.digest() }.into())
        }
        None if *host_data.as_bytes() == [0; 32] => Err(Refusal::NothingBound.into()),
        None => Ok(Policy(Form::Aks(host_data))),
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
        Bound(document.host_data_snp().unwrap())
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
        let expect = Bound(Sha256::new([5; 32]));
        for tee in [Tee::Software, Tee::Snp] {
            assert_eq!(bound(tee, &snp_report(5, 9), &[9; 64]).unwrap(), expect);
        }
        assert!(matches!(
            bound(Tee::AzureVtpm, &snp_report(5, 9), &[9; 64]),
            Err(InitError::Report(_))
        ));
    }

    /// Well formed, over the nonce, with the MRCONFIGID of the host's own initdata, and signed by nobody.
    #[test]
    fn attack_tdx_quote_written_by_the_host() {
        const REPORT_BODY: usize = 48;
        let config_id = document(Algorithm::Sha384, POLICY).config_id_tdx().unwrap();
        let mut quote = vec![0; REPORT_BODY + 584];
        quote[..8].copy_from_slice(&[4, 0, 2, 0, 0x81, 0, 0, 0]);
        quote[REPORT_BODY + 184..][..48].copy_from_slice(config_id.as_bytes());
        quote[REPORT_BODY + 520..][..64].fill(9);
        let body = ah_evidence::RawQuote::parse(&quote).unwrap().view().report.clone();
        assert_eq!((body.mr_config_id, *body.report_data.as_bytes()), (config_id, [9; 64]));
        let report = RawReport { report: quote, auxblob: Vec::new() };
        let error = bound(Tee::Tdx, &report, &[9; 64]).unwrap_err();
        assert!(matches!(error, InitError::QuoteOfHost(Tee::Tdx)) && error.verdict() == "refused");
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
    }

    #[test]
    fn attack_initdata_disk_left_out() {
        let owners = document(Algorithm::Sha256, POLICY);
        let bound = host_data(&owners);
        // The agent then takes only a policy text with exactly this SHA-256, which no policy text has: the preimage is a TOML document.
        let digest = owners.host_data_snp().unwrap();
        assert_eq!(check(&bound, None).unwrap().form(), &Form::Aks(digest));
        let zero = Bound(Sha256::new([0; 32]));
        assert_eq!(refusal(check(&zero, None)), Refusal::NothingBound);
    }
}
