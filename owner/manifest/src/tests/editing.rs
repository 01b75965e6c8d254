//! The owner's text after an edit: the intended change and nothing else.

use super::*;

fn edit(text: &str) -> Result<String, ManifestError> {
    let manifest = read(text)?;
    let images = BTreeMap::from([("web:1".to_owned(), "web:1@sha256:00".to_owned())]);
    manifest.with_annotation_and_digests("k", "v\"", &images)
}

fn check(text: &str, expect: &str) {
    let edited = edit(text).unwrap();
    assert_eq!(edited, expect);
    let manifest: Manifest = read(&edited).unwrap();
    assert_eq!(manifest.pods()[0].annotations().get("k").map(String::as_str), Some("v\""));
    assert_eq!(manifest.images().into_iter().collect::<Vec<_>>(), ["web:1@sha256:00"]);
    assert_eq!(edit(&edited).unwrap(), edited, "editing twice changes nothing more");
}

const SPEC: &str = "spec:\n  containers:\n  - name: app   # the app\n    image: web:1   # pinned below\n    tty: true\n";
const SPEC_AFTER: &str = "spec:\n  containers:\n  - name: app   # the app\n    image: web:1@sha256:00   # pinned below\n    tty: true\n";

fn check_metadata(before: &str, after: &str) {
    let text = format!("# head\napiVersion: v1\nkind: Pod\n{before}{SPEC}# tail\n");
    let expect = format!("# head\napiVersion: v1\nkind: Pod\n{after}{SPEC_AFTER}# tail\n");
    check(&text, &expect);
}

#[test]
fn comments_and_order_are_kept() {
    check_metadata(
        "metadata:\n  # its name\n  name: p\n",
        "metadata:\n  # its name\n  annotations:\n    k: \"v\\\"\"\n  name: p\n",
    );
    check_metadata(
        "metadata:\n    name: p # four\n    annotations:\n        # mine\n        z: a # z\n",
        "metadata:\n    name: p # four\n    annotations:\n        # mine\n        k: \"v\\\"\"\n        z: a # z\n",
    );
    check_metadata(
        "metadata:\n  annotations:\n    k: 'old' # k\n    z: a\n  name: p\n",
        "metadata:\n  annotations:\n    k: \"v\\\"\" # k\n    z: a\n  name: p\n",
    );
    check_metadata(
        "metadata:\n  name: p\n  annotations: {}\n",
        "metadata:\n  name: p\n  annotations: {k: \"v\\\"\"}\n",
    );
    check_metadata(
        "metadata:\n  name: p\n  annotations: {z: a}\n",
        "metadata:\n  name: p\n  annotations: {k: \"v\\\"\", z: a}\n",
    );
    check_metadata(
        "metadata:\n  annotations: # none\n  name: p\n",
        "metadata:\n  annotations: # none\n    k: \"v\\\"\"\n  name: p\n",
    );
    check_metadata(
        "metadata:\n  annotations: null\n  name: p\n",
        "metadata:\n  annotations: {k: \"v\\\"\"}\n  name: p\n",
    );
    check_metadata("metadata: {name: p}\n", "metadata: {annotations: {k: \"v\\\"\"}, name: p}\n");
}

#[test]
fn quoted_images_stay_quoted_and_other_documents_stay() {
    let text = "kind: Service\napiVersion: v1\nmetadata: {name: s}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\n\
                spec:\n  selector: {}\n  template:\n    metadata:\n      labels: {a: b}\n    spec:\n      containers:\n      - {name: a, image: \"web:1\"}\n      - {name: b, image: 'web:1', tty: true}\n";
    let expect = text
        .replace("\"web:1\"", "\"web:1@sha256:00\"")
        .replace("'web:1'", "\"web:1@sha256:00\"")
        .replace("      labels", "      annotations:\n        k: \"v\\\"\"\n      labels");
    check(text, &expect);
}

#[test]
fn a_template_without_metadata_gets_it() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {}\n  template:\n    spec:\n      containers:\n      - {name: a, image: web:1}\n";
    let expect = text
        .replace(
            "  template:\n",
            "  template:\n    metadata:\n      annotations:\n        k: \"v\\\"\"\n",
        )
        .replace("web:1", "web:1@sha256:00");
    check(text, &expect);
}

