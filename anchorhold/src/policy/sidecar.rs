//! What was made, for machines: digests, values of the report, images, sizes.

use std::collections::BTreeMap;

use ah_digest::Sha256;
use ah_policy::PolicyDocument;
use anyhow::Result;
use serde::Serialize;

use crate::inputs::Input;
use crate::policy::make::Made;

/// The document; the same pods give the same bytes wherever their files lie and in whichever order they are given.
#[derive(Serialize)]
pub(crate) struct Sidecar {
    pods: Vec<Described>,
}

#[derive(Serialize)]
struct Described {
    file: String,
    kind: String,
    name: String,
    form: &'static str,
    /// What a report of the pod's VM carries.
    #[serde(flatten)]
    report: Report,
    policy_sha256: Sha256,
    policy_bytes: usize,
    annotation_bytes: usize,
    images: BTreeMap<String, String>,
}

/// Where each TEE's report has the document's digest, in hexadecimal.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// SEV-SNP's HOST_DATA.
    pub(crate) host_data: Sha256,
    /// TDX's MRCONFIGID as the Kata runtime sets it; the AKS form has none.
    pub(crate) tdx_mrconfigid: Option<String>,
}

impl Report {
    pub(crate) fn of(document: &PolicyDocument) -> Result<Self> {
        let hex = |bytes: [u8; 48]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            host_data: document.host_data_snp()?,
            tdx_mrconfigid: document.kata_mrconfigid()?.map(hex),
        })
    }
}

/// The word for a document's form.
pub(crate) fn form(document: &PolicyDocument) -> &'static str {
    match document {
        PolicyDocument::InitData(_) => "initdata",
        PolicyDocument::Aks(_) => "aks",
    }
}

/// Describes what was made.
pub(crate) fn describe(inputs: &[Input], made: &[Made]) -> Result<Sidecar> {
    let one = |pod: &Made| {
        Ok(Described {
            file: inputs.get(pod.input).map(|input| input.name.clone()).unwrap_or_default(),
            kind: pod.kind.clone(),
            name: pod.name.clone(),
            form: form(&pod.document),
            report: Report::of(&pod.document)?,
            policy_sha256: Sha256::of(pod.document.policy()),
            policy_bytes: pod.document.policy().len(),
            annotation_bytes: pod.annotation.len(),
            images: pod.images.clone(),
        })
    };
    let mut pods: Vec<Described> = made.iter().map(one).collect::<Result<_>>()?;
    // A stable sort: pods of one file stay in their order.
    pods.sort_by(|left, right| left.file.cmp(&right.file));
    Ok(Sidecar { pods })
}
