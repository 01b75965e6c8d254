//! Both forms of the document, from outside.

use std::collections::BTreeMap;

use ah_digest::{Sha256, Sha384};
use ah_policy::{
    AKS_ANNOTATION, AksPolicy, Algorithm, DocumentError, GuestSettings, INITDATA_ANNOTATION,
    InitData, InitDataDigest, KeyService, MAX_PACKED_BYTES, PolicyDocument, ServiceAddress,
    ServicePublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

const GOOD: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"policy.rego\" = \"x\"\n";

/// Public key: 32 bytes of 1, as RFC 4648 section 4 writes them.
const SETTINGS: &str = "[key_service]\naddress = \"vsock://2:1031\"\n\
    public_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n";

fn built() -> InitData {
    let extra = BTreeMap::from([("anchorhold.toml".to_owned(), SETTINGS.to_owned())]);
    InitData::build("package agent_policy\n", &extra).unwrap()
}

fn refused(text: &str) -> DocumentError {
    InitData::parse(text.as_bytes()).unwrap_err()
}

#[test]
fn only_the_document_s_own_shape_is_read() {
    let document = InitData::parse(GOOD.as_bytes()).unwrap();
    assert_eq!(document.policy(), "x");
    assert_eq!(document.bytes(), GOOD.as_bytes());
    assert_eq!(
        refused(&GOOD.replace("0.1.0", "0.1.1")),
        DocumentError::Version { found: "0.1.1".to_owned() }
    );
    assert_eq!(refused(&GOOD.replace("policy.rego", "policy")), DocumentError::NoPolicy);
    for (from, to) in [
        ("sha256", "sha1"),
        ("[data]", "more = 1\n[data]"),
        ("[data]", "[data.more]"),
        ("algorithm", "algorithms"),
        ("\"x\"\n", "1\n"),
        ("\"x\"\n", "\"x\"\n\"policy.rego\" = \"y\"\n"),
        ("\"x\"\n", "\"x\"\n[other]\n"),
    ] {
        let err = refused(&GOOD.replacen(from, to, 1));
        assert!(matches!(err, DocumentError::Toml { .. }), "{from} -> {to}: {err}");
    }
    let bytes = [GOOD.as_bytes(), &[0xff]].concat();
    assert_eq!(InitData::parse(&bytes), Err(DocumentError::NotUtf8 { what: "initdata" }));
}

#[test]
fn canonical_bytes_are_pinned() {
    let expect = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\
        \"anchorhold.toml\" = '''\n[key_service]\naddress = \"vsock://2:1031\"\n\
        public_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n'''\n\
        \"policy.rego\" = '''\npackage agent_policy\n'''\n";
    assert_eq!(String::from_utf8_lossy(built().bytes()), expect);
    assert_eq!(built().digest(), InitDataDigest::Sha256(Sha256::of(expect)));
}

#[test]
fn attack_one_changed_byte_is_another_digest() {
    let digest = built().digest();
    let text = String::from_utf8(built().bytes().to_vec()).unwrap();
    let same = InitData::parse(text.as_bytes()).unwrap();
    assert_eq!(same.digest(), digest);
    // Equal to a TOML reader, not to the hash: key order, quoting, the final newline.
    for other in [text.trim_end(), &text.replace("version = ", "version  = ")] {
        let other = InitData::parse(other.as_bytes()).unwrap();
        assert_eq!(other.policy(), same.policy());
        assert_ne!(other.digest(), digest);
    }
}

#[test]
fn the_digest_fits_the_field_or_is_refused() {
    let snp = built();
    assert_eq!(snp.host_data_snp(), Ok(Sha256::of(snp.bytes())));
    let err = snp.config_id_tdx().unwrap_err();
    let (found, expected) = (Algorithm::Sha256, Algorithm::Sha384);
    assert_eq!(err, DocumentError::Algorithm { found, expected, field: "MRCONFIGID (48 bytes)" });
    let tdx = InitData::build_for(Algorithm::Sha384, "p", &BTreeMap::new()).unwrap();
    assert_eq!(tdx.config_id_tdx(), Ok(Sha384::of(tdx.bytes())));
    assert!(tdx.host_data_snp().is_err());
    let none = InitData::build_for(Algorithm::Sha512, "p", &BTreeMap::new()).unwrap();
    assert!(none.host_data_snp().is_err() && none.config_id_tdx().is_err());
    // What the Kata runtime sets is the whole digest, zeros behind it, and never a part of one.
    let kata = |initdata: &InitData| PolicyDocument::InitData(initdata.clone()).kata_mrconfigid();
    let mut field = [0; 48];
    field[..32].copy_from_slice(snp.host_data_snp().unwrap().as_bytes());
    assert_eq!(kata(&snp), Ok(Some(field)));
    assert_eq!(kata(&tdx), Ok(Some(*Sha384::of(tdx.bytes()).as_bytes())));
    assert!(kata(&none).is_err());
    let aks = PolicyDocument::Aks(AksPolicy::new("package agent_policy\n").unwrap());
    assert_eq!(aks.kata_mrconfigid(), Ok(None));
    assert_eq!(none.digest().to_string().len(), 128);
}

#[test]
fn annotation_holds_exactly_one_gzip_member() {
    let value = built().to_annotation();
    assert_eq!(InitData::from_annotation(&value), Ok(built()));
    let packed = STANDARD.decode(&value).unwrap();
    let check = |bytes: &[u8]| InitData::from_annotation(&STANDARD.encode(bytes)).unwrap_err();
    assert!(matches!(check(&packed[..packed.len() - 1]), DocumentError::Gzip { .. }));
    assert!(matches!(check(&[&packed[..], b"x"].concat()), DocumentError::Gzip { .. }));
    assert!(matches!(check(&[&packed[..], &packed].concat()), DocumentError::Gzip { .. }));
    assert!(matches!(check(&vec![0; MAX_PACKED_BYTES + 1]), DocumentError::TooLarge { .. }));
    let newline = format!("{value}\n");
    assert_eq!(
        InitData::from_annotation(&newline),
        Err(DocumentError::Base64 { annotation: INITDATA_ANNOTATION })
    );
}

#[test]
fn attack_small_gzip_that_unpacks_without_end_is_cut_off() {
    let policy = "x".repeat(15 << 20);
    let fits = InitData::build(&policy, &BTreeMap::new()).unwrap();
    assert!(fits.to_annotation().len() < 64 << 10);
    assert!(InitData::from_annotation(&fits.to_annotation()).is_ok());

    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b'x'; 17 << 20]).unwrap();
    let value = STANDARD.encode(encoder.finish().unwrap());
    let err = InitData::from_annotation(&value).unwrap_err();
    let (found, max) = ((16 << 20) + 1, 16 << 20);
    assert_eq!(err, DocumentError::TooLarge { what: "initdata", found, max });
}

