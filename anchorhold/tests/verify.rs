//! `anchorhold verify` and `collateral` as a person types them: 0 accepted, 1 refused, 2 unreadable.

mod support;

use std::path::PathBuf;

use support::{Desk, Ran};

fn vectors() -> Option<PathBuf> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/reference/vectors"));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

struct Vectors(PathBuf);

impl Vectors {
    /// Runs a line in which `@name` is a file of the vectors.
    fn run(&self, desk: &Desk, line: &str) -> Ran {
        let words = line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => self.0.join(name).display().to_string(),
            None => word.to_owned(),
        });
        desk.run_words(&words.collect::<Vec<_>>())
    }
}

const GENOA: &str = "verify report @snp/lunal-genoa-v5/report.bin --vek @snp/lunal-genoa-v5/vcek.der --ask @snp/roots/genoa-ask.der --now 2026-08-01T00:00:00Z";

#[test]
fn what_cannot_be_read_ends_with_two() {
    let desk = Desk::new();
    desk.write("text", "hello");
    desk.write("empty", "");
    desk.write("bad.toml", "[snp]\nvmpI = [0]\n");
    desk.write("jwks.json", "{\"keys\":[]}");
    for line in [
        "verify report text",
        "verify report empty",
        "verify report nothing-there",
        "verify quote text --collateral text",
        "verify token text --jwks jwks.json",
        "verify token text --jwks text",
        "verify evidence text",
        "verify evidence",
        "verify text",
        "verify",
    ] {
        desk.run(line).ends(2).says("error: ");
    }
    desk.run("verify report text --now yesterday").ends(2);
    desk.run("verify report").ends(2).says("required");
    desk.run("verify token text --jwks jwks.json --issuer x").ends(2);
    desk.write("token", "a.b.c");
    desk.run("verify token token --jwks jwks.json").ends(1).says("REFUSED  token.encoding");
}

#[test]
fn a_real_report_is_told_claim_by_claim() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    let told = vectors.run(&desk, GENOA).ends(0);
    let told = told.says("AMD root for Genoa").says("every expectation is met").says("# ");
    told.says("met      guest policy: debug").says("waived   measurement");
    let json = vectors.run(&desk, &format!("{GENOA} --json")).ends(0).json();
    assert_eq!((json["accepted"].as_bool(), json["kind"].as_str()), (Some(true), Some("report")));
    assert_eq!(json["appraisal"]["tee"], "snp");
    // Other times, other chips, other roots.
    let later = GENOA.replace("2026", "2046");
    vectors.run(&desk, &later).ends(1).says("REFUSED  certificate.validity");
    let other =
        GENOA.replace("@snp/lunal-genoa-v5/vcek.der", "@snp-negative/cert__genoa-vcek-serial.der");
    vectors.run(&desk, &other).ends(1).says("REFUSED  certificate.signature");
    let mutated = GENOA.replace("snp/lunal-genoa-v5/report", "snp-negative/genoa-v5__host-data");
    let json = vectors.run(&desk, &format!("{mutated} --json")).ends(1).json();
    assert_eq!(json["refused"]["check"], "report.signature");
    let no_ask = GENOA.replace(" --ask @snp/roots/genoa-ask.der", "");
    vectors.run(&desk, &no_ask).ends(2).says("hint: ");
    vectors
        .run(&desk, &format!("{GENOA} --crl @snp-synthetic/genoa-crl-empty.der"))
        .ends(1)
        .says("REFUSED  revocation.signature");
}

#[test]
fn policies_are_files() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    desk.write("fits.toml", "[snp]\nproducts = [\"Genoa\"]\nvmpl = [0]\nmitigations = 0xb\nplatform = { alias_check = \"required\" }\n");
    desk.write("denies.toml", "[snp]\nrefused_products = [\"Genoa\"]\n");
    desk.write("wrong.toml", "[snp]\nvmpI = [0]\n");
    desk.write("fits.json", "{\"snp\":{\"vmpl\":[0]}}");
    vectors.run(&desk, &format!("{GENOA} --policy fits.toml")).ends(0).says("met      mitigations");
    vectors.run(&desk, &format!("{GENOA} --policy fits.json")).ends(0);
    vectors
        .run(&desk, &format!("{GENOA} --policy denies.toml"))
        .ends(1)
        .says("NOT MET  product: refused")
        .says("expected none of Genoa");
    vectors.run(&desk, &format!("{GENOA} --policy wrong.toml")).ends(2).says("vmpI");
}

