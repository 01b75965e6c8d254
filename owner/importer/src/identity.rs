//! A token for the vault from the metadata service of the machine that the import runs on (Azure Instance Metadata Service, managed
//! identities).

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

/// Where machines of Azure find their metadata service.
pub const METADATA_SERVICE: &str = "http://169.254.169.254";
/// Pauses between the three tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Time for one try.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, bytes: tokens have a few thousand.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody answers.
    #[error(
        "metadata service {address} does not answer\nhint: outside of Azure, give the token in key.akv.bearer_token or with --token-file"
    )]
    Silent {
        /// Which service.
        address: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// It answers something else than a token.
    #[error("metadata service {address} gives no token: {found}")]
    NoToken {
        /// Which service.
        address: String,
        /// What it said.
        found: String,
    },
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
}

/// A token of the machine's identity for the vault's kind; `client_id` chooses one of several identities.
///
/// # Errors
/// [`IdentityError`], after three tries.
pub async fn managed_identity_token(
    service: &str,
    managed_hsm: bool,
    client_id: Option<&str>,
) -> Result<Zeroizing<String>, IdentityError> {
    let resource = if managed_hsm { "managedhsm" } else { "vault" };
    let mut url = format!(
        "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2F{resource}.azure.net",
        service.trim_end_matches('/')
    );
    if let Some(id) = client_id {
        url.push_str("&client_id=");
        for byte in id.bytes() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => url.push(byte.into()),
                other => url.push_str(&format!("%{other:02X}")),
            }
        }
    }
    let silent = |source| IdentityError::Silent { address: service.to_owned(), source };
    // Nobody but the service itself is believed about the machine's identity.
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()
        .map_err(silent)?;
    let mut pauses = PAUSES.into_iter();
    loop {
        let (again, error) = match ask(&client, &url, service).await {
            Ok(token) => return Ok(token),
            Err(failed) => failed,
        };
        match pauses.next().filter(|_| again) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}

/// One try: the token, or whether another may help, and why not.
async fn ask(
    client: &reqwest::Client,
    url: &str,
    service: &str,
) -> Result<Zeroizing<String>, (bool, IdentityError)> {
    let address = || service.to_owned();
    let silent = |source| (true, IdentityError::Silent { address: address(), source });
    let mut answer = client.get(url).header("Metadata", "true").send().await.map_err(silent)?;
    let status = answer.status();
    let no_token = |found: String| IdentityError::NoToken { address: address(), found };
    // Of its full size from the start: a buffer that grows leaves copies of the token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    while let Some(piece) = answer.chunk().await.map_err(silent)? {
        if piece.len() > MAX_ANSWER_BYTES.saturating_sub(bytes.len()) {
            let words = format!("its answer has more than {MAX_ANSWER_BYTES} bytes");
            return Err((false, no_token(words)));
        }
        bytes.extend_from_slice(&piece);
    }
    if !status.is_success() {
        let again = status.as_u16() == 429 || status.is_server_error();
        let words: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|one| !one.is_control())
            .take(200)
            .collect();
        return Err((again, no_token(format!("{status} {words}"))));
    }
    match serde_json::from_slice::<Answer>(&bytes) {
        Ok(answer) if !answer.access_token.is_empty() => Ok(Zeroizing::new(answer.access_token)),
        _ => Err((false, no_token("its answer has no access_token".into()))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// Gives these answers, one a connection; says at the end how many were asked for.
    fn service(answers: Vec<String>) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut asked, mut chunk) = (Vec::new(), [0; 1024]);
                while !asked.ends_with(b"\r\n\r\n") {
                    let count = stream.read(&mut chunk).unwrap();
                    assert_ne!(count, 0);
                    asked.extend_from_slice(&chunk[..count]);
                }
                // A client that has read enough hangs up.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        (address, served)
    }

    fn answer(head: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    async fn refused(answer: String) -> String {
        let (address, served) = service(vec![answer]);
        let error = managed_identity_token(&address, false, None).await.unwrap_err();
        served.join().unwrap();
        assert!(matches!(error, IdentityError::NoToken { .. }), "{error}");
        error.to_string()
    }

    const TOKEN: &str = r#"{"access_token":"t"}"#;

    #[tokio::test]
    async fn attack_redirection_to_somebody_elses_token() {
        let (elsewhere, served) = service(vec![answer("200 OK", TOKEN)]);
        let token = managed_identity_token(&elsewhere, false, None).await.unwrap();
        assert_eq!(token.as_str(), "t");
        served.join().unwrap();
        let (elsewhere, _never_asked) = service(vec![answer("200 OK", TOKEN)]);
        let head = format!("302 Found\r\nlocation: {elsewhere}/token");
        let words = refused(answer(&head, "")).await;
        assert!(words.contains("302"), "{words}");
    }

    #[tokio::test]
    async fn attack_answer_without_end() {
        let padded = |length: usize| {
            answer("200 OK", &format!("{TOKEN}{}", " ".repeat(length - TOKEN.len())))
        };
        let (address, served) = service(vec![padded(MAX_ANSWER_BYTES)]);
        assert!(managed_identity_token(&address, false, None).await.is_ok());
        served.join().unwrap();
        let words = refused(padded(MAX_ANSWER_BYTES + 1)).await;
        assert!(words.contains("more than 262144 bytes"), "{words}");
    }
}
