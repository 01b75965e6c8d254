//! Every negative and synthetic report of the reference vectors, with what is answered, in a golden table: the check that the
//! verifier names, or the claims that a strict relying party does not see met.
//!
//! `GOLDEN=write` writes the table anew; the test fails all the same where an answer is not the manifest's.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_appraise::{
    Allowance, ChipRule, Expect, FirmwareRule, Guest, PlatformRule, PolicyRule, ReferenceValues,
    Requirement, TcbFloor, appraise,
};
use ah_evidence::{
    FirmwareVersion, Product, RawReport, ReportData, SNP_REPORT_BYTES, SnpReport, TcbParts, Tee,
};
use ah_verifier::{Collateral, Revocation, TrustedRoots, Verified, VerifyError, verify};
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};

const DAY: Duration = Duration::from_secs(86_400);
const GOLDEN: &str = include_str!("golden/vectors.txt");

fn folder() -> Option<PathBuf> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors"));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

struct Vectors(PathBuf);

impl Vectors {
    fn file(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn manifest(&self, set: &str) -> Vec<Value> {
        serde_json::from_slice(&self.file(&format!("{set}/manifest.json"))).unwrap()
    }

    fn certificate(&self, path: &str) -> Vec<u8> {
        let bytes = self.file(path);
        match bytes.starts_with(b"-----") {
            true => Certificate::load_pem_chain(&bytes).unwrap()[0].to_der().unwrap(),
            false => bytes,
        }
    }

    fn amd(&self, valid: &[u8], endorsement: Vec<u8>) -> Collateral {
        let issuer = Certificate::from_der(valid).unwrap().tbs_certificate.issuer.to_string();
        let lines = ["milan", "genoa", "turin"];
        let line = lines.iter().find(|line| issuer.to_lowercase().contains(**line)).unwrap();
        let intermediate = if issuer.contains("VLEK") { "asvk" } else { "ask" };
        let file = |name: &str| self.file(&format!("snp/roots/{line}-{name}.der"));
        Collateral {
            endorsement,
            intermediate: file(intermediate),
            root: file("ark"),
            revocation: not_checked(),
        }
    }
}

fn not_checked() -> Revocation {
    Revocation::NotChecked { reason: "test".to_owned() }
}

fn check(
    report: &[u8],
    collateral: &Collateral,
    now: SystemTime,
    roots: &TrustedRoots,
) -> Result<Verified<SnpReport>, VerifyError> {
    let raw = RawReport::try_from(report).map_err(VerifyError::Report)?;
    verify(&raw, collateral, now, roots)
}

/// What nobody who says nothing gives away: debugging and migration. The rest is waived.
fn lenient(report: &Verified<SnpReport>) -> ReferenceValues {
    let guest = Guest {
        tee: report.tee(),
        measurement: report.measurement,
        host_data: report.host_data,
        report_data: report.report_data,
    };
    let policy = PolicyRule { smt: Allowance::Allowed, ..PolicyRule::STRICT };
    ReferenceValues {
        guest_policy: Expect::Is(policy),
        vmpl: Expect::any("test"),
        ..ReferenceValues::of_guest(guest, "test")
    }
}

/// All that the manifests call a matter of policy, asked for. Floors are those of the sound synthetic reports.
fn strict(report: &Verified<SnpReport>) -> ReferenceValues {
    let floor = |product, fmc, boot_loader, snp, microcode| TcbFloor {
        product,
        model: None,
        minimum: TcbParts { fmc, boot_loader, tee: 0, snp, microcode },
    };
    let floors = vec![
        floor(Product::Milan, 0, 4, 27, 222),
        floor(Product::Genoa, 0, 10, 27, 88),
        floor(Product::Turin, 0, 1, 4, 80),
    ];
    ReferenceValues {
        chips: Expect::Is(ChipRule::NotMasked),
        vmpl: Expect::Is([0].into()),
        minimum_tcb: Expect::Is(floors.clone()),
        minimum_launch_tcb: Expect::Is(floors),
        firmware: Expect::Is(FirmwareRule {
            minimum: FirmwareVersion { major: 1, minor: 55, build: 0 },
            provisional: Allowance::Refused,
        }),
        platform: Expect::Is(PlatformRule {
            smt: Allowance::Allowed,
            alias_check: Requirement::Required,
            ecc: Requirement::Optional,
            rapl_disabled: Requirement::Optional,
            ciphertext_hiding: Requirement::Optional,
            tsme: Requirement::Optional,
            tio: Allowance::Refused,
            unknown: Allowance::Allowed,
        }),
        ..lenient(report)
    }
}

/// `accepted`, `not met: …` or `refused: …`, twice: for the lenient and the strict relying party.
fn answers(result: &Result<Verified<SnpReport>, VerifyError>) -> [String; 2] {
    match result {
        Err(error) => [format!("refused: {}", error.check()), "".to_owned()],
        Ok(report) => [lenient(report), strict(report)].map(|reference| {
            let appraisal = appraise(report, &reference);
            let unmet: Vec<_> = appraisal.unmet().map(|claim| claim.name).collect();
            match unmet.is_empty() {
                true => "accepted".to_owned(),
                false => format!("not met: {}", unmet.join(", ")),
            }
        }),
    }
}

fn line(table: &mut String, name: &str, [lenient, strict]: &[String; 2]) {
    let name = name.rsplit('/').next().unwrap();
    match strict.is_empty() {
        true => writeln!(table, "{name:48} {lenient}").unwrap(),
        false => writeln!(table, "{name:48} {lenient:32} | {strict}").unwrap(),
    }
}

fn negative(vectors: &Vectors, table: &mut String) {
    for entry in vectors.manifest("snp-negative") {
        let file = entry["file"].as_str().unwrap();
        let base = "snp/lunal-genoa-v5/vcek.der";
        let valid = vectors.certificate(entry["vek"].as_str().unwrap_or(base));
        let (report, endorsement) = match entry["vek"].is_null() {
            false => (vectors.file(file), valid.clone()),
            true => (vectors.file("snp/lunal-genoa-v5/report.bin"), vectors.file(file)),
        };
        let from = Certificate::from_der(&valid).unwrap().tbs_certificate.validity.not_before;
        let now = from.to_system_time() + 30 * DAY;
        let collateral = vectors.amd(&valid, endorsement);
        let result = check(&report, &collateral, now, &TrustedRoots::amd());
        let must_refuse = entry["strict_expectation"] == "reject";
        assert!(!must_refuse || result.is_err(), "{file} is to be refused");
        line(table, file, &answers(&result));
    }
}

/// Which claim a strict relying party must see unmet, by the manifest's reason.
fn claim_of(why: &str) -> &'static str {
    match why {
        "POLICY.DEBUG" => "guest policy: debug",
        "POLICY.MIGRATE_MA" => "guest policy: migration",
        "VMPL 3" => "vmpl",
        "CURRENT_TCB > COMMITTED_TCB" => "firmware: provisional",
        "rolled back REPORTED_TCB with a matching certificate" => "tcb",
        "guest launched under older firmware" => "launch tcb",
        "CHIP_ID all zero" => "chip",
        "PLATFORM_INFO.ALIAS_CHECK_COMPLETE=0" => "platform: alias check",
        other => panic!("unknown reason {other:?}"),
    }
}

