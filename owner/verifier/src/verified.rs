//! The result: a value that only [`crate::verify`] makes.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use ah_evidence::{ChipId, Product, SigningKey, TcbParts, Tee};

use crate::crl::Looked;
use crate::endorsement::Endorsement;
use crate::roots::Root;

/// A value whose origin was verified, with what the chain says of it.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    root: Root,
    product: Product,
    signing_key: SigningKey,
    tcb: TcbParts,
    provider: Option<String>,
    chip: Chip,
    revocation: Looked,
}

/// Which chip signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chip {
    /// CHIP_ID is the one in the VCEK certificate.
    Identified(ChipId),
    /// CHIP_ID of a report signed by a VLEK, which many chips share: the firmware says so, no certificate does.
    Claimed(ChipId),
    /// The platform masks CHIP_ID.
    Masked,
}

/// What is known about revocation of the intermediate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationStatus {
    /// Not on a fresh list of AMD's.
    NotRevoked,
    /// Nobody looked.
    NotChecked {
        /// Why, for people.
        reason: String,
    },
}

impl<T> Verified<T> {
    pub(crate) fn new(
        value: T,
        root: Root,
        endorsement: Endorsement,
        chip: Chip,
        revocation: Looked,
    ) -> Self {
        let Endorsement { kind, product, tcb, provider, .. } = endorsement;
        Self { value, root, product, signing_key: kind, tcb, provider, chip, revocation }
    }

    /// The root that the chain ends in.
    pub fn root(&self) -> Root {
        self.root
    }

    /// What the guest runs in, by the root and nothing else.
    pub fn tee(&self) -> Tee {
        match self.root {
            Root::Amd(_) => Tee::Snp,
            Root::Software => Tee::Software,
        }
    }

    /// Product line of the chain.
    pub fn product(&self) -> Product {
        self.product
    }

    /// Kind of the key that signed.
    pub fn signing_key(&self) -> SigningKey {
        self.signing_key
    }

    /// The TCB that the signing key was derived for; equal to REPORTED_TCB.
    pub fn tcb(&self) -> TcbParts {
        self.tcb
    }

    /// The cloud provider that a VLEK is leased to, as AMD wrote it; None for a VCEK.
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
    }

    /// The chip.
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// What is known about revocation.
    pub fn revocation(&self) -> &RevocationStatus {
        &self.revocation.status
    }

    /// Age of the revocation list at the time of the verification, since its issue; None where nobody looked.
    pub fn revocation_list_age(&self) -> Option<Duration> {
        self.revocation.list_age
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identified(id) => id.fmt(f),
            Self::Claimed(id) => write!(f, "{id} (claimed: a vlek names no chip)"),
            Self::Masked => f.write_str("masked"),
        }
    }
}

impl fmt::Display for RevocationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRevoked => f.write_str("not revoked"),
            Self::NotChecked { reason } => write!(f, "not checked: {reason}"),
        }
    }
}
