//! UVM endorsements: real ones, and a chain of the tests' own with one knob for each thing that may be wrong.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_digest::Sha256;
use ah_reference::{DidX509, UvmEndorsement, UvmError, UvmIssuer, verify_uvm};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE};
use const_oid::db::rfc5912::ECDSA_WITH_SHA_384;
use der::asn1::{BitString, OctetString};
use der::{Decode as _, Encode as _};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::{CertificateInner, TbsCertificateInner, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

const DAY: u64 = 86_400;
const SIGNED: u64 = 20_000 * DAY;
const EKU: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4.5");
const MEASUREMENT: &str = "abababababababababababababababababababababababababababababababababababababababababababababababab";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A key in both of the forms that are needed: certificates carry DER signatures, COSE fixed ones.
struct Key {
    pkcs8: Vec<u8>,
}

impl Key {
    fn new() -> Self {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &SystemRandom::new());
        Self { pkcs8: document.unwrap().as_ref().to_vec() }
    }

    fn pair(&self, form: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        EcdsaKeyPair::from_pkcs8(form, &self.pkcs8).unwrap()
    }

    fn sign(&self, form: &'static EcdsaSigningAlgorithm, bytes: &[u8]) -> Vec<u8> {
        self.pair(form).sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec()
    }

    fn public(&self) -> SubjectPublicKeyInfoOwned {
        let pair = self.pair(&ECDSA_P384_SHA384_ASN1_SIGNING);
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        SubjectPublicKeyInfoOwned::from_der(der.as_ref()).unwrap()
    }
}

struct Template {
    issuer: &'static str,
    subject: &'static str,
    from: u64,
    until: u64,
    extensions: Vec<Extension>,
}

fn extension(oid: ObjectIdentifier, value: Vec<u8>) -> Extension {
    Extension { extn_id: oid, critical: true, extn_value: OctetString::new(value).unwrap() }
}

fn authority(path: Option<u8>) -> Vec<Extension> {
    let constraints = BasicConstraints { ca: true, path_len_constraint: path };
    let usage = KeyUsage(KeyUsages::KeyCertSign.into());
    vec![
        extension(ID_CE_BASIC_CONSTRAINTS, constraints.to_der().unwrap()),
        extension(ID_CE_KEY_USAGE, usage.to_der().unwrap()),
    ]
}

impl Template {
    fn root() -> Self {
        let extensions = authority(None);
        Self { issuer: "CN=root", subject: "CN=root", from: 0, until: SIGNED * 2, extensions }
    }

    fn intermediate() -> Self {
        Self { subject: "CN=between", extensions: authority(Some(0)), ..Self::root() }
    }

    fn leaf() -> Self {
        let extensions =
            vec![extension(ID_CE_EXT_KEY_USAGE, ExtendedKeyUsage(vec![EKU]).to_der().unwrap())];
        Self {
            issuer: "CN=between",
            subject: "CN=leaf",
            from: SIGNED - DAY,
            until: SIGNED + DAY,
            extensions,
        }
    }

    fn signed(self, key: &Key, by: &Key) -> Vec<u8> {
        let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA_384, parameters: None };
        let time = |seconds| Time::try_from(at(seconds)).unwrap();
        let tbs: TbsCertificateInner = TbsCertificateInner {
            version: Version::V3,
            serial_number: SerialNumber::from(1u32),
            signature: algorithm.clone(),
            issuer: Name::from_str(self.issuer).unwrap(),
            validity: Validity { not_before: time(self.from), not_after: time(self.until) },
            subject: Name::from_str(self.subject).unwrap(),
            subject_public_key_info: key.public(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions),
        };
        let signature = by.sign(&ECDSA_P384_SHA384_ASN1_SIGNING, &tbs.to_der().unwrap());
        let signature = BitString::from_bytes(&signature).unwrap();
        CertificateInner { tbs_certificate: tbs, signature_algorithm: algorithm, signature }
            .to_der()
            .unwrap()
    }
}

/// Everything of one endorsement that a test may change.
struct Scene {
    root: Key,
    between: Key,
    leaf: Key,
    chain: [Template; 3],
    headers: Vec<(Value, Value)>,
    unprotected: Vec<(Value, Value)>,
    payload: String,
    signed_payload: Option<String>,
}

impl Scene {
    fn new() -> Self {
        Self {
            root: Key::new(),
            between: Key::new(),
            leaf: Key::new(),
            chain: [Template::leaf(), Template::intermediate(), Template::root()],
            headers: vec![
                (Value::from(1), Value::from(-35)),
                (Value::from(3), Value::from("application/json")),
                (Value::from("feed"), Value::from("Feed")),
                (Value::from("signingtime"), Value::Tag(1, Box::new(Value::from(SIGNED)))),
            ],
            unprotected: vec![(Value::from("timestamp"), Value::Bytes(vec![1]))],
            payload: format!(
                r#"{{"x-ms-sevsnpvm-guestsvn":"7","x-ms-sevsnpvm-launchmeasurement":"{MEASUREMENT}"}}"#
            ),
            signed_payload: None,
        }
    }

