//! Certificates that the service makes for itself: an authority of its own, a TLS certificate, and one that signs answers.

use ah_digest::Sha256;
use ah_keyservice::{
    Family, KeyService, Material, Shape, SystemEnvironment, decode_base64, encode_base64url,
};
use jiff::Span;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};

/// Validity of certificates that are made at each start, days.
const LEAF_DAYS: i64 = 397;
/// Validity of the authority, years.
const AUTHORITY_YEARS: i64 = 10;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The service's database.
    #[error(transparent)]
    Service(#[from] ah_keyservice::ServiceError),
    /// No randomness, or a key that cannot be used.
    #[error("no key for the service's own certificates")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A name that no certificate can carry.
    #[error("certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// What the database holds is not what was put there.
    #[error("the service's own authority in the database cannot be read")]
    Stored,
}

/// What all replicas share.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    authority_key: String,
    authority_certificate: String,
    answer_key: String,
}

/// The service's own authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    answer_key: Vec<u8>,
}

/// A key with its certificate chain.
pub struct Identity {
    /// PKCS#8.
    pub key: Vec<u8>,
    /// DER, the key's own first, the root last.
    pub chain: Vec<Vec<u8>>,
}

impl Authority {
    /// The one that the service's database holds, made on first use.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn open(service: &KeyService) -> Result<Self, AuthorityError> {
        let stored = service.shared_secret("authority", || Ok(make()?)).await?;
        let stored: Stored = serde_json::from_slice(&stored).map_err(|_| AuthorityError::Stored)?;
        let bytes = |text: &str| decode_base64(text).ok_or(AuthorityError::Stored);
        let certificate = bytes(&stored.authority_certificate)?;
        let key = key_pair(&bytes(&stored.authority_key)?, &PKCS_ECDSA_P256_SHA256)?;
        let issuer = Issuer::new(authority_params()?, key);
        Ok(Self { issuer, certificate, answer_key: bytes(&stored.answer_key)? })
    }

    /// The root as PEM, for clients to trust.
    pub fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let lines: Vec<String> = text
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// A fresh TLS key and certificate for these names, DNS names and addresses.
    ///
    /// # Errors
    /// [`AuthorityError`] for a name that cannot be one.
    pub fn tls(&self, names: &[String]) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = leaf(names)?.signed_by(&key, &self.issuer)?;
        Ok(self.identity(key.serialize_der(), &certificate))
    }

    /// The RSA key that answers are signed with, certified for these names.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn answers(&self, names: &[String]) -> Result<Identity, AuthorityError> {
        let key = key_pair(&self.answer_key, &PKCS_RSA_SHA256)?;
        let certificate = leaf(names)?.signed_by(&key, &self.issuer)?;
        Ok(self.identity(self.answer_key.clone(), &certificate))
    }

    fn identity(&self, key: Vec<u8>, certificate: &Certificate) -> Identity {
        Identity { key, chain: vec![certificate.der().to_vec(), self.certificate.clone()] }
    }
}

/// A new authority.
fn make() -> Result<Vec<u8>, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = authority_params()?.self_signed(&key)?;
    let shape = Shape { size: Some(2048), curve: None };
    let answer = Material::generate(Family::Rsa, &shape, &SystemEnvironment)
        .map_err(|error| AuthorityError::Key(Box::new(error)))?;
    let stored = Stored {
        authority_key: encode_base64url(key.serialize_der()),
        authority_certificate: encode_base64url(certificate.der()),
        answer_key: encode_base64url(answer.secret.as_bytes()),
    };
    serde_json::to_vec(&stored).map_err(|error| AuthorityError::Key(Box::new(error)))
}

fn key_pair(
    der: &[u8],
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> Result<KeyPair, AuthorityError> {
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), algorithm)?)
}

fn authority_params() -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Anchorhold key service");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, Span::new().years(AUTHORITY_YEARS))?;
    Ok(params)
}

fn leaf(names: &[String]) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    let digest = Sha256::of(names.join(",")).to_string();
    let name = names
        .first()
        .filter(|name| name.len() <= 64)
        .cloned()
        .unwrap_or_else(|| digest.chars().take(16).collect());
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, Span::new().days(LEAF_DAYS))?;
    Ok(params)
}

/// From yesterday, since clocks differ.
fn set_validity(params: &mut CertificateParams, span: Span) -> Result<(), AuthorityError> {
    let wrong = |error: jiff::Error| AuthorityError::Key(Box::new(error));
    let day = |date: jiff::civil::Date| {
        let of = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), of(date.month()), of(date.day()))
    };
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let begin = today.checked_sub(Span::new().days(1)).map_err(wrong)?;
    params.not_before = day(begin);
    params.not_after = day(begin.checked_add(span).map_err(wrong)?);
    Ok(())
}
