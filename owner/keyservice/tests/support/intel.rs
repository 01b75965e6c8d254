//! A TDX platform that is made up: a root in Intel's place, collateral that rates the platform as it is told, and quotes of guests.
//!
//! Sources: quote layout, Intel TDX DCAP Quoting Library API, appendix A; extension of PCK certificates, Intel SGX PCK Certificate and CRL
//! Profile Specification, section 1.3.5; TCB info and QE identity, Intel SGX and TDX Provisioning Certification Service, version 4.

#![allow(dead_code, unreachable_pub)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CertifiedIssuer, CustomExtension, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    SerialNumber, date_time_ymd,
};
use serde_json::json;

const FMSPC: [u8; 6] = [0x00, 0x80, 0x6F, 0x05, 0x00, 0x00];
const MR_SIGNER: [u8; 32] = [0x11; 32];
/// `SEPT_VE_DISABLE`, without which the verifier takes no quote.
pub const SOUND: u64 = 1 << 28;

/// What a guest's quote says.
#[derive(Clone)]
pub struct Td {
    pub attributes: u64,
    pub mr_td: [u8; 48],
    /// With it the quote is of version 5, with a report of TDX 1.5.
    pub service_td: Option<[u8; 48]>,
    pub report_data: [u8; 64],
}

pub struct Platform {
    root: CertifiedIssuer<'static, KeyPair>,
    pck_ca: CertifiedIssuer<'static, KeyPair>,
    pck: (Certificate, EcdsaKeyPair),
    collateral: (Certificate, EcdsaKeyPair),
    attestation: EcdsaKeyPair,
}

impl Platform {
    pub fn new() -> Self {
        let root = CertifiedIssuer::self_signed(authority("Made-up SGX Root CA"), key()).unwrap();
        let platform = authority("Made-up SGX PCK Platform CA");
        let pck_ca = CertifiedIssuer::signed_by(platform, key(), &root).unwrap();
        let mut pck = params("Made-up SGX PCK Certificate");
        pck.custom_extensions.push(CustomExtension::from_oid_content(
            &[1, 2, 840, 113_741, 1, 13, 1],
            sgx_extension(),
        ));
        let (pck_key, signing_key) = (key(), key());
        let pck = pck.signed_by(&pck_key, &pck_ca).unwrap();
        let signing = params("Made-up SGX TCB Signing").signed_by(&signing_key, &root).unwrap();
        Self {
            root,
            pck_ca,
            pck: (pck, signer(&pck_key)),
            collateral: (signing, signer(&signing_key)),
            attestation: signer(&key()),
        }
    }

    pub fn root(&self) -> Vec<u8> {
        self.root.as_ref().der().to_vec()
    }

    /// The collateral document, which rates the platform so.
    pub fn collateral(&self, status: &str) -> Vec<u8> {
        let signing = format!("{}{}", self.collateral.0.pem(), self.root.as_ref().pem());
        let pck_ca = format!("{}{}", self.pck_ca.as_ref().pem(), self.root.as_ref().pem());
        let (tcb_info, qe_identity) = (tcb_info(status), qe_identity());
        let signed = |text: &str| hex::encode(sign(&self.collateral.1, text.as_bytes()));
        json!({
            "pck_crl_issuer_chain": pck_ca,
            "root_ca_crl": hex::encode(revocation_list(&self.root)),
            "pck_crl": hex::encode(revocation_list(&self.pck_ca)),
            "tcb_info_issuer_chain": signing,
            "tcb_info_signature": signed(&tcb_info),
            "tcb_info": tcb_info,
            "qe_identity_issuer_chain": signing,
            "qe_identity_signature": signed(&qe_identity),
            "qe_identity": qe_identity,
        })
        .to_string()
        .into_bytes()
    }

