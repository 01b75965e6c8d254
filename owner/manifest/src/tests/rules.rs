//! Kinds by rule: pods that are read, and the nearest that are refused.

use crate::{Incomplete, ManifestSet, NamedText, ReadOptions, Rules, UnknownPods, read_set};

use super::*;

fn set(text: &str, options: &ReadOptions) -> Result<ManifestSet, ManifestError> {
    read_set(vec![NamedText { name: "f.yaml".into(), text: text.into() }], options)
}

fn accepting() -> ReadOptions {
    ReadOptions { incomplete: Incomplete::Accept, ..ReadOptions::default() }
}

fn refused(text: &str, options: &ReadOptions, path: &str, words: &str) {
    let error = set(text, options).map(|set| set.files().len()).expect_err(text);
    assert_eq!(error.place.path, path, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint().is_some() || matches!(error.problem, Problem::Missing { .. }), "{error}");
}

/// Path and a possible name of each pod.
fn accepted(text: &str, options: &ReadOptions, expect: &[(&str, &str)]) {
    let set = set(text, options).unwrap_or_else(|error| panic!("{text}: {error}"));
    let pods: Vec<_> = set.pods().collect();
    assert_eq!(pods.len(), expect.len());
    let images: BTreeMap<_, _> = set.images().into_iter().map(|image| (image, facts())).collect();
    for ((file, pod), (path, name)) in pods.into_iter().zip(expect) {
        assert_eq!(pod.path(), *path);
        let pattern = file.to_pod(pod, &images).unwrap().name.pattern();
        assert!(regex::Regex::new(&pattern).unwrap().is_match(name), "{name} by {pattern}");
    }
}

const KNATIVE: &str = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: hello}\nspec:\n  template:\n    metadata: {annotations: {a: b}}\n    \
     spec:\n      containerConcurrency: 5\n      containers:\n      - image: web:1 # mine\n";
const SPARK: &str = "apiVersion: sparkoperator.k8s.io/v1beta2\nkind: SparkApplication\nmetadata: {name: pi}\nspec:\n  type: Scala\n  driver:\n    cores: 1\n    \
     template:\n      spec:\n        containers: [{name: spark-kubernetes-driver, image: web:1}]\n  executor:\n    template:\n      spec:\n        containers: [{name: spark-kubernetes-executor, image: web:1}]\n";
const KSERVE: &str = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata:\n  name: iris\n  annotations: {serving.kserve.io/deploymentMode: RawDeployment}\nspec:\n  \
     predictor:\n    minReplicas: 1\n    annotations: {a: b}\n    containers:\n    - image: web:1\n      resources: {limits: {cpu: 1, memory: 1Gi}}\n  \
     transformer:\n    containers:\n    - {name: t, image: web:1, resources: {limits: {cpu: 1, memory: 1Gi}}}\n";
const ARGO: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {generateName: w-}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    \
     steps: [[{name: a, template: b}]]\n";

#[test]
fn kserve_deployments_are_read() {
    let expect = [
        ("spec.predictor", "iris-predictor-7c5ddbdf54-x2vwz"),
        ("spec.transformer", "iris-transformer-7c5ddbdf54-x2vwz"),
    ];
    accepted(KSERVE, &ReadOptions::default(), &expect);
    let default = ReadOptions::default();
    refused(
        &KSERVE.replace("RawDeployment", "Serverless"),
        &default,
        "spec.predictor",
        "queue-proxy",
    );
    refused(
        &KSERVE.replace("minReplicas", "batcher"),
        &default,
        "spec.predictor.batcher",
        "adds containers",
    );
    refused(
        &KSERVE.replace("minReplicas", "minReplicaz"),
        &default,
        "spec.predictor.minReplicaz",
        "unknown field",
    );
    let model = KSERVE.replacen(
        "containers:\n    - image: web:1\n      resources",
        "model:\n      modelFormat: {name: x}\n      resources",
        1,
    );
    refused(&model, &default, "spec.predictor.model", "serving runtime");
    let bare = KSERVE.replacen("      resources: {limits: {cpu: 1, memory: 1Gi}}\n", "", 1);
    refused(&bare, &default, "spec.predictor.containers[0]", "fills in resources");
}

