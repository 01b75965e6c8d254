//! Who carries annotations in a text: for those who read a policy, not the pod.

use std::collections::BTreeMap;

use ah_pod::{Role, at_once};
use serde_json::Value;

use crate::containers::milli;
use crate::error::ManifestError;
use crate::kinds::{self, Object};
use crate::manifest::parse;
use crate::objects::objects;
use crate::options::{Incomplete, ReadOptions, UnknownPods};
use crate::rules::Rules;
use crate::source::NamedText;

/// A pod as its annotations' bearer. Objects that it takes values from need not be at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Kind of the object that declares it.
    pub kind: String,
    /// Name of the object that declares it.
    pub object_name: String,
    /// The pod's annotations, as written.
    pub annotations: BTreeMap<String, String>,
    /// The pod's CPU limits as a kubelet adds them up for its runtime, thousandths of a core: those of its containers and sidecars, or of
    /// an init container with the sidecars before it, where that is more; 0 where nothing is limited.
    pub cpu_limit_milli: u64,
    /// The same with requests where there is no limit, as a policy's hints for the runtime have it.
    pub cpu_milli: u64,
}

/// The pods of a text with their annotations. Objects are read strictly, pods are not joined with anything.
///
/// # Errors
/// [`ManifestError`] for a text that is not YAML, and for an object that is not of its kind.
pub fn carriers(text: NamedText, rules: &Rules) -> Result<Vec<Carrier>, ManifestError> {
    let options = ReadOptions {
        rules: rules.clone(),
        unknown_pods: UnknownPods::PassThrough,
        incomplete: Incomplete::Accept,
        ..ReadOptions::default()
    };
    let file = parse(Some(text.name), text.text)?;
    let mut carriers = Vec::new();
    for object in objects(&file.documents).map_err(|error| file.in_file(error))? {
        let read = kinds::object(&object.value, &options)
            .map_err(crate::strict::below(&object.path))
            .map_err(|error| file.located(error, object.document))?;
        let Object::Workloads(workloads) = read else { continue };
        for workload in workloads {
            let place = crate::strict::join(&object.path, &workload.spec_path);
            let cpu = |requests| {
                let found = cpu(&workload.spec, &place, requests);
                found.map_err(|error| file.located(error, object.document))
            };
            let (cpu_limit_milli, cpu_milli) = (cpu(false)?, cpu(true)?);
            carriers.push(Carrier {
                kind: workload.kind,
                object_name: workload.object_name,
                annotations: workload.annotations,
                cpu_limit_milli,
                cpu_milli,
            });
        }
    }
    Ok(carriers)
}

/// CPU of a spec that need not be whole, requests standing in for limits or not: what is no list of containers has none.
fn cpu(spec: &Value, place: &str, requests: bool) -> Result<u64, ManifestError> {
    let mut all = Vec::new();
    for list in ["initContainers", "containers"] {
        let containers = spec.get(list).and_then(Value::as_array).into_iter().flatten();
        for (index, container) in containers.enumerate() {
            let stays = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            let role = match (list, stays) {
                ("containers", _) => Role::Main,
                (_, true) => Role::Sidecar,
                (_, false) => Role::Init,
            };
            let amount = |part: &str| {
                let path = format!("{place}.{list}[{index}].resources.{part}.cpu");
                match container.pointer(&format!("/resources/{part}/cpu")) {
                    None | Some(Value::Null) => Ok(0),
                    Some(Value::String(quantity)) => milli(&path, quantity),
                    Some(other) => milli(&path, &other.to_string()),
                }
            };
            let amount = match amount("limits")? {
                0 if requests => amount("requests")?,
                limit => limit,
            };
            all.push((role, amount));
        }
    }
    Ok(at_once(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(containers: &[&str], init_containers: &[&str], expect: u64) {
        let list = |limits: &[&str]| -> String {
            let one = |(index, cpu): (usize, &&str)| {
                format!("{{name: c{index}, image: x, resources: {{limits: {{{cpu}}}}}}}")
            };
            limits.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers: [{}]\n  initContainers: [{}]\n",
            list(containers),
            list(init_containers),
        );
        let text = NamedText { name: "pod.yaml".into(), text };
        let found = carriers(text, &Rules::shipped()).unwrap();
        assert_eq!(found[0].cpu_limit_milli, expect);
    }

    #[test]
    fn limits_are_added_up_as_a_kubelet_does() {
        check(&["", "memory: 1Mi"], &[], 0);
        check(&["cpu: 500m", "cpu: 1", ""], &[], 1_500);
        check(&["cpu: \"2\""], &[], 2_000);
        check(&["cpu: 500m", "cpu: 1"], &["cpu: 1200m"], 1_500);
        check(&["cpu: 500m"], &["cpu: 2", "cpu: 1"], 2_000);
    }

    /// Kubernetes, `PodLimits`: a sidecar runs beside the containers, and beside the init containers that follow it.
    #[test]
    fn sidecars_are_added_to_what_runs_beside_them() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: a, image: x, resources: {limits: {cpu: 1}}}]\n  initContainers:\n  - {name: i, image: x, resources: {limits: {cpu: 500m}}}\n  - {name: s, image: x, restartPolicy: Always, resources: {limits: {cpu: 1}}}\n  - {name: j, image: x, resources: {limits: {cpu: INIT}}}\n";
        for (init, expect) in [("500m", 2_000), ("1", 2_000), ("2", 3_000)] {
            let text = NamedText { name: "pod.yaml".into(), text: text.replace("INIT", init) };
            assert_eq!(carriers(text, &Rules::shipped()).unwrap()[0].cpu_limit_milli, expect);
        }
    }

    #[test]
    fn requests_stand_in_for_limits() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - {name: a, image: x, resources: {limits: {cpu: 1}, requests: {cpu: 500m}}}\n  - {name: b, image: x, resources: {requests: {cpu: 1500m}}}\n  - {name: c, image: x}\n";
        let text = NamedText { name: "pod.yaml".into(), text: text.into() };
        let found = carriers(text, &Rules::shipped()).unwrap();
        assert_eq!((found[0].cpu_limit_milli, found[0].cpu_milli), (1_000, 2_500));
    }
}
