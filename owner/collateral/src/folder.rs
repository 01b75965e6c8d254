//! A folder with certificates and lists, for those who verify offline and for many processes that share what one fetched.
//!
//! | file | what |
//! |---|---|
//! | `amd/LINE/vcek-CHIP-TCB.der` | VCEK; CHIP in hex (16 digits from Turin on, else 128), TCB 16 hex digits of the number in the report |
//! | `amd/LINE/vlek-TCB.der` | VLEK |
//! | `amd/LINE/vcek-chain.pem`, `vlek-chain.pem` | intermediate and root |
//! | `amd/LINE/vcek.crl`, `vlek.crl` | revocation list, DER |
//! | `intel/*.json` | collateral of TDX quotes |
//!
//! Files come into being whole, by renaming; readers need no lock. Nothing in the folder is believed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ah_evidence::{Product, SigningKey, SnpReport};
use ah_verifier::{
    Collateral, EndorsementFacts, MAX_CRL_BYTES, MAX_QUOTE_COLLATERAL_BYTES, QuoteCollateral,
    Revocation, endorsement_facts,
};
use der::Decode as _;
use x509_cert::crl::CertificateList;

use crate::CollateralError;
use crate::certificates::Certificates;
use crate::files::{self, MAX_FILE_BYTES};
use crate::kds::{ChainKind, Wanted};

/// Such a folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// A file in the folder, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteFile {
    path: PathBuf,
    state: [i64; 4],
}

impl QuoteFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    ///
    /// # Errors
    /// [`CollateralError::Io`], [`CollateralError::TooLarge`].
    pub fn read(&self) -> Result<Vec<u8>, CollateralError> {
        files::read(&self.path, MAX_QUOTE_COLLATERAL_BYTES)
    }
}

/// What becomes another one with every change: inode, length, and the time of its last change, which nobody can set back.
fn state(found: &fs::Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt as _;
    [found.ino().cast_signed(), found.len().cast_signed(), found.ctime(), found.ctime_nsec()]
}

/// What an import put into the folder, names within it.
pub type Imported = Vec<String>;

impl Wanted {
    pub(crate) fn endorsement_file(&self) -> String {
        // `tcb` came from a version of this line, so it has one.
        let tcb = self.tcb.version(self.product).map_or(0, |version| version.0);
        match self.chip_text() {
            Some(chip) => format!("amd/{}/vcek-{chip}-{tcb:016x}.der", self.product),
            None => format!("amd/{}/vlek-{tcb:016x}.der", self.product),
        }
    }

    pub(crate) fn chain_file(&self) -> String {
        format!("amd/{}/{}-chain.pem", self.product, self.kind.name())
    }

    pub(crate) fn list_file(&self) -> String {
        list_file(self.product, self.kind)
    }
}

/// Where the folder has the list of a product line for a kind of endorsement key.
pub(crate) fn list_file(product: Product, kind: ChainKind) -> String {
    format!("amd/{product}/{}.crl", kind.name())
}

impl Folder {
    /// The folder at `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the folder has for `report`.
    ///
    /// # Errors
    /// [`CollateralError::Missing`] where the endorsement certificate or chain is not there; what reading says.
    pub fn collateral(&self, report: &SnpReport) -> Result<Collateral, CollateralError> {
        let mut first = None;
        for wanted in Wanted::of_report(report)? {
            match self.collateral_of(&wanted) {
                Err(CollateralError::Missing { what }) => {
                    first.get_or_insert(CollateralError::Missing { what });
                }
                other => return other,
            }
        }
        Err(first.unwrap_or(CollateralError::Missing { what: "vcek or vlek" }))
    }

    pub(crate) fn collateral_of(&self, wanted: &Wanted) -> Result<Collateral, CollateralError> {
        let endorsement = self.read(&wanted.endorsement_file(), MAX_FILE_BYTES)?;
        let endorsement = endorsement.ok_or(CollateralError::Missing { what: "vcek or vlek" })?;
        let mut certificates = Certificates::default();
        certificates.add_any(&endorsement, "endorsement certificate")?;
        if let Some(chain) = self.read(&wanted.chain_file(), MAX_FILE_BYTES)? {
            certificates.add_any(&chain, "certificate chain")?;
        }
        let revocation = match self.read(&wanted.list_file(), MAX_CRL_BYTES)? {
            Some(list) => Revocation::List(list),
            None => {
                let reason = format!("no {} in the collateral folder", wanted.list_file());
                Revocation::NotChecked { reason }
            }
        };
        certificates.collateral(revocation)
    }

