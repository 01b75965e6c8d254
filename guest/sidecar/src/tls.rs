//! The roots that servers may lead to, used alike for connections and for signed answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{RootCertStore, crypto};

use crate::error::chain;

/// Time for one exchange with a server, the connection included.
pub(crate) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Roots, and what is made of them.
#[derive(Clone)]
pub struct Tls {
    roots: Vec<CertificateDer<'static>>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Tls {
    /// The roots in `ca_file`; without one those of the machine (`SSL_CERT_FILE`, `SSL_CERT_DIR`, or where distributions keep them), and
    /// where a container has none, Mozilla's.
    ///
    /// # Errors
    /// Words: which file, and why.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots: Vec<CertificateDer<'static>> = match ca_file {
            Some(path) => read_pem(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if roots.is_empty() {
            roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Self { roots, verifier })
    }

    /// A client for HTTPS (and for HTTP to metadata services). Redirects are not followed: what is sent is meant for one address.
    ///
    /// # Errors
    /// Words.
    pub fn client(&self) -> Result<reqwest::Client, String> {
        let roots = self.roots.iter().filter_map(|der| reqwest::Certificate::from_der(der).ok());
        reqwest::Client::builder()
            .tls_certs_only(roots)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(EXCHANGE_TIMEOUT)
            .build()
            .map_err(|error| chain(&error))
    }

    /// Whether `chain` (leaf first) leads to a root, is for servers, and is for `host`.
    pub(crate) fn check_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &str,
    ) -> Result<(), String> {
        let name = ServerName::try_from(host)
            .map_err(|_| format!("{host:?} is neither a host name nor an address"))?;
        self.verifier
            .verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now())
            .map(|_| ())
            .map_err(|error| chain(&error))
    }
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |words: &dyn std::fmt::Display| format!("{}: {words}", path.display());
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    let roots = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    match roots.is_empty() {
        true => Err(failed(&"holds no certificate in pem")),
        false => Ok(roots),
    }
}
