//! AMD's revocation list for one product line: signed by the root, names intermediates.

use std::time::{Duration, SystemTime};

use der::Decode as _;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::Extension;

use crate::certificate::{Certificate, Signed, seconds, since_epoch};
use crate::collateral::{MAX_CRL_BYTES, Revocation};
use crate::error::{Role, VerifyError};
use crate::verified::RevocationStatus;

/// What is known about revocation, and how old the list is that says so.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) status: RevocationStatus,
    pub(crate) list_age: Option<Duration>,
}

pub(crate) fn check(
    revocation: &Revocation,
    root: &Certificate,
    intermediate: &Certificate,
    now: SystemTime,
) -> Result<Looked, VerifyError> {
    let der = match revocation {
        Revocation::List(der) => der,
        Revocation::NotChecked { reason } => {
            let status = RevocationStatus::NotChecked { reason: reason.clone() };
            return Ok(Looked { status, list_age: None });
        }
    };
    let list = read(der, root)?;
    // What an old list names stays revoked; what it does not name may be revoked by now.
    let revoked: &[RevokedCert] = list.revoked_certificates.as_deref().unwrap_or_default();
    for (role, certificate) in [(Role::Root, root), (Role::Intermediate, intermediate)] {
        if revoked.iter().any(|entry| entry.serial_number == certificate.tbs.serial_number) {
            return Err(VerifyError::Revoked { role });
        }
    }
    let now = since_epoch(now);
    let next = list.next_update.ok_or(VerifyError::CrlForm { what: "absence of a next update" })?;
    let issued = seconds(&list.this_update);
    if now < issued || now > seconds(&next) {
        return Err(VerifyError::CrlStale);
    }
    Ok(Looked { status: RevocationStatus::NotRevoked, list_age: now.checked_sub(issued) })
}

fn read(der: &[u8], root: &Certificate) -> Result<TbsCertList, VerifyError> {
    let (found, limit) = (der.len(), MAX_CRL_BYTES);
    if found > limit {
        return Err(VerifyError::TooLarge { what: "revocation list", found, limit });
    }
    let signed = Signed::read(der).map_err(VerifyError::Crl)?;
    let list = TbsCertList::from_der(&signed.content).map_err(VerifyError::Crl)?;
    let form = |what| Err(VerifyError::CrlForm { what });
    if !signed.is_pss_sha384() || list.signature != signed.algorithm {
        return form("signature algorithm");
    }
    if list.issuer != root.tbs.subject {
        return form("issuer");
    }
    // A critical extension may narrow what the list is about, so one that is not known voids it.
    let entries = list.revoked_certificates.iter().flatten();
    let of_entries = entries.filter_map(|entry| entry.crl_entry_extensions.as_deref());
    if list.crl_extensions.as_deref().into_iter().chain(of_entries).any(has_critical) {
        return form("critical extension");
    }
    match signed.verifies(root) {
        true => Ok(list),
        false => Err(VerifyError::CrlSignature),
    }
}

fn has_critical(extensions: &[Extension]) -> bool {
    extensions.iter().any(|extension| extension.critical)
}
