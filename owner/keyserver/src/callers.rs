//! Who is calling: a static token, a token of an identity provider, or a client certificate.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ah_digest::Sha256;
use ah_keyservice::{TokenVerifier, VerifiedToken};
use axum::http::{HeaderMap, header};
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::roles::{Access, Role};

/// Longest bearer token, bytes.
const MAX_BEARER_BYTES: usize = 16 * 1024;

/// A caller that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name, for the log.
    pub name: String,
    /// What it may do.
    pub roles: BTreeSet<Role>,
}

/// How a static caller is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// SHA-256 of its bearer token: the file that holds it opens nothing.
    Token(Sha256),
    /// SHA-256 of its client certificate's DER.
    Certificate(Sha256),
    /// A DNS name or URI of its client certificate, which the configured authority has signed.
    CertificateName(String),
}

/// Callers of one identity provider.
pub struct Provider {
    /// Believes its tokens: issuer, audience and times are its business.
    pub verifier: Box<dyn TokenVerifier>,
    /// The first rule that fits a subject decides.
    pub rules: Vec<SubjectRule>,
}

/// What subjects of a provider may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRule {
    /// `sub` of the token; one `*` stands for any text.
    pub subject: String,
    /// What such a caller may do.
    pub roles: BTreeSet<Role>,
}

/// All callers that are known.
#[derive(Default)]
pub struct Callers {
    /// Those with a credential of their own.
    pub known: Vec<(Credential, Caller)>,
    /// Those that a provider vouches for.
    pub providers: Vec<Provider>,
}

/// Why a caller is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is nobody that is known.
    Unknown(String),
    /// It is known, and its roles do not allow this.
    Role { caller: String, needed: &'static [Role] },
}

impl Callers {
    /// Lets a request through, with its caller's name where it has one; open routes ask nobody.
    pub(crate) fn admit(
        &self,
        access: Access,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Option<String>, Refusal> {
        let Access::Roles(needed) = access else { return Ok(None) };
        let caller = self.identify(headers, certificate, now)?;
        match needed.iter().any(|role| caller.roles.contains(role)) {
            true => Ok(Some(caller.name)),
            false => Err(Refusal::Role { caller: caller.name, needed }),
        }
    }

    /// A token that does not hold is an error even where a certificate would do: nobody gets other roles than it asked with.
    fn identify(
        &self,
        headers: &HeaderMap,
        certificate: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Caller, Refusal> {
        if headers.contains_key(header::AUTHORIZATION) {
            return self.by_token(headers, now);
        }
        let unknown = || {
            Refusal::Unknown(
                "no caller: expected a bearer token or a client certificate".to_owned(),
            )
        };
        let certificate = certificate.ok_or_else(unknown)?;
        let (digest, names) = (Sha256::of(certificate), names(certificate));
        let is = |credential: &Credential| match credential {
            Credential::Token(_) => false,
            Credential::Certificate(expected) => *expected == digest,
            Credential::CertificateName(name) => names.contains(name),
        };
        let known = self.known.iter().find(|(credential, _)| is(credential));
        let stranger = || Refusal::Unknown(format!("client certificate {digest} is no caller's"));
        known.map(|(_, caller)| caller.clone()).ok_or_else(stranger)
    }

    fn by_token(&self, headers: &HeaderMap, now: SystemTime) -> Result<Caller, Refusal> {
        let malformed =
            || Refusal::Unknown("authorization header is not \"Bearer\" and a token".to_owned());
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value =
            values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        let (scheme, token) =
            value.and_then(|value| value.split_once(' ')).ok_or_else(malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_BEARER_BYTES {
            return Err(malformed());
        }
        let digest = Sha256::of(token);
        let is = |credential: &Credential| matches!(credential, Credential::Token(known) if *known == digest);
        if let Some((_, caller)) = self.known.iter().find(|(credential, _)| is(credential)) {
            return Ok(caller.clone());
        }
        let mut reason = "token is no caller's".to_owned();
        for provider in &self.providers {
            match provider.verifier.verify(token, now) {
                Ok(verified) => return provider.caller(&verified),
                // Which provider's fault it is can only be said for the one whose token it claims to be.
                Err(error @ ah_keyservice::TokenError::Issuer { .. }) => drop(error),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(Refusal::Unknown(reason))
    }
}

impl Provider {
    fn caller(&self, token: &VerifiedToken) -> Result<Caller, Refusal> {
        let subject = token.claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let rule = self.rules.iter().find(|rule| rule.fits(subject));
        let name: String = format!("{} at {}", subject, token.issuer).chars().take(200).collect();
        match rule {
            Some(rule) => Ok(Caller { name, roles: rule.roles.clone() }),
            None => Err(Refusal::Unknown(format!("{name:?} has no role here"))),
        }
    }
}

impl SubjectRule {
    fn fits(&self, subject: &str) -> bool {
        match self.subject.split_once('*') {
            None => self.subject == subject,
            Some((front, back)) => {
                subject.len() >= front.len() + back.len()
                    && subject.starts_with(front)
                    && subject.ends_with(back)
            }
        }
    }
}

/// DNS names and URIs of a certificate.
fn names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some((_, names))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let text = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    };
    names.0.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(subject: &str) -> SubjectRule {
        SubjectRule { subject: subject.to_owned(), roles: BTreeSet::new() }
    }

    #[test]
    fn attack_subject_that_resembles_the_rule() {
        let exact = rule("system:serviceaccount:prod:importer");
        assert!(exact.fits("system:serviceaccount:prod:importer"));
        assert!(!exact.fits("system:serviceaccount:prod:importer2"));
        assert!(!exact.fits(""));
        let some = rule("system:serviceaccount:prod:*-importer");
        assert!(some.fits("system:serviceaccount:prod:a-importer"));
        assert!(!some.fits("system:serviceaccount:test:a-importer"));
        assert!(!some.fits("system:serviceaccount:prod:-importe"));
        assert!(!rule("ab*ba").fits("aba"), "the two ends do not overlap");
    }
}