#[test]
fn attack_disk_with_bytes_behind_the_document_is_refused() {
    let disk = built().to_disk();
    assert_eq!(disk.len() % 512, 0);
    assert_eq!(InitData::from_disk(&disk), Ok(built()));
    let longer = [&disk[..], &[0; 512]].concat();
    assert_eq!(InitData::from_disk(&longer), Ok(built()));
    let mut tail = disk.clone();
    *tail.last_mut().unwrap() = 1;
    let detail = "bytes other than zero behind the document";
    assert_eq!(InitData::from_disk(&tail), Err(DocumentError::Disk { detail }));
    for (offset, value) in [(0, b'I'), (15, 1), (9, 0xff)] {
        let mut changed = disk.clone();
        changed[offset] = value;
        assert!(
            matches!(InitData::from_disk(&changed), Err(DocumentError::Disk { .. })),
            "{offset}"
        );
    }
    let mut shorter = disk.clone();
    shorter[8] -= 1;
    assert!(InitData::from_disk(&shorter).is_err());
    for length in [0, 7, 15, 16, 100] {
        assert!(InitData::from_disk(&disk[..length]).is_err(), "{length}");
    }
}

#[test]
fn aks_form_is_the_text_and_its_hash() {
    let policy = AksPolicy::new("package agent_policy\n").unwrap();
    assert_eq!(policy.host_data_snp(), Sha256::of("package agent_policy\n"));
    assert_eq!(AksPolicy::from_annotation(&policy.to_annotation()), Ok(policy));
    assert!(AksPolicy::from_annotation("%").is_err());
    assert!(AksPolicy::from_annotation(&STANDARD.encode([0xff])).is_err());
}