#[test]
fn what_a_controller_completes_is_refused_unless_asked_for() {
    let default = ReadOptions::default();
    refused(KNATIVE, &default, "spec.template", "queue-proxy");
    accepted(
        KNATIVE,
        &accepting(),
        &[("spec.template.spec", "hello-00001-deployment-7c5ddb-x2vwz")],
    );
    refused(
        &KNATIVE.replace("containerConcurrency", "containerConcurency"),
        &accepting(),
        "spec.template.spec.containerConcurency",
        "unknown field",
    );
    refused(SPARK, &default, "spec.driver.template", "Spark adds");
    let paths = [
        ("spec.driver.template.spec", "pi-driver"),
        ("spec.executor.template.spec", "pi-0123-exec-1"),
    ];
    accepted(SPARK, &accepting(), &paths);
    let bare = SPARK.replacen("    template:\n      spec:\n        containers: [{name: spark-kubernetes-driver, image: web:1}]\n", "", 1);
    refused(&bare, &accepting(), "spec.driver", "makes the pod itself");
    let set = set(SPARK, &accepting()).unwrap();
    assert!(
        set.pods().all(|(_, pod)| pod.incomplete().is_some_and(|why| why.contains("Spark adds")))
    );
}

#[test]
fn argo_templates_that_run_containers_are_no_pods() {
    accepted(ARGO, &ReadOptions::default(), &[]);
    for (field, value) in [
        ("container", "{image: web:1}"),
        ("script", "{image: web:1, source: x}"),
        ("containerSet", "{containers: [{name: a, image: web:1}]}"),
        ("resource", "{action: create}"),
        ("sidecars", "[{name: a, image: web:1}]"),
    ] {
        let text = ARGO
            .replace("    steps: [[{name: a, template: b}]]\n", &format!("    {field}: {value}\n"));
        let path = format!("spec.templates[0].{field}");
        refused(&text, &ReadOptions::default(), &path, "argoexec");
        refused(&text, &accepting(), &path, "argoexec");
        let cron = text
            .replace("kind: Workflow", "kind: CronWorkflow")
            .replace("spec:\n", "spec:\n workflowSpec:\n");
        refused(&cron, &accepting(), &path.replace("spec.", "spec.workflowSpec."), "argoexec");
        for kind in ["WorkflowTemplate", "ClusterWorkflowTemplate"] {
            refused(
                &text.replace("kind: Workflow", &format!("kind: {kind}")),
                &accepting(),
                &path,
                "argoexec",
            );
        }
    }
}

#[test]
fn each_pod_of_an_object_has_its_own_edits() {
    let images = BTreeMap::from([("web:1".to_owned(), "web:1@sha256:00".to_owned())]);
    let check = |text: &str, pairs: &[(&str, &str)]| {
        let set = set(text, &accepting()).unwrap();
        let file = &set.files()[0];
        let annotation = |n: usize| BTreeMap::from([("k".to_owned(), format!("v{n}"))]);
        let annotations = (0..file.pods().len()).map(|n| (n, annotation(n))).collect();
        let edited = file.edited(&Edits { images: images.clone(), annotations }).unwrap();
        let expect =
            pairs.iter().fold(text.replace("web:1", "web:1@sha256:00"), |text, (from, to)| {
                text.replacen(from, to, 1)
            });
        assert_eq!(edited, expect);
    };
    check(KNATIVE, &[("{a: b}", "{k: \"v0\", a: b}")]);
    check(
        SPARK,
        &[
            (
                "    template:\n      spec:",
                "    template:\n      metadata:\n        annotations:\n          k: \"v0\"\n      spec:",
            ),
            (
                "executor:\n    template:\n      spec:",
                "executor:\n    template:\n      metadata:\n        annotations:\n          k: \"v1\"\n      spec:",
            ),
        ],
    );
    check(
        KSERVE,
        &[
            ("{a: b}", "{k: \"v0\", a: b}"),
            ("transformer:\n    ", "transformer:\n    annotations:\n      k: \"v1\"\n    "),
        ],
    );
}