#[test]
fn synthetic_roots_only_with_danger_in_the_options_name() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    let line = "verify report @snp-synthetic/turin-report-good-v5.bin --vek @snp-synthetic/turin-vcek.der --ask @snp-synthetic/turin-ask.der --ark @snp-synthetic/turin-ark.der --crl @snp-synthetic/turin-crl-empty.der --now 2027-01-01T00:00:00Z";
    vectors.run(&desk, line).ends(1).says("REFUSED  certificate.root");
    let trusting = format!("{line} --danger-trust-root @snp-synthetic/turin-ark.der");
    vectors.run(&desk, &trusting).ends(0).says("software (not confidential)").says("not revoked");
    let revoked = trusting.replace("crl-empty", "crl-ask-revoked");
    vectors.run(&desk, &revoked).ends(1).says("REFUSED  revocation.revoked");
    let migrating = trusting.replace("good-v5", "migrate-ma");
    vectors.run(&desk, &migrating).ends(1).says("NOT MET  guest policy: migration");
}

#[test]
fn forms_of_others_are_read_and_their_endorsements_verified() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    let line = "verify report @snp/ms-privacy-sandbox/snp.json --now 2024-01-01T00:00:00Z --runtime-data @snp/ms-privacy-sandbox/publicWrapKey.pem";
    let told = vectors.run(&desk, line).ends(0).says("ContainerPlat-AMD-UVM");
    told.says("met      measurement").says("met      report data");
    vectors.run(&desk, &format!("{line} --uvm-minimum-svn 101")).ends(1).says("REFUSED  uvm.svn");
    let other = line.replace("publicWrapKey", "chain");
    vectors.run(&desk, &other).ends(1).says("NOT MET  report data");
    // An endorsement of another image beside the report: it does not help.
    let aci = "verify report @snp/ms-aci/snp_report.bin --vek @snp/ms-aci/uvm_host_amd_certificate.json --now 2023-06-01T00:00:00Z";
    vectors.run(&desk, &format!("{aci} --uvm @snp/ms-aci/body.uvm_reference_info.bin")).ends(0);
    vectors
        .run(&desk, &format!("{aci} --uvm @snp/ms-privacy-sandbox/uvm_endorsements.cose"))
        .ends(1);
}

#[test]
fn a_folder_works_offline() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    let import = "collateral import @snp/lunal-genoa-v5/vcek.der @snp/roots/genoa-ask.der @tdx/dcapqvl-tdx-collateral.json --dir kept";
    vectors.run(&desk, import).ends(0).says("amd/Genoa/vcek-chain.pem");
    let line =
        "verify report @snp/lunal-genoa-v5/report.bin --collateral kept --now 2026-08-01T00:00:00Z";
    vectors.run(&desk, line).ends(0);
    vectors.run(&desk, &line.replace("lunal-genoa-v5/report", "ms-tav-turin/report")).ends(2);
    let quote = "verify quote @tdx/dcapqvl-tdx.bin --collateral kept --now 2025-06-20T00:00:00Z";
    let told = vectors.run(&desk, quote).ends(0).says("UpToDate");
    told.says("mr td");
    vectors.run(&desk, &quote.replace("2025", "2035")).ends(1).says("REFUSED  quote.chain");
    let of_snp = quote.replace("@tdx/dcapqvl-tdx.bin", "@snp/ms-aci/snp_report.bin");
    vectors.run(&desk, &of_snp).ends(2);
    vectors.run(&desk, "collateral import @tdx/dcapqvl-tdx.bin --dir kept").ends(1);
    vectors
        .run(&desk, "collateral fetch @snp/ms-tav-turin/report.bin --dir kept --kds ftp://x")
        .ends(1);
}

#[test]
fn attack_endorsement_that_the_reports_sender_chose() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    let line = "verify report @snp/ms-privacy-sandbox/snp.json --now 2024-01-01T00:00:00Z --runtime-data @snp/ms-privacy-sandbox/publicWrapKey.pem";
    let own = format!("{line} --uvm @snp/ms-privacy-sandbox/uvm_endorsements.cose");
    vectors.run(&desk, &own).ends(0).says("met      measurement");
    // The owner names another one: that which came with the report helps no more.
    let other = format!("{line} --uvm @snp/ms-aci/body.uvm_reference_info.bin");
    vectors.run(&desk, &other).ends(1).says("NOT MET  measurement");
}

#[test]
fn attack_policy_without_a_word_on_the_evidence_at_hand() {
    let Some(vectors) = vectors().map(Vectors) else { return };
    let desk = Desk::new();
    desk.write("snp.toml", "[snp]\n");
    desk.write("tdx.toml", "[tdx]\n");
    vectors.run(&desk, &format!("{GENOA} --policy snp.toml")).ends(0);
    vectors
        .run(&desk, &format!("{GENOA} --policy tdx.toml"))
        .ends(2)
        .says("says nothing of SEV-SNP reports");
    let import = "collateral import @tdx/dcapqvl-tdx-collateral.json --dir kept";
    vectors.run(&desk, import).ends(0);
    let quote = "verify quote @tdx/dcapqvl-tdx.bin --collateral kept --now 2025-06-20T00:00:00Z";
    vectors.run(&desk, &format!("{quote} --policy tdx.toml")).ends(0);
    vectors
        .run(&desk, &format!("{quote} --policy snp.toml"))
        .ends(2)
        .says("says nothing of TDX quotes");
}