#[test]
fn exactly_one_form_counts() {
    let initdata = (INITDATA_ANNOTATION.to_owned(), built().to_annotation());
    let aks = (AKS_ANNOTATION.to_owned(), AksPolicy::new("p").unwrap().to_annotation());
    let read =
        |list: Vec<(String, String)>| PolicyDocument::from_annotations(&list.into_iter().collect());
    let document = read(vec![initdata.clone()]).unwrap();
    assert_eq!(document.policy(), "package agent_policy\n");
    assert_eq!(document.host_data_snp(), built().host_data_snp());
    assert_eq!(read(vec![aks.clone()]).unwrap().host_data_snp(), Ok(Sha256::of("p")));
    assert_eq!(read(vec![]), Err(DocumentError::Annotations { found: 0 }));
    assert_eq!(read(vec![initdata, aks]), Err(DocumentError::Annotations { found: 2 }));
}

#[test]
fn settings_are_strict() {
    let settings = built().guest_settings().unwrap();
    let address = ServiceAddress::Vsock { cid: 2, port: 1031 };
    let public_key = ServicePublicKey([1; 32]);
    assert_eq!(settings, GuestSettings { key_service: Some(KeyService { address, public_key }) });
    assert_eq!(settings.to_toml(), SETTINGS);
    assert_eq!(GuestSettings::parse(&settings.to_toml()), Ok(settings));
    assert_eq!(GuestSettings::parse(""), Ok(GuestSettings::default()));
    for (from, to) in [
        ("address = \"vsock://2:1031\"\n", ""),
        ("address", "more = 1\naddress"),
        ("[key_service]", "[key-service]"),
        ("vsock://2:1031", "tcp://2:1031"),
        ("vsock://2:1031", "vsock://2"),
        ("vsock://2:1031", "vsock://+2:1031"),
        ("vsock://2:1031", "vsock://2:4294967296"),
    ] {
        let text = SETTINGS.replacen(from, to, 1);
        assert_ne!(text, SETTINGS);
        assert!(GuestSettings::parse(&text).is_err(), "{text}");
    }
}

/// Without the key of the service its address says nothing: the host answers there.
#[test]
fn attack_settings_that_name_no_key_of_the_service() {
    assert!(GuestSettings::parse(SETTINGS).is_ok());
    let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let line = format!("public_key = \"{key}\"\n");
    for (from, to) in [
        (line.as_str(), ""),
        (key, ""),
        (key, "any"),
        // 31 bytes, 33 bytes, no padding, bits behind the last byte, hex, white space, the URL alphabet.
        (key, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=="),
        (key, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"),
        ("AQE=", "AQE"),
        ("AQE=", "AQF="),
        (key, "0101010101010101010101010101010101010101010101010101010101010101"),
        ("AQE=", "AQE= "),
        ("\"AQEB", "\"-_EB"),
    ] {
        let text = SETTINGS.replacen(from, to, 1);
        assert_ne!(text, SETTINGS);
        assert!(GuestSettings::parse(&text).is_err(), "{text}");
    }
    let plus = GuestSettings::parse(&SETTINGS.replacen("\"AQEB", "\"+/EB", 1));
    assert!(plus.is_ok(), "the same key in the standard alphabet: {plus:?}");
}

proptest! {
    #[test]
    fn any_text_round_trips_in_every_form(policy in any::<String>(), other in any::<String>(), key in any::<String>()) {
        let extra = BTreeMap::from([(format!("k{key}"), other)]);
        let built = InitData::build(&policy, &extra).unwrap();
        prop_assert_eq!(built.policy(), &policy);
        prop_assert_eq!(&InitData::from_annotation(&built.to_annotation()).unwrap(), &built);
        prop_assert_eq!(&InitData::from_disk(&built.to_disk()).unwrap(), &built);
    }

    #[test]
    fn quotes_and_line_ends_round_trip(policy in "['\"\\\\\r\n\t a]{0,40}") {
        let built = InitData::build(&policy, &BTreeMap::new()).unwrap();
        prop_assert_eq!(built.policy(), &policy);
    }
}