fn synthetic(vectors: &Vectors, table: &mut String) {
    let now = UNIX_EPOCH + 57 * 365 * DAY;
    for entry in vectors.manifest("snp-synthetic") {
        let text = |key: &str| entry[key].as_str().unwrap();
        let (file, expect, why) = (text("file"), text("expect"), text("why"));
        let root = vectors.file(text("ark"));
        let collateral = Collateral {
            endorsement: vectors.file(text("vek")),
            intermediate: vectors.file(text("ask")),
            root: root.clone(),
            revocation: not_checked(),
        };
        let roots = TrustedRoots::amd().danger_with_software_root(&root).unwrap();
        let result = check(&vectors.file(file), &collateral, now, &roots);
        let answers = answers(&result);
        line(table, file, &answers);
        let by_verifier = expect == "reject" || why == "VCEK outside validity";
        if by_verifier {
            assert!(result.is_err(), "{file} is to be refused: {why}");
        } else if why == "SMT enabled" {
            // PLATFORM_INFO and POLICY of every synthetic report have SMT on: one more answer, below.
            let report = result.unwrap();
            let mut reference = lenient(&report);
            reference.guest_policy = Expect::Is(PolicyRule::STRICT);
            assert!(!appraise(&report, &reference).is_met(), "{file}");
        } else if expect.starts_with("accept") && !expect.contains("only if") {
            assert_eq!(answers[0], "accepted", "{file}: {why}");
        } else {
            let report = result.unwrap();
            let appraisal = appraise(&report, &strict(&report));
            assert!(!appraisal.claim(claim_of(why)).unwrap().met, "{file}: {why}");
        }
    }
}

fn real(vectors: &Vectors, table: &mut String) {
    for entry in vectors.manifest("snp") {
        let name = entry["name"].as_str().unwrap();
        let valid = vectors.certificate(entry["vek"].as_str().unwrap());
        let from = Certificate::from_der(&valid).unwrap().tbs_certificate.validity.not_before;
        let now = from.to_system_time() + 30 * DAY;
        let file = vectors.file(entry["report"].as_str().unwrap());
        let report = &file[..SNP_REPORT_BYTES];
        let collateral = vectors.amd(&valid, valid.clone());
        let result = check(report, &collateral, now, &TrustedRoots::amd());
        assert_eq!(result.as_ref().map(|report| report.tee()), Ok(Tee::Snp), "{name}");
        line(table, name, &answers(&result));
    }
}

#[test]
fn every_vector_is_answered_as_the_golden_table_says() {
    let Some(folder) = folder() else { return };
    let vectors = Vectors(folder);
    let mut table = String::new();
    real(&vectors, &mut table);
    negative(&vectors, &mut table);
    synthetic(&vectors, &mut table);
    if std::env::var_os("GOLDEN").is_some_and(|what| what == "write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vectors.txt");
        std::fs::write(path, &table).unwrap();
    }
    for (found, golden) in table.lines().zip(GOLDEN.lines()) {
        assert_eq!(found, golden);
    }
    assert_eq!(table.lines().count(), GOLDEN.lines().count());
    println!("{} vectors", table.lines().count());
}

/// The golden table itself, where there are no vectors: it names a check for every refusal.
#[test]
fn the_golden_table_is_whole() {
    assert_eq!(GOLDEN.lines().count(), 7 + 100 + 47);
    for line in GOLDEN.lines() {
        let answer = line.split_whitespace().nth(1).unwrap();
        assert!(["accepted", "refused:", "not"].contains(&answer), "{line}");
    }
}

#[test]
fn report_data_of_a_real_release_is_bound() {
    let Some(folder) = folder() else { return };
    let vectors = Vectors(folder);
    let key = vectors.file("snp/ms-privacy-sandbox/publicWrapKey.pem");
    let raw = RawReport::try_from(vectors.file("snp/ms-privacy-sandbox/report.bin").as_slice());
    let report = SnpReport::parse(&raw.unwrap()).unwrap();
    assert_eq!(report.report_data, ReportData::for_runtime_data(&key));
}
