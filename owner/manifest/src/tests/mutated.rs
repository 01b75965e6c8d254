//! Whatever the text, reading and editing end with a result.

use proptest::prelude::*;

use super::*;

const SEEDS: [&str; 4] = [
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: StatefulSet\n  metadata: {name: x}\n  spec:\n    serviceName: s\n    selector: {}\n    volumeClaimTemplates: [{metadata: {name: d}}]\n    template:\n      metadata: &m {annotations: {a: \"b\"}}\n      spec:\n        containers:\n        - {name: a, image: 'web:1', env: [{name: A, value: $(B)}]}\n",
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  completionMode: Indexed\n  completions: 3\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{name: a, image: \"web:1\", resources: {limits: {cpu: 100m}}}]\n",
    "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: i, annotations: {serving.kserve.io/deploymentMode: Standard}}\nspec:\n  predictor:\n    containers:\n    - image: web:1\n      resources: {limits: {cpu: 1, memory: 1Gi}}\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"e\", \"labels\": {\"a\": \"é\"}}, \"spec\": {\"containers\": [{\"name\": \"a\", \"image\": \"web:1\"}]}}]}\n",
];

/// What is put in: pieces that mean something to YAML or to the reader.
const PIECES: [&str; 24] = [
    "", " ", "\n", "\n  ", "- ", ": ", "{", "}", "[", "]", "'", "\"", "#", "&a ", "*a", "|\n",
    "!t ", "---\n", "null", "é", "\u{feff}", "items:", "spec", "9",
];

fn mutated() -> impl Strategy<Value = String> {
    let cut = (0..400_usize, 0..6_usize, 0..PIECES.len());
    (0..SEEDS.len(), proptest::collection::vec(cut, 1..5)).prop_map(|(seed, cuts)| {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (at, length, piece) in cuts {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, PIECES[piece].chars());
        }
        text.into_iter().collect()
    })
}

/// Reads, and where that works pins and annotates: the result is read again by the edit itself.
fn read_and_edit(text: &str) {
    let Ok(manifest) = read(text) else { return };
    let images: BTreeMap<_, _> =
        manifest.images().into_iter().map(|image| (image, facts())).collect();
    for pod in manifest.pods() {
        let _ = manifest.to_pod(pod, &images);
    }
    let pinned = BTreeMap::from([("web:1".to_owned(), "web:1@sha256:00".to_owned())]);
    if let Ok(edited) = manifest.with_annotation_and_digests("k", "v", &pinned) {
        let again = read(&edited).unwrap_or_else(|error| panic!("{edited}: {error}"));
        assert_eq!(again.pods().len(), manifest.pods().len());
        assert!(again.pods().iter().all(|pod| pod.annotations().contains_key("k")));
    }
}

#[test]
fn the_seeds_themselves_are_fine() {
    for seed in SEEDS.iter().skip(1) {
        assert!(!read(seed).unwrap().pods().is_empty());
        read_and_edit(seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_and_editing_never_panic(text in mutated()) {
        read_and_edit(&text);
    }

    #[test]
    fn rules_never_panic(text in mutated()) {
        let _ = crate::Rules::shipped().with_file(&text);
    }
}
