//! A pod's policy, in whichever form its annotations carry it.

use std::collections::BTreeMap;

use ah_digest::Sha256;

use crate::{AksPolicy, DocumentError, GuestSettings, InitData, InitDataDigest};

/// Annotation of the initdata form.
pub const INITDATA_ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";
/// Annotation of the AKS form.
pub const AKS_ANNOTATION: &str = "io.katacontainers.config.agent.policy";

/// A policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyDocument {
    /// Annotation [`INITDATA_ANNOTATION`].
    InitData(InitData),
    /// Annotation [`AKS_ANNOTATION`].
    Aks(AksPolicy),
}

impl PolicyDocument {
    /// Reads the policy from a pod's annotations.
    ///
    /// # Errors
    /// [`DocumentError::Annotations`] unless exactly one form is there: with two, each side could take another one.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, DocumentError> {
        match (annotations.get(INITDATA_ANNOTATION), annotations.get(AKS_ANNOTATION)) {
            (Some(value), None) => InitData::from_annotation(value).map(Self::InitData),
            (None, Some(value)) => AksPolicy::from_annotation(value).map(Self::Aks),
            (None, None) => Err(DocumentError::Annotations { found: 0 }),
            (Some(_), Some(_)) => Err(DocumentError::Annotations { found: 2 }),
        }
    }

    /// The policy's Rego text.
    pub fn policy(&self) -> &str {
        match self {
            Self::InitData(initdata) => initdata.policy(),
            Self::Aks(policy) => policy.policy(),
        }
    }

    /// SEV-SNP's HOST_DATA.
    ///
    /// # Errors
    /// As [`InitData::host_data_snp`].
    pub fn host_data_snp(&self) -> Result<Sha256, DocumentError> {
        match self {
            Self::InitData(initdata) => initdata.host_data_snp(),
            Self::Aks(policy) => Ok(policy.host_data_snp()),
        }
    }

    /// MRCONFIGID of a TDX guest as the Kata runtime sets it: the digest with zeros behind it up to 48 bytes (agent
    /// policy convention, transport and binding). `None` for the AKS form, for which the convention says nothing.
    ///
    /// # Errors
    /// [`DocumentError::Algorithm`] when the digest is longer than the field and would be cut.
    pub fn kata_mrconfigid(&self) -> Result<Option<[u8; 48]>, DocumentError> {
        let Self::InitData(initdata) = self else { return Ok(None) };
        let mut field = [0; 48];
        match initdata.digest() {
            InitDataDigest::Sha256(digest) => {
                field.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
            }
            _ => field = *initdata.config_id_tdx()?.as_bytes(),
        }
        Ok(Some(field))
    }

    /// The guest settings; the AKS form has none.
    ///
    /// # Errors
    /// As [`InitData::guest_settings`].
    pub fn guest_settings(&self) -> Result<GuestSettings, DocumentError> {
        match self {
            Self::InitData(initdata) => initdata.guest_settings(),
            Self::Aks(_) => Ok(GuestSettings::default()),
        }
    }
}
