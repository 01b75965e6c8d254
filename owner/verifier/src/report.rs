//! The report against the verified certificates: signature, and everything that both speak of.

use ah_evidence::{ChipId, Product, RawReport, ReportSignature, SnpReport, TcbParts, TcbVersion};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

use crate::endorsement::Endorsement;
use crate::error::VerifyError;
use crate::verified::Chip;

/// Order of P-384 (NIST SP 800-186, section 3.2.1.4), big-endian.
const ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

pub(crate) fn check(
    report: &SnpReport,
    raw: &RawReport,
    endorsement: &Endorsement,
) -> Result<Chip, VerifyError> {
    if report.key_info.mask_chip_key {
        return Err(VerifyError::ChipKeyMasked);
    }
    let (found, expected) = (report.key_info.signing_key, endorsement.kind);
    if found != expected {
        return Err(VerifyError::SigningKey { found, expected });
    }
    check_signature(raw, endorsement)?;
    check_product(report, endorsement.product)?;
    check_tcb(report, endorsement)?;
    check_chip(report, endorsement)
}

fn check_signature(raw: &RawReport, endorsement: &Endorsement) -> Result<(), VerifyError> {
    let ReportSignature { r, s } = raw.signature().map_err(VerifyError::Report)?;
    for scalar in [r, s] {
        if scalar == [0; 48] || scalar >= ORDER {
            return Err(VerifyError::SignatureRange);
        }
    }
    let fixed = ReportSignature { r, s }.to_fixed();
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &endorsement.public_key)
        .verify(raw.signed_bytes(), &fixed)
        .map_err(|_| VerifyError::ReportSignature)
}

/// Version 2 names no processor: the chain alone says which it is.
fn check_product(report: &SnpReport, expected: Product) -> Result<(), VerifyError> {
    let Some(cpuid) = report.version.cpuid() else { return Ok(()) };
    let (family, model) = (cpuid.family, cpuid.model);
    match cpuid.product() {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(VerifyError::Product { found, expected }),
        None => Err(VerifyError::UnknownProcessor { family, model }),
    }
}

fn check_tcb(report: &SnpReport, endorsement: &Endorsement) -> Result<(), VerifyError> {
    let product = endorsement.product;
    let parts = |field, version: TcbVersion| {
        version.parts(product).ok_or(VerifyError::TcbLayout { field, product })
    };
    let current = parts("current", report.current_tcb)?;
    let reported = parts("reported", report.reported_tcb)?;
    let committed = parts("committed", report.committed_tcb)?;
    parts("launch", report.launch_tcb)?;
    if reported != endorsement.tcb {
        return Err(VerifyError::Tcb { found: reported, expected: endorsement.tcb });
    }
    let order = |field, found: TcbParts| match current.at_least(&found) {
        true => Ok(()),
        false => Err(VerifyError::TcbOrder { field, found, current }),
    };
    order("reported", reported)?;
    order("committed", committed)
}

fn check_chip(report: &SnpReport, endorsement: &Endorsement) -> Result<Chip, VerifyError> {
    match endorsement.chip_id {
        _ if report.chip_id.is_masked() => Ok(Chip::Masked),
        Some(chip_id) if chip_id == report.chip_id => Ok(Chip::Identified(chip_id)),
        Some(expected) => Err(VerifyError::ChipId { found: report.chip_id, expected }),
        None => check_claimed(report.chip_id, endorsement.product),
    }
}

/// Ids have 8 bytes and zeros from Turin on, 64 before.
fn check_claimed(found: ChipId, product: Product) -> Result<Chip, VerifyError> {
    match found.is_short() == product.has_fmc() {
        true => Ok(Chip::Claimed(found)),
        false => {
            let expected = if product.has_fmc() { 8 } else { 64 };
            Err(VerifyError::ChipIdLength { found, expected, product })
        }
    }
}
