//! Request to token: verify, compare what the report binds, write down the claims, sign.

use std::time::{Duration, SystemTime};

use ah_collateral::{Certificates, RevocationLists};
use ah_digest::Sha256;
use ah_evidence::{ReportData, SnpReport};
use ah_release_api::policy::claim;
use ah_verifier::{Revocation, TrustedRoots, Verified};
use serde_json::{Map, Value};

use crate::base64url;
use crate::clock::{Clock, unix_s};
use crate::error::AttestError;
use crate::jwks::Jwks;
use crate::request::{BoundData, Context, SnpRequest, TdxRequest};
use crate::ring::KeyRing;
use crate::token::sign;

/// What this issuer's attestation policy is, in MAA's language: whatever verified is permitted, nothing is added. Its digest is in tokens.
pub(crate) const POLICY: &str =
    "version= 1.0;\nauthorizationrules\n{\n\t=> permit();\n};\n\nissuancerules\n{\n};";

/// Verifies that a signed document of the platform endorses the measurement of a report.
pub trait EndorsementVerifier: Send + Sync {
    /// The value of `x-ms-compliance-status` that `documents` prove for `report`.
    ///
    /// # Errors
    /// Words for the client: which check, found, expected.
    fn verify(
        &self,
        documents: &[Vec<u8>],
        report: &Verified<SnpReport>,
        now: SystemTime,
    ) -> Result<String, String>;
}

/// What a quote says, once it is verified.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedQuote {
    /// REPORT_DATA.
    pub report_data: ReportData,
    /// Claims under MAA's names, `x-ms-attestation-type` among them.
    pub claims: Map<String, Value>,
}

/// Verifies TDX quotes.
pub trait QuoteVerifier: Send + Sync {
    /// The quote, followed to Intel's root.
    ///
    /// # Errors
    /// Words for the client: which check, found, expected.
    fn verify(&self, quote: &[u8], now: SystemTime) -> Result<VerifiedQuote, String>;
}

/// What a service is made of.
pub struct Settings {
    /// Signs; its issuer is the tokens' `iss`.
    pub keys: KeyRing,
    /// Roots that reports may lead to: AMD's, and a software TEE's only by the option with `danger` in its name.
    pub roots: TrustedRoots,
    /// Looked at for every SNP report.
    pub lists: RevocationLists,
    /// How long tokens live; MAA's live 8 hours.
    pub lifetime: Duration,
    /// Judges UVM endorsements; without one they are carried along and the token says that nobody looked.
    pub endorsements: Option<Box<dyn EndorsementVerifier>>,
    /// Verifies TDX quotes; without one such requests are refused.
    pub quotes: Option<Box<dyn QuoteVerifier>>,
    /// The time.
    pub clock: Clock,
}

/// How long MAA's tokens live.
pub const MAA_LIFETIME: Duration = Duration::from_secs(28_800);

/// Why settings make no service.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The issuer is no https URL without a slash at its end.
    #[error(
        "issuer is {found:?}, expected an https URL without query and without a slash at its end"
    )]
    Issuer {
        /// What was found.
        found: String,
    },
    /// Tokens that die at once, or that live too long to be taken back.
    #[error("token lifetime is {found_s} s, expected 60 to 86400")]
    Lifetime {
        /// What was found, seconds.
        found_s: u64,
    },
}

/// Gives tokens for evidence.
pub struct AttestationService {
    settings: Settings,
    policy_hash: String,
}