#[test]
fn attack_pod_hidden_in_an_unknown_kind() {
    let text = "apiVersion: example.com/v1\nkind: Fleet\nmetadata: {name: f}\nspec:\n  ships:\n  - template:\n      spec: {containers: [{name: a, image: web:1}]}\n";
    let default = ReadOptions::default();
    refused(text, &default, "spec.ships[0].template.spec.containers", "example.com/v1/Fleet");
    let error = set(text, &default).unwrap_err();
    assert_eq!((error.place.file.as_deref(), error.place.line), (Some("f.yaml"), Some(7)));
    accepted(&text.replace("image", "imag"), &default, &[]);
    accepted(&text.replace("[{name: a, image: web:1}]", "{type: array}"), &default, &[]);
    let init = text.replace("containers", "initContainers");
    refused(&init, &default, "spec.ships[0].template.spec.initContainers", "looks like a pod");
    let allow = ReadOptions { unknown_pods: UnknownPods::PassThrough, ..ReadOptions::default() };
    accepted(text, &allow, &[]);
    // an old version of a known kind, and a name that is nearly a kind
    let old = "apiVersion: extensions/v1beta1\nkind: Deployment\nspec: {template: {spec: {containers: [{image: a}]}}}\n";
    refused(old, &default, "spec.template.spec.containers", "extensions/v1beta1/Deployment");
    refused(
        &old.replace("extensions/v1beta1", "apps/v1").replace("Deployment", "Deploymnt"),
        &default,
        "spec.template.spec.containers",
        "Deploymnt",
    );
    // a rule covers its own path and nothing else
    let rule = "rules: [{apiVersion: example.com/v1, kind: Fleet, pods: [{path: \"spec.ships[*].template\", name: {form: free, base: \"{name}-\"}}]}]";
    let ruled =
        ReadOptions { rules: Rules::shipped().with_file(rule).unwrap(), ..ReadOptions::default() };
    accepted(text, &ruled, &[("spec.ships[0].template.spec", "f-1")]);
    refused(
        &format!("{text}  spare: {{containers: [{{image: b}}]}}\n"),
        &ruled,
        "spec.spare.containers",
        "looks like a pod",
    );
}

