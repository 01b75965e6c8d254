//! Revocation lists on their way into the folder: one that is there gives way only to one of its issuer that is not older.
//!
//! Signatures are the verifier's business. What is refused here keeps whoever answers in the service's place from taking a list away, for good or
//! until the day that a made-up one names.

use std::time::{Duration, SystemTime};

use ah_evidence::Product;
use ah_verifier::MAX_CRL_BYTES;
use der::Decode as _;
use x509_cert::crl::{CertificateList, TbsCertList};

use crate::folder::{Folder, line_of_issuer, list_file};
use crate::kds::ChainKind;

/// How far clocks may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(600);

impl Folder {
    /// The folder's names of the revocation lists of these product lines, all that there can be.
    pub fn list_files(lines: &[Product]) -> Vec<String> {
        let kinds = [ChainKind::Vcek, ChainKind::Vlek];
        lines.iter().flat_map(|line| kinds.map(|kind| list_file(*line, kind))).collect()
    }

    /// Those of them that are not there.
    pub fn missing_lists(&self, lines: &[Product]) -> Vec<String> {
        let is_missing = |name: &String| !self.path().join(name).is_file();
        Self::list_files(lines).into_iter().filter(is_missing).collect()
    }

    /// Why `new`, a list that was fetched for `line`, must not take the place of the file `name`; `None` if it may.
    pub(crate) fn why_not_list(
        &self,
        name: &str,
        line: Product,
        new: &[u8],
        now: SystemTime,
    ) -> Option<String> {
        let Ok(new) = CertificateList::from_der(new).map(|list| list.tbs_cert_list) else {
            return Some("is no x.509 crl".to_owned());
        };
        let is_of_line = |list: &TbsCertList| {
            line_of_issuer(&list.issuer.to_string()).is_some_and(|found| found == line.to_string())
        };
        let is_to_come =
            |list: &TbsCertList| list.this_update.to_system_time() > now + CLOCKS_DIFFER;
        let (issuer, found) = (&new.issuer, new.this_update);
        if !is_of_line(&new) {
            return Some(format!("is of issuer {issuer}, expected CN=ARK-{line}"));
        }
        if is_to_come(&new) {
            return Some(format!("was issued {found}, expected a time that is not yet to come"));
        }
        // One that cannot be read, is of a line that its name does not say, or of a time to come, is nothing to keep.
        let old = self.read(name, MAX_CRL_BYTES).ok().flatten()?;
        let old = CertificateList::from_der(&old).ok()?.tbs_cert_list;
        if !is_of_line(&old) || is_to_come(&old) {
            return None;
        }
        if old.issuer != new.issuer {
            return Some(format!("is of issuer {issuer}, expected {}", old.issuer));
        }
        let at_least = old.this_update;
        (found.to_unix_duration() < at_least.to_unix_duration())
            .then(|| format!("was issued {found}, expected not before {at_least}"))
    }
}
