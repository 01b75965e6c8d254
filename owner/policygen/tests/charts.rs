//! Manifests after the shapes of well-known charts (`testkit/charts`): each gets a policy that its own pods keep to and that reads as
//! its head says, or is refused for the reason that its head says. No image is fetched: the head says what there is to know.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ah_digest::Sha256;
use ah_manifest::{ManifestSet, NamedText, Platform, ReadOptions, read_set};
use ah_pod::{Accounts, ImageFacts, Layer};
use ah_policygen::{Options, generate, show, test};
use ah_verity::VerityInfo;

/// How a line of the head begins that says what is expected.
const MARK: &str = "#= ";
/// Enough of them that no shape of the issue's list is forgotten.
const LEAST: usize = 60;

/// One manifest with what its head says.
#[derive(Default)]
struct Chart {
    name: String,
    text: String,
    /// `pods: Kind name, Kind name`
    pods: Vec<String>,
    /// `shows: TEXT`: the policies in people's words have the text.
    shows: Vec<String>,
    /// `refused: PATH: TEXT`
    refused: Option<(String, String)>,
    /// `image NAME user=USER passwd=LINE`
    images: BTreeMap<String, ImageFacts>,
}

fn charts() -> Vec<Chart> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testkit/charts");
    let mut charts: Vec<Chart> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            chart(name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    charts.sort_by(|one, two| one.name.cmp(&two.name));
    charts
}

fn chart(name: String, text: String) -> Chart {
    let mut chart = Chart { name, text, ..Chart::default() };
    assert!(chart.text.starts_with("# "), "{}: the head says in words what it is", chart.name);
    for line in chart.text.lines().filter_map(|line| line.strip_prefix(MARK)) {
        let (word, rest) = line.split_once(' ').unwrap();
        match word {
            "pods:" => chart.pods = rest.split(", ").map(str::to_owned).collect(),
            "shows:" => chart.shows.push(rest.to_owned()),
            "refused:" => {
                let (path, text) = rest.split_once(": ").unwrap();
                chart.refused = Some((path.to_owned(), text.to_owned()));
            }
            "image" => {
                let (image, facts) = image(rest);
                chart.images.insert(image, facts);
            }
            _ => panic!("{}: {word} says nothing", chart.name),
        }
    }
    chart
}

fn image(line: &str) -> (String, ImageFacts) {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let mut facts = facts(name);
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "user" => facts.user = value.to_owned(),
            "passwd" => {
                let fields: Vec<&str> = value.split(':').collect();
                let line = format!("{}:x:{}:{}::/:/bin/sh", fields[0], fields[1], fields[2]);
                facts.accounts = Accounts::parse(Some(&line), None);
            }
            _ => panic!("{line}"),
        }
    }
    (name.to_owned(), facts)
}

fn facts(name: &str) -> ImageFacts {
    let root_hash = Sha256::of(format!("root of {name}"));
    ImageFacts {
        reference: format!("registry.example/{name}@sha256:{}", Sha256::of(name)),
        entrypoint: vec!["/entrypoint".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        working_dir: String::new(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: vec![Layer {
            diff_id: Sha256::of(name),
            verity: VerityInfo { root_hash, data_blocks: 3, salt: [0; 32] },
        }],
    }
}

fn read(chart: &Chart) -> Result<ManifestSet, ah_manifest::ManifestError> {
    let text = NamedText { name: chart.name.clone(), text: chart.text.clone() };
    read_set(vec![text], &ReadOptions { platform: Platform::Cluster, ..ReadOptions::default() })
}

/// The policies of all pods, each after its dry run, in people's words.
fn shown(chart: &Chart, set: &ManifestSet) -> String {
    let images: BTreeMap<String, ImageFacts> = set
        .images()
        .into_iter()
        .map(|name| {
            (name.clone(), chart.images.get(&name).cloned().unwrap_or_else(|| facts(&name)))
        })
        .collect();
    for image in chart.images.keys() {
        assert!(images.contains_key(image), "{}: no container has image {image}", chart.name);
    }
    let mut all = String::new();
    for (file, pod) in set.pods() {
        let pod = file.to_pod(pod, &images).unwrap_or_else(|error| panic!("{error}"));
        let policy = generate(&pod, &Options::default());
        let policy = policy.unwrap_or_else(|error| panic!("{}: {error}", chart.name)).policy;
        all.push_str(&show(&policy).unwrap().to_string());
        let nothing = test(&policy, r#"[{"allowed": false, "kind": "SetPolicy", "request": {}}]"#);
        assert_eq!(nothing.unwrap().failed, 0, "{}", chart.name);
    }
    all
}

#[test]
fn every_chart_gets_its_policies_or_is_refused_with_the_reason() {
    let charts = charts();
    assert!(charts.len() >= LEAST, "{} charts", charts.len());
    let mut wrong = Vec::new();
    for chart in &charts {
        match (read(chart), &chart.refused) {
            (Ok(set), None) => {
                let pods: Vec<String> = set
                    .pods()
                    .map(|(_, pod)| format!("{} {}", pod.kind(), pod.object_name()))
                    .collect();
                if pods != chart.pods || pods.is_empty() {
                    wrong.push(format!("{}: pods are {pods:?}", chart.name));
                }
                let all = shown(chart, &set);
                let lacking = chart.shows.iter().filter(|text| !all.contains(*text));
                wrong.extend(lacking.map(|text| format!("{}: {text:?} not in\n{all}", chart.name)));
            }
            (Err(error), Some((path, text))) => {
                if error.place.path != *path || !error.problem.to_string().contains(text) {
                    wrong.push(format!("refused otherwise: {error}"));
                }
                assert!(error.place.line.is_some(), "{error}");
            }
            (Ok(_), Some((path, _))) => wrong.push(format!("{}: {path} is accepted", chart.name)),
            (Err(error), None) => wrong.push(error.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
