//! What Kubernetes' controllers make of a pod template beside the name.

use ah_pod::{HostFact, PodName, Text};
use serde_json::{Value, json};

use crate::error::Problem;
use crate::strict::{Failure, at};
use crate::workload::{Restart, Workload};

/// Label and annotation of an Indexed Job's pod (Kubernetes API, `batch/v1`).
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Variable of an Indexed Job's containers.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// Host name from the pod's name, subdomain from the service, a volume for each claim.
pub(crate) fn stateful_set(value: &Value, workload: &mut Workload) -> Result<(), Failure> {
    let index = Text::host(HostFact::PodIndex);
    workload.added.insert("apps.kubernetes.io/pod-index".into(), index);
    workload.added.insert("statefulset.kubernetes.io/pod-name".into(), workload.pod_name.text());
    let Value::Object(spec) = &mut workload.spec else { return Ok(()) };
    spec.remove("hostname");
    let service = at(value, "spec.serviceName").and_then(Value::as_str).unwrap_or_default();
    spec.insert("subdomain".into(), service.into());
    workload.origins.push(("subdomain".into(), "spec.serviceName".into()));
    let claims = at(value, "spec.volumeClaimTemplates").and_then(Value::as_array);
    for (number, claim) in claims.into_iter().flatten().enumerate() {
        let origin = format!("spec.volumeClaimTemplates[{number}]");
        let name = at(claim, "metadata.name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            let expected = "a name, which the containers mount it by".into();
            return Err((format!("{origin}.metadata.name"), Problem::Missing { expected }));
        }
        add_claim(spec, name, &workload.object_name);
        let volumes = spec.get("volumes").and_then(Value::as_array).map_or(0, Vec::len);
        let at = format!("volumes[{}]", volumes.saturating_sub(1));
        workload.origins.push((format!("{at}.name"), format!("{origin}.metadata.name")));
        workload.origins.push((format!("{at}.persistentVolumeClaim"), origin.clone()));
        workload.origins.push((at, origin));
    }
    Ok(())
}

/// A claim takes the place of a volume of its name. The claim's own name ends with the pod's
/// ordinal, which only the cluster knows.
fn add_claim(spec: &mut serde_json::Map<String, Value>, name: &str, set: &str) {
    let volumes = spec.entry("volumes").or_insert(Value::Null);
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Value::Array(volumes) = volumes {
        volumes.retain(|volume| volume.get("name").and_then(Value::as_str) != Some(name));
        let claim = format!("{name}-{set}-0");
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": claim}}));
    }
}

/// The parts of a Job's spec that decide what becomes of the pod.
pub(crate) fn job(value: &Value, workload: &mut Workload) -> Result<(), Failure> {
    let name = at(value, "metadata.name").and_then(Value::as_str);
    for label in ["batch.kubernetes.io/job-name", "job-name"] {
        workload.added.extend(name.map(|name| (label.to_owned(), name.into())));
    }
    let Some(spec) = value.get("spec") else { return Ok(()) };
    judge_failures(spec, workload);
    if !is_indexed(spec, "spec")? {
        return Ok(());
    }
    let missing = |path: &str, expected: &str| {
        (path.to_owned(), Problem::Missing { expected: expected.into() })
    };
    let name = name.ok_or_else(|| {
        missing("metadata.name", "a name: it is in the host names of an Indexed Job's pods")
    })?;
    let completions = spec.get("completions").and_then(Value::as_u64);
    let completions = completions.and_then(|count| u32::try_from(count).ok());
    let completions = completions
        .filter(|count| *count > 0)
        .ok_or_else(|| missing("spec.completions", "1 or more, as an Indexed Job needs"))?;
    workload.pod_name = PodName::Indexed { job: name.into(), completions };
    workload.added.insert(COMPLETION_INDEX.into(), Text::host(HostFact::PodIndex));
    add_index_variable(&mut workload.spec);
    Ok(())
}

/// The Jobs of a CronJob are named by the time.
pub(crate) fn cron_job(value: &Value, workload: &mut Workload) -> Result<(), Failure> {
    let path = "spec.jobTemplate.spec";
    let Some(spec) = at(value, path) else { return Ok(()) };
    judge_failures(spec, workload);
    if is_indexed(spec, path)? {
        let expected = "NonIndexed in a CronJob: the host names of Indexed pods hold the time, \
                        which no policy can know";
        let problem = Problem::Value { found: "Indexed".into(), expected: expected.into() };
        return Err((format!("{path}.completionMode"), problem));
    }
    Ok(())
}

/// Kubernetes lets a Job judge how its pods failed, or count by index, only where they are not
/// restarted in their place.
fn judge_failures(spec: &Value, workload: &mut Workload) {
    let set = |field: &str| spec.get(field).is_some_and(|value| !value.is_null());
    if set("podFailurePolicy") || set("backoffLimitPerIndex") {
        workload.restart = Restart::Never;
    }
}

fn is_indexed(spec: &Value, path: &str) -> Result<bool, Failure> {
    match spec.get("completionMode").and_then(Value::as_str) {
        None | Some("NonIndexed") => Ok(false),
        Some("Indexed") => Ok(true),
        Some(other) => {
            let problem =
                Problem::Value { found: other.into(), expected: "NonIndexed or Indexed".into() };
            Err((format!("{path}.completionMode"), problem))
        }
    }
}

/// Each container that has no such variable gets it, after its own.
fn add_index_variable(spec: &mut Value) {
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Value::Object(container) = container else { continue };
            let env = container.entry("env").or_insert(Value::Null);
            if env.is_null() {
                *env = json!([]);
            }
            let Value::Array(env) = env else { continue };
            let own = env.iter().any(|variable| {
                variable.get("name").and_then(Value::as_str) == Some(INDEX_VARIABLE)
            });
            if !own {
                let path = format!("metadata.labels['{COMPLETION_INDEX}']");
                env.push(json!({
                    "name": INDEX_VARIABLE,
                    "valueFrom": {"fieldRef": {"fieldPath": path}},
                }));
            }
        }
    }
}
