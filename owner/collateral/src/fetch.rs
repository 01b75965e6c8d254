//! AMD's key distribution service, through a folder that many processes share.
//!
//! | what | kept |
//! |---|---|
//! | VCEK | for ever: chip and TCB are in its name |
//! | chain, revocation list | used at once while fresh; then still used, and fetched anew in the background; beyond that fetched first |
//!
//! The service throttles hard. What it says with 429 (Retry-After) is kept in the folder, so that no other process asks either
//! until then; one process at a time fetches a file, the others wait for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_evidence::{Product, SnpReport};
use ah_verifier::{Collateral, MAX_CRL_BYTES};
use reqwest::{Client, StatusCode, Url};

use crate::CollateralError;
use crate::certificates::Certificates;
use crate::files::MAX_FILE_BYTES;
use crate::folder::{Folder, list_file};
use crate::kds::{ChainKind, KDS, Wanted, list_path};

/// Attempts for one file, the first counted.
const MAX_ATTEMPTS: u32 = 4;
/// The first wait where the service says none; doubled each time.
const BASE_WAIT: Duration = Duration::from_secs(1);
/// Longest rest that an answer of the service is believed about.
const LONGEST_QUIET: Duration = Duration::from_secs(3600);
/// Where the time until which nobody may ask is kept.
const QUIET_FILE: &str = "amd/retry-after";

/// How the service is used.
#[derive(Debug, Clone)]
pub struct KdsOptions {
    /// Where it is: [`KDS`], or a mirror of it.
    pub base: String,
    /// How long chains and lists are used without asking anew.
    pub fresh: Duration,
    /// How long they are used while being fetched anew in the background.
    pub stale: Duration,
    /// The longest wait for the service that is kept; beyond it is an error.
    pub max_wait: Duration,
    /// How long the service may be silent.
    pub timeout: Duration,
}

