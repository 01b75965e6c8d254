//! How each expectation is compared.

use std::collections::BTreeSet;
use std::time::Duration;

use ah_digest::Digest;
use ah_evidence::{ChipId, FirmwareVersion, Product, SnpReport, TcbParts, TcbVersion};
use ah_verifier::{Chip, RevocationStatus, Verified};

use crate::appraisal::Appraisal;
use crate::claims::{Claims, at_least, list, map};
use crate::reference::{
    Allowance, ChipRule, Expect, FirmwareRule, PlatformRule, PolicyRule, ReferenceValues,
    Requirement, RevocationRule, TcbFloor,
};

/// Compares a verified report with everything that is expected of it.
pub fn appraise(report: &Verified<SnpReport>, reference: &ReferenceValues) -> Appraisal {
    let mut claims = Claims(Vec::new());
    origin(&mut claims, report, reference);
    guest(&mut claims, report, reference);
    policy(&mut claims, report, &reference.guest_policy);
    tcb(&mut claims, report, reference);
    platform(&mut claims, report, &reference.platform);
    id_block(&mut claims, report, reference);
    Appraisal { tee: report.tee(), claims: claims.0 }
}

fn origin(claims: &mut Claims, report: &Verified<SnpReport>, reference: &ReferenceValues) {
    let tee = report.tee();
    claims.check("tee", tee, &reference.tee, |is| is.to_string(), |is| *is == tee);
    let product = report.product();
    claims.check("product", product, &reference.products, list, |set| set.contains(&product));
    let none_of = |set: &BTreeSet<Product>| format!("none of {}", list(set));
    let refused = &reference.refused_products;
    claims.check("product: refused", product, refused, none_of, |set| !set.contains(&product));
    chip(claims, report.chip(), reference);
    revocation(claims, report, &reference.revocation);
}

fn chip(claims: &mut Claims, chip: Chip, reference: &ReferenceValues) {
    claims.check("chip", chip, &reference.chips, chip_rule, |rule| match (rule, chip) {
        (ChipRule::Identified, chip) => matches!(chip, Chip::Identified(_)),
        (ChipRule::NotMasked, chip) => chip != Chip::Masked,
        (ChipRule::OneOf(ids), Chip::Identified(id)) => ids.contains(&id),
        (ChipRule::OneOf(_), Chip::Claimed(_) | Chip::Masked) => false,
    });
    let none_of = |ids: &Vec<ChipId>| format!("none of {} chips", ids.len());
    claims.check("chip: refused", chip, &reference.refused_chips, none_of, |ids| match chip {
        Chip::Identified(id) | Chip::Claimed(id) => !ids.contains(&id),
        Chip::Masked => false,
    });
}

fn revocation(claims: &mut Claims, report: &Verified<SnpReport>, expect: &Expect<RevocationRule>) {
    const DAY: Duration = Duration::from_secs(86_400);
    let status = report.revocation();
    let age = report.revocation_list_age();
    let text = match age {
        Some(age) => format!("{status}, by a list of {} days ago", age.as_secs() / DAY.as_secs()),
        None => status.to_string(),
    };
    let describe = |rule: &RevocationRule| match rule {
        RevocationRule::NotRevoked => "not revoked".to_owned(),
        RevocationRule::NotRevokedWithin { days } => {
            format!("not revoked, by a list of at most {days} days ago")
        }
    };
    claims.check("revocation", text, expect, describe, |rule| {
        let fresh = match rule {
            RevocationRule::NotRevoked => true,
            RevocationRule::NotRevokedWithin { days } => {
                age.is_some_and(|age| age <= DAY.saturating_mul(*days))
            }
        };
        *status == RevocationStatus::NotRevoked && fresh
    });
}

fn guest(claims: &mut Claims, report: &SnpReport, reference: &ReferenceValues) {
    claims.one_of("measurement", report.measurement, &reference.measurement);
    claims.one_of("host data", report.host_data, &reference.host_data);
    claims.equal("report data", report.report_data, &reference.report_data);
    claims.one_of("vmpl", report.vmpl, &reference.vmpl);
}

fn policy(claims: &mut Claims, report: &SnpReport, expect: &Expect<PolicyRule>) {
    let policy = report.policy;
    let mut allowed = |name, found, rule: fn(&PolicyRule) -> Allowance| {
        claims.allowance(name, found, &map(expect, rule));
    };
    allowed("guest policy: debug", policy.debug_allowed(), |rule| rule.debug);
    allowed("guest policy: migration", policy.migration_allowed(), |rule| rule.migration);
    allowed("guest policy: smt", policy.smt_allowed(), |rule| rule.smt);
    allowed("guest policy: cxl", policy.cxl_allowed(), |rule| rule.cxl);
    let mut asked = |name, found, rule: fn(&PolicyRule) -> Requirement| {
        claims.requirement(name, found, &map(expect, rule));
    };
    asked("guest policy: single socket", policy.single_socket(), |rule| rule.single_socket);
    asked("guest policy: aes-256-xts", policy.aes_256_xts_required(), |rule| rule.aes_256_xts);
    asked("guest policy: rapl disabled", policy.rapl_disabled(), |rule| rule.rapl_disabled);
    asked("guest policy: ciphertext hiding", policy.ciphertext_hiding_required(), |rule| {
        rule.ciphertext_hiding
    });
    asked("guest policy: page swap disabled", policy.page_swap_disabled(), |rule| {
        rule.page_swap_disabled
    });
    let abi = policy.minimum_abi();
    let text = |(major, minor): (u8, u8)| format!("{major}.{minor}");
    let expect = map(expect, |rule| rule.minimum_abi);
    claims.check("guest policy: abi", text(abi), &expect, at_least(text), |least| abi >= *least);
}

