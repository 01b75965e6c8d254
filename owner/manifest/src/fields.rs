//! What becomes of each field of a PodSpec: the one table, which the reader obeys and the docs print.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use crate::error::{ManifestError, Place, Problem};
use crate::schema::{self, Schema};

mod table;

pub(crate) use table::TABLE;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its value, or each of its parts, enters the requests that the policy allows, or decides how
    /// the pod is run.
    Enforced,
    /// Whatever it says, it lets the host do nothing that the host could not do anyway.
    Harmless,
    /// No value is accepted.
    Refused,
    /// Only these values, as JSON, are accepted.
    Only(&'static [&'static str]),
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Struct of k8s-openapi.
    pub owner: &'static str,
    /// Field of it.
    pub name: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why.
    pub why: &'static str,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(schema::of::<PodSpec>);

/// Refuses what the table refuses in a PodSpec that has no unknown fields.
pub(crate) fn check_spec(spec: &Value, path: &str) -> Result<(), ManifestError> {
    check("PodSpec", spec, path)
}

fn check(owner: &'static str, value: &Value, path: &str) -> Result<(), ManifestError> {
    let Value::Object(map) = value else { return Ok(()) };
    for (name, value) in map.iter().filter(|(_, value)| !is_unset(value)) {
        let path = format!("{path}.{name}");
        let Some(field) = row(owner, name) else {
            return Err(error(&path, Problem::UnknownField));
        };
        match field.verdict {
            Verdict::Enforced => check_parts(owner, field.name, value, &path)?,
            Verdict::Harmless => {}
            Verdict::Refused => {
                return Err(error(&path, Problem::Refused { why: field.why }));
            }
            Verdict::Only(accepted) => check_only(accepted, field.why, value, &path)?,
        }
    }
    Ok(())
}

fn check_parts(
    owner: &'static str,
    name: &'static str,
    value: &Value,
    path: &str,
) -> Result<(), ManifestError> {
    let held = SCHEMA.get(owner).and_then(|fields| fields.get(name)).copied().flatten();
    match (held, value) {
        (Some(held), Value::Array(items)) => {
            (0..).zip(items).try_for_each(|(index, item): (usize, _)| {
                check(held, item, &format!("{path}[{index}]"))
            })
        }
        (Some(held), value) => check(held, value, path),
        (None, _) => Ok(()),
    }
}

fn check_only(
    accepted: &[&str],
    why: &'static str,
    value: &Value,
    path: &str,
) -> Result<(), ManifestError> {
    let found = value.to_string();
    match accepted.contains(&found.as_str()) {
        true => Ok(()),
        false => {
            let expected = accepted.join(" or ");
            Err(error(path, Problem::RefusedValue { found, expected, why }))
        }
    }
}

/// Kubernetes drops these before anything reads them.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn row(owner: &str, name: &str) -> Option<&'static Field> {
    TABLE.iter().find(|field| field.owner == owner && field.name == name)
}

fn error(path: &str, problem: Problem) -> ManifestError {
    ManifestError::new(Place { path: path.into(), ..Place::default() }, problem)
}

