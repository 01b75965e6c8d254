//! `anchorhold verify` as a person types it.

use std::fs;
use std::process::{Command, Output};

use ah_evidence::{Evidence, GuestPolicy, ReportData, Tee};
use ah_policy::InitData;
use ah_software_tee::SoftwareTee;
use ah_testkit_e2e::command;
use anchorhold::guest::launch_inputs;
use anyhow::Result;
use tempfile::TempDir;

const RUNTIME_DATA: &[u8] = b"what the workload said";

struct Desk {
    folder: TempDir,
    evidence: Evidence,
}

impl Desk {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tee = SoftwareTee::open(folder.path().join("tee"))?;
        fs::write(folder.path().join("root.der"), tee.root_der())?;
        let firmware = fs::read(anchorhold::guest::firmware(Tee::Software)?)?;
        let inputs = launch_inputs(&firmware, b"kernel", b"initrd", "cmdline", 1);
        let initdata = InitData::build("package agent_policy\n", &Default::default())?;
        let guest = tee.launch(&inputs, initdata.host_data_snp()?, GuestPolicy::STRICT)?;
        let made = guest.report(ReportData::for_runtime_data(RUNTIME_DATA).as_bytes())?;
        let evidence = Evidence {
            tee: Tee::Software,
            report: made.report.as_bytes().to_vec(),
            auxblob: made.auxblob,
            runtime_data: RUNTIME_DATA.to_vec(),
            initdata: Some(initdata.bytes().to_vec()),
        };
        Ok(Self { folder, evidence })
    }

    fn verify(&self, text: &str, more: &[&str]) -> Result<Output> {
        let file = self.folder.path().join("evidence.json");
        fs::write(&file, text)?;
        let root = self.folder.path().join("root.der");
        let mut verify = Command::new(command("anchorhold")?);
        verify.arg("verify").arg(&file).args(more).env_remove("ANCHORHOLD_GUEST");
        if more.contains(&"--danger-software-root") {
            verify.arg(root);
        }
        Ok(verify.output()?)
    }
}

#[track_caller]
fn check(output: &Output, succeeds: bool, text: &str) {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let all = String::from_utf8_lossy(&all);
    assert_eq!(output.status.success(), succeeds, "{all}");
    assert!(all.contains(text), "{all}\ndoes not say {text:?}");
}

#[test]
fn attack_evidence_of_another_root_or_other_bytes() -> Result<()> {
    let desk = Desk::new()?;
    let sound = desk.evidence.to_json()?;
    let accept = ["--danger-software-root"];
    check(&desk.verify(&sound, &accept)?, true, "tee: software (not confidential)");
    check(&desk.verify(&sound, &[])?, false, "root");
    check(&desk.verify(&format!("{sound}x"), &accept)?, false, "evidence");

    let mut other = desk.evidence.clone();
    other.runtime_data.push(b'!');
    check(&desk.verify(&other.to_json()?, &accept)?, false, "report data");

    let mut other = desk.evidence.clone();
    let policy = InitData::build("package agent_policy\n\n", &Default::default())?;
    other.initdata = Some(policy.bytes().to_vec());
    check(&desk.verify(&other.to_json()?, &accept)?, false, "host data");
    Ok(())
}