fn tcb(claims: &mut Claims, report: &Verified<SnpReport>, reference: &ReferenceValues) {
    let product = report.product();
    let mut floors = |name, found: Option<TcbParts>, expect: &Expect<Vec<TcbFloor>>| {
        let text = found.map_or_else(|| "unknown".to_owned(), |parts| parts.to_string());
        let met = |floors: &Vec<TcbFloor>| {
            let mut applying = floors.iter().filter(|floor| floor.applies(product, report));
            let all = |found: TcbParts| {
                let first = applying.next().is_some_and(|floor| found.at_least(&floor.minimum));
                first && applying.all(|floor| found.at_least(&floor.minimum))
            };
            found.is_some_and(all)
        };
        claims.check(name, text, expect, |floors| describe_floors(floors), met);
    };
    floors("tcb", Some(report.tcb()), &reference.minimum_tcb);
    let parts = |version: TcbVersion| version.parts(product);
    floors("launch tcb", parts(report.launch_tcb), &reference.minimum_launch_tcb);
    firmware(claims, report, &reference.firmware);
    let vectors = report.version.mitigations();
    let both = vectors.map(|vectors| vectors.launch & vectors.current);
    let text = both.map_or_else(|| "not in this report version".to_owned(), |v| format!("{v:#x}"));
    claims.check(
        "mitigations",
        text,
        &reference.mitigations,
        |v| format!("{v:#x}"),
        |bits| both.is_some_and(|both| both & bits == *bits),
    );
}

fn firmware(claims: &mut Claims, report: &SnpReport, expect: &Expect<FirmwareRule>) {
    let current = report.current_firmware;
    let minimum = map(expect, |rule| rule.minimum);
    let text = |version: FirmwareVersion| version.to_string();
    claims.check("firmware", current, &minimum, at_least(text), |least| current >= *least);
    let provisional =
        report.current_tcb != report.committed_tcb || current != report.committed_firmware;
    claims.allowance("firmware: provisional", provisional, &map(expect, |rule| rule.provisional));
}

fn platform(claims: &mut Claims, report: &SnpReport, expect: &Expect<PlatformRule>) {
    let info = report.platform_info;
    let mut allowed = |name, found, rule: fn(&PlatformRule) -> Allowance| {
        claims.allowance(name, found, &map(expect, rule));
    };
    allowed("platform: smt", info.smt_enabled(), |rule| rule.smt);
    allowed("platform: tio", info.tio_enabled(), |rule| rule.tio);
    allowed("platform: unknown bits", info.unknown_bits() != 0, |rule| rule.unknown);
    let mut asked = |name, found, rule: fn(&PlatformRule) -> Requirement| {
        claims.requirement(name, found, &map(expect, rule));
    };
    asked("platform: alias check", info.alias_check_complete(), |rule| rule.alias_check);
    asked("platform: ecc", info.ecc_enabled(), |rule| rule.ecc);
    asked("platform: rapl disabled", info.rapl_disabled(), |rule| rule.rapl_disabled);
    asked("platform: ciphertext hiding", info.ciphertext_hiding(), |rule| rule.ciphertext_hiding);
    asked("platform: tsme", info.tsme_enabled(), |rule| rule.tsme);
}

fn id_block(claims: &mut Claims, report: &SnpReport, reference: &ReferenceValues) {
    let svn = report.guest_svn;
    let text = |least: u32| least.to_string();
    let expect = &reference.minimum_guest_svn;
    claims.check("guest svn", svn, expect, at_least(text), |least| svn >= *least);
    claims.one_of("id key", report.id_key_digest, &reference.id_key);
    claims.one_of("author key", report.author_key_digest, &reference.author_key);
    claims.equal("family id", Digest::new(report.family_id), &reference.family_id);
    claims.equal("image id", Digest::new(report.image_id), &reference.image_id);
    claims.equal("report id", Digest::new(report.report_id), &reference.report_id);
}

fn chip_rule(rule: &ChipRule) -> String {
    match rule {
        ChipRule::Identified => "named by its certificate".to_owned(),
        ChipRule::NotMasked => "not masked".to_owned(),
        ChipRule::OneOf(ids) => {
            let all: Vec<_> = ids.iter().map(ToString::to_string).collect();
            format!("one of {}", all.join(", "))
        }
    }
}

fn describe_floors(floors: &[TcbFloor]) -> String {
    let text = |TcbFloor { product, model, minimum }: &TcbFloor| match model {
        Some(model) => format!("{product} model {model:#x} at least {minimum}"),
        None => format!("{product} at least {minimum}"),
    };
    floors.iter().map(text).collect::<Vec<_>>().join("; ")
}
