//! Key sets of issuers: from a file, or from an address, fetched again in time.

use std::path::Path;
use std::time::Duration;

use ah_keyservice::{KeySet, KeySetError, SharedKeys, TrustedIssuer};

use crate::config::{ConfigError, IssuerConfig, read};

/// How often a key set is fetched: issuers announce new keys a day or more before they use them.
const EVERY: Duration = Duration::from_secs(600);
/// Time for one fetch.
const FETCH: Duration = Duration::from_secs(20);
/// Longest key set, bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Why an issuer's keys are not there.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// Not a key set.
    #[error(
        "key set of {issuer} cannot be used\nhint: it has to have RSA or P-256 keys, each with a kid"
    )]
    Keys {
        /// Whose.
        issuer: String,
        /// The cause.
        source: KeySetError,
    },
    /// The address.
    #[error(
        "key set of {issuer} cannot be fetched from {url}\nhint: keep it in a file and name that by jwks_file"
    )]
    Fetch {
        /// Whose.
        issuer: String,
        /// From where.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// An answer that leads elsewhere.
    #[error(
        "key set of {issuer} is not at {url}, which leads elsewhere (status {status})\nhint: name the address that the keys are at; a redirection is not followed, for who makes it would choose the keys"
    )]
    Elsewhere {
        /// Whose.
        issuer: String,
        /// From where.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer is too long.
    #[error("key set of {issuer} has more than {MAX_BYTES} bytes\nhint: check its address")]
    Long {
        /// Whose.
        issuer: String,
    },
}

/// The issuer with its keys; those from an address are kept fresh as long as this runtime lives.
pub(crate) async fn trusted(
    config: &IssuerConfig,
    audience: Option<String>,
) -> Result<TrustedIssuer, ProviderError> {
    let keys = match (&config.jwks_file, &config.jwks_url) {
        (Some(path), _) => SharedKeys::new(parse(config, read(path)?.as_bytes())?),
        (None, url) => {
            let url = url.clone().unwrap_or_default();
            let client = client(config, &url)?;
            let keys = SharedKeys::new(fetch(&client, config, &url).await?);
            tokio::spawn(refresh(client, config.clone(), url, keys.clone()));
            keys
        }
    };
    Ok(TrustedIssuer { issuer: config.issuer.clone(), audience, keys })
}

async fn refresh(client: reqwest::Client, config: IssuerConfig, url: String, keys: SharedKeys) {
    loop {
        tokio::time::sleep(EVERY).await;
        match fetch(&client, &config, &url).await {
            Ok(fresh) => keys.replace(fresh),
            // The keys that are known stay good: an issuer that cannot be reached takes nobody's access.
            Err(error) => tracing::warn!(%error, "key set is not refreshed"),
        }
    }
}

fn client(config: &IssuerConfig, url: &str) -> Result<reqwest::Client, ProviderError> {
    let failed = |source| ProviderError::Fetch {
        issuer: config.issuer.clone(),
        url: url.to_owned(),
        source,
    };
    let mut builder = reqwest::Client::builder()
        .timeout(FETCH)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &config.jwks_ca {
        builder = builder.tls_certs_merge(certificates(path).map_err(|error| match error {
            CertificatesError::File(error) => error.into(),
            CertificatesError::Pem(source) => failed(source),
        })?);
    }
    builder.build().map_err(failed)
}

enum CertificatesError {
    File(ConfigError),
    Pem(reqwest::Error),
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, CertificatesError> {
    let text = read(path).map_err(CertificatesError::File)?;
    reqwest::Certificate::from_pem_bundle(text.as_bytes()).map_err(CertificatesError::Pem)
}

async fn fetch(
    client: &reqwest::Client,
    config: &IssuerConfig,
    url: &str,
) -> Result<KeySet, ProviderError> {
    let failed = |source| ProviderError::Fetch {
        issuer: config.issuer.clone(),
        url: url.to_owned(),
        source,
    };
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let mut answer = answer.map_err(failed)?;
    if answer.status().is_redirection() {
        let (issuer, url) = (config.issuer.clone(), url.to_owned());
        return Err(ProviderError::Elsewhere { issuer, url, status: answer.status().as_u16() });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(ProviderError::Long { issuer: config.issuer.clone() });
        }
        bytes.extend_from_slice(&chunk);
    }
    parse(config, &bytes)
}

fn parse(config: &IssuerConfig, bytes: &[u8]) -> Result<KeySet, ProviderError> {
    KeySet::parse(bytes)
        .map_err(|source| ProviderError::Keys { issuer: config.issuer.clone(), source })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::{ServerConfig, ServerConnection, Stream};

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kid":"k","kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    /// An issuer on loopback that gives its keys at `/keys`, and leads there from everywhere else with the status in the path. Ends with the
    /// process; the path of its certificate comes with it.
    fn issuer(folder: &Path) -> (u16, std::path::PathBuf) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = folder.join("ca.pem");
        std::fs::write(&path, made.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let tls = ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let tls = Arc::new(tls);
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(tls.clone()).unwrap();
                let _ = answer(connection, stream, port);
            }
        });
        (port, path)
    }

    fn answer(
        mut connection: ServerConnection,
        mut stream: std::net::TcpStream,
        port: u16,
    ) -> std::io::Result<()> {
        use std::io::{BufRead as _, Write as _};
        let mut stream = Stream::new(&mut connection, &mut stream);
        let (mut head, mut line) = (String::new(), String::new());
        let mut reader = std::io::BufReader::new(&mut stream);
        while reader.read_line(&mut line)? > 2 {
            head.push_str(&line);
            line.clear();
        }
        drop(reader);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let first = match path.strip_prefix("/moved/") {
            Some(status) => format!("{status} Moved\r\nlocation: https://localhost:{port}/keys"),
            None => "200 OK".to_owned(),
        };
        let length = KEYS.len();
        write!(
            stream,
            "HTTP/1.1 {first}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{KEYS}"
        )?;
        stream.flush()
    }

    /// A page of the issuer's that leads anywhere, as one for logins does, must not choose whose signatures are believed: neither by where it leads
    /// nor by what it says itself.
    #[tokio::test]
    async fn attack_key_set_that_an_address_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let (port, ca) = issuer(folder.path());
        let at = async |path: &str| {
            let config = IssuerConfig {
                issuer: "https://issuer.example".to_owned(),
                jwks_file: None,
                jwks_url: Some(format!("https://localhost:{port}{path}")),
                jwks_ca: Some(ca.clone()),
            };
            trusted(&config, None).await.map(drop)
        };
        at("/keys").await.unwrap();
        for status in [301, 302, 303, 307, 308] {
            let error = at(&format!("/moved/{status}")).await.unwrap_err();
            assert!(
                matches!(error, ProviderError::Elsewhere { status: found, .. } if found == status),
                "{error}"
            );
            assert!(error.to_string().contains("\nhint: name the address"), "{error}");
        }
    }
}
