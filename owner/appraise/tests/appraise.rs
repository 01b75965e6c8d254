//! Each expectation: met by the report it was written for, and not by the smallest change.

#[path = "../../verifier/tests/support/mod.rs"]
mod support;

use ah_appraise::{
    Allowance, Appraisal, ChipRule, Expect, FirmwareRule, Guest, PlatformRule, PolicyRule,
    ReferenceValues, Requirement, RevocationRule, TcbFloor, Verdict, appraise,
};
use ah_digest::Digest;
use ah_evidence::{
    ChipId, FirmwareVersion, GuestPolicy, PlatformInfo, Product, ReportData, SnpReport, TcbParts,
    TcbVersion, Tee, Version,
};
use ah_verifier::{Collateral, Revocation, Verified, verify};
use support::{CHIP, DAY, KEYS, TCB, collateral, now, report, revocation_list, roots, signed};

fn verified(report: &SnpReport) -> Verified<SnpReport> {
    verify(&signed(report), &collateral(), now(), &roots()).unwrap()
}

fn guest() -> Guest {
    let SnpReport { measurement, host_data, report_data, .. } = report();
    Guest { tee: Tee::Software, measurement, host_data, report_data }
}

/// Nothing waived but revocation, which has its own test.
fn strict() -> ReferenceValues {
    ReferenceValues {
        products: Expect::Is([Product::Genoa].into()),
        refused_products: Expect::Is([Product::Milan].into()),
        chips: Expect::Is(ChipRule::Identified),
        refused_chips: Expect::Is(vec![ChipId([2; 64])]),
        minimum_tcb: Expect::Is(vec![floor(Some(0x11), TCB)]),
        minimum_launch_tcb: Expect::Is(vec![floor(None, TCB)]),
        firmware: Expect::Is(FirmwareRule {
            minimum: FirmwareVersion { major: 1, minor: 55, build: 49 },
            provisional: Allowance::Refused,
        }),
        platform: Expect::Is(PlatformRule {
            smt: Allowance::Refused,
            alias_check: Requirement::Required,
            ecc: Requirement::Required,
            rapl_disabled: Requirement::Optional,
            ciphertext_hiding: Requirement::Optional,
            tsme: Requirement::Optional,
            tio: Allowance::Refused,
            unknown: Allowance::Refused,
        }),
        mitigations: Expect::Is(3),
        minimum_guest_svn: Expect::Is(4),
        id_key: Expect::Is([Digest::new([5; 48])].into()),
        author_key: Expect::Is([Digest::new([6; 48])].into()),
        family_id: Expect::Is(Digest::new([1; 16])),
        image_id: Expect::Is(Digest::new([2; 16])),
        report_id: Expect::Is(Digest::new([7; 32])),
        ..ReferenceValues::of_guest(guest(), "test")
    }
}

fn floor(model: Option<u8>, minimum: TcbParts) -> TcbFloor {
    TcbFloor { product: Product::Genoa, model, minimum }
}

fn unmet(appraisal: &Appraisal) -> Vec<&'static str> {
    appraisal.unmet().map(|claim| claim.name).collect()
}

/// The report after `change`, against unchanged expectations.
fn report_fails(change: impl FnOnce(&mut SnpReport), expect: &[&str]) {
    let mut report = report();
    change(&mut report);
    let appraisal = appraise(&verified(&report), &strict());
    assert_eq!(unmet(&appraisal), expect, "{appraisal}");
    assert!(appraisal.accept().is_err());
}

/// The unchanged report, against expectations after `change`.
fn reference_fails(change: impl FnOnce(&mut ReferenceValues), expect: &[&str]) {
    let mut reference = strict();
    change(&mut reference);
    let appraisal = appraise(&verified(&report()), &reference);
    assert_eq!(unmet(&appraisal), expect, "{appraisal}");
}

#[test]
fn the_expected_guest_is_accepted() {
    let appraisal = appraise(&verified(&report()), &strict());
    assert!(appraisal.is_met(), "{appraisal}");
    let waived = appraisal.claims.iter().filter(|claim| claim.verdict == Verdict::Waived);
    assert_eq!(waived.count(), 1 + 5 + 3, "revocation, and what is optional");
    let text = appraisal.to_string();
    assert!(text.starts_with("tee: software (not confidential)\n"), "{text}");
    assert!(text.ends_with("\nevery expectation is met"), "{text}");
    assert!(text.contains("\nwaived   revocation (test)\n"), "{text}");
    assert_eq!(text.lines().count(), 1 + 30 + 2 + 1);
    assert_eq!(format!("{appraisal:#}").lines().count(), 1 + 39 + 1);
    assert!(appraisal.claims.iter().all(|claim| !claim.meaning().is_empty()));
    assert_eq!(appraisal.accept().unwrap().claims.len(), 39);
}

