//! A chain and reports in AMD's form, made by the tests themselves, with one knob for each thing that may be wrong.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test program uses a part")]

use std::path::Path;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_digest::Digest;
use ah_evidence::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo, Product,
    RawReport, ReportData, ReportSignature, SigningKey, SnpReport, TcbParts, Version,
};
use ah_verifier::{Collateral, Revocation, TrustedRoots};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA384, RSA_PSS_SHA384,
    RsaEncoding,
};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE};
use const_oid::db::rfc5912::{ID_RSASSA_PSS, RSA_ENCRYPTION, SHA_384_WITH_RSA_ENCRYPTION};
use der::asn1::{Any, BitString, Ia5StringRef, Null, OctetString};
use der::{Decode as _, Encode as _};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::{CertificateInner, TbsCertificateInner, Version as X509Version};
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

pub const DAY: Duration = Duration::from_secs(86_400);
pub const CHIP: ChipId = ChipId([0xC1; 64]);
pub const TCB: TcbParts = TcbParts { fmc: 0, boot_loader: 10, tee: 0, snp: 27, microcode: 200 };

/// A time within the validity of everything.
pub fn now() -> SystemTime {
    UNIX_EPOCH + 57 * 365 * DAY
}

/// RSA keys take seconds to make, so one set is kept for all test programs of a build folder.
pub struct Keys {
    pub root: RsaKeyPair,
    pub other_root: RsaKeyPair,
    pub intermediate: RsaKeyPair,
    pub vcek: EcdsaKeyPair,
}

pub static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let [root, other_root, intermediate] = ["root", "other-root", "intermediate"].map(kept_rsa_key);
    let vcek = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    Keys { root, other_root, intermediate, vcek }
});

fn kept_rsa_key(name: &str) -> RsaKeyPair {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("test-key-{name}.pk8"));
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(key) = RsaKeyPair::from_pkcs8(&bytes)
    {
        return key;
    }
    let key = RsaKeyPair::generate(KeySize::Rsa4096).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let temporary = folder.join(format!("test-key-{name}-{}", std::process::id()));
    std::fs::write(&temporary, pkcs8.as_ref()).unwrap();
    std::fs::rename(&temporary, &path).unwrap();
    RsaKeyPair::from_pkcs8(&std::fs::read(&path).unwrap()).unwrap()
}

/// One certificate before it is signed.
#[derive(Clone)]
pub struct Template {
    pub serial: u32,
    pub issuer: String,
    pub subject: String,
    pub from: SystemTime,
    pub until: SystemTime,
    pub key: SubjectPublicKeyInfoOwned,
    pub extensions: Vec<Extension>,
    pub version: X509Version,
    pub algorithm: ObjectIdentifier,
}

pub fn name(common_name: &str) -> String {
    format!("CN={common_name},O=Test of the verifier,OU=Test")
}

pub fn rsa_public(key: &RsaKeyPair) -> SubjectPublicKeyInfoOwned {
    SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: RSA_ENCRYPTION, parameters: Some(Null.into()) },
        subject_public_key: BitString::from_bytes(key.public_key().as_ref()).unwrap(),
    }
}

pub fn ec_public(key: &EcdsaKeyPair) -> SubjectPublicKeyInfoOwned {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    SubjectPublicKeyInfoOwned::from_der(der.as_ref()).unwrap()
}

pub fn extension(oid: &str, value: Vec<u8>) -> Extension {
    Extension {
        extn_id: ObjectIdentifier::new(oid).unwrap(),
        critical: false,
        extn_value: OctetString::new(value).unwrap(),
    }
}

pub fn amd(arc: &str) -> String {
    format!("1.3.6.1.4.1.3704.1.{arc}")
}

fn authority_extensions() -> Vec<Extension> {
    let constraints = BasicConstraints { ca: true, path_len_constraint: None };
    let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    let critical = |oid: ObjectIdentifier, value| Extension {
        critical: true,
        ..extension(&oid.to_string(), value)
    };
    vec![
        critical(ID_CE_BASIC_CONSTRAINTS, constraints.to_der().unwrap()),
        critical(ID_CE_KEY_USAGE, usage.to_der().unwrap()),
    ]
}

/// TCB parts in the order of AMD's certificates; the chip or the provider is added by the caller.
pub fn endorsement_extensions(product: Product, tcb: TcbParts) -> Vec<Extension> {
    let mut parts =
        vec![("3.1", tcb.boot_loader), ("3.2", tcb.tee), ("3.3", tcb.snp), ("3.8", tcb.microcode)];
    if product.has_fmc() {
        parts.push(("3.9", tcb.fmc));
    }
    let mut extensions = vec![
        extension(&amd("1"), 0u8.to_der().unwrap()),
        extension(&amd("2"), Ia5StringRef::new(product.name()).unwrap().to_der().unwrap()),
    ];
    let parts = parts.into_iter();
    extensions.extend(parts.map(|(arc, part)| extension(&amd(arc), part.to_der().unwrap())));
    extensions
}

impl Template {
    fn new(issuer: &str, subject: &str, key: SubjectPublicKeyInfoOwned) -> Self {
        Self {
            serial: 7,
            issuer: name(issuer),
            subject: name(subject),
            from: now() - 100 * DAY,
            until: now() + 100 * DAY,
            key,
            extensions: vec![],
            version: X509Version::V3,
            algorithm: ID_RSASSA_PSS,
        }
    }

    pub fn root() -> Self {
        let key = rsa_public(&KEYS.root);
        let extensions = authority_extensions();
        Self { serial: 1, extensions, ..Self::new("ARK-Genoa", "ARK-Genoa", key) }
    }