    /// The message, and the issuer that is believed of it.
    fn made(self) -> (Vec<u8>, DidX509) {
        let [leaf, between, root] = self.chain;
        let root = root.signed(&self.root, &self.root);
        let chain = [
            leaf.signed(&self.leaf, &self.between),
            between.signed(&self.between, &self.root),
            root.clone(),
        ];
        let did = DidX509 { authority: Sha256::of(&root), key_usage: EKU };
        let mut headers = self.headers;
        let certificates = chain.iter().map(|der| Value::Bytes(der.clone())).collect();
        headers.push((Value::from(33), Value::Array(certificates)));
        if !headers.iter().any(|(label, _)| label.as_text() == Some("iss")) {
            headers.push((Value::from("iss"), Value::from(did.to_string())));
        }
        let protected = cbor(&Value::Map(headers));
        let signed = self.signed_payload.as_ref().unwrap_or(&self.payload);
        let structure = cbor(&Value::Array(vec![
            Value::from("Signature1"),
            Value::Bytes(protected.clone()),
            Value::Bytes(vec![]),
            Value::Bytes(signed.clone().into_bytes()),
        ]));
        let signature = self.leaf.sign(&ECDSA_P384_SHA384_FIXED_SIGNING, &structure);
        let message = Value::Array(vec![
            Value::Bytes(protected),
            Value::Map(self.unprotected),
            Value::Bytes(self.payload.into_bytes()),
            Value::Bytes(signature),
        ]);
        (cbor(&Value::Tag(18, Box::new(message))), did)
    }
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Long after the leaf has expired: that is how endorsements are used.
fn now() -> SystemTime {
    at(SIGNED + 1000 * DAY)
}

fn verified(scene: Scene) -> Result<UvmEndorsement, UvmError> {
    let (message, did) = scene.made();
    let issuer = UvmIssuer { did, feed: "Feed".to_owned(), minimum_svn: 7 };
    verify_uvm(&message, &[issuer], now())
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Scene), check: &str) {
    let mut scene = Scene::new();
    change(&mut scene);
    let error = verified(scene).expect_err(check);
    assert_eq!(error.check(), check, "{error:?}");
}

#[test]
fn an_endorsement_gives_measurement_and_version() {
    let endorsement = verified(Scene::new()).unwrap();
    assert_eq!(endorsement.measurement().to_string(), MEASUREMENT);
    assert_eq!((endorsement.svn(), endorsement.feed()), (7, "Feed"));
    assert_eq!(endorsement.signed_at(), at(SIGNED));
}

#[test]
fn attack_endorsement_of_another_issuer_feed_or_older_image() {
    let (message, did) = Scene::new().made();
    let with = |did: &DidX509, feed: &str, minimum_svn| {
        let issuer = UvmIssuer { did: did.clone(), feed: feed.to_owned(), minimum_svn };
        verify_uvm(&message, &[issuer], now()).map(drop).map_err(|error| error.check())
    };
    assert_eq!(with(&did, "Feed", 7), Ok(()));
    assert_eq!(with(&did, "Other", 7), Err("uvm.issuer"));
    assert_eq!(with(&did, "Feed", 8), Err("uvm.svn"));
    let other = DidX509 { authority: Sha256::of(b"x"), ..did.clone() };
    assert_eq!(with(&other, "Feed", 7), Err("uvm.issuer"));
    assert!(verify_uvm(&message, &[], now()).is_err());
    // A chain of the attacker's own, under the believed issuer's name.
    let (_, believed) = Scene::new().made();
    let mut forged = Scene::new();
    forged.headers.push((Value::from("iss"), Value::from(believed.to_string())));
    let (message, _) = forged.made();
    let issuer = UvmIssuer { did: believed, feed: "Feed".to_owned(), minimum_svn: 0 };
    let error = verify_uvm(&message, &[issuer], now()).unwrap_err();
    assert!(matches!(error, UvmError::Root { .. }), "{error:?}");
}