    /// The collateral documents of TDX quotes, in the order of their names.
    ///
    /// # Errors
    /// [`CollateralError::Io`], [`CollateralError::TooLarge`].
    pub fn quote_collateral(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, CollateralError> {
        self.quote_files()?.into_iter().map(|file| Ok((file.path.clone(), file.read()?))).collect()
    }

    /// The files with collateral documents of TDX quotes, in the order of their names: equal for as long as nothing was put there, changed or
    /// taken away.
    ///
    /// # Errors
    /// [`CollateralError::Io`].
    pub fn quote_files(&self) -> Result<Vec<QuoteFile>, CollateralError> {
        let folder = self.path.join("intel");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => {
                other.map_err(|source| CollateralError::Io { path: folder.clone(), source })?
            }
        };
        let is_json = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
        let mut paths: Vec<_> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_json).collect();
        paths.sort();
        let file = |path: PathBuf| match fs::metadata(&path) {
            Ok(found) => Ok(QuoteFile { state: state(&found), path }),
            Err(source) => Err(CollateralError::Io { path, source }),
        };
        paths.into_iter().map(file).collect()
    }

    /// Files the certificates (PEM, DER, or the JSON of THIM), the revocation list or the quote collateral in `bytes`, by what they say of themselves.
    ///
    /// # Errors
    /// [`CollateralError`] where they say nothing that is understood, or nothing can be written.
    pub fn import(&self, bytes: &[u8], what: &str) -> Result<Imported, CollateralError> {
        if let Some((issuer, der)) = revocation_list(bytes) {
            let (kind, line) = place_of_list(&issuer, what)?;
            return self
                .put(&format!("amd/{line}/{}.crl", kind.name()), &der)
                .map(|name| vec![name]);
        }
        if let Some(fmspc) = QuoteCollateral::from_json(bytes).ok().and_then(|found| found.fmspc())
        {
            return self.put(&format!("intel/{fmspc}.json"), bytes).map(|name| vec![name]);
        }
        let mut certificates = Certificates::default();
        certificates.add_form(bytes, what)?;
        let mut imported = Vec::new();
        if let Some(endorsement) = certificates.endorsement() {
            let facts = endorsement_facts(endorsement).map_err(CollateralError::Endorsement)?;
            imported.push(self.put(&wanted(&facts).endorsement_file(), endorsement)?);
        }
        for (kind, line, chain) in certificates.chains()? {
            imported.push(self.put(&format!("amd/{line}/{}-chain.pem", kind.name()), &chain)?);
        }
        match imported.is_empty() {
            true => Err(CollateralError::Missing { what: "endorsement or intermediate" }),
            false => Ok(imported),
        }
    }

    pub(crate) fn read(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, CollateralError> {
        match files::read(&self.path.join(name), limit) {
            Err(CollateralError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// How long ago the file was written; None if it is not there or was written in the future.
    pub(crate) fn age(&self, name: &str) -> Option<Duration> {
        let written = fs::metadata(self.path.join(name)).ok()?.modified().ok()?;
        SystemTime::now().duration_since(written).ok()
    }

    /// Writes a file whole; gives its name back.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<String, CollateralError> {
        let path = self.path.join(name);
        let write = |source| CollateralError::Write { path: path.clone(), source };
        let folder = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder).map_err(write)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(write)?;
        file.write_all(bytes).map_err(write)?;
        file.as_file().sync_all().map_err(write)?;
        // Other users' processes may share the folder: what is in it is public.
        let public = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(public).map_err(write)?;
        file.persist(&path).map_err(|error| write(error.error))?;
        Ok(name.to_owned())
    }

    /// Takes the lock of a file, across processes; None if somebody else has it and `wait` is false. May block for as long as
    /// somebody else fetches.
    pub(crate) fn lock(&self, name: &str, wait: bool) -> Result<Option<File>, CollateralError> {
        use rustix::fs::{FlockOperation, flock};
        let path = self.path.join(format!("{name}.lock"));
        let write = |source| CollateralError::Write { path: path.clone(), source };
        fs::create_dir_all(path.parent().unwrap_or(&self.path)).map_err(write)?;
        let file = File::options().create(true).append(true).open(&path).map_err(write)?;
        let operation = match wait {
            true => FlockOperation::LockExclusive,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        match flock(&file, operation) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(write(error.into())),
        }
    }
}

fn wanted(facts: &EndorsementFacts) -> Wanted {
    let EndorsementFacts { kind, product, tcb, chip_id } = facts.clone();
    let kind = if kind == SigningKey::Vlek { ChainKind::Vlek } else { ChainKind::Vcek };
    Wanted { product, kind, chip: chip_id, tcb }
}

/// Issuer and DER, if it is a list at all.
fn revocation_list(bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let der = match bytes.trim_ascii_start().starts_with(b"-----BEGIN X509 CRL") {
        true => {
            let text = std::str::from_utf8(bytes).ok()?;
            der::Document::from_pem(text.trim()).ok()?.1.as_bytes().to_vec()
        }
        false => bytes.to_vec(),
    };
    let list = CertificateList::from_der(&der).ok()?;
    Some((list.tbs_cert_list.issuer.to_string(), der))
}

/// The product line of the root that issues a list, if it is one that is known.
pub(crate) fn line_of_issuer(issuer: &str) -> Option<&str> {
    let name = issuer.split(',').find_map(|part| part.strip_prefix("CN=ARK-"));
    let known = ["Milan", "Genoa", "Turin", "Venice"];
    name.filter(|line| known.contains(line))
}

/// A root signs one list for both kinds of keys; which one a file is, only its name can say.
fn place_of_list(issuer: &str, what: &str) -> Result<(ChainKind, String), CollateralError> {
    let line = line_of_issuer(issuer);
    let kind = if what.contains("vlek") { ChainKind::Vlek } else { ChainKind::Vcek };
    line.map(|line| (kind, line.to_owned()))
        .ok_or_else(|| CollateralError::UnknownList { issuer: issuer.to_owned() })
}
