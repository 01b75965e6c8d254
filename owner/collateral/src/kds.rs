//! Where AMD's key distribution service keeps what a report needs: VCEK Certificate and KDS Interface Specification (AMD
//! document 57230). Paths only, no I/O.

use ah_evidence::{ChipId, Product, SigningKey, SnpReport, TcbParts};

/// AMD's service.
pub const KDS: &str = "https://kdsintf.amd.com";

/// Which chain: the one of VCEKs (ASK) or of VLEKs (ASVK).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainKind {
    /// ASK and ARK.
    Vcek,
    /// ASVK and ARK.
    Vlek,
}

/// What a report needs to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Product line.
    pub product: Product,
    /// Which chain.
    pub kind: ChainKind,
    /// The chip whose VCEK it is; None for a VLEK, which only a host can get.
    pub chip: Option<ChipId>,
    /// The TCB that the key was derived for.
    pub tcb: TcbParts,
}

/// Why nothing can be looked up for a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdsError {
    /// The report names no key.
    #[error("report is not signed by a vcek or vlek, so it has no certificates")]
    Unsigned,
    /// The report names a processor that is not known.
    #[error("report names processor family {family:#x} model {model:#x}, which is unknown")]
    Processor {
        /// Family.
        family: u8,
        /// Model.
        model: u8,
    },
    /// The chip is masked, so nobody can look up its certificate.
    #[error("report's chip id is masked, so its certificate cannot be looked up")]
    Masked,
    /// A TCB that is not of the product line's layout.
    #[error("report's tcb has parts that {product} does not know")]
    Tcb {
        /// Product line.
        product: Product,
    },
}

impl ChainKind {
    /// The part of the path that stands for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }
}

impl Wanted {
    /// What `report` needs. A version 2 report does not name its processor, so it may be of either line that had such reports.
    ///
    /// # Errors
    /// [`KdsError`].
    pub fn of_report(report: &SnpReport) -> Result<Vec<Self>, KdsError> {
        let kind = match report.key_info.signing_key {
            SigningKey::Vcek => ChainKind::Vcek,
            SigningKey::Vlek => ChainKind::Vlek,
            SigningKey::None => return Err(KdsError::Unsigned),
        };
        let chip = match kind {
            ChainKind::Vlek => None,
            ChainKind::Vcek if report.chip_id.is_masked() => return Err(KdsError::Masked),
            ChainKind::Vcek => Some(report.chip_id),
        };
        let wanted = |product| {
            let tcb = report.reported_tcb.parts(product).ok_or(KdsError::Tcb { product })?;
            Ok(Self { product, kind, chip, tcb })
        };
        products(report)?.into_iter().map(wanted).collect()
    }

    /// Path and query of the VCEK; None for a VLEK.
    pub fn endorsement_path(&self) -> Option<String> {
        let chip = self.chip_text()?;
        let TcbParts { fmc, boot_loader, tee, snp, microcode } = self.tcb;
        let fmc = if self.product.has_fmc() { format!("fmcSPL={fmc:02}&") } else { String::new() };
        Some(format!(
            "/vcek/v1/{}/{chip}?{fmc}blSPL={boot_loader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}",
            self.product
        ))
    }

    /// Path of the chain, PEM: intermediate, then root.
    pub fn chain_path(&self) -> String {
        format!("/{}/v1/{}/cert_chain", self.kind.name(), self.product)
    }

    /// Path of the revocation list, DER.
    pub fn list_path(&self) -> String {
        list_path(self.product, self.kind)
    }

    /// The chip in hex: 128 digits, 16 from Turin on.
    pub(crate) fn chip_text(&self) -> Option<String> {
        let mut text = self.chip?.to_string();
        if self.product.has_fmc() {
            text.truncate(16);
        }
        Some(text)
    }
}

pub(crate) fn list_path(product: Product, kind: ChainKind) -> String {
    format!("/{}/v1/{product}/crl", kind.name())
}

pub(crate) fn products(report: &SnpReport) -> Result<Vec<Product>, KdsError> {
    let Some(cpuid) = report.version.cpuid() else {
        return Ok(match report.chip_id.is_short() && !report.chip_id.is_masked() {
            true => vec![Product::Turin],
            false => vec![Product::Milan, Product::Genoa],
        });
    };
    let (family, model) = (cpuid.family, cpuid.model);
    cpuid.product().map(|line| vec![line]).ok_or(KdsError::Processor { family, model })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(product: Product, kind: ChainKind, chip: Option<ChipId>) -> Wanted {
        let fmc = u8::from(product.has_fmc());
        let tcb = TcbParts { fmc, boot_loader: 4, tee: 0, snp: 24, microcode: 219 };
        Wanted { product, kind, chip, tcb }
    }

    #[test]
    fn paths_are_amds() {
        let chip = ChipId([0xAB; 64]);
        let milan = wanted(Product::Milan, ChainKind::Vcek, Some(chip));
        let id = "ab".repeat(64);
        assert_eq!(
            milan.endorsement_path().unwrap(),
            format!("/vcek/v1/Milan/{id}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219")
        );
        assert_eq!(milan.chain_path(), "/vcek/v1/Milan/cert_chain");
        let turin = wanted(Product::Turin, ChainKind::Vcek, Some(chip));
        assert_eq!(
            turin.endorsement_path().unwrap(),
            "/vcek/v1/Turin/abababababababab?fmcSPL=01&blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
        );
        let vlek = wanted(Product::Genoa, ChainKind::Vlek, None);
        assert_eq!(vlek.endorsement_path(), None);
        assert_eq!(vlek.list_path(), "/vlek/v1/Genoa/crl");
    }
}
