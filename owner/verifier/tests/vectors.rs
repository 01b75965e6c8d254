//! Real, mutated and synthetic reports of the reference vectors.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_evidence::{RawReport, SNP_REPORT_BYTES, SigningKey};
use ah_verifier::{
    Blame, Chip, Collateral, Revocation, RevocationStatus, Root, TrustedRoots, Verified,
    VerifyError, verify,
};
use der::Encode as _;
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

const DAY: Duration = Duration::from_secs(86_400);

struct Vectors {
    folder: PathBuf,
}

impl Vectors {
    fn find() -> Option<Self> {
        let folder = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../shared/reference/vectors"
        ));
        if folder.is_dir() {
            return Some(Self { folder });
        }
        println!("skipped: no vectors at {}", folder.display());
        None
    }

    fn file(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn manifest(&self, set: &str) -> Vec<Value> {
        let text = self.file(&format!("{set}/manifest.json"));
        serde_json::from_slice(&text).unwrap()
    }

    /// First certificate of a DER or PEM file, DER.
    fn certificate(&self, path: &str) -> Vec<u8> {
        let bytes = self.file(path);
        match bytes.starts_with(b"-----") {
            true => Certificate::load_pem_chain(&bytes).unwrap()[0].to_der().unwrap(),
            false => bytes,
        }
    }

    fn report(&self, entry: &Value) -> Vec<u8> {
        let file = self.file(entry["report"].as_str().unwrap());
        let start = usize::try_from(entry["report_offset"].as_u64().unwrap()).unwrap();
        file[start..start + SNP_REPORT_BYTES].to_vec()
    }

    /// Chain of a VEK by the name of its issuer.
    fn amd_chain(&self, endorsement: Vec<u8>) -> Collateral {
        let issuer =
            Certificate::from_der(&endorsement).unwrap().tbs_certificate.issuer.to_string();
        let file = |name: &str| self.file(&format!("snp/roots/{name}.der"));
        let line = ["milan", "genoa", "turin"];
        let line = line.iter().find(|line| issuer.to_lowercase().contains(*line)).unwrap();
        let intermediate = if issuer.contains("VLEK") { "asvk" } else { "ask" };
        Collateral {
            endorsement,
            intermediate: file(&format!("{line}-{intermediate}")),
            root: file(&format!("{line}-ark")),
            revocation: not_checked(),
        }
    }
}

fn not_checked() -> Revocation {
    Revocation::NotChecked { reason: "test".to_owned() }
}

fn within(certificate: &[u8]) -> SystemTime {
    let certificate = Certificate::from_der(certificate).unwrap();
    certificate.tbs_certificate.validity.not_before.to_system_time() + 30 * DAY
}

fn check(
    report: &[u8],
    collateral: &Collateral,
    now: SystemTime,
    roots: &TrustedRoots,
) -> Result<Verified<ah_evidence::SnpReport>, VerifyError> {
    let raw = RawReport::try_from(report).map_err(VerifyError::Report)?;
    verify(&raw, collateral, now, roots)
}

#[test]
fn real_reports_verify_to_amds_roots() {
    let Some(vectors) = Vectors::find() else { return };
    let manifest = vectors.manifest("snp");
    for entry in &manifest {
        let name = entry["name"].as_str().unwrap();
        let collateral = vectors.amd_chain(vectors.certificate(entry["vek"].as_str().unwrap()));
        let now = within(&collateral.endorsement);
        let verified = check(&vectors.report(entry), &collateral, now, &TrustedRoots::amd())
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(matches!(verified.root(), Root::Amd(_)), "{name}");
        assert!(matches!(verified.revocation(), RevocationStatus::NotChecked { .. }));
        let tcb = &entry["expect"]["reported_tcb"];
        assert_eq!(tcb["ucode"], verified.tcb().microcode, "{name}");
        assert_eq!(tcb["snp"], verified.tcb().snp, "{name}");
        match verified.signing_key() {
            SigningKey::Vcek => assert!(matches!(verified.chip(), Chip::Identified(_)), "{name}"),
            _ => assert!(verified.provider().is_some(), "{name}"),
        }
        let later =
            check(&vectors.report(entry), &collateral, now + 3650 * DAY, &TrustedRoots::amd());
        assert!(matches!(later, Err(VerifyError::Expired { .. })), "{name}");
        let earlier = check(&vectors.report(entry), &collateral, UNIX_EPOCH, &TrustedRoots::amd());
        assert!(matches!(earlier, Err(VerifyError::NotYetValid { .. })), "{name}");
    }
    println!("{} real reports", manifest.len());
    assert!(manifest.len() >= 7);
}

