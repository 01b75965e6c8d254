//! Who carries annotations in a text: for those who read a policy, not the pod.

use std::collections::BTreeMap;

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
            let cpu_limit_milli = limits(&workload.spec, &place)
                .map_err(|error| file.located(error, object.document))?;
            carriers.push(Carrier {
                kind: workload.kind,
                object_name: workload.object_name,
                annotations: workload.annotations,
                cpu_limit_milli,
            });
        }
    }
    Ok(carriers)
}

/// Of a spec that need not be whole: what is no list of containers limits nothing.
fn limits(spec: &Value, place: &str) -> Result<u64, ManifestError> {
    let of = |list: &str| -> Result<Vec<u64>, ManifestError> {
        let containers = spec.get(list).and_then(Value::as_array).into_iter().flatten();
        let limit = |(index, container): (usize, &Value)| {
            let path = format!("{place}.{list}[{index}].resources.limits.cpu");
            match container.pointer("/resources/limits/cpu") {
                None | Some(Value::Null) => Ok(0),
                Some(Value::String(quantity)) => milli(&path, quantity),
                Some(other) => milli(&path, &other.to_string()),
            }
        };
        containers.enumerate().map(limit).collect()
    };
    let own = of("containers")?.into_iter().fold(0, u64::saturating_add);
    let inits = spec.get("initContainers").and_then(Value::as_array).into_iter().flatten();
    let stays = |init: &Value| init.get("restartPolicy").and_then(Value::as_str) == Some("Always");
    let (mut sidecars, mut most) = (0_u64, 0_u64);
    for (limit, init) in of("initContainers")?.into_iter().zip(inits) {
        let together = sidecars.saturating_add(limit);
        match stays(init) {
            true => sidecars = together,
            false => most = most.max(together),
        }
    }
    Ok(own.saturating_add(sidecars).max(most))
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
}