impl AttestationService {
    /// The service.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let issuer = settings.keys.issuer();
        let host = issuer.strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || host.ends_with('/') || host.contains(['?', '#']) {
            return Err(SettingsError::Issuer { found: issuer.to_owned() });
        }
        let found_s = settings.lifetime.as_secs();
        if !(60..=86_400).contains(&found_s) {
            return Err(SettingsError::Lifetime { found_s });
        }
        let policy = base64url::encode(POLICY.as_bytes());
        let policy_hash = base64url::encode(Sha256::of(policy.as_bytes()).as_bytes());
        Ok(Self { settings, policy_hash })
    }

    /// The issuer of the tokens.
    pub fn issuer(&self) -> &str {
        self.settings.keys.issuer()
    }

    /// The keys that verify the tokens, as published now.
    pub fn jwks(&self) -> Jwks {
        self.settings.keys.jwks((self.settings.clock)())
    }

    /// The signing keys, for rotation.
    pub fn keys(&self) -> &KeyRing {
        &self.settings.keys
    }

    /// A token for the body of `POST /attest/SevSnpVm`.
    ///
    /// # Errors
    /// [`AttestError`].
    pub fn attest_snp(&self, body: &[u8]) -> Result<String, AttestError> {
        let now = (self.settings.clock)();
        let request = SnpRequest::parse(body)?;
        let report = self.verify(&request, now)?;
        let mut claims = ah_appraise::token_claims(&report).into_json();
        bind_runtime_data(&mut claims, &request.context, report.report_data)?;
        bind_init_time_data(&mut claims, &request.context, &report)?;
        self.endorse(&mut claims, &request, &report, now)?;
        self.token(claims, request.context, now)
    }

    /// A token for the body of `POST /attest/TdxVm`.
    ///
    /// # Errors
    /// [`AttestError`].
    pub fn attest_tdx(&self, body: &[u8]) -> Result<String, AttestError> {
        let now = (self.settings.clock)();
        let request = TdxRequest::parse(body)?;
        let verifier = self.settings.quotes.as_ref().ok_or(AttestError::NoQuoteVerifier)?;
        let quote = verifier.verify(&request.quote, now).map_err(AttestError::Quote)?;
        if request.context.init_time_data.is_some() {
            let words = "initTimeData of TDX guests is not compared here, expected none";
            return Err(AttestError::Quote(words.to_owned()));
        }
        let mut claims = quote.claims;
        bind_runtime_data(&mut claims, &request.context, quote.report_data)?;
        self.token(claims, request.context, now)
    }

    fn verify(
        &self,
        request: &SnpRequest,
        now: SystemTime,
    ) -> Result<Verified<SnpReport>, AttestError> {
        let mut certificates = Certificates::default();
        certificates
            .add_any(&request.certificates, "VcekCertChain")
            .map_err(AttestError::Certificates)?;
        let none = Revocation::NotChecked { reason: "the request has no list".to_owned() };
        let collateral = certificates.collateral(none).map_err(AttestError::Certificates)?;
        let Settings { lists, roots, .. } = &self.settings;
        lists.verify(&request.report, collateral, now, roots).map_err(AttestError::Report)
    }

    /// Endorsements that came along: proven and named, or named as not looked at.
    fn endorse(
        &self,
        claims: &mut Map<String, Value>,
        request: &SnpRequest,
        report: &Verified<SnpReport>,
        now: SystemTime,
    ) -> Result<(), AttestError> {
        if request.endorsements.is_empty() {
            return Ok(());
        }
        match &self.settings.endorsements {
            Some(verifier) => {
                let status = verifier
                    .verify(&request.endorsements, report, now)
                    .map_err(AttestError::Endorsements)?;
                claims.insert("x-ms-compliance-status".to_owned(), status.into());
            }
            None => {
                claims.insert(claim::UVM_ENDORSEMENT.to_owned(), "not checked".into());
            }
        }
        Ok(())
    }

    fn token(
        &self,
        mut claims: Map<String, Value>,
        context: Context,
        now: SystemTime,
    ) -> Result<String, AttestError> {
        let issued = unix_s(now);
        let expires = issued.saturating_add(self.settings.lifetime.as_secs());
        let mut id = [0; 32];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| AttestError::Internal("no randomness"))?;
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("exp", expires.into());
        add("iat", issued.into());
        add("nbf", issued.into());
        add("iss", self.issuer().into());
        add("jti", hex::encode(id).into());
        add("x-ms-ver", "1.0".into());
        add("x-ms-policy-hash", self.policy_hash.clone().into());
        if let Some(nonce) = context.nonce {
            add("nonce", nonce.into());
        }
        sign(&self.settings.keys.current(), self.issuer(), &claims)
            .map_err(|_| AttestError::Internal("signing failed"))
    }
}

/// `x-ms-runtime` is in a token only when the report binds it.
fn bind_runtime_data(
    claims: &mut Map<String, Value>,
    context: &Context,
    found: ReportData,
) -> Result<(), AttestError> {
    let Some(data) = &context.runtime_data else { return Ok(()) };
    let expected = ReportData::for_runtime_data(&data.bytes);
    if found != expected {
        return Err(AttestError::RuntimeData { found, expected });
    }
    claims.insert("x-ms-runtime".to_owned(), data_claim(data));
    Ok(())
}

fn bind_init_time_data(
    claims: &mut Map<String, Value>,
    context: &Context,
    report: &SnpReport,
) -> Result<(), AttestError> {
    let Some(data) = &context.init_time_data else { return Ok(()) };
    let expected = Sha256::of(&data.bytes);
    if report.host_data != expected {
        let (found, expected) = (report.host_data.to_string(), expected.to_string());
        return Err(AttestError::InitTimeData { found, expected });
    }
    claims.insert("x-ms-inittime".to_owned(), data_claim(data));
    Ok(())
}

/// JSON as it is, other bytes as base64url.
fn data_claim(data: &BoundData) -> Value {
    match &data.object {
        Some(object) => Value::Object(object.clone()),
        None => base64url::encode(&data.bytes).into(),
    }
}
