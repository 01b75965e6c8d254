//! The roots that are trusted, each pinned as a whole certificate.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use ah_digest::Sha256;
use ah_evidence::{Product, SigningKey};

use crate::certificate::Certificate;
use crate::error::{Role, VerifyError};

static MILAN: &[u8] = include_bytes!("../roots/milan-ark.der");
static GENOA: &[u8] = include_bytes!("../roots/genoa-ark.der");
static TURIN: &[u8] = include_bytes!("../roots/turin-ark.der");

/// File, and SHA-256 of the certificate as AMD publishes it.
static AMD: [(Product, &[u8], &str); 3] = [
    (Product::Milan, MILAN, "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    (Product::Genoa, GENOA, "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    (Product::Turin, TURIN, "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
];

static AMD_ROOTS: LazyLock<Vec<TrustedRoot>> = LazyLock::new(|| {
    AMD.iter()
        .map(|(product, der, digest)| {
            assert_eq!(
                Sha256::of(der).to_string(),
                *digest,
                "embedded root of {product} is changed"
            );
            TrustedRoot::new(Root::Amd(*product), der).expect("embedded roots are tested")
        })
        .collect()
});

/// Whose root a chain ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// AMD's, for this product line.
    Amd(Product),
    /// A program's: the guest is not confidential.
    Software,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amd(product) => write!(f, "AMD root for {product}"),
            Self::Software => f.write_str("software root (not confidential)"),
        }
    }
}

/// The set of roots that a relying party trusts.
#[derive(Clone)]
pub struct TrustedRoots {
    roots: Vec<TrustedRoot>,
}

#[derive(Clone)]
pub(crate) struct TrustedRoot {
    root: Root,
    product: Product,
    der: Arc<[u8]>,
    certificate: Arc<Certificate>,
}

impl TrustedRoots {
    /// AMD's roots for Milan, Genoa and Turin.
    pub fn amd() -> Self {
        Self { roots: AMD_ROOTS.clone() }
    }

    /// AMD's root certificate for `product`, DER, as it is pinned; None for lines whose root is not known here.
    pub fn amd_root_der(product: Product) -> Option<&'static [u8]> {
        AMD.iter().find(|(of, ..)| *of == product).map(|(_, der, _)| *der)
    }

    pub(crate) fn add_software_root(mut self, der: &[u8]) -> Result<Self, VerifyError> {
        let root = TrustedRoot::new(Root::Software, der)
            .map_err(|error| VerifyError::UnusableRoot(Box::new(error)))?;
        self.roots.push(root);
        Ok(self)
    }

    pub(crate) fn find(&self, der: &[u8]) -> Result<&TrustedRoot, VerifyError> {
        self.roots
            .iter()
            .find(|root| *root.der == *der)
            .ok_or_else(|| VerifyError::UntrustedRoot { sha256: Sha256::of(der) })
    }
}

impl fmt::Debug for TrustedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.roots.iter().map(|root| root.root)).finish()
    }
}

impl TrustedRoot {
    fn new(root: Root, der: &[u8]) -> Result<Self, VerifyError> {
        let certificate = Certificate::parse(Role::Root, der)?;
        certificate.check_authority()?;
        certificate.check_issued_by(&certificate)?;
        let product = product(&certificate)?;
        Ok(Self { root, product, der: der.into(), certificate: Arc::new(certificate) })
    }

    pub(crate) fn root(&self) -> Root {
        self.root
    }

    pub(crate) fn product(&self) -> Product {
        self.product
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Says for which kind of key the intermediate is.
    pub(crate) fn check_intermediate(
        &self,
        intermediate: &Certificate,
        now: SystemTime,
    ) -> Result<SigningKey, VerifyError> {
        intermediate.check_validity(Role::Intermediate, now)?;
        intermediate.check_authority()?;
        intermediate.check_same_organization(&self.certificate.tbs.subject)?;
        let vlek = format!("SEV-VLEK-{}", self.product);
        let kind = match intermediate.common_name() == Some(vlek) {
            true => SigningKey::Vlek,
            false => {
                intermediate.check_common_name(&format!("SEV-{}", self.product))?;
                SigningKey::Vcek
            }
        };
        intermediate.check_issued_by(&self.certificate)?;
        Ok(kind)
    }
}

fn product(root: &Certificate) -> Result<Product, VerifyError> {
    let lines = [Product::Milan, Product::Genoa, Product::Turin, Product::Venice];
    let name = root.common_name().unwrap_or_default();
    lines.into_iter().find(|line| name == format!("ARK-{line}")).ok_or_else(|| VerifyError::Name {
        role: Role::Root,
        what: "common name",
        found: name,
        expected: "ARK- and a product line".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_roots_are_amds() {
        let roots = TrustedRoots::amd();
        assert_eq!(roots.roots.len(), 3);
        for (product, der, _) in &AMD {
            let root = roots.find(der).unwrap();
            assert_eq!((root.root(), root.product()), (Root::Amd(*product), *product));
        }
    }

    #[test]
    fn a_changed_root_is_not_trusted() {
        let mut der = GENOA.to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(
            TrustedRoots::amd().find(&der).map(|_| ()),
            Err(VerifyError::UntrustedRoot { .. })
        ));
        let refused = TrustedRoots::amd().danger_with_software_root(&der);
        assert!(matches!(refused.map(|_| ()), Err(VerifyError::UnusableRoot(_))));
    }
}