#[test]
fn an_anchored_image_is_pinned_once() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - {name: a, image: &i web:1}\n  - {name: b, image: *i}\n";
    let edited = edit(text).unwrap();
    assert_eq!(edited.matches("sha256:00").count(), 1);
    assert_eq!(edit(&edited).unwrap(), edited);
}

#[test]
fn every_pod_of_a_file_can_have_its_own_annotation() {
    let text = format!("{}---\n{}", pod_yaml("", ""), pod_yaml("", ""));
    let manifest = read(&text).unwrap();
    let annotation = |value: &str| BTreeMap::from([("k".to_owned(), value.to_owned())]);
    let edits = Edits {
        images: BTreeMap::new(),
        annotations: BTreeMap::from([(0, annotation("x")), (1, annotation("y"))]),
    };
    let edited = read(&manifest.edited(&edits).unwrap()).unwrap();
    let values: Vec<_> = edited.pods().iter().map(|pod| pod.annotations()["k"].clone()).collect();
    assert_eq!(values, ["x", "y"]);
}

/// All pods get the annotation, `web:1` is pinned; the text is otherwise as it was.
fn check_all(text: &str, pairs: &[(&str, &str)]) {
    let edited = edit(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let pinned = text.replace("web:1", "web:1@sha256:00");
    let expect = pairs.iter().fold(pinned, |text, (from, to)| text.replacen(from, to, 1));
    assert_eq!(edited, expect);
    assert_eq!(edit(&edited).unwrap(), edited, "editing twice changes nothing more");
    assert!(read(&edited).unwrap().pods().iter().all(|pod| pod.annotations().contains_key("k")));
}

#[test]
fn items_of_a_list_are_edited_at_their_places() {
    let text = "# all of it\nkind: List # a list\napiVersion: v1\nitems:\n# the first\n- apiVersion: apps/v1\n  kind: DaemonSet\n  metadata: {name: a}\n  spec:\n    selector: {}\n    \
                template: # mine\n      metadata:\n        labels: {a: b} # why\n      spec:\n        containers:\n        - image: web:1 # pinned\n          name: a\n- kind: Service\n  apiVersion: v1\n- kind: Pod\n  \
                apiVersion: v1\n  metadata:\n    # its name\n    name: p\n  spec: {containers: [{name: a, image: 'web:1'}]}\n# end\n";
    check_all(
        text,
        &[
            ("        labels:", "        annotations:\n          k: \"v\\\"\"\n        labels:"),
            ("    name: p", "    annotations:\n      k: \"v\\\"\"\n    name: p"),
            ("'web:1@sha256:00'", "\"web:1@sha256:00\""),
        ],
    );
}

#[test]
fn every_kind_is_edited_where_its_pod_is() {
    let spec = "spec: {restartPolicy: Never, containers: [{name: a, image: web:1}]}";
    let cron = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: c}}\nspec:\n  schedule: x\n  jobTemplate:\n    spec:\n      template:\n        {spec}\n"
    );
    check_all(
        &cron,
        &[(
            "        spec: {r",
            "        metadata:\n          annotations:\n            k: \"v\\\"\"\n        spec: {r",
        )],
    );
    let template =
        format!("apiVersion: v1\nkind: PodTemplate\nmetadata: {{name: c}}\ntemplate:\n  {spec}\n");
    check_all(
        &template,
        &[("  spec:", "  metadata:\n    annotations:\n      k: \"v\\\"\"\n  spec:")],
    );
}

#[test]
fn json_is_edited_too() {
    let pod = "{\"apiVersion\":\"v1\",\"kind\":\"PodTemplate\",\"metadata\":{\"name\":\"a\"},\"template\":{\"spec\":{\"containers\":[{\"name\":\"a\",\"image\":\"web:1\"}]}}}\n";
    check_all(
        pod,
        &[(
            "\"template\":{",
            "\"template\":{\"metadata\": {\"annotations\": {\"k\": \"v\\\"\"}}, ",
        )],
    );
}

#[test]
fn attack_edit_that_would_change_another_object() {
    // the template's metadata is the object's own: an annotation there would be in both
    let text = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: &m\n  name: d\nspec:\n  selector: {}\n  template:\n    metadata: *m\n    spec:\n      containers: [{name: a, image: web:1}]\n";
    let error = edit(text).unwrap_err();
    assert_eq!(error.problem, Problem::Edit);
    assert!(error.hint().unwrap().contains("anchors"));
}