    pub fn intermediate() -> Self {
        let key = rsa_public(&KEYS.intermediate);
        let extensions = authority_extensions();
        Self { serial: 2, extensions, ..Self::new("ARK-Genoa", "SEV-Genoa", key) }
    }

    pub fn vcek() -> Self {
        let mut extensions = endorsement_extensions(Product::Genoa, TCB);
        extensions.push(extension(&amd("4"), CHIP.0.to_vec()));
        Self { extensions, ..Self::new("SEV-Genoa", "SEV-VCEK", ec_public(&KEYS.vcek)) }
    }

    pub fn signed_by(self, key: &RsaKeyPair) -> Vec<u8> {
        let algorithm = algorithm(self.algorithm);
        let tbs: TbsCertificateInner = TbsCertificateInner {
            version: self.version,
            serial_number: SerialNumber::from(self.serial),
            signature: algorithm.clone(),
            issuer: Name::from_str(&self.issuer).unwrap(),
            validity: Validity { not_before: time(self.from), not_after: time(self.until) },
            subject: Name::from_str(&self.subject).unwrap(),
            subject_public_key_info: self.key,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions),
        };
        let signature = sign(key, self.algorithm, &tbs.to_der().unwrap());
        CertificateInner { tbs_certificate: tbs, signature_algorithm: algorithm, signature }
            .to_der()
            .unwrap()
    }
}

fn time(at: SystemTime) -> Time {
    Time::try_from(at).unwrap()
}

fn algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    let parameters = match oid == ID_RSASSA_PSS {
        true => Any::from_der(PSS_SHA384).unwrap(),
        false => Null.into(),
    };
    AlgorithmIdentifierOwned { oid, parameters: Some(parameters) }
}

fn sign(key: &RsaKeyPair, algorithm: ObjectIdentifier, bytes: &[u8]) -> BitString {
    let padding: &dyn RsaEncoding =
        if algorithm == SHA_384_WITH_RSA_ENCRYPTION { &RSA_PKCS1_SHA384 } else { &RSA_PSS_SHA384 };
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(padding, &SystemRandom::new(), bytes, &mut signature).unwrap();
    BitString::from_bytes(&signature).unwrap()
}

/// RSASSA-PSS-params of RFC 4055: SHA-384, MGF1 with SHA-384, salt of 48 bytes.
const PSS_SHA384: &[u8] = &[
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
    0x02, 0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01,
    0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05,
    0x00, 0xa2, 0x03, 0x02, 0x01, 0x30,
];

/// A list of the test root that names these serial numbers.
pub fn revocation_list(serials: &[u32], until: SystemTime, key: &RsaKeyPair) -> Vec<u8> {
    let revoked = serials.iter().map(|serial| RevokedCert {
        serial_number: SerialNumber::from(*serial),
        revocation_date: time(now() - 5 * DAY),
        crl_entry_extensions: None,
    });
    let tbs = TbsCertList {
        version: X509Version::V2,
        signature: algorithm(ID_RSASSA_PSS),
        issuer: Name::from_str(&name("ARK-Genoa")).unwrap(),
        this_update: time(now() - DAY),
        next_update: Some(time(until)),
        revoked_certificates: Some(revoked.collect()),
        crl_extensions: None,
    };
    let signature = sign(key, ID_RSASSA_PSS, &tbs.to_der().unwrap());
    let signature_algorithm = algorithm(ID_RSASSA_PSS);
    CertificateList { tbs_cert_list: tbs, signature_algorithm, signature }.to_der().unwrap()
}

pub fn collateral() -> Collateral {
    Collateral {
        endorsement: Template::vcek().signed_by(&KEYS.intermediate),
        intermediate: Template::intermediate().signed_by(&KEYS.root),
        root: root(),
        revocation: Revocation::NotChecked { reason: "test".to_owned() },
    }
}

/// Signatures are randomised, so the pinned root has to be made once.
pub fn root() -> Vec<u8> {
    static ROOT: LazyLock<Vec<u8>> = LazyLock::new(|| Template::root().signed_by(&KEYS.root));
    ROOT.clone()
}

pub fn roots() -> TrustedRoots {
    TrustedRoots::amd().danger_with_software_root(&root()).unwrap()
}

pub fn report() -> SnpReport {
    let tcb = TCB.version(Product::Genoa).unwrap();
    let firmware = FirmwareVersion { major: 1, minor: 55, build: 49 };
    let cpuid = Cpuid { family: 0x19, model: 0x11, stepping: 1 };
    SnpReport {
        version: Version::V5(cpuid, MitigationVectors { launch: 3, current: 7 }),
        guest_svn: 4,
        policy: GuestPolicy::STRICT,
        family_id: [1; 16],
        image_id: [2; 16],
        vmpl: 0,
        current_tcb: tcb,
        platform_info: PlatformInfo(0x24),
        key_info: KeyInfo {
            author_key: false,
            mask_chip_key: false,
            signing_key: SigningKey::Vcek,
        },
        report_data: ReportData::for_runtime_data(b"nonce"),
        measurement: Digest::new([0x3A; 48]),
        host_data: Digest::new([0x4B; 32]),
        id_key_digest: Digest::new([5; 48]),
        author_key_digest: Digest::new([6; 48]),
        report_id: [7; 32],
        report_id_ma: [0xFF; 32],
        reported_tcb: tcb,
        chip_id: CHIP,
        committed_tcb: tcb,
        current_firmware: firmware,
        committed_firmware: firmware,
        launch_tcb: tcb,
    }
}

pub fn signed(report: &SnpReport) -> RawReport {
    let bytes = report.signed_bytes();
    let signature = KEYS.vcek.sign(&SystemRandom::new(), &bytes).unwrap();
    let fixed = signature.as_ref().try_into().unwrap();
    RawReport::assemble(&bytes, &ReportSignature::from_fixed(fixed))
}
