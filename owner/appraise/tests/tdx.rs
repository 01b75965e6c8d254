//! Real TDX quotes: verified with the collateral that was published beside them, appraised claim by claim.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_appraise::{Appraisal, Expect, TdxReferenceValues, appraise_quote};
use ah_digest::{Digest, Sha384};
use ah_evidence::RawQuote;
use ah_verifier::{QuoteCollateral, QuoteError, TcbStatus, VerifiedQuote, verify_quote};

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/reference/vectors/tdx"
    ));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

struct Vectors(PathBuf);

impl Vectors {
    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn quote(&self, name: &str) -> RawQuote {
        RawQuote::parse(&self.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn collateral(&self, name: &str) -> QuoteCollateral {
        QuoteCollateral::from_json(&self.file(name)).unwrap()
    }
}

/// Within the time of the collateral of `dcapqvl-tdx-collateral.json`, issued 2025-06-19.
fn in_2025() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_750_400_000)
}

/// Within the time of the other, issued 2026-02-18.
fn in_2026() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_771_500_000)
}

fn verified(vectors: &Vectors) -> VerifiedQuote {
    let collateral = vectors.collateral("dcapqvl-tdx-collateral.json");
    verify_quote(&vectors.quote("dcapqvl-tdx.bin"), &collateral, in_2025()).unwrap()
}

fn unmet(appraisal: &Appraisal) -> Vec<&'static str> {
    appraisal.unmet().map(|claim| claim.name).collect()
}

#[test]
fn a_real_quote_verifies_to_intels_root() {
    let Some(folder) = folder() else { return };
    let quote = verified(&Vectors(folder));
    assert_eq!((quote.version(), quote.tcb_status()), (4, TcbStatus::UpToDate));
    assert!(quote.collateral_expires() > in_2025());
}

/// Signed by Intel's chain, but its versions are below every level that Intel rates.
#[test]
fn attack_quote_of_a_platform_below_every_rated_level() {
    let Some(folder) = folder() else { return };
    let vectors = Vectors(folder);
    let collateral = vectors.collateral("dcapqvl-tdx-outdated-collateral.json");
    let quote = vectors.quote("dcapqvl-tdx-outdated.bin");
    assert_eq!(quote.view().version, 5);
    match verify_quote(&quote, &collateral, in_2026()) {
        Err(QuoteError::Refused { reason }) => assert!(reason.contains("TCB level"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn attack_collateral_out_of_its_time_or_of_another_platform() {
    let Some(folder) = folder() else { return };
    let vectors = Vectors(folder);
    let old = vectors.collateral("dcapqvl-tdx-collateral.json");
    let quote = vectors.quote("dcapqvl-tdx.bin");
    let refused = |quote: &RawQuote, collateral: &QuoteCollateral, now| {
        let error = verify_quote(quote, collateral, now).expect_err("refused");
        assert!(matches!(error, QuoteError::Refused { .. }), "{error}");
        assert_eq!(error.check(), "quote.chain");
    };
    refused(&quote, &old, in_2025() + Duration::from_secs(60 * 86_400));
    refused(&quote, &old, in_2025() - Duration::from_secs(60 * 86_400));
    for other in ["gotdx-prod-spr-e4.dat", "gotdx-v5.dat", "dcapqvl-tdx-outdated.bin"] {
        refused(&vectors.quote(other), &old, in_2025());
    }
}

#[test]
fn attack_any_changed_byte_of_a_quote() {
    let Some(folder) = folder() else { return };
    let vectors = Vectors(folder);
    let collateral = vectors.collateral("dcapqvl-tdx-collateral.json");
    let sound = vectors.file("dcapqvl-tdx.bin");
    // Header, TD report and signature data; the certificate chain behind it is text with slack in it.
    let mut changed = 0;
    for offset in (0..48 + 584 + 4 + 128 + 384).step_by(37) {
        let mut bytes = sound.clone();
        bytes[offset] ^= 1;
        let Ok(quote) = RawQuote::parse(&bytes) else { continue };
        assert!(verify_quote(&quote, &collateral, in_2025()).is_err(), "{offset}");
        changed += 1;
    }
    assert!(changed > 25);
}

#[test]
fn a_quote_is_appraised_claim_by_claim() {
    let Some(folder) = folder() else { return };
    let four = verified(&Vectors(folder));
    let strict =
        |quote: &VerifiedQuote| TdxReferenceValues::strict(Expect::Is(quote.report_data), "test");
    let exact = TdxReferenceValues {
        mr_td: Expect::Is([four.mr_td].into()),
        mr_config_id: Expect::Is([four.mr_config_id].into()),
        mr_seam: Expect::Is([four.mr_seam].into()),
        rtmr: four.rtmr.map(|rtmr| Expect::Is([rtmr].into())),
        minimum_tcb_evaluation: Expect::Is(four.tcb_evaluation()),
        minimum_tee_tcb_svn: Expect::Is(Digest::new(four.tee_tcb_svn)),
        fmspc: Expect::Is([Digest::new(four.fmspc())].into()),
        ..strict(&four)
    };
    let appraisal = appraise_quote(&four, &exact);
    assert!(appraisal.is_met(), "{appraisal}");
    assert!(appraisal.claims.iter().all(|claim| !claim.meaning().is_empty()), "{appraisal:#}");
    let fails = |change: fn(&mut TdxReferenceValues), name: &str| {
        let mut reference = exact.clone();
        change(&mut reference);
        assert_eq!(unmet(&appraise_quote(&four, &reference)), [name]);
    };
    fails(|r| r.mr_td = Expect::Is([Sha384::new([7; 48])].into()), "mr td");
    fails(|r| r.mr_config_id = Expect::Is([Sha384::new([7; 48])].into()), "mr config id");
    fails(|r| r.mr_seam = Expect::Is([Sha384::new([7; 48])].into()), "mr seam");
    fails(|r| r.rtmr[2] = Expect::Is([Sha384::new([7; 48])].into()), "rtmr 2");
    fails(|r| r.mr_owner = Expect::Is([].into()), "mr owner");
    fails(|r| r.minimum_tcb_evaluation = Expect::Is(u32::MAX), "tcb evaluation");
    fails(|r| r.minimum_tee_tcb_svn = Expect::Is(Digest::new([255; 16])), "tee tcb svn");
    fails(|r| r.fmspc = Expect::Is([].into()), "fmspc");
    fails(|r| r.tcb_status = Expect::Is([TcbStatus::OutOfDate].into()), "tcb status");
    let advisories = |names: &[&str]| TdxReferenceValues {
        refused_advisories: Expect::Is(names.iter().map(|name| (*name).to_owned()).collect()),
        ..exact.clone()
    };
    assert!(four.advisories().is_empty(), "an up-to-date platform is open to none");
    assert!(appraise_quote(&four, &advisories(&["INTEL-SA-00837"])).is_met());
}

#[test]
fn reference_values_of_quotes_are_strict_json() {
    let json = serde_json::to_string(&TdxReferenceValues::strict(Expect::any("x"), "x")).unwrap();
    assert!(serde_json::from_str::<TdxReferenceValues>(&json).is_ok());
    let other = json.replacen('{', r#"{"extra":1,"#, 1);
    assert!(serde_json::from_str::<TdxReferenceValues>(&other).is_err());
}

#[test]
fn collateral_documents_are_bounded_and_typed() {
    let of = |json: &[u8]| QuoteCollateral::from_json(json).map(drop).unwrap_err().check();
    assert_eq!(of(b"{}"), "collateral.encoding");
    assert_eq!(of(&vec![b' '; 1024 * 1024 + 1]), "collateral.size");
}