#[test]
fn attack_report_with_debug_policy() {
    report_fails(
        |report| report.policy = GuestPolicy::STRICT.with_debug(),
        &["guest policy: debug"],
    );
    let appraisal = appraise(
        &verified(&SnpReport { policy: GuestPolicy::STRICT.with_debug(), ..report() }),
        &ReferenceValues::of_guest(guest(), "test"),
    );
    assert_eq!(unmet(&appraisal), ["guest policy: debug"], "strict without being asked to be");
    let allowed = PolicyRule { debug: Allowance::Allowed, ..PolicyRule::STRICT };
    let reference = ReferenceValues { guest_policy: Expect::Is(allowed), ..strict() };
    let debug = verified(&SnpReport { policy: GuestPolicy::STRICT.with_debug(), ..report() });
    assert!(appraise(&debug, &reference).is_met(), "an owner who says so gets it");
}

#[test]
fn attack_report_with_migration_or_smt_policy() {
    let policy = GuestPolicy::STRICT;
    report_fails(|report| report.policy = policy.with_migration(), &["guest policy: migration"]);
    report_fails(|report| report.policy = policy.with_smt(), &["guest policy: smt"]);
}

#[test]
fn attack_report_of_another_guest() {
    report_fails(|report| report.measurement = Digest::new([0; 48]), &["measurement"]);
    report_fails(|report| report.host_data = Digest::new([0; 32]), &["host data"]);
    let other = ReportData::for_runtime_data(b"older nonce");
    report_fails(|report| report.report_data = other, &["report data"]);
    report_fails(|report| report.vmpl = 1, &["vmpl"]);
    report_fails(|report| report.guest_svn = 3, &["guest svn"]);
    report_fails(|report| report.family_id = [9; 16], &["family id"]);
    report_fails(|report| report.image_id = [9; 16], &["image id"]);
    report_fails(|report| report.report_id = [9; 32], &["report id"]);
    report_fails(|report| report.id_key_digest = Digest::new([0; 48]), &["id key"]);
    report_fails(|report| report.author_key_digest = Digest::new([0; 48]), &["author key"]);
}

#[test]
fn attack_software_report_for_an_owner_of_real_hardware() {
    reference_fails(|reference| reference.tee = Expect::Is(Tee::Snp), &["tee"]);
}

#[test]
fn machines_below_the_floor_are_refused() {
    let higher = |part: &mut TcbParts| part.snp += 1;
    let mut above = TCB;
    higher(&mut above);
    let floors = |floors| move |reference: &mut ReferenceValues| reference.minimum_tcb = floors;
    reference_fails(floors(Expect::Is(vec![floor(None, above)])), &["tcb"]);
    reference_fails(floors(Expect::Is(vec![floor(None, TCB), floor(Some(0x11), above)])), &["tcb"]);
    reference_fails(floors(Expect::Is(vec![floor(None, TCB), floor(Some(0xA0), above)])), &[]);
    reference_fails(floors(Expect::Is(vec![floor(Some(0xA0), TCB)])), &["tcb"]);
    reference_fails(floors(Expect::Is(vec![])), &["tcb"]);
    report_fails(|report| report.launch_tcb = TcbVersion(0), &["launch tcb"]);
    report_fails(
        |report| report.current_firmware.build -= 1,
        &["firmware", "firmware: provisional"],
    );
    report_fails(|report| report.committed_firmware.build -= 1, &["firmware: provisional"]);
    reference_fails(|reference| reference.mitigations = Expect::Is(4), &["mitigations"]);
    report_fails(|report| report.platform_info = PlatformInfo(0x25), &["platform: smt"]);
    report_fails(|report| report.platform_info = PlatformInfo(0x04), &["platform: alias check"]);
}

#[test]
fn masked_or_other_chips_are_refused() {
    report_fails(|report| report.chip_id = ChipId([0; 64]), &["chip", "chip: refused"]);
    reference_fails(|r| r.chips = Expect::Is(ChipRule::NotMasked), &[]);
    let masked = verified(&SnpReport { chip_id: ChipId([0; 64]), ..report() });
    let reference = ReferenceValues {
        chips: Expect::Is(ChipRule::NotMasked),
        refused_chips: Expect::any("test"),
        ..strict()
    };
    assert_eq!(unmet(&appraise(&masked, &reference)), ["chip"]);
    let one_of =
        |id| move |r: &mut ReferenceValues| r.chips = Expect::Is(ChipRule::OneOf(vec![id]));
    reference_fails(one_of(CHIP), &[]);
    reference_fails(one_of(ChipId([1; 64])), &["chip"]);
    let lines = |line| move |r: &mut ReferenceValues| r.products = Expect::Is([line].into());
    reference_fails(lines(Product::Turin), &["product"]);
}

