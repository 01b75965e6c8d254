//! Attestation end to end without a VM: software TEE, evidence document, collateral, verifier, appraisal.

use std::time::SystemTime;

use ah_appraise::{Appraisal, Guest, ReferenceValues, appraise};
use ah_digest::Digest;
use ah_evidence::{Evidence, GuestPolicy, HostData, ReportData, Tee};
use ah_launch::{LaunchInputs, PAGE_BYTES};
use ah_software_tee::{SoftwareGuest, SoftwareTee};
use ah_verifier::{Revocation, TrustedRoots, VerifyError, verify};

const FIRMWARE: [u8; PAGE_BYTES] = [0x90; PAGE_BYTES];
const INPUTS: LaunchInputs<'_> = LaunchInputs {
    firmware: &FIRMWARE,
    kernel: b"kernel",
    initrd: b"initrd",
    cmdline: "quiet anchorhold.tee=software",
    vcpus: 2,
    vcpu_sig: 0x80_0F12,
    sev_features: 1,
};
const HOST_DATA: HostData = Digest::new([7; 32]);

fn evidence(guest: &SoftwareGuest, runtime_data: &[u8]) -> Evidence {
    let answer = guest.report(ReportData::for_runtime_data(runtime_data).as_bytes()).unwrap();
    Evidence {
        tee: Tee::Software,
        report: answer.report.as_bytes().to_vec(),
        auxblob: answer.auxblob,
        runtime_data: runtime_data.to_vec(),
        initdata: None,
    }
}

fn judge(evidence: &Evidence, roots: &TrustedRoots) -> Result<Appraisal, VerifyError> {
    let revocation = Revocation::NotChecked { reason: "a software root has no list".to_owned() };
    let collateral = ah_collateral::from_evidence(evidence, revocation).unwrap();
    let report = evidence.snp_report().unwrap();
    let verified = verify(&report, &collateral, SystemTime::now(), roots)?;
    let expected = Guest {
        tee: Tee::Software,
        measurement: ah_launch::measure(&INPUTS).unwrap(),
        host_data: HOST_DATA,
        report_data: ReportData::for_runtime_data(b"nonce"),
    };
    Ok(appraise(&verified, &ReferenceValues::of_guest(expected, "test")))
}

fn unmet(appraisal: &Appraisal) -> Vec<&str> {
    appraisal.unmet().map(|claim| claim.name).collect()
}

#[test]
fn software_evidence_is_accepted_by_who_asked_for_it_and_refused_by_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let tee = SoftwareTee::open(dir.path()).unwrap();
    let launch = |inputs: &LaunchInputs<'_>, policy| tee.launch(inputs, HOST_DATA, policy).unwrap();
    let guest = launch(&INPUTS, GuestPolicy::STRICT);
    let roots = TrustedRoots::amd().danger_with_software_root(tee.root_der()).unwrap();
    let json = evidence(&guest, b"nonce").to_json().unwrap();
    let sound = Evidence::from_json(json.as_bytes()).unwrap();
    let appraisal = judge(&sound, &roots).unwrap();
    println!("{appraisal}");
    assert!(appraisal.is_met());

    let labelled = Evidence { tee: Tee::Snp, ..sound.clone() };
    let refused = judge(&labelled, &TrustedRoots::amd());
    assert!(matches!(refused, Err(VerifyError::UntrustedRoot { .. })), "the label decides nothing");

    let elsewhere = tempfile::tempdir().unwrap();
    let other = SoftwareTee::open(elsewhere.path()).unwrap();
    let forged = other.launch(&INPUTS, HOST_DATA, GuestPolicy::STRICT).unwrap();
    let refused = judge(&evidence(&forged, b"nonce"), &roots);
    assert!(matches!(refused, Err(VerifyError::UntrustedRoot { .. })));

    let debug = launch(&INPUTS, GuestPolicy::STRICT.with_debug());
    assert_eq!(
        unmet(&judge(&evidence(&debug, b"nonce"), &roots).unwrap()),
        ["guest policy: debug"]
    );
    let replayed = judge(&evidence(&guest, b"older nonce"), &roots).unwrap();
    assert_eq!(unmet(&replayed), ["report data"]);
    for altered in [
        LaunchInputs { kernel: b"kernem", ..INPUTS },
        LaunchInputs { initrd: b"initre", ..INPUTS },
        LaunchInputs { cmdline: "quiet anchorhold.tee=software ", ..INPUTS },
    ] {
        let guest = launch(&altered, GuestPolicy::STRICT);
        let appraisal = judge(&evidence(&guest, b"nonce"), &roots).unwrap();
        assert_eq!(unmet(&appraisal), ["measurement"]);
    }
}