impl Default for KdsOptions {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            base: KDS.to_owned(),
            fresh: HOUR.saturating_mul(24),
            stale: HOUR.saturating_mul(24 * 7),
            max_wait: Duration::from_secs(60),
            timeout: Duration::from_secs(20),
        }
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The collateral.
    pub collateral: Collateral,
    /// How many files were downloaded for it.
    pub downloads: u32,
    /// Files that are older than they should be, and why there are no newer ones.
    pub old: Vec<String>,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Certificates, folder or report.
    #[error(transparent)]
    Collateral(#[from] CollateralError),
    /// The address is none.
    #[error("address of the key distribution service is not a url: {base:?}")]
    Address {
        /// Address found.
        base: String,
    },
    /// No connection, or one that broke off.
    #[error("key distribution service does not answer for {path}")]
    Send {
        /// What was asked for.
        path: String,
        /// Cause.
        #[source]
        source: reqwest::Error,
    },
    /// The service does not have it.
    #[error("key distribution service has no {path}")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// Asked to come back later than is waited for.
    #[error("key distribution service wants {} seconds of rest before {path}", wait.as_secs())]
    Throttled {
        /// What was asked for.
        path: String,
        /// How long.
        wait: Duration,
    },
    /// Another answer than 200.
    #[error("key distribution service answers {status} for {path}")]
    Status {
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
    },
    /// A revocation list that must not take the place of the one that is there.
    #[error("key distribution service answers {path} with a list that {reason}; it is not kept")]
    List {
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An answer that is not what was asked for.
    #[error("key distribution service answers {path} with something else")]
    Answer {
        /// What was asked for.
        path: String,
    },
}

/// The service and the folder before it.
#[derive(Debug, Clone)]
pub struct Kds {
    client: Client,
    base: Url,
    folder: Folder,
    options: KdsOptions,
}

/// One file: its name in the folder, its path at the service.
#[derive(Debug, Clone)]
struct Item {
    file: String,
    path: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Certificates,
    List(Product),
}

impl Kds {
    /// The service behind `folder`.
    ///
    /// # Errors
    /// [`FetchError::Address`]; [`FetchError::Send`] if there can be no HTTP client.
    pub fn new(folder: Folder, options: KdsOptions) -> Result<Self, FetchError> {
        let wrong = || FetchError::Address { base: options.base.clone() };
        let base = Url::parse(&options.base).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(wrong());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("anchorhold/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.timeout)
            .timeout(options.timeout)
            .http1_only();
        if base.scheme() == "http" {
            // never used for TLS, so the system's roots need not be read
            builder = builder.tls_certs_only([]);
        }
        if base.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.")) {
            builder = builder.no_proxy();
        }
        let send = |source| FetchError::Send { path: "its client".to_owned(), source };
        Ok(Self { client: builder.build().map_err(send)?, base, folder, options })
    }

    /// Everything that verifying `report` needs: from the folder, or fetched and kept there. For a VLEK, which only hosts can
    /// get, the certificate has to be in the folder.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn collateral(&self, report: &SnpReport) -> Result<Fetched, FetchError> {
        let mut result = None;
        for wanted in Wanted::of_report(report).map_err(CollateralError::from)? {
            match self.collateral_of(&wanted).await {
                Err(error @ FetchError::NotFound { .. }) => {
                    result.get_or_insert(error);
                }
                other => return other,
            }
        }
        let missing = CollateralError::Missing { what: "vcek or vlek" };
        Err(result.unwrap_or(FetchError::Collateral(missing)))
    }

    /// Sees to it that the folder has fresh revocation lists of these product lines. Says in words which of them could not be fetched; older ones
    /// stay where they are.
    pub async fn refresh_lists(&self, lines: &[Product]) -> Vec<String> {
        let mut failed = Vec::new();
        let age = Some((self.options.fresh, self.options.fresh));
        for (product, kind) in
            lines.iter().flat_map(|line| [(*line, ChainKind::Vcek), (*line, ChainKind::Vlek)])
        {
            let file = list_file(product, kind);
            let item = Item {
                file: file.clone(),
                path: list_path(product, kind),
                kind: Kind::List(product),
            };
            if let Err(error) = self.ensure(item, age, &mut failed).await {
                failed.push(format!("{file}: {error}"));
            }
        }
        failed
    }

    async fn collateral_of(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let (mut downloads, mut old) = (0, Vec::new());
        if let Some(path) = wanted.endorsement_path() {
            let file = wanted.endorsement_file();
            downloads +=
                self.ensure(Item { file, path, kind: Kind::Certificates }, None, &mut old).await?;
        }
        let age = Some((self.options.fresh, self.options.stale));
        for item in chain_and_list(wanted) {
            downloads += self.ensure(item, age, &mut old).await?;
        }
        Ok(Fetched { collateral: self.folder.collateral_of(wanted)?, downloads, old })
    }

    /// Sees to it that the file is there and young enough; how many downloads that took. `ages` is (fresh, stale).
    async fn ensure(
        &self,
        item: Item,
        ages: Option<(Duration, Duration)>,
        old: &mut Vec<String>,
    ) -> Result<u32, FetchError> {
        let exists = self.folder.path().join(&item.file).is_file();
        // A file of the future has no age, and would be young for ever: it counts as old.
        let age = self.folder.age(&item.file).unwrap_or(Duration::MAX);
        match ages {
            None if exists => Ok(0),
            Some((fresh, _)) if exists && age <= fresh => Ok(0),
            Some((_, stale)) if exists && age <= stale => {
                self.refresh_in_background(item);
                Ok(0)
            }
            // Better an old list, which the verifier then judges by its own dates, than none.
            Some(_) if exists => match self.fetch(&item).await {
                Ok(did) => Ok(u32::from(did)),
                Err(error) => {
                    old.push(format!("{}: {error}", item.file));
                    Ok(0)
                }
            },
            _ => self.fetch(&item).await.map(u32::from),
        }
    }

    fn refresh_in_background(&self, item: Item) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let kds = self.clone();
        runtime.spawn(async move {
            // Somebody else is at it already.
            let Ok(Some(_lock)) = kds.folder.lock(&item.file, false) else { return };
            if let Ok(bytes) = kds.download(&item).await {
                let _ = kds.keep(&item, &bytes);
            }
        });
    }

    /// One process fetches, the others wait and then find the file. True if this one did.
    async fn fetch(&self, item: &Item) -> Result<bool, FetchError> {
        let before = self.written(&item.file);
        let (folder, name) = (self.folder.clone(), item.file.clone());
        let lock = tokio::task::spawn_blocking(move || folder.lock(&name, true)).await;
        let _lock = match lock {
            Ok(lock) => lock?,
            Err(_) => return Err(FetchError::Answer { path: item.path.clone() }),
        };
        if self.written(&item.file) != before {
            return Ok(false);
        }
        let bytes = self.download(item).await?;
        self.keep(item, &bytes)?;
        Ok(true)
    }

    /// Puts into the folder what was downloaded.
    fn keep(&self, item: &Item, bytes: &[u8]) -> Result<(), FetchError> {
        if let Kind::List(line) = item.kind
            && let Some(reason) =
                self.folder.why_not_list(&item.file, line, bytes, SystemTime::now())
        {
            return Err(FetchError::List { path: item.path.clone(), reason });
        }
        Ok(self.folder.put(&item.file, bytes).map(drop)?)
    }

    fn written(&self, file: &str) -> Option<SystemTime> {
        std::fs::metadata(self.folder.path().join(file)).ok()?.modified().ok()
    }

    async fn download(&self, item: &Item) -> Result<Vec<u8>, FetchError> {
        let mut wait = BASE_WAIT;
        let mut attempt = 1;
        loop {
            self.rest(&item.path).await?;
            let error = match self.ask(item).await {
                Ok(bytes) => return Ok(bytes),
                Err((error, _)) if attempt >= MAX_ATTEMPTS => return Err(error),
                Err((error, None)) => return Err(error),
                Err((error, Some(Asked::ToWait(said)))) => {
                    self.keep_quiet(said);
                    error
                }
                Err((error, Some(Asked::Nothing))) => {
                    tokio::time::sleep(wait.min(self.options.max_wait)).await;
                    wait = wait.saturating_mul(2);
                    error
                }
            };
            drop(error);
            attempt += 1;
        }
    }

    /// Waits until the time that the service last named to any process of this folder.
    async fn rest(&self, path: &str) -> Result<(), FetchError> {
        let until = match self.folder.read(QUIET_FILE, 32)? {
            Some(text) => String::from_utf8_lossy(&text).trim().parse().unwrap_or(0),
            None => 0,
        };
        let until = UNIX_EPOCH + Duration::from_millis(until);
        let wait = until.duration_since(SystemTime::now()).unwrap_or_default();
        if wait > self.options.max_wait {
            return Err(FetchError::Throttled { path: path.to_owned(), wait });
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn keep_quiet(&self, said: Duration) {
        let until = SystemTime::now().checked_add(said.min(LONGEST_QUIET)).unwrap_or(UNIX_EPOCH);
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // A folder that cannot be written says so when the file itself is put there.
        let _ = self.folder.put(QUIET_FILE, until.to_string().as_bytes());
    }

    /// One request. With an error comes whether it is worth another one.
    async fn ask(&self, item: &Item) -> Result<Vec<u8>, (FetchError, Option<Asked>)> {
        let path = item.path.clone();
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let send = |source: reqwest::Error| {
            (
                FetchError::Send { path: path.clone(), source: source.without_url() },
                Some(Asked::Nothing),
            )
        };
        let response = self.client.get(url).send().await.map_err(send)?;
        let status = response.status();
        if status == StatusCode::OK {
            let bytes = body(response, item.limit()).await.map_err(send)?;
            let answer = || (FetchError::Answer { path: path.clone() }, None);
            return bytes.filter(|bytes| item.fits(bytes)).ok_or_else(answer);
        }
        let after = response.headers().get(reqwest::header::RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let after = after.map(Duration::from_secs);
        Err(match status.as_u16() {
            404 => (FetchError::NotFound { path }, None),
            429 => {
                let wait = after.unwrap_or(BASE_WAIT.saturating_mul(10));
                (FetchError::Throttled { path, wait }, Some(Asked::ToWait(wait)))
            }
            503 if after.is_some() => {
                let wait = after.unwrap_or_default();
                (FetchError::Throttled { path, wait }, Some(Asked::ToWait(wait)))
            }
            status @ (408 | 500..=599) => {
                (FetchError::Status { path, status }, Some(Asked::Nothing))
            }
            status => (FetchError::Status { path, status }, None),
        })
    }
}

/// What a service that may answer later said about it.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Nothing,
    ToWait(Duration),
}

impl Item {
    fn limit(&self) -> usize {
        match self.kind {
            Kind::Certificates => MAX_FILE_BYTES,
            Kind::List(_) => MAX_CRL_BYTES,
        }
    }

    /// True if the bytes are of the kind that was asked for: an error page must not be kept for ever.
    fn fits(&self, bytes: &[u8]) -> bool {
        match self.kind {
            Kind::Certificates => Certificates::default().add_any(bytes, "answer").is_ok(),
            Kind::List(_) => {
                use der::Decode as _;
                x509_cert::crl::CertificateList::from_der(bytes).is_ok()
            }
        }
    }
}

fn chain_and_list(wanted: &Wanted) -> [Item; 2] {
    [
        Item { file: wanted.chain_file(), path: wanted.chain_path(), kind: Kind::Certificates },
        Item {
            file: wanted.list_file(),
            path: wanted.list_path(),
            kind: Kind::List(wanted.product),
        },
    ]
}

/// The body; None if it is longer than `limit`.
async fn body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if bytes.len().saturating_add(piece.len()) > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes))
}
