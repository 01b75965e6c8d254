//! A bag of certificates, sorted by what their names say.

use ah_evidence::{CertKind, CertTable, Product};
use ah_verifier::{Collateral, Revocation, TrustedRoots};
use der::{Decode as _, Encode as _};
use x509_cert::Certificate;

use crate::CollateralError;
use crate::kds::ChainKind;
use crate::thim::ThimCertificates;

/// Certificates of one chain, each at most once.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    root: Option<Vec<u8>>,
    intermediates: Vec<Named>,
    endorsement: Option<Vec<u8>>,
    list: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Named {
    subject: String,
    der: Vec<u8>,
}

impl Certificates {
    /// Adds one certificate, DER, at the place that its common name says: `ARK-…`, `SEV-VCEK`, `SEV-VLEK`, else `SEV-…`.
    ///
    /// # Errors
    /// [`CollateralError::Encoding`], [`CollateralError::UnknownCertificate`], [`CollateralError::Ambiguous`].
    pub fn add(&mut self, der: &[u8]) -> Result<(), CollateralError> {
        let subject = subject(der)?;
        let name = common_name(&subject).to_owned();
        let slot = match name.as_str() {
            "SEV-VCEK" | "SEV-VLEK" => &mut self.endorsement,
            name if name.starts_with("ARK-") => &mut self.root,
            name if name.starts_with("SEV-") => return self.add_intermediate(subject, der),
            _ => return Err(CollateralError::UnknownCertificate { subject }),
        };
        match slot {
            Some(found) if found != der => Err(CollateralError::Ambiguous { subject }),
            _ => {
                *slot = Some(der.to_vec());
                Ok(())
            }
        }
    }

    /// Adds all certificates of a table, and its revocation list.
    ///
    /// # Errors
    /// As [`Certificates::add`].
    pub fn add_table(&mut self, table: &CertTable) -> Result<(), CollateralError> {
        for (kind, bytes) in table.entries() {
            match kind {
                CertKind::Crl => self.list = Some(bytes.clone()),
                _ => self.add_any(bytes, "certificate table")?,
            }
        }
        Ok(())
    }

    /// Adds certificates in PEM, in DER, or in the JSON that THIM hands out.
    ///
    /// # Errors
    /// [`CollateralError::Thim`], and as [`Certificates::add`].
    pub fn add_form(&mut self, bytes: &[u8], what: &str) -> Result<(), CollateralError> {
        match bytes.trim_ascii_start().first() {
            Some(b'{') => ThimCertificates::parse(bytes)?.add_to(self),
            _ => self.add_any(bytes, what),
        }
    }

    pub(crate) fn endorsement(&self) -> Option<&[u8]> {
        self.endorsement.as_deref()
    }

    /// For each intermediate its kind, its product line, and it and the root in PEM.
    pub(crate) fn chains(&self) -> Result<Vec<(ChainKind, String, Vec<u8>)>, CollateralError> {
        let pem = |der: &[u8]| {
            use der::EncodePem as _;
            let text = parse(der)?.to_pem(der::pem::LineEnding::LF);
            text.map_err(|source| CollateralError::Encoding { what: "certificate".into(), source })
        };
        let chain = |named: &Named| {
            let name = common_name(&named.subject);
            let (kind, line) = match name.strip_prefix("SEV-VLEK-") {
                Some(line) => (ChainKind::Vlek, line),
                None => (ChainKind::Vcek, name.strip_prefix("SEV-").unwrap_or(name)),
            };
            let mut text = pem(&named.der)?;
            if let Some(root) = &self.root {
                text.push_str(&pem(root)?);
            }
            let known = ["Milan", "Genoa", "Turin", "Venice"].contains(&line);
            match known {
                true => Ok((kind, line.to_owned(), text.into_bytes())),
                false => {
                    Err(CollateralError::UnknownCertificate { subject: named.subject.clone() })
                }
            }
        };
        self.intermediates.iter().map(chain).collect()
    }

    /// Adds certificates in PEM, any number, or one in DER.
    ///
    /// # Errors
    /// As [`Certificates::add`].
    pub fn add_any(&mut self, bytes: &[u8], what: &str) -> Result<(), CollateralError> {
        let encoding = |source| CollateralError::Encoding { what: what.to_owned(), source };
        if !bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            return self.add(bytes);
        }
        for certificate in Certificate::load_pem_chain(bytes.trim_ascii()).map_err(encoding)? {
            self.add(&certificate.to_der().map_err(encoding)?)?;
        }
        Ok(())
    }

    /// What a verifier needs. The intermediate is the one that issued the endorsement certificate; a root that is missing is
    /// taken from the pinned ones by the intermediate's issuer.
    ///
    /// # Errors
    /// [`CollateralError::Missing`].
    pub fn collateral(self, revocation: Revocation) -> Result<Collateral, CollateralError> {
        let missing = |what| CollateralError::Missing { what };
        let endorsement = self.endorsement.ok_or_else(|| missing("vcek or vlek"))?;
        let issued_by = issuer(&endorsement)?;
        let intermediate = self
            .intermediates
            .into_iter()
            .find(|named| named.subject == issued_by)
            .ok_or_else(|| missing("ask or asvk"))?
            .der;
        let root = match self.root {
            Some(root) => root,
            None => pinned(&issuer(&intermediate)?).ok_or_else(|| missing("ark"))?,
        };
        let revocation = match (revocation, self.list) {
            (Revocation::NotChecked { .. }, Some(list)) => Revocation::List(list),
            (revocation, _) => revocation,
        };
        Ok(Collateral { endorsement, intermediate, root, revocation })
    }

    fn add_intermediate(&mut self, subject: String, der: &[u8]) -> Result<(), CollateralError> {
        match self.intermediates.iter().find(|named| named.subject == subject) {
            Some(named) if named.der != der => Err(CollateralError::Ambiguous { subject }),
            Some(_) => Ok(()),
            None => {
                self.intermediates.push(Named { subject, der: der.to_vec() });
                Ok(())
            }
        }
    }
}

fn parse(der: &[u8]) -> Result<Certificate, CollateralError> {
    Certificate::from_der(der)
        .map_err(|source| CollateralError::Encoding { what: "certificate".to_owned(), source })
}

fn subject(der: &[u8]) -> Result<String, CollateralError> {
    parse(der).map(|certificate| certificate.tbs_certificate.subject.to_string())
}

fn issuer(der: &[u8]) -> Result<String, CollateralError> {
    parse(der).map(|certificate| certificate.tbs_certificate.issuer.to_string())
}

/// The common name of a name in RFC 4514 text.
fn common_name(name: &str) -> &str {
    name.split(',').find_map(|part| part.strip_prefix("CN=")).unwrap_or_default()
}

fn pinned(issuer: &str) -> Option<Vec<u8>> {
    let products = [Product::Milan, Product::Genoa, Product::Turin];
    let roots = products.into_iter().filter_map(TrustedRoots::amd_root_der);
    let mut named = roots.filter(|root| subject(root).is_ok_and(|subject| subject == issuer));
    named.next().map(<[u8]>::to_vec)
}
