//! Sorting of AMD's public certificates, and of what hosts hand out.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ah_collateral::{
    Certificates, CollateralError, ThimCertificates, from_cert_table, read_certificates,
    read_revocation_list,
};
use ah_evidence::{CertKind, CertTable, Product, RawReport, SnpReport};
use ah_verifier::{Revocation, TrustedRoots, verify};

fn not_checked() -> Revocation {
    Revocation::NotChecked { reason: "test".to_owned() }
}

fn root(product: Product) -> &'static [u8] {
    TrustedRoots::amd_root_der(product).unwrap()
}

#[test]
fn what_is_missing_is_named() {
    let table = |entries| CertTable::new(entries).unwrap().encode();
    let missing = |bytes: &[u8], expect: &str| match from_cert_table(bytes, not_checked()) {
        Err(CollateralError::Missing { what }) => assert_eq!(what, expect),
        other => panic!("{other:?}"),
    };
    missing(&[], "vcek or vlek");
    missing(&table(vec![(CertKind::Ark, root(Product::Genoa).to_vec())]), "vcek or vlek");
    let broken = from_cert_table(&[1; 30], not_checked());
    assert!(matches!(broken, Err(CollateralError::CertTable(_))));
    let garbage = table(vec![(CertKind::Vcek, vec![1; 30])]);
    assert!(matches!(
        from_cert_table(&garbage, not_checked()),
        Err(CollateralError::Encoding { .. })
    ));
}

#[test]
fn attack_two_certificates_for_one_place() {
    let mut certificates = Certificates::default();
    certificates.add(root(Product::Genoa)).unwrap();
    certificates.add(root(Product::Genoa)).unwrap();
    let second = certificates.add(root(Product::Milan));
    assert!(matches!(second, Err(CollateralError::Ambiguous { .. })));
}

#[test]
fn files_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.pem");
    std::fs::write(&path, vec![0; 256 * 1024 + 1]).unwrap();
    let mut certificates = Certificates::default();
    let refused = read_certificates(&mut certificates, &path);
    assert!(matches!(refused, Err(CollateralError::TooLarge { .. })));
    let absent = read_certificates(&mut certificates, &dir.path().join("none"));
    assert!(matches!(absent, Err(CollateralError::Io { .. })));
}

fn vectors() -> Option<PathBuf> {
    let folder =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors"));
    if folder.is_dir() {
        return Some(folder.to_owned());
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

/// Real reports verify with certificates as they are found beside them, roots filled in where there is none.
#[test]
fn real_certificates_in_every_form() {
    let Some(folder) = vectors() else { return };
    let cases: [(&str, &[&str], u64); 6] = [
        ("ms-aci/snp_report.bin", &["ms-aci/uvm_host_amd_certificate.json"], 2023),
        ("ms-aci/snp_report.bin", &["ms-aci/uvm_host_amd_certificate.pem"], 2023),
        ("ms-tav-turin/report.bin", &["ms-tav-turin/vcek.pem", "ms-tav-turin/ask.pem"], 2026),
        (
            "gosevguest-milan-v2/report.bin",
            &["gosevguest-milan-v2/vcek.der", "gosevguest-milan-v2/ask_ark.pem"],
            2023,
        ),
        (
            "trustee-milan-vlek/report.bin",
            &["trustee-milan-vlek/vlek.der", "roots/milan_ask_ark_asvk.trustee.pem"],
            2025,
        ),
        ("lunal-genoa-v5/report.bin", &["lunal-genoa-v5/vcek.der", "roots/genoa-ask.der"], 2027),
    ];
    for (report, files, year) in cases {
        let mut certificates = Certificates::default();
        for file in files {
            read_certificates(&mut certificates, &folder.join("snp").join(file)).unwrap();
        }
        let collateral = certificates.collateral(not_checked()).unwrap();
        let bytes = std::fs::read(folder.join("snp").join(report)).unwrap();
        let raw = RawReport::try_from(bytes.as_slice()).unwrap();
        let mid_year = Duration::from_secs((year - 1970) * 31_556_952 + 15_000_000);
        verify(&raw, &collateral, UNIX_EPOCH + mid_year, &TrustedRoots::amd())
            .unwrap_or_else(|error| panic!("{report} {files:?}: {error:?}"));
    }
}

#[test]
fn thim_says_which_tcb_it_is_for() {
    let Some(folder) = vectors() else { return };
    let json = std::fs::read(folder.join("snp/ms-aci/uvm_host_amd_certificate.json")).unwrap();
    let thim = ThimCertificates::parse(&json).unwrap();
    let bytes = std::fs::read(folder.join("snp/ms-aci/snp_report.bin")).unwrap();
    let raw = RawReport::try_from(bytes.as_slice()).unwrap();
    let mut tcb = SnpReport::parse(&raw).unwrap().reported_tcb;
    assert!(thim.is_for(tcb));
    tcb.0 ^= 1;
    assert!(!thim.is_for(tcb));
    assert!(matches!(ThimCertificates::parse(b"{}"), Err(CollateralError::Thim(_))));
}

#[test]
fn revocation_lists_are_read_as_der_or_pem() {
    let Some(folder) = vectors() else { return };
    let path = folder.join("snp-synthetic/genoa-crl-empty.der");
    let der = std::fs::read(&path).unwrap();
    assert_eq!(read_revocation_list(&path).unwrap(), Revocation::List(der));
}
