//! Every kind that embeds a pod: where its pod is, what it is called, and the nearest thing that is refused.

use ah_pod::RestartPolicy;

use super::*;

const POD_SPEC: &str = "{containers: [{name: app, image: \"web:1\"}]}";

/// A kind, with `{}` where its PodSpec is.
struct Case {
    yaml: &'static str,
    path: &'static str,
    /// A name that its pods may have.
    name: &'static str,
    /// One that they may not.
    other_name: &'static str,
    /// A restart policy that is refused.
    refused: Option<&'static str>,
    /// The spec needs one to be said.
    said: &'static str,
}

const CASES: [Case; 11] = [
    Case {
        yaml: "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\n",
        path: "spec",
        name: "x",
        other_name: "x-bcd24",
        refused: None,
        said: "",
    },
    Case {
        yaml: "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\nspec: {}\n",
        path: "spec",
        name: "x-bcd24",
        other_name: "x",
        refused: None,
        said: "",
    },
    Case {
        yaml: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {selector: {}, template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-7c5ddbdf54-x2vwz",
        other_name: "x-x2vwz",
        refused: Some("OnFailure"),
        said: "",
    },
    Case {
        yaml: "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\nspec: {selector: {}, template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-x2vwz",
        other_name: "x-7c5ddbdf54-x2vwz",
        refused: Some("Never"),
        said: "",
    },
    Case {
        yaml: "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\nspec: {selector: {}, serviceName: s, template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-0",
        other_name: "x-x2vwz",
        refused: Some("Never"),
        said: "",
    },
    Case {
        yaml: "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: x}\nspec: {selector: {}, template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-x2vwz",
        other_name: "x-0",
        refused: Some("OnFailure"),
        said: "",
    },
    Case {
        yaml: "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: x}\nspec: {template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-x2vwz",
        other_name: "x",
        refused: Some("OnFailure"),
        said: "",
    },
    Case {
        yaml: "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: {template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-x2vwz",
        other_name: "x-0-x2vwz",
        refused: Some("Always"),
        said: "Never",
    },
    Case {
        yaml: "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: {completionMode: Indexed, completions: 12, template: {spec: {}}}\n",
        path: "spec.template.spec",
        name: "x-11-x2vwz",
        other_name: "x-x2vwz",
        refused: Some("Always"),
        said: "OnFailure",
    },
    Case {
        yaml: "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {schedule: \"* * * * *\", jobTemplate: {spec: {template: {spec: {}}}}}\n",
        path: "spec.jobTemplate.spec.template.spec",
        name: "x-29384655-x2vwz",
        other_name: "x-x2vwz",
        refused: Some("Always"),
        said: "Never",
    },
    Case {
        yaml: "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: x}\ntemplate: {spec: {}}\n",
        path: "template.spec",
        name: "anything-1",
        other_name: "Anything",
        refused: None,
        said: "",
    },
];

fn with(case: &Case, restart: &str) -> String {
    let spec = match restart {
        "" => POD_SPEC.to_owned(),
        policy => POD_SPEC.replacen('{', &format!("{{restartPolicy: {policy}, "), 1),
    };
    case.yaml.replacen("spec: {}", &format!("spec: {spec}"), 1)
}

#[test]
fn each_kind_is_read_named_and_restarted_as_kubernetes_does() {
    for case in &CASES {
        let text = with(case, case.said);
        let manifest = read(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(manifest.pods()[0].path(), case.path);
        let pod = pod_of(&text).unwrap();
        let pattern = regex::Regex::new(&pod.name.pattern()).unwrap();
        assert!(pattern.is_match(case.name), "{} by {pattern}", case.name);
        assert!(!pattern.is_match(case.other_name), "{} by {pattern}", case.other_name);
        let path = format!("{}.restartPolicy", case.path);
        if let Some(refused) = case.refused {
            check_error(&with(case, refused), &path, "needs");
        }
        if !case.said.is_empty() {
            check_error(&with(case, ""), &path, "missing");
        }
        check_error(&with(case, "Sometimes"), &path, "not usable");
    }
}

#[test]
fn an_unknown_field_is_an_error_in_every_kind() {
    for case in &CASES {
        let text = with(case, case.said).replacen("{name: app", "{nam: x, name: app", 1);
        check_error(&text, &format!("{}.containers[0].nam", case.path), "unknown field");
        let text = format!("extra: 1\n{}", with(case, case.said));
        check_error(&text, "extra", "unknown field");
        let text = with(case, case.said).replacen("metadata: {", "metadata: {nam: x, ", 1);
        check_error(&text, "metadata.nam", "unknown field");
    }
    let job = with(&CASES[7], "Never");
    check_error(
        &job.replace("template:", "backoflimit: 1, template:"),
        "spec.backoflimit",
        "unknown",
    );
    let cron = with(&CASES[9], "Never");
    check_error(&cron.replace("schedule", "schedul"), "spec.schedul", "unknown");
}

#[test]
fn an_indexed_job_numbers_its_pods() {
    let text = with(&CASES[8], "Never");
    let pod = pod_of(&text).unwrap();
    let index = &pod.containers[0].env[0];
    assert_eq!(
        (index.name.as_str(), &index.value),
        ("JOB_COMPLETION_INDEX", &Text::host(HostFact::PodIndex))
    );
    let mut host = HostValues::placeholders(&pod);
    host.pod_index = "7".into();
    assert_eq!(pod.hostname(&host), "x-7");
    let own = text.replace("image:", "env: [{name: JOB_COMPLETION_INDEX, value: mine}], image:");
    let pod = pod_of(&own).unwrap();
    assert_eq!(pod.containers[0].env.len(), 1);
    assert_eq!(pod.containers[0].env[0].value, "mine".into());
    check_error(&text.replace(", completions: 12", ""), "spec.completions", "Indexed Job needs");
    check_error(&text.replace("name: x}", "generateName: x-}"), "metadata.name", "host names");
    check_error(&text.replace("Indexed", "Sorted"), "spec.completionMode", "NonIndexed or Indexed");
    let cron = with(&CASES[9], "Never").replace("{template", "{completionMode: Indexed, template");
    check_error(&cron, "spec.jobTemplate.spec.completionMode", "hold the time");
}

#[test]
fn a_job_that_judges_failures_never_restarts_in_place() {
    let policy = "podFailurePolicy: {rules: []}, template:";
    let never = with(&CASES[7], "Never").replace("template:", policy);
    assert_eq!(pod_of(&never).unwrap().restart_policy, RestartPolicy::Never);
    let on_failure = with(&CASES[7], "OnFailure").replace("template:", policy);
    check_error(&on_failure, "spec.template.spec.restartPolicy", "Never");
}

#[test]
fn a_stateful_set_names_hosts_and_claims_volumes() {
    let text = with(&CASES[4], "").replace("image:", "env: [{name: I, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['apps.kubernetes.io/pod-index']\"}}}], image:");
    let pod = pod_of(&text).unwrap();
    assert_eq!((pod.hostname.as_deref(), pod.subdomain.as_deref()), (None, Some("s")));
    assert_eq!(pod.containers[0].env[0].value, Text::host(HostFact::PodIndex));
    assert_eq!(pod.hostname(&HostValues::placeholders(&pod)), "x-$(pod-index)");
    check_error(&text.replace("serviceName: s", "serviceName: S"), "spec.serviceName", "DNS label");
    let claim = "volumeClaimTemplates: [{metadata: {name: data}, spec: {}}], template:";
    let error = read(&text.replace("template:", claim));
    // refused or not, it is judged as a claim of the pod, at its own place
    if let Err(error) = error {
        assert!(error.place.path.starts_with("spec.volumeClaimTemplates[0]"), "{error}");
    }
    let unnamed = claim.replace("{name: data}", "{}");
    check_error(
        &text.replace("template:", &unnamed),
        "spec.volumeClaimTemplates[0].metadata.name",
        "a name",
    );
    let unknown = claim.replace("spec: {}", "spec: {size: 1}");
    check_error(
        &text.replace("template:", &unknown),
        "spec.volumeClaimTemplates[0].spec.size",
        "unknown",
    );
}

#[test]
fn live_objects_are_read() {
    let live = "metadata: {creationTimestamp: \"2026-01-02T03:04:05Z\", uid: u, resourceVersion: \"7\", generation: 2, \
         managedFields: [{anything: {f:x: {}}}], finalizers: [a/b], ownerReferences: [{apiVersion: v1, kind: K, name: r, uid: u}], ";
    for case in &CASES {
        let text = with(case, case.said).replacen("metadata: {", live, 1);
        let text = format!("{text}status: {{fromALaterVersion: [1]}}\n");
        read(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let wrong = text.replacen("uid: u, resource", "uuid: u, resource", 1);
        check_error(&wrong, "metadata.uuid", "unknown field");
    }
}

#[test]
fn lists_are_read_item_by_item() {
    let item = |case: &Case| -> String {
        let text = with(case, case.said);
        let lines = text.lines().enumerate();
        lines.map(|(n, line)| format!("{}{line}\n", if n == 0 { "- " } else { "  " })).collect()
    };
    let items: String = CASES.iter().map(item).collect();
    let text =
        format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: \"\"}}\nitems:\n{items}");
    let manifest = read(&text).unwrap();
    assert_eq!(manifest.pods().len(), CASES.len());
    assert_eq!(manifest.pods()[2].path(), "items[2].spec.template.spec");
    let error = read(&text.replacen("{name: app", "{nam: x, name: app", 1)).unwrap_err();
    assert_eq!(error.place.path, "items[0].spec.containers[0].nam");
    assert_eq!(error.place.line, Some(8));
    check_error(&text.replace("items:", "item: 1\nitems:"), "item", "unknown field");
    check_error(&text.replace("resourceVersion", "version"), "metadata.version", "unknown field");
    check_error("apiVersion: v1\nkind: List\nitems: {a: b}\n", "items", "a list");
    check_error("apiVersion: v1\nkind: List\nitems: [a]\n", "items[0]", "not a mapping");
    assert!(read("apiVersion: v1\nkind: List\n").unwrap().pods().is_empty());
}

#[test]
fn lists_of_one_kind_say_it_once() {
    let spec = format!("spec: {POD_SPEC}");
    let text = format!(
        "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {{name: a}}\n  {spec}\n- kind: Pod\n  metadata: {{name: b}}\n  {spec}\n"
    );
    let manifest = read(&text).unwrap();
    assert_eq!(
        manifest.pods().iter().map(PodTemplate::object_name).collect::<Vec<_>>(),
        ["a", "b"]
    );
    check_error(&text.replace("kind: Pod\n", "kind: Node\n"), "items[1].kind", "as the list says");
    let text = format!(
        "apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {{name: a}}\n  spec: {{selector: {{}}, template: {{{spec}}}}}\n"
    );
    assert_eq!(read(&text).unwrap().pods()[0].kind(), "Deployment");
    let maps =
        "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: c}\n  data: {K: v}\n---\n";
    let pod =
        pod_of(&format!("{maps}{}", pod_yaml("envFrom: [{configMapRef: {name: c}}]", ""))).unwrap();
    assert_eq!(pod.containers[0].env[0].value, "v".into());
}

#[test]
fn nested_lists_end() {
    let mut text = String::from("{apiVersion: v1, kind: List, items: []}");
    for _ in 0..40 {
        text = format!("{{apiVersion: v1, kind: List, items: [{text}]}}");
    }
    assert!(read(&text).unwrap().pods().is_empty());
    let deep =
        format!("{}{}", "{apiVersion: v1, kind: List, items: [".repeat(100), "]}".repeat(100));
    assert!(read(&deep).is_err());
}

#[test]
fn the_page_is_the_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kinds.md");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let hint = "run: cargo run -p ah-manifest --example kinds > docs/kinds.md";
    assert!(found == crate::kinds_page(), "docs/kinds.md differs from the tables; {hint}");
}