#[test]
fn attack_payload_or_headers_changed_after_signing() {
    refused(
        |scene| scene.signed_payload = Some(scene.payload.replace("ab", "cd")),
        "uvm.signature",
    );
    // The time stamp of a third party, the one part that is not looked at, is left out here.
    let (message, did) = Scene { unprotected: vec![], ..Scene::new() }.made();
    let issuer = [UvmIssuer { did, feed: "Feed".to_owned(), minimum_svn: 0 }];
    assert!(verify_uvm(&message, &issuer, now()).is_ok());
    for offset in (0..message.len()).step_by(11) {
        let mut changed = message.clone();
        changed[offset] ^= 1;
        assert!(verify_uvm(&changed, &issuer, now()).is_err(), "{offset} of {}", message.len());
    }
    let mut longer = message;
    longer.push(0);
    assert_eq!(verify_uvm(&longer, &issuer, now()).unwrap_err().check(), "uvm.encoding");
}

#[test]
fn attack_chain_with_a_wrong_link() {
    refused(|scene| scene.chain[0].until = SIGNED - 1, "uvm.chain");
    refused(|scene| scene.chain[0].from = SIGNED + 1, "uvm.chain");
    refused(|scene| scene.chain[1].until = SIGNED - 1, "uvm.chain");
    refused(|scene| scene.chain[0].issuer = "CN=root", "uvm.chain");
    refused(|scene| scene.chain[0].extensions.clear(), "uvm.chain");
    refused(|scene| scene.chain[1].extensions = vec![], "uvm.chain");
    refused(|scene| scene.chain[2].extensions = authority(Some(0)), "uvm.chain");
    refused(|scene| scene.chain[0].extensions.extend(authority(None)), "uvm.chain");
    let other = ExtendedKeyUsage(vec![ObjectIdentifier::new_unwrap("1.2.3.4.6")]);
    let other = extension(ID_CE_EXT_KEY_USAGE, other.to_der().unwrap());
    refused(move |scene| scene.chain[0].extensions = vec![other], "uvm.chain");
    let critical = extension(ObjectIdentifier::new_unwrap("1.2.3"), vec![5, 0]);
    refused(move |scene| scene.chain[0].extensions.push(critical), "uvm.chain");
}

#[test]
fn attack_headers_that_are_not_signed_or_not_understood() {
    let algorithm = || (Value::from(1), Value::from(-35));
    refused(|scene| scene.unprotected.push(algorithm()), "uvm.encoding");
    refused(|scene| scene.headers.push(algorithm()), "uvm.encoding");
    refused(|scene| scene.headers.push((Value::from(2), Value::Array(vec![]))), "uvm.encoding");
    refused(|scene| scene.headers[0].1 = Value::from(-38), "uvm.algorithm");
    refused(|scene| scene.headers[0].1 = Value::from(-7), "uvm.algorithm");
    refused(|scene| scene.headers[1].1 = Value::from("text/plain"), "uvm.payload");
    let later = Value::Tag(1, Box::new(Value::from(SIGNED + 1001 * DAY)));
    refused(|scene| scene.headers[3].1 = later, "uvm.signing_time");
    let thumb = Value::Array(vec![Value::from(-16), Value::Bytes(vec![0; 32])]);
    refused(|scene| scene.headers.push((Value::from(34), thumb)), "uvm.chain");
    refused(|scene| scene.payload = "{}".to_owned(), "uvm.payload");
    refused(|scene| scene.payload = scene.payload.replace(MEASUREMENT, "ab"), "uvm.payload");
}

#[test]
fn real_endorsements_of_azure() {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/reference/vectors/snp"
    ));
    if !folder.is_dir() {
        println!("skipped: no vectors at {}", folder.display());
        return;
    }
    let file = |path: &str| std::fs::read(folder.join(path)).unwrap();
    let aci = [UvmIssuer::azure_container_instances(0).unwrap()];
    let cases = [
        (file("ms-aci/body.uvm_reference_info.bin"), 22, "ms-aci/snp_report.bin"),
        (file("ms-privacy-sandbox/uvm_endorsements.cose"), 100, "ms-privacy-sandbox/report.bin"),
        (
            STANDARD.decode(file("ms-aci-context/reference-info-base64").trim_ascii()).unwrap(),
            100,
            "",
        ),
    ];
    for (cose, svn, report) in cases {
        let endorsement = verify_uvm(&cose, &aci, SystemTime::now()).unwrap();
        assert_eq!(endorsement.svn(), svn);
        if !report.is_empty() {
            let measurement = &file(report)[0x90..0xC0];
            assert_eq!(endorsement.measurement().as_bytes().as_slice(), measurement, "{report}");
        }
        let aks = [UvmIssuer::azure_kubernetes(0).unwrap()];
        let error = verify_uvm(&cose, &aks, SystemTime::now()).unwrap_err();
        assert_eq!(error.check(), "uvm.issuer");
        let newer = [UvmIssuer::azure_container_instances(svn + 1).unwrap()];
        assert_eq!(verify_uvm(&cose, &newer, SystemTime::now()).unwrap_err().check(), "uvm.svn");
    }
}