#[test]
fn a_rule_file_is_read_strictly() {
    let page = crate::kinds_page();
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let rules = Rules::shipped().with_file(example).unwrap();
    assert!(rules.kinds().any(|kind| kind == "example.com/v1/Fleet"));
    let knative = page.split("```yaml\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    Rules::shipped().with_file(knative).unwrap();
    let check = |from: &str, to: &str, path: &str, words: &str| {
        assert!(example.contains(from), "{from}");
        let error = Rules::shipped().with_file(&example.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.place.path, path, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let error = Rules::shipped().with_file("{}").unwrap_err();
    assert_eq!(error.place.path, "rules", "{error}");
    check("ownFields", "ownFeilds", "rules[0].pods[0].ownFeilds", "unknown field");
    check("shape: template ", "shape: box ", "rules[0].pods[0].shape", "box");
    check("spec.ships[*].template ", "spec..ships ", "rules[0].pods[0].path", "a path like");
    check("spec.ships[*].template ", "spec.ships[0] ", "rules[0].pods[0].path", "a path like");
    check("{name}-ship", "{nam}-ship", "rules[0].pods[0].name.base", "{name}");
    check(
        "    annotations: podAnnotations ",
        "    # ",
        "rules[0].pods[1].annotations",
        "annotations",
    );
    check("kind: Fleet", "kind: \"\"", "rules[0].kind", "apiVersion and kind");
    check(
        "apiVersion: example.com/v1\n  kind: Fleet",
        "apiVersion: apps/v1\n  kind: Deployment",
        "rules[0].kind",
        "without pods of its own",
    );
    check(
        "apiVersion: example.com/v1",
        "apiVersion: v1",
        "rules[0].kind",
        "without pods of its own",
    );
    let twice = format!("{example}---\n{example}");
    assert!(Rules::shipped().with_file(&twice).unwrap_err().to_string().contains("once"));
    // the owner's rule counts
    let own = "rules: [{apiVersion: serving.knative.dev/v1, kind: Service, pods: [{path: spec.template, name: {form: free, base: \"{name}-\"}, ownFields: [containerConcurrency], containerName: c}]}]";
    let options =
        ReadOptions { rules: Rules::shipped().with_file(own).unwrap(), ..ReadOptions::default() };
    accepted(KNATIVE, &options, &[("spec.template.spec", "hello-1")]);
}

/// As docs/kinds.md gives it, with less of the queue-proxy.
const QUEUE: &str = "rules:\n- apiVersion: serving.knative.dev/v1\n  kind: Service\n  pods:\n  - path: spec.template\n    name: {form: deployment, base: \"{template}-deployment\"}\n    \
     ownFields: [containerConcurrency]\n    containerName: user-container\n    adds:\n      env:\n      - {name: PORT, value: \"8080\"}\n      - {name: K_REVISION, value: \"{template}\"}\n      - {name: K_SERVICE, value: \"{name}\"}\n      \
     volumes: [{name: tokens, emptyDir: {}}, {name: log, emptyDir: {}}]\n      volumeMounts: [{name: log, mountPath: /var/log}]\n      containers:\n      - name: queue-proxy\n        image: queue@sha256:1111111111111111111111111111111111111111111111111111111111111111\n        \
     env: [{name: SERVING_SERVICE, value: \"{name}\"}, {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n        volumeMounts: [{name: tokens, mountPath: /tokens}]\n";

#[test]
fn what_a_controller_adds_is_in_the_pod_where_a_rule_says_it() {
    let options =
        ReadOptions { rules: Rules::shipped().with_file(QUEUE).unwrap(), ..ReadOptions::default() };
    let named = KNATIVE.replace("metadata: {annotations", "metadata: {name: hello-v2, annotations");
    accepted(&named, &options, &[("spec.template.spec", "hello-v2-deployment-7c5ddbdf54-x2vwz")]);
    let set = set(&named, &options).unwrap();
    let images: BTreeMap<_, _> = set.images().into_iter().map(|image| (image, facts())).collect();
    let (file, template) = set.pods().next().unwrap();
    let pod = file.to_pod(template, &images).unwrap();
    let env = |container: &ah_pod::Container| -> Vec<(String, String)> {
        let literal = |value: &Text| value.as_literal().unwrap_or("the host's").to_owned();
        container.env.iter().map(|entry| (entry.name.clone(), literal(&entry.value))).collect()
    };
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let [user, queue] = pod.containers.as_slice() else { panic!("two containers") };
    assert_eq!((user.name.as_str(), queue.name.as_str()), ("user-container", "queue-proxy"));
    let own = [("PORT", "8080"), ("K_REVISION", "hello-v2"), ("K_SERVICE", "hello")];
    assert_eq!(env(user), pairs(&own));
    assert_eq!(user.mounts[0].path, "/var/log");
    assert_eq!(env(queue), pairs(&[("SERVING_SERVICE", "hello"), ("POD", "the host's")]));
    // The object's own image is pinned; the added container stands in no file.
    let pinned = BTreeMap::from([("web:1".to_owned(), "web:1@sha256:00".to_owned())]);
    let edited = file.with_annotation_and_digests("k", "v", &pinned).unwrap();
    assert!(edited.contains("web:1@sha256:00 # mine") && !edited.contains("queue"), "{edited}");
    // The container learns the revision's name, so it has to be said.
    refused(KNATIVE, &options, "spec.template.metadata.name", "{template}");
    let loose = QUEUE
        .replace("@sha256:1111111111111111111111111111111111111111111111111111111111111111", ":1");
    let error = Rules::shipped().with_file(&loose).unwrap_err();
    assert_eq!(error.place.path, "rules[0].pods[0].adds.containers[0].image");
    let error = Rules::shipped().with_file(&QUEUE.replace("adds:", "adsd:")).unwrap_err();
    assert!(error.to_string().contains("unknown field"), "{error}");
}