    pub fn quote(&self, td: &Td) -> Vec<u8> {
        let mut quote = header(if td.service_td.is_some() { 5 } else { 4 });
        if td.service_td.is_some() {
            quote.extend(3u16.to_le_bytes());
            quote.extend(648u32.to_le_bytes());
        }
        quote.extend(td_report(td));
        let signature = sign(&self.attestation, &quote);
        let attestation_key = &self.attestation.public_key().as_ref()[1..];
        let authentication = [7; 32];
        let qe_report = qe_report(&[attestation_key, &authentication].concat());
        let chain = [&self.pck.0, self.pck_ca.as_ref(), self.root.as_ref()].map(Certificate::pem);
        let certification = [
            qe_report.as_slice(),
            &sign(&self.pck.1, &qe_report),
            &32u16.to_le_bytes(),
            &authentication,
            &sized(5, chain.concat().as_bytes()),
        ];
        let data = [&signature, attestation_key, &sized(6, &certification.concat())].concat();
        quote.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        quote.extend(data);
        quote
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn signer(key: &KeyPair) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap()
}

fn sign(key: &EcdsaKeyPair, bytes: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn revocation_list(issuer: &CertifiedIssuer<'_, KeyPair>) -> Vec<u8> {
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(2045, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().der().to_vec()
}

/// A DER value of less than 128 bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 128);
    [&[tag, length], content].concat()
}

/// One named value of the extension; `end` is what follows its own object identifier.
fn named(end: &[u8], value: Vec<u8>) -> Vec<u8> {
    let own = [0x2A, 0x86, 0x48, 0x86, 0xF8, 0x4D, 0x01, 0x0D, 0x01];
    der(0x30, &[der(0x06, &[&own, end].concat()), value].concat())
}

fn sgx_extension() -> Vec<u8> {
    let tcb = [named(&[2, 17], der(0x02, &[1])), named(&[2, 18], der(0x04, &[1; 16]))].concat();
    let parts = [
        named(&[1], der(0x04, &[0; 16])),
        named(&[2], der(0x30, &tcb)),
        named(&[3], der(0x04, &[0; 2])),
        named(&[4], der(0x04, &FMSPC)),
        named(&[5], der(0x0A, &[0])),
    ];
    let parts = parts.concat();
    // More than 127 bytes, so the length has a byte that says how long it is.
    [&[0x30, 0x81, u8::try_from(parts.len()).unwrap()], parts.as_slice()].concat()
}

fn tcb_info(status: &str) -> String {
    let components = vec![json!({"svn": 0}); 16];
    json!({
        "id": "TDX", "version": 3,
        "issueDate": "2025-01-01T00:00:00Z", "nextUpdate": "2045-01-01T00:00:00Z",
        "fmspc": hex::encode(FMSPC), "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 17,
        "tdxModule": {
            "mrsigner": "0".repeat(96), "attributes": "0".repeat(16), "attributesMask": "F".repeat(16),
        },
        "tcbLevels": [{
            "tcb": {"sgxtcbcomponents": components, "pcesvn": 0, "tdxtcbcomponents": components},
            "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": status,
        }],
    })
    .to_string()
}

fn qe_identity() -> String {
    json!({
        "id": "TD_QE", "version": 2,
        "issueDate": "2025-01-01T00:00:00Z", "nextUpdate": "2045-01-01T00:00:00Z",
        "tcbEvaluationDataNumber": 17,
        "miscselect": "0".repeat(8), "miscselectMask": "F".repeat(8),
        "attributes": "0".repeat(32), "attributesMask": "F".repeat(32),
        "mrsigner": hex::encode(MR_SIGNER), "isvprodid": 2,
        "tcbLevels": [{
            "tcb": {"isvsvn": 1}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate",
        }],
    })
    .to_string()
}

fn header(version: u16) -> Vec<u8> {
    let mut header = vec![0; 48];
    header[..2].copy_from_slice(&version.to_le_bytes());
    header[2..4].copy_from_slice(&2u16.to_le_bytes());
    header[4..8].copy_from_slice(&0x81u32.to_le_bytes());
    let intel = hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap();
    header[12..28].copy_from_slice(&intel);
    header
}

fn td_report(td: &Td) -> Vec<u8> {
    let mut report = vec![0; 584];
    report[120..128].copy_from_slice(&td.attributes.to_le_bytes());
    report[136..184].copy_from_slice(&td.mr_td);
    report[520..].copy_from_slice(&td.report_data);
    if let Some(service_td) = td.service_td {
        report.extend([0; 16]);
        report.extend(service_td);
    }
    report
}

/// The quoting enclave's report, which binds the attestation key.
fn qe_report(bound: &[u8]) -> Vec<u8> {
    let mut report = vec![0; 384];
    report[128..160].copy_from_slice(&MR_SIGNER);
    report[256..258].copy_from_slice(&2u16.to_le_bytes());
    report[258..260].copy_from_slice(&1u16.to_le_bytes());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bound);
    report[320..352].copy_from_slice(digest.as_ref());
    report
}

fn sized(kind: u16, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&kind.to_le_bytes(), length.to_le_bytes().as_slice(), bytes].concat()
}