#[test]
fn mutated_reports_and_certificates_are_refused() {
    let Some(vectors) = Vectors::find() else { return };
    let manifest = vectors.manifest("snp-negative");
    let (mut refused, mut either) = (0, 0);
    for entry in &manifest {
        let file = entry["file"].as_str().unwrap();
        let (report, endorsement) = match entry["vek"].as_str() {
            Some(vek) => (vectors.file(file), vectors.certificate(vek)),
            None => (vectors.file("snp/lunal-genoa-v5/report.bin"), vectors.file(file)),
        };
        let valid =
            vectors.certificate(entry["vek"].as_str().unwrap_or("snp/lunal-genoa-v5/vcek.der"));
        let mut collateral = vectors.amd_chain(valid.clone());
        collateral.endorsement = endorsement;
        let result = check(&report, &collateral, within(&valid), &TrustedRoots::amd());
        match entry["strict_expectation"].as_str().unwrap() {
            "reject" => {
                let error = result.expect_err(file);
                let of_certificate = entry["vek"].is_null();
                let expect = if of_certificate { Blame::Collateral } else { Blame::Evidence };
                assert_eq!(error.blame(), expect, "{file}: {error:?}");
                refused += 1;
            }
            _ => either += 1,
        }
    }
    println!("{refused} refused, {either} may be either");
    assert_eq!((refused, either), (98, 2));
}

#[test]
fn real_reports_with_other_machines_certificates_are_refused() {
    let Some(vectors) = Vectors::find() else { return };
    let manifest = vectors.manifest("snp");
    let pairs = manifest.iter().flat_map(|a| manifest.iter().map(move |b| (a, b)));
    let mut refused = 0;
    for (report, other) in pairs {
        let vek = vectors.certificate(other["vek"].as_str().unwrap());
        if report["expect"]["chip_id"] == other["expect"]["chip_id"] {
            continue;
        }
        let now = within(&vek);
        let result =
            check(&vectors.report(report), &vectors.amd_chain(vek), now, &TrustedRoots::amd());
        let error = result.expect_err("wrong pair");
        assert_eq!(error.blame(), Blame::Evidence, "{error:?}");
        refused += 1;
    }
    println!("{refused} wrong pairs refused");
}

#[test]
fn synthetic_reports() {
    let Some(vectors) = Vectors::find() else { return };
    let now = UNIX_EPOCH + 57 * 365 * DAY;
    let (mut accepted, mut refused) = (0, 0);
    for entry in vectors.manifest("snp-synthetic") {
        let text = |key: &str| entry[key].as_str().unwrap();
        let file = text("file");
        let root = vectors.file(text("ark"));
        let collateral = Collateral {
            endorsement: vectors.file(text("vek")),
            intermediate: vectors.file(text("ask")),
            root: root.clone(),
            revocation: not_checked(),
        };
        let report = vectors.file(file);
        let amd = check(&report, &collateral, now, &TrustedRoots::amd());
        if RawReport::try_from(report.as_slice())
            .is_ok_and(|raw| ah_evidence::SnpReport::parse(&raw).is_ok())
        {
            assert!(matches!(amd, Err(VerifyError::UntrustedRoot { .. })), "{file}: {amd:?}");
        }
        let roots = TrustedRoots::amd().danger_with_software_root(&root).unwrap();
        let result = check(&report, &collateral, now, &roots);
        // What depends on a relying party's policy is for appraisal: the verifier accepts it and says what it found.
        let reject = text("expect") == "reject" || text("why") == "VCEK outside validity";
        match (reject, result) {
            (true, Err(_)) => refused += 1,
            (false, Ok(verified)) => {
                assert_eq!(verified.root(), Root::Software);
                let masked = verified.chip_id.is_masked();
                assert_eq!(matches!(verified.chip(), Chip::Masked), masked, "{file}");
                accepted += 1;
                revocation_lists(&vectors, file, &report, &collateral, now, &roots);
            }
            (_, result) => panic!("{file} ({}): {result:?}", text("why")),
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted >= 20 && refused >= 20);
}

fn revocation_lists(
    vectors: &Vectors,
    file: &str,
    report: &[u8],
    collateral: &Collateral,
    now: SystemTime,
    roots: &TrustedRoots,
) {
    let line = file.trim_start_matches("snp-synthetic/").split('-').next().unwrap();
    let list = |name: &str| vectors.file(&format!("snp-synthetic/{line}-crl-{name}.der"));
    let with =
        |list: Vec<u8>| Collateral { revocation: Revocation::List(list), ..collateral.clone() };
    let verified = check(report, &with(list("empty")), now, roots).unwrap();
    assert_eq!(verified.revocation(), &RevocationStatus::NotRevoked);
    if verified.signing_key() == SigningKey::Vcek {
        let revoked = check(report, &with(list("ask-revoked")), now, roots);
        assert!(matches!(revoked, Err(VerifyError::Revoked { .. })), "{file}: {revoked:?}");
    }
    let mut forged = list("empty");
    *forged.last_mut().unwrap() ^= 1;
    assert!(matches!(check(report, &with(forged), now, roots), Err(VerifyError::CrlSignature)));
    let mut longer = list("empty");
    longer.push(0);
    assert!(matches!(check(report, &with(longer), now, roots), Err(VerifyError::Crl(_))));
}
