//! What a registry answered: its bytes, where it sends one to, and why it refused.

use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION};
use reqwest::{Response, Url};

use crate::credentials::Stored;
use crate::remote::error::RemoteError;

/// Longest part of an answer that is shown, bytes.
const MAX_MESSAGE_BYTES: u64 = 300;

/// At most `max_bytes` bytes of an answer, and whether that is all of it.
pub(in crate::remote) async fn read(
    mut response: Response,
    max_bytes: u64,
) -> Result<(Vec<u8>, bool), RemoteError> {
    let url = shown(response.url());
    let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok((bytes, true)),
            Ok(Some(piece)) if bytes.len() + piece.len() <= max => bytes.extend_from_slice(&piece),
            Ok(Some(piece)) => {
                bytes.extend(piece.iter().take(max - bytes.len()));
                return Ok((bytes, false));
            }
            Err(source) => return Err(RemoteError::Send { url, source: source.without_url() }),
        }
    }
}

/// An address without what may be a secret in it.
pub(in crate::remote) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

pub(super) fn redirected(from: &Url, response: &Response) -> Result<Url, RemoteError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let refuse = |to: String, reason| RemoteError::Elsewhere { from: shown(from), to, reason };
    let to = location
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| refuse(String::new(), "the redirect has no address"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        _ => Err(refuse(shown(&to), "it would leave TLS")),
    }
}

pub(super) fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

pub(super) async fn refusal(
    response: Response,
    attempts: u32,
    stored: Option<&Stored>,
) -> RemoteError {
    let (url, status) = (shown(response.url()), response.status().as_u16());
    let tried = stored.map_or_else(|| "no credentials: none were asked for".into(), Stored::shown);
    match status {
        401 | 403 => RemoteError::Denied { url, status, tried },
        404 => RemoteError::NotFound { url, tried },
        _ => {
            let message = read(response, MAX_MESSAGE_BYTES).await.unwrap_or_default().0;
            let message = String::from_utf8_lossy(&message).into_owned();
            RemoteError::Status { url, status, attempts, message }
        }
    }
}