#[test]
fn attack_chip_or_line_whose_key_got_out() {
    let chips = |ids: Vec<ChipId>| move |r: &mut ReferenceValues| r.refused_chips = Expect::Is(ids);
    reference_fails(chips(vec![]), &[]);
    reference_fails(chips(vec![ChipId([2; 64])]), &[]);
    reference_fails(chips(vec![ChipId([2; 64]), CHIP]), &["chip: refused"]);
    let lines = |lines: &'static [Product]| {
        move |r: &mut ReferenceValues| {
            r.refused_products = Expect::Is(lines.iter().copied().collect());
        }
    };
    reference_fails(lines(&[]), &[]);
    reference_fails(lines(&[Product::Milan, Product::Turin]), &[]);
    reference_fails(lines(&[Product::Milan, Product::Genoa]), &["product: refused"]);
}

#[test]
fn attack_report_without_a_model_under_a_floor_of_one_model() {
    let mut above = TCB;
    above.microcode += 1;
    let old = SnpReport { version: Version::V2, ..report() };
    let mut reference = ReferenceValues { mitigations: Expect::any("test"), ..strict() };
    assert!(appraise(&verified(&old), &reference).is_met());
    reference.minimum_tcb = Expect::Is(vec![floor(None, TCB), floor(Some(0xA0), above)]);
    let named = appraise(&verified(&report()), &reference);
    assert!(named.is_met(), "the floor is another model's: {named}");
    assert_eq!(unmet(&appraise(&verified(&old), &reference)), ["tcb"], "it may be that model");
}

#[test]
fn machines_with_devices_or_unknown_bits_are_refused_where_asked() {
    report_fails(|report| report.platform_info = PlatformInfo(0xA4), &["platform: tio"]);
    report_fails(|report| report.platform_info = PlatformInfo(0x64), &["platform: unknown bits"]);
}

#[test]
fn revocation_has_to_be_looked_up_where_it_is_expected() {
    let expect = Expect::Is(RevocationRule::NotRevoked);
    reference_fails(|reference| reference.revocation = expect.clone(), &["revocation"]);
    let list = revocation_list(&[], now() + DAY, &KEYS.root);
    let collateral = Collateral { revocation: Revocation::List(list), ..collateral() };
    let verified = verify(&signed(&report()), &collateral, now(), &roots()).unwrap();
    let reference = ReferenceValues { revocation: expect, ..strict() };
    assert!(appraise(&verified, &reference).is_met());
    // The list is a day old: see `revocation_list`.
    let within = |days| {
        let revocation = Expect::Is(RevocationRule::NotRevokedWithin { days });
        let appraisal = appraise(&verified, &ReferenceValues { revocation, ..strict() });
        unmet(&appraisal)
    };
    assert_eq!(within(1), [""; 0]);
    assert_eq!(within(0), ["revocation"]);
}

#[test]
fn empty_sets_are_met_by_nothing() {
    reference_fails(|reference| reference.measurement = Expect::Is([].into()), &["measurement"]);
    reference_fails(|reference| reference.host_data = Expect::Is([].into()), &["host data"]);
    reference_fails(|reference| reference.vmpl = Expect::Is([].into()), &["vmpl"]);
}

#[test]
fn reference_values_are_strict_json() {
    let json = serde_json::to_string(&strict()).unwrap();
    assert_eq!(serde_json::from_str::<ReferenceValues>(&json).unwrap(), strict());
    let refused = |json: String| serde_json::from_str::<ReferenceValues>(&json).is_err();
    assert!(refused(json.replacen('{', r#"{"extra":1,"#, 1)));
    assert!(refused(json.replace(r#""reason":"test""#, r#""reasons":"test""#)));
    let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 22);
    for key in keys {
        let kept = value.as_object_mut().unwrap().remove(&key).unwrap();
        assert!(refused(value.to_string()), "{key} has to be there");
        value.as_object_mut().unwrap().insert(key, kept);
    }
}

#[test]
fn appraisals_are_json_claim_by_claim() {
    let json = serde_json::to_value(appraise(&verified(&report()), &strict())).unwrap();
    assert_eq!(json["tee"], "software");
    let debug = json["claims"].as_array().unwrap().iter();
    let debug = debug.clone().find(|claim| claim["name"] == "guest policy: debug").unwrap();
    assert_eq!(debug["found"], "off");
    assert_eq!(debug["expected"], "off");
    assert_eq!(debug["met"], true);
    assert_eq!(debug["verdict"], "met");
}
