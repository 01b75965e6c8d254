//! Real TDX quotes are recognised, and said not to be verified yet.

use std::path::PathBuf;

use ah_evidence::{Evidence, EvidenceError, RawQuote, TdxError, Tee};

fn evidence(report: Vec<u8>) -> Evidence {
    Evidence { tee: Tee::Tdx, report, auxblob: vec![], runtime_data: vec![], initdata: None }
}

#[test]
fn real_quotes() {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/reference/vectors/tdx"
    ));
    if !folder.is_dir() {
        println!("skipped: no vectors at {}", folder.display());
        return;
    }
    let quote = |name: &str| RawQuote::parse(&std::fs::read(folder.join(name)).unwrap());
    let cases = [
        ("dcapqvl-tdx.bin", 4),
        ("dcapqvl-tdx-outdated.bin", 5),
        ("gotdx-prod-spr-e4.dat", 4),
        ("gotdx-v5.dat", 5),
    ];
    for (name, version) in cases {
        let quote = quote(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(quote.view().version, version, "{name}");
        assert_ne!(quote.view().report.mr_td.as_bytes(), &[0; 48], "{name}");
        let json = evidence(quote.as_bytes().to_vec()).to_json().unwrap();
        let read = Evidence::from_json(json.as_bytes()).unwrap();
        assert!(matches!(read.snp_report(), Err(EvidenceError::TdxNotSupported)));
        assert_eq!(read.tdx_quote().unwrap(), Some(quote));
    }
    assert_eq!(quote("dcapqvl-sgx.bin"), Err(TdxError::Version { found: 3 }));
}

#[test]
fn attack_snp_report_labelled_tdx() {
    let refused = evidence(vec![2; 1184]).to_json();
    assert!(matches!(refused, Err(EvidenceError::Quote(_))));
}