/// The table as the page docs/kubernetes-fields.md.
pub fn page() -> String {
    let mut page = String::from(
        "# Fields of a pod, and what becomes of each\n\n\
         Generated from the table that the reader of manifests obeys (`owner/manifest/src/fields/table.rs`) by\n\
         `cargo run -p ah-manifest --example fields > docs/kubernetes-fields.md`; a test compares them, and another fails when\n\
         k8s-openapi (Kubernetes 1.33) has a field that the table lacks.\n\n\
         * **enforced**: its value enters the requests that the policy allows, or decides how the pod is run; for a\n  \
           field with fields of its own, each of those has its row;\n\
         * **harmless**: whatever it says, it lets the host do nothing that the host could not do anyway;\n\
         * **only**: accepted with these values alone, refused with any other;\n\
         * **refused**: no value is accepted.\n\n\
         A field that is not here does not exist in the API and is refused as unknown, with its path.\n",
    );
    let mut owner = "";
    for field in TABLE {
        if field.owner != owner {
            owner = field.owner;
            page +=
                &format!("\n## {owner}\n\n| field | what becomes of it | why |\n|---|---|---|\n");
        }
        let verdict = match field.verdict {
            Verdict::Enforced => "enforced".into(),
            Verdict::Harmless => "harmless".into(),
            Verdict::Refused => "refused".into(),
            Verdict::Only(values) => format!("only {}", values.join(", ")),
        };
        page += &format!("| {} | {verdict} | {} |\n", field.name, field.why);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    use super::*;

    /// Structs whose fields need rows: reachable without passing a refused or harmless field.
    fn judged() -> BTreeSet<&'static str> {
        let mut judged = BTreeSet::new();
        let mut open = vec!["PodSpec"];
        while let Some(owner) = open.pop() {
            if !judged.insert(owner) {
                continue;
            }
            for (name, held) in &SCHEMA[owner] {
                let enforced = row(owner, name).is_none_or(|row| row.verdict == Verdict::Enforced);
                open.extend(held.filter(|_| enforced));
            }
        }
        judged
    }

    #[test]
    fn every_field_of_the_api_has_a_row() {
        let mut missing = Vec::new();
        for owner in judged() {
            let lacking = SCHEMA[owner].keys().filter(|name| row(owner, name).is_none());
            missing.extend(lacking.map(|name| format!("{owner}.{name}")));
        }
        assert!(missing.is_empty(), "fields without a row: {missing:#?}");
    }

    #[test]
    fn every_row_is_a_field_of_the_api_once() {
        let judged = judged();
        let mut seen = BTreeSet::new();
        for field in TABLE {
            let name = format!("{}.{}", field.owner, field.name);
            assert!(judged.contains(field.owner), "{name} is never looked at");
            assert!(SCHEMA[field.owner].contains_key(field.name), "{name} is no field of the API");
            assert!(seen.insert(name.clone()), "{name} has two rows");
            assert!(!field.why.is_empty() && !field.why.ends_with('.'), "{name}: {}", field.why);
        }
    }

    #[test]
    fn the_page_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kubernetes-fields.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let hint = "run: cargo run -p ah-manifest --example fields > docs/kubernetes-fields.md";
        assert!(found == page(), "docs/kubernetes-fields.md differs from the table; {hint}");
    }

    fn check_case(spec: Value, expect: Result<(), &str>) {
        match (check_spec(&spec, "spec"), expect) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(path)) => assert_eq!(error.place.path, path),
            (found, expect) => panic!("{spec}: {found:?}, expected {expect:?}"),
        }
    }

    /// The fields that lead from the spec to each struct.
    fn ways() -> BTreeMap<&'static str, Vec<&'static str>> {
        let mut ways = BTreeMap::from([("PodSpec", Vec::new())]);
        let mut open = VecDeque::from(["PodSpec"]);
        while let Some(owner) = open.pop_front() {
            let way: Vec<_> = ways[owner].clone();
            for field in TABLE.iter().filter(|field| field.owner == owner) {
                let held = SCHEMA[owner][field.name].filter(|_| field.verdict == Verdict::Enforced);
                if let Some(held) = held.filter(|held| !ways.contains_key(held)) {
                    ways.insert(held, [way.as_slice(), &[field.name]].concat());
                    open.push_back(held);
                }
            }
        }
        ways
    }

    /// Each row's allowed case beside its smallest forbidden change, at the field's own place in a pod.
    #[test]
    fn every_row_does_what_it_says() {
        use serde_json::json;
        let ways = ways();
        for field in TABLE {
            let way = [ways[field.owner].as_slice(), &[field.name]].concat();
            let path = format!("spec.{}", way.join("."));
            let with = |value: Value| {
                way.iter().rfold(value, |inner, name| json!({ (*name).to_owned(): inner }))
            };
            match field.verdict {
                Verdict::Harmless => check_case(with(json!({"any": ["thing"]})), Ok(())),
                Verdict::Refused => {
                    check_case(with(Value::Null), Ok(()));
                    check_case(with(json!({})), Err(&path));
                }
                Verdict::Only(values) => {
                    for value in values {
                        check_case(with(serde_json::from_str(value).unwrap()), Ok(()));
                    }
                    check_case(with(json!("another")), Err(&path));
                }
                Verdict::Enforced => {
                    check_case(with(json!({})), Ok(()));
                    if SCHEMA[field.owner][field.name].is_some() {
                        let unknown = format!("{path}.noSuchField");
                        check_case(with(json!({"noSuchField": 1})), Err(&unknown));
                    }
                }
            }
        }
    }

    #[test]
    fn refused_fields_are_refused_where_they_are_set() {
        use serde_json::json;
        check_case(json!({"hostPID": false, "containers": []}), Ok(()));
        check_case(json!({"hostPID": true}), Err("spec.hostPID"));
        check_case(json!({"volumes": [{"name": "a", "emptyDir": {}}]}), Ok(()));
        check_case(
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}),
            Err("spec.volumes[0].hostPath"),
        );
        check_case(json!({"volumes": [{"name": "a", "configMap": {"name": "c"}}]}), Ok(()));
        check_case(
            json!({"volumes": [{"name": "a", "csi": {"driver": "d"}}]}),
            Err("spec.volumes[0].csi"),
        );
        check_case(json!({"ephemeralContainers": []}), Ok(()));
        check_case(json!({"affinity": {"nodeAffinity": {}}}), Ok(()));
        check_case(
            json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"mountPropagation": "Bidirectional"}]}]}),
            Err("spec.containers[1].volumeMounts[0].mountPropagation"),
        );
    }
}
