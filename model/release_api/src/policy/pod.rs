//! The release policy that follows from a pod: this guest image, this initdata, not debuggable, on this kind of TEE.

use ah_digest::{Sha256, Sha384};

use super::{
    Authority, Condition, HARDWARE_TEE, LOCAL_AUTHORITY, Operator, PolicyError, ReleasePolicy,
    SOFTWARE_TEE, Scalar, claim,
};

/// Whose evidence a policy accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeeKind {
    /// SEV-SNP with AMD's root.
    SevSnp,
    /// The software TEE: proves nothing about confidentiality.
    Software,
}

impl TeeKind {
    /// The value of [`claim::TEE`].
    pub const fn claim_value(self) -> &'static str {
        match self {
            Self::SevSnp => HARDWARE_TEE,
            Self::Software => SOFTWARE_TEE,
        }
    }
}

/// What the owner knows about a pod before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// The kind of TEE that the pod is meant to run on.
    pub tee: TeeKind,
    /// Launch measurements of the guest images that may run it (one per guest image, vCPU count and vCPU type).
    pub launch_measurements: Vec<Sha384>,
    /// HOST_DATA: SHA-256 of the pod's initdata, which holds its policy.
    pub host_data: Sha256,
}

impl ReleasePolicy {
    /// The policy under which only guests with these facts get a key.
    ///
    /// # Errors
    /// [`PolicyError::NoMeasurement`] when no launch measurement is given, [`PolicyError::TooLarge`] for over 200.
    pub fn for_pod(facts: &PodFacts) -> Result<Self, PolicyError> {
        Self::for_pod_by(facts, &[LOCAL_AUTHORITY.to_owned()])
    }

    /// The same, as told by other authorities than this project's own verifier: issuers of attestation tokens, whose word alone is
    /// then taken. What kind of TEE it was, issuers of other makes say in the claim that all of them have.
    ///
    /// # Errors
    /// As [`Self::for_pod`]; [`PolicyError::Authority`] for a name that is no https URL, [`PolicyError::EmptyList`] for none.
    pub fn for_pod_by(facts: &PodFacts, authorities: &[String]) -> Result<Self, PolicyError> {
        if facts.launch_measurements.len() > 200 {
            return Err(PolicyError::TooLarge);
        }
        let measurement = match facts.launch_measurements.as_slice() {
            [] => return Err(PolicyError::NoMeasurement),
            [one] => equals(claim::LAUNCH_MEASUREMENT, &one.to_string()),
            several => Condition::AnyOf(
                several
                    .iter()
                    .map(|one| equals(claim::LAUNCH_MEASUREMENT, &one.to_string()))
                    .collect(),
            ),
        };
        if authorities.is_empty() {
            return Err(PolicyError::EmptyList { at: "anyOf".into() });
        }
        let authority = |(index, name): (usize, &String)| {
            if name.strip_prefix("https://").is_none_or(str::is_empty) {
                let at = format!("anyOf[{index}]");
                return Err(PolicyError::Authority { at, found: name.clone() });
            }
            let condition = condition(facts, measurement.clone(), name == LOCAL_AUTHORITY);
            Ok(Authority { name: name.clone(), condition })
        };
        let any_of = authorities.iter().enumerate().map(authority).collect::<Result<_, _>>()?;
        Ok(Self { any_of })
    }
}

fn condition(facts: &PodFacts, measurement: Condition, ours: bool) -> Condition {
    let tee = match facts.tee {
        TeeKind::SevSnp if !ours => claim::ATTESTATION_TYPE,
        // Nobody else knows the software TEE.
        TeeKind::SevSnp | TeeKind::Software => claim::TEE,
    };
    Condition::AllOf(vec![
        equals(tee, facts.tee.claim_value()),
        measurement,
        equals(claim::HOST_DATA, &facts.host_data.to_string()),
        equals(claim::IS_DEBUGGABLE, "false"),
        equals(claim::MIGRATION_ALLOWED, "false"),
        equals(claim::VMPL, "0"),
    ])
}

fn equals(claim: &str, value: &str) -> Condition {
    let (claim, value) = (claim.into(), Scalar::Text(value.into()));
    Condition::Compare { claim, operator: Operator::Equals, value }
}
