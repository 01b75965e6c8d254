//! Tokens and passwords, sent when a registry asks for them and to nobody else (distribution specification, token
//! authentication; OAuth 2.0, RFC 6749 section 6 for identity tokens).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::error::RemoteError;
use super::hosts::Endpoint;
use super::http::{self, Http};
use crate::credentials::{Secret, Stored};

/// Longest answer of a token service, bytes.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// The value of an Authorization header.
#[derive(Clone)]
pub(super) struct Authorization(pub(super) HeaderValue);

/// What each endpoint accepted for each repository.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<(String, String), Authorization>>);

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Bearer { realm: String, service: Option<String> },
    Basic,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Tokens {
    pub(super) fn of(&self, authority: &str, repository: &str) -> Option<Authorization> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&(authority.into(), repository.into())).cloned()
    }

    /// Answers a 401; `None` when there is nothing to answer with.
    pub(super) async fn obtain(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        repository: &str,
        response: &Response,
        stored: &Stored,
    ) -> Result<Option<Authorization>, RemoteError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges = headers.iter().filter_map(|value| value.to_str().ok());
        let found = match challenge(challenges) {
            Some(Challenge::Bearer { realm, service }) => {
                let realm = checked_realm(endpoint, &http::shown(response.url()), &realm)?;
                let scope = format!("repository:{repository}:pull");
                Some(token(http, endpoint, realm, service, &scope, stored).await?)
            }
            Some(Challenge::Basic) => stored.basic(),
            None => None,
        };
        let Some(text) = found else { return Ok(None) };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| RemoteError::Token { url: http::shown(response.url()) })?;
        value.set_sensitive(true);
        let key = (endpoint.authority.clone(), repository.to_owned());
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(key, Authorization(value.clone()));
        Ok(Some(Authorization(value)))
    }
}

/// The first challenge that can be answered, a token before a password.
fn challenge<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for challenge in http_auth::parse_challenges(header).unwrap_or_default() {
            let parameter = |wanted: &str| {
                let found =
                    challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = parameter("realm") {
                    return Some(Challenge::Bearer { realm, service: parameter("service") });
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// The registry names the token service, and credentials go there: never out of TLS, where anyone could take them.
fn checked_realm(endpoint: &Endpoint, from: &str, realm: &str) -> Result<Url, RemoteError> {
    let refuse = |reason| {
        let (from, to) = (from.to_owned(), realm.chars().take(200).collect());
        RemoteError::Elsewhere { from, to, reason }
    };
    let url = Url::parse(realm).map_err(|_| refuse("the token service has no address"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if endpoint.scheme == "http" => Ok(url),
        _ => Err(refuse("the token service has no TLS")),
    }
}

async fn token(
    http: &Http,
    endpoint: &Endpoint,
    realm: Url,
    service: Option<String>,
    scope: &str,
    stored: &Stored,
) -> Result<String, RemoteError> {
    let client = http.client(endpoint, &realm)?;
    let service = service.as_deref().unwrap_or_default();
    let request = match &stored.secret {
        Secret::Identity(token) => {
            let form = form(&[
                ("grant_type", "refresh_token"),
                ("client_id", "anchorhold"),
                ("service", service),
                ("scope", scope),
                ("refresh_token", token),
            ]);
            let post = client.post(realm.clone());
            post.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
        }
        _ => {
            let mut url = realm.clone();
            url.query_pairs_mut().append_pair("service", service).append_pair("scope", scope);
            let get = client.get(url);
            match stored.basic() {
                Some(value) => get.header(AUTHORIZATION, value),
                None => get,
            }
        }
    };
    let response = http::transmit(request, &realm).await?;
    let (url, status) = (http::shown(&realm), response.status().as_u16());
    match status {
        200 => {}
        400 | 401 | 403 => return Err(RemoteError::Denied { url, status, tried: stored.shown() }),
        _ => {
            let message = String::new();
            return Err(RemoteError::Status { url, status, attempts: 1, message });
        }
    }
    let (bytes, _) = http::read(response, MAX_TOKEN_BYTES).await?;
    let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
    let token = answer.and_then(|answer| answer.token.or(answer.access_token));
    match token {
        Some(token) if !token.is_empty() => Ok(format!("Bearer {token}")),
        _ => Err(RemoteError::Token { url }),
    }
}

/// `application/x-www-form-urlencoded`, as the query of an address is written.
fn form(pairs: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("http://form.invalid/") else { return String::new() };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let check = |headers: &[&str], expect: Option<Challenge>| {
            assert_eq!(challenge(headers.iter().copied()), expect, "{headers:?}");
        };
        let bearer =
            || Challenge::Bearer { realm: "https://a/t".into(), service: Some("s".into()) };
        check(&[r#"Bearer realm="https://a/t",service="s",scope="x:y:pull""#], Some(bearer()));
        check(&[r#"Basic realm="r""#, r#"bearer Realm="https://a/t",Service="s""#], Some(bearer()));
        check(&[r#"Basic realm="r""#], Some(Challenge::Basic));
        check(&["Bearer service=\"s\""], None);
        check(&["Negotiate"], None);
        check(&[], None);
    }

    #[test]
    fn attack_a_token_service_out_of_tls_gets_no_credentials() {
        let tls = Endpoint::registry("registry.example", false);
        let plain = Endpoint::registry("registry.example", true);
        let check = |endpoint, realm| checked_realm(endpoint, "registry", realm).is_ok();
        assert!(check(&tls, "https://auth.example/token"));
        assert!(!check(&tls, "http://auth.example/token"));
        assert!(check(&plain, "http://auth.example/token"));
        assert!(!check(&plain, "ftp://auth.example/token"));
        assert!(!check(&tls, "token"));
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a", "b c"), ("t", "x&y=z")]), "a=b+c&t=x%26y%3Dz");
    }
}
