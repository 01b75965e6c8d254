//! A chain of the tests' own: the allowed case, and beside it every smallest thing that is refused.

mod support;

use ah_evidence::{
    ChipId, Cpuid, KeyInfo, MitigationVectors, Product, RawReport, ReportError, SIGNED_BYTES,
    SigningKey, SnpReport, TcbParts, Version,
};
use ah_verifier::{
    Blame, Chip, Collateral, Revocation, RevocationStatus, Role, Root, TrustedRoots, VerifyError,
    verify,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::SHA_384_WITH_RSA_ENCRYPTION;
use der::Encode as _;
use support::{
    CHIP, DAY, KEYS, TCB, Template, amd, collateral, endorsement_extensions, extension, name, now,
    report, revocation_list, root, roots, rsa_public, signed,
};
use x509_cert::certificate::Version as X509Version;

fn outcome(raw: &RawReport, collateral: &Collateral) -> Result<(), VerifyError> {
    verify(raw, collateral, now(), &roots()).map(drop)
}

fn with_report(change: impl FnOnce(&mut SnpReport)) -> Result<(), VerifyError> {
    let mut report = report();
    change(&mut report);
    outcome(&signed(&report), &collateral())
}

fn with_vcek(change: impl FnOnce(&mut Template)) -> Result<(), VerifyError> {
    let mut vcek = Template::vcek();
    change(&mut vcek);
    let endorsement = vcek.signed_by(&KEYS.intermediate);
    outcome(&signed(&report()), &Collateral { endorsement, ..collateral() })
}

fn with_intermediate(change: impl FnOnce(&mut Template)) -> Result<(), VerifyError> {
    let mut template = Template::intermediate();
    change(&mut template);
    let intermediate = template.signed_by(&KEYS.root);
    outcome(&signed(&report()), &Collateral { intermediate, ..collateral() })
}

fn with_list(list: Vec<u8>) -> Result<(), VerifyError> {
    let revocation = Revocation::List(list);
    outcome(&signed(&report()), &Collateral { revocation, ..collateral() })
}

fn oid(arc: &str) -> String {
    amd(arc)
}

#[test]
fn a_sound_report_is_verified_and_says_whose_root_it_has() {
    let verified = verify(&signed(&report()), &collateral(), now(), &roots()).unwrap();
    assert_eq!(*verified, report());
    assert_eq!(verified.root(), Root::Software);
    assert_eq!(verified.tee().to_string(), "software (not confidential)");
    assert_eq!(verified.chip(), Chip::Identified(CHIP));
    assert_eq!((verified.tcb(), verified.product()), (TCB, Product::Genoa));
}

#[test]
fn attack_report_signed_by_another_root() {
    assert_eq!(outcome(&signed(&report()), &collateral()), Ok(()));
    let refused = |collateral: &Collateral, roots: &TrustedRoots| {
        verify(&signed(&report()), collateral, now(), roots).map(drop).unwrap_err()
    };
    // The same report for somebody who trusts AMD only.
    let error = refused(&collateral(), &TrustedRoots::amd());
    assert!(matches!(error, VerifyError::UntrustedRoot { .. }), "{error:?}");
    // A whole chain of the attacker's own, under the very names.
    let mut other = Template::root();
    other.key = rsa_public(&KEYS.other_root);
    let root = other.signed_by(&KEYS.other_root);
    let intermediate = Template::intermediate().signed_by(&KEYS.other_root);
    let forged = Collateral { root, intermediate: intermediate.clone(), ..collateral() };
    let error = refused(&forged, &roots());
    assert!(matches!(error, VerifyError::UntrustedRoot { .. }), "{error:?}");
    // The trusted root shown, the attacker's chain below it.
    let grafted = Collateral { intermediate, ..collateral() };
    let role = Role::Intermediate;
    assert_eq!(refused(&grafted, &roots()), VerifyError::CertificateSignature { role });
    // AMD's root shown over the software chain.
    let root = TrustedRoots::amd_root_der(Product::Genoa).unwrap().to_vec();
    let error = refused(&Collateral { root, ..collateral() }, &roots());
    assert_eq!(error.blame(), Blame::Collateral, "{error:?}");
}

#[test]
fn attack_report_changed_after_signing() {
    let sound = signed(&report());
    assert_eq!(outcome(&sound, &collateral()), Ok(()));
    for offset in (0..SIGNED_BYTES).step_by(7) {
        let mut bytes = *sound.as_bytes();
        bytes[offset] ^= 1;
        let raw = RawReport::try_from(bytes.as_slice()).unwrap();
        let error = outcome(&raw, &collateral()).unwrap_err();
        assert_eq!(error.blame(), Blame::Evidence, "{offset:#x}: {error:?}");
    }
}

#[test]
fn signatures_are_in_range() {
    let check = |range: std::ops::Range<usize>, value: u8, expect: VerifyError| {
        let mut bytes = *signed(&report()).as_bytes();
        bytes[range].fill(value);
        let raw = RawReport::try_from(bytes.as_slice()).unwrap();
        assert_eq!(outcome(&raw, &collateral()), Err(expect));
    };
    let zero = |offset| VerifyError::Report(ReportError::MustBeZero { offset });
    check(0x2A0..0x2D0, 0, VerifyError::SignatureRange);
    check(0x2A0..0x2D0, 0xFF, VerifyError::SignatureRange);
    check(0x2E8..0x318, 0, VerifyError::SignatureRange);
    check(0x2E8..0x318, 0xFF, VerifyError::SignatureRange);
    check(0x2D0..0x2D1, 1, zero(0x2D0));
    check(0x49F..0x4A0, 1, zero(0x330));
    check(0x2A0..0x2A8, 0x55, VerifyError::ReportSignature);
}

#[test]
fn signing_key_is_the_certificates() {
    let key_info = |mask_chip_key, signing_key| {
        with_report(|report| {
            report.key_info = KeyInfo { author_key: false, mask_chip_key, signing_key };
        })
    };
    let expected = SigningKey::Vcek;
    assert_eq!(key_info(false, SigningKey::Vcek), Ok(()));
    assert_eq!(key_info(true, SigningKey::Vcek), Err(VerifyError::ChipKeyMasked));
    for found in [SigningKey::Vlek, SigningKey::None] {
        assert_eq!(key_info(false, found), Err(VerifyError::SigningKey { found, expected }));
    }
}

#[test]
fn processor_is_the_chains() {
    let cpuid = |family, model| {
        with_report(|report| report.version = Version::V3(Cpuid { family, model, stepping: 0 }))
    };
    assert_eq!(cpuid(0x19, 0xA0), Ok(()));
    assert_eq!(with_report(|report| report.version = Version::V2), Ok(()));
    let (found, expected) = (Product::Milan, Product::Genoa);
    assert_eq!(cpuid(0x19, 0x01), Err(VerifyError::Product { found, expected }));
    let unknown = VerifyError::UnknownProcessor { family: 0x17, model: 0x31 };
    assert_eq!(cpuid(0x17, 0x31), Err(unknown));
    let vectors = MitigationVectors { launch: 0, current: 0 };
    let turin = Cpuid { family: 0x1A, model: 2, stepping: 1 };
    let refused = with_report(|report| report.version = Version::V5(turin, vectors));
    assert!(matches!(refused, Err(VerifyError::Product { found: Product::Turin, .. })));
}

#[test]
fn attack_report_of_rolled_back_firmware() {
    let version = |parts: TcbParts| parts.version(Product::Genoa).unwrap();
    let lower = TcbParts { snp: 26, ..TCB };
    let higher = TcbParts { snp: 28, ..TCB };
    let found = lower;
    let refused = with_report(|report| report.reported_tcb = version(lower));
    assert_eq!(refused, Err(VerifyError::Tcb { found, expected: TCB }));
    let refused = with_report(|report| report.current_tcb = version(lower));
    assert_eq!(
        refused,
        Err(VerifyError::TcbOrder { field: "reported", found: TCB, current: lower })
    );
    let refused = with_report(|report| report.committed_tcb = version(higher));
    assert_eq!(
        refused,
        Err(VerifyError::TcbOrder { field: "committed", found: higher, current: TCB })
    );
    assert_eq!(with_report(|report| report.current_tcb = version(higher)), Ok(()));
    let refused = with_report(|report| report.launch_tcb.0 |= 1 << 24);
    let layout = VerifyError::TcbLayout { field: "launch", product: Product::Genoa };
    assert_eq!(refused, Err(layout));
}

#[test]
fn chip_is_the_certificates_or_masked() {
    let mut other = CHIP;
    other.0[63] ^= 1;
    let differs = VerifyError::ChipId { found: other, expected: CHIP };
    assert_eq!(with_report(|report| report.chip_id = other), Err(differs));
    let masked = SnpReport { chip_id: ChipId([0; 64]), ..report() };
    let verified = verify(&signed(&masked), &collateral(), now(), &roots()).unwrap();
    assert_eq!(verified.chip(), Chip::Masked);
}

#[test]
fn attack_certificates_out_of_their_time() {
    let role = Role::Endorsement;
    let late = VerifyError::Expired { role };
    let early = VerifyError::NotYetValid { role };
    assert_eq!(with_vcek(|vcek| vcek.until = now()), Ok(()));
    assert_eq!(with_vcek(|vcek| vcek.until = now() - DAY), Err(late));
    assert_eq!(with_vcek(|vcek| vcek.from = now()), Ok(()));
    assert_eq!(with_vcek(|vcek| vcek.from = now() + DAY), Err(early));
    let late = VerifyError::Expired { role: Role::Intermediate };
    assert_eq!(with_intermediate(|ask| ask.until = now() - DAY), Err(late));
    let far = verify(&signed(&report()), &collateral(), now() + 200 * DAY, &roots());
    assert_eq!(far.map(drop), Err(VerifyError::Expired { role: Role::Root }));
}

#[test]
fn names_lead_from_key_to_root() {
    let wrong_name = |result: Result<(), VerifyError>, of: Role| match result {
        Err(VerifyError::Name { role, .. }) if role == of => {}
        other => panic!("{other:?}"),
    };
    wrong_name(with_vcek(|vcek| vcek.subject = name("SEV-VLEK")), Role::Endorsement);
    wrong_name(with_vcek(|vcek| vcek.issuer = name("SEV-Milan")), Role::Endorsement);
    wrong_name(
        with_vcek(|vcek| vcek.subject = "CN=SEV-VCEK,O=Else,OU=Test".to_owned()),
        Role::Endorsement,
    );
    wrong_name(
        with_vcek(|vcek| vcek.subject = format!("CN=SEV-VCEK,{}", name("SEV-VCEK"))),
        Role::Endorsement,
    );
    wrong_name(with_intermediate(|ask| ask.subject = name("SEV-Milan")), Role::Intermediate);
    wrong_name(with_intermediate(|ask| ask.issuer = name("ARK-Milan")), Role::Intermediate);
}

#[test]
fn vcek_is_issued_by_the_intermediate_only() {
    let endorsement = Template::vcek().signed_by(&KEYS.root);
    let refused = outcome(&signed(&report()), &Collateral { endorsement, ..collateral() });
    let role = Role::Endorsement;
    assert_eq!(refused, Err(VerifyError::CertificateSignature { role }));
    let mut vcek = Template::vcek();
    vcek.issuer = name("ARK-Genoa");
    let endorsement = vcek.signed_by(&KEYS.root);
    let refused = outcome(&signed(&report()), &Collateral { endorsement, ..collateral() });
    assert!(matches!(refused, Err(VerifyError::Name { .. })));
}

#[test]
fn certificates_have_amds_form() {
    let form = |result: Result<(), VerifyError>, expect: &str| match result {
        Err(VerifyError::CertificateForm { what, .. }) => assert_eq!(what, expect),
        other => panic!("{other:?}"),
    };
    form(with_vcek(|vcek| vcek.version = X509Version::V2), "version");
    form(with_vcek(|vcek| vcek.algorithm = SHA_384_WITH_RSA_ENCRYPTION), "signature algorithm");
    let key = |role, expected| Err(VerifyError::PublicKey { role, expected });
    let refused = with_vcek(|vcek| vcek.key = rsa_public(&KEYS.intermediate));
    assert_eq!(refused, key(Role::Endorsement, "a point on p-384"));
    let refused = with_intermediate(|ask| ask.key = support::ec_public(&KEYS.vcek));
    assert_eq!(refused, key(Role::Intermediate, "rsa with 4096 bits and exponent 65537"));
    let no_usage = with_intermediate(|ask| ask.extensions.truncate(1));
    assert!(matches!(
        no_usage,
        Err(VerifyError::MissingExtension { role: Role::Intermediate, .. })
    ));
}

#[test]
fn attack_certificate_with_trailing_bytes() {
    let role = Role::Endorsement;
    let mut longer = collateral();
    longer.endorsement.push(0);
    let refused = outcome(&signed(&report()), &longer);
    assert!(matches!(refused, Err(VerifyError::Certificate { role: found, .. }) if found == role));
    longer.endorsement = vec![0; 16 * 1024 + 1];
    let refused = outcome(&signed(&report()), &longer);
    assert!(matches!(refused, Err(VerifyError::TooLarge { .. })));
}

#[test]
fn attack_any_changed_byte_of_certificates_or_list() {
    let raw = signed(&report());
    let revocation = Revocation::List(revocation_list(&[9], now() + DAY, &KEYS.root));
    let sound = Collateral { revocation, ..collateral() };
    assert_eq!(outcome(&raw, &sound), Ok(()));
    let parts: [fn(&mut Collateral) -> &mut Vec<u8>; 4] = [
        |collateral| &mut collateral.endorsement,
        |collateral| &mut collateral.intermediate,
        |collateral| &mut collateral.root,
        |collateral| match &mut collateral.revocation {
            Revocation::List(list) => list,
            Revocation::NotChecked { .. } => unreachable!("made with a list"),
        },
    ];
    for (index, part) in parts.into_iter().enumerate() {
        let length = part(&mut sound.clone()).len();
        for offset in (0..length).step_by(3) {
            let mut changed = sound.clone();
            part(&mut changed)[offset] ^= 1 << (offset % 8);
            let error = outcome(&raw, &changed).expect_err("a changed byte");
            assert_eq!(error.blame(), Blame::Collateral, "{index} {offset}: {error:?}");
        }
    }
}

#[test]
fn extensions_are_unique_and_complete() {
    let role = Role::Endorsement;
    for arc in ["1", "2", "3.1", "3.2", "3.3", "3.8", "4"] {
        let id = ObjectIdentifier::new(&oid(arc)).unwrap();
        let missing = with_vcek(|vcek| vcek.extensions.retain(|e| e.extn_id != id));
        assert_eq!(missing, Err(VerifyError::MissingExtension { role, oid: oid(arc) }));
        let twice = with_vcek(|vcek| {
            let first = vcek.extensions.iter().find(|e| e.extn_id == id).unwrap().clone();
            vcek.extensions.push(first);
        });
        assert_eq!(twice, Err(VerifyError::DuplicateExtension { role, oid: oid(arc) }));
    }
    let unexpected = |arc: &str, value: Vec<u8>| {
        let refused = with_vcek(|vcek| vcek.extensions.push(extension(&oid(arc), value)));
        assert_eq!(refused, Err(VerifyError::UnexpectedExtension { role, oid: oid(arc) }));
    };
    unexpected("5", der::asn1::Ia5StringRef::new("CN=cloud").unwrap().to_der().unwrap());
    unexpected("3.9", 1u8.to_der().unwrap());
    unexpected("3.10", 1u8.to_der().unwrap());
    let reserved = with_vcek(|vcek| {
        vcek.extensions.push(extension(&oid("3.4"), 1u8.to_der().unwrap()));
    });
    assert_eq!(reserved, Err(VerifyError::MalformedExtension { role, oid: oid("3.4") }));
    let structure =
        with_vcek(|vcek| vcek.extensions[0] = extension(&oid("1"), 1u8.to_der().unwrap()));
    assert_eq!(structure, Err(VerifyError::MalformedExtension { role, oid: oid("1") }));
    let stranger = |critical| {
        with_vcek(|vcek| {
            let mut extension = extension("1.2.3.4", vec![5, 0]);
            extension.critical = critical;
            vcek.extensions.push(extension);
        })
    };
    assert_eq!(stranger(false), Ok(()));
    let oid = "1.2.3.4".to_owned();
    assert_eq!(stranger(true), Err(VerifyError::UnexpectedExtension { role, oid }));
}

#[test]
fn certificate_product_is_the_roots() {
    let name = der::asn1::Ia5StringRef::new("Genoa-B1").unwrap().to_der().unwrap();
    let renamed = |value: Vec<u8>| {
        with_vcek(|vcek| {
            vcek.extensions[1] = extension(&oid("2"), value);
        })
    };
    assert_eq!(renamed(name), Ok(()));
    let milan = der::asn1::Ia5StringRef::new("Milan-B0").unwrap().to_der().unwrap();
    assert!(matches!(renamed(milan), Err(VerifyError::CertificateProduct { .. })));
}

#[test]
fn a_vlek_names_a_provider_and_no_chip() {
    let csp = der::asn1::Ia5StringRef::new("CN=cloud").unwrap().to_der().unwrap();
    let mut vlek = Template::vcek();
    vlek.issuer = name("SEV-VLEK-Genoa");
    vlek.subject = name("SEV-VLEK");
    vlek.extensions = endorsement_extensions(Product::Genoa, TCB);
    vlek.extensions.push(extension(&oid("5"), csp));
    let mut asvk = Template::intermediate();
    asvk.subject = name("SEV-VLEK-Genoa");
    let chain = Collateral {
        endorsement: vlek.clone().signed_by(&KEYS.intermediate),
        intermediate: asvk.signed_by(&KEYS.root),
        ..collateral()
    };
    let mut leased = report();
    leased.key_info.signing_key = SigningKey::Vlek;
    let verified = verify(&signed(&leased), &chain, now(), &roots()).unwrap();
    assert_eq!(verified.provider(), Some("CN=cloud"));
    assert_eq!(verified.chip(), Chip::Claimed(CHIP));
    let mut short = leased.clone();
    short.chip_id.0[8..].fill(0);
    let found = short.chip_id;
    let length = VerifyError::ChipIdLength { found, expected: 64, product: Product::Genoa };
    assert_eq!(outcome(&signed(&short), &chain), Err(length), "a chip of a later line");
    let (found, expected) = (SigningKey::Vcek, SigningKey::Vlek);
    assert_eq!(
        outcome(&signed(&report()), &chain),
        Err(VerifyError::SigningKey { found, expected })
    );
    vlek.extensions.push(extension(&oid("4"), CHIP.0.to_vec()));
    let both = Collateral { endorsement: vlek.signed_by(&KEYS.intermediate), ..chain };
    let unexpected = VerifyError::UnexpectedExtension { role: Role::Endorsement, oid: oid("4") };
    assert_eq!(outcome(&signed(&leased), &both), Err(unexpected));
}

#[test]
fn attack_revoked_intermediate() {
    let fresh = now() + DAY;
    assert_eq!(with_list(revocation_list(&[1000], fresh, &KEYS.root)), Ok(()));
    let collateral = Collateral {
        revocation: Revocation::List(revocation_list(&[], fresh, &KEYS.root)),
        ..collateral()
    };
    let verified = verify(&signed(&report()), &collateral, now(), &roots()).unwrap();
    assert_eq!(verified.revocation(), &RevocationStatus::NotRevoked);
    let role = Role::Intermediate;
    let revoked = with_list(revocation_list(&[9, 2], fresh, &KEYS.root));
    assert_eq!(revoked, Err(VerifyError::Revoked { role }));
    let forged = with_list(revocation_list(&[], fresh, &KEYS.other_root));
    assert_eq!(forged, Err(VerifyError::CrlSignature));
    let stale = with_list(revocation_list(&[], now() - DAY / 2, &KEYS.root));
    assert_eq!(stale, Err(VerifyError::CrlStale));
    let old = with_list(revocation_list(&[2], now() - DAY / 2, &KEYS.root));
    assert_eq!(
        old,
        Err(VerifyError::Revoked { role }),
        "a list does not take it back by growing old"
    );
    let mut longer = revocation_list(&[], fresh, &KEYS.root);
    longer.push(0);
    assert!(matches!(with_list(longer), Err(VerifyError::Crl(_))));
}

#[test]
fn only_roots_in_amds_form_can_be_trusted() {
    let trust = |der: &[u8]| TrustedRoots::amd().danger_with_software_root(der).map(|_| ());
    assert_eq!(trust(&root()), Ok(()));
    let mut renamed = Template::root();
    (renamed.subject, renamed.issuer) = (name("ARK-Rome"), name("ARK-Rome"));
    for der in [
        renamed.signed_by(&KEYS.root),
        Template::root().signed_by(&KEYS.other_root),
        Template::intermediate().signed_by(&KEYS.root),
        Template::vcek().signed_by(&KEYS.intermediate),
        vec![],
    ] {
        let error = trust(&der).unwrap_err();
        assert_eq!(error.blame(), Blame::Configuration, "{error:?}");
    }
}
