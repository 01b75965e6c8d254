//! What pods run on, and files that serve one another: `policy generate`, `verify`, `show` and `run` agree about them.

mod support;

use ah_permit::{Policy, State, decide};
use ah_policygen::{ends, honest_requests, stand_in_host};
use ah_testkit_images::{Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing};
use anchorhold::cli::{Images, Source};
use anchorhold::dirs::Dirs;
use anchorhold::prepare::{Prepared, prepare};
use support::{Desk, PLAIN};

const RUNS_ON: &str = "anchorhold.dev/runs-on: \"machine\"";

/// What `anchorhold run` would start.
fn prepared(desk: &Desk, file: &str) -> Prepared {
    let images = Images { images: vec![desk.path("images")], ..Images::default() };
    let source = Source { file: desk.path(file), images };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(prepare(&Dirs::below(&desk.path("run")), &source)).unwrap()
}

/// Every request that `anchorhold run` makes for the file is allowed by the policy that it carries.
fn runs(desk: &Desk, file: &str) -> Prepared {
    let prepared = prepared(desk, file);
    let policy = Policy::compile(prepared.document.policy()).unwrap();
    let mut state = State::new();
    for request in honest_requests(&prepared.pod, &stand_in_host(&prepared.pod)).unwrap() {
        let ended = ends(&request).map(str::to_owned);
        let permit = decide(&policy, &state, request).unwrap_or_else(|denial| panic!("{denial}"));
        state.commit(permit.into_parts().1).unwrap();
        if let Some(id) = ended {
            state.note_exit(&id, 0);
        }
    }
    prepared
}

#[test]
fn a_cluster_is_what_is_meant_and_run_reads_what_the_policy_was_made_for() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    desk.run("policy generate -f pod.yaml IMAGES -o cluster.yaml").ends(0);
    let shown = desk.run("policy show cluster.yaml").ends(0);
    shown.says("KUBERNETES_SERVICE_HOST=$(service-ip-0)").says("/serviceaccount");
    desk.run("policy generate -f pod.yaml IMAGES --runs-on machine -o machine.yaml").ends(0);
    let shown = desk.run("policy show machine.yaml").ends(0);
    shown.does_not_say("KUBERNETES").does_not_say("/serviceaccount");
    assert!(desk.read("machine.yaml").contains(RUNS_ON), "{}", desk.read("machine.yaml"));
    assert!(!desk.read("cluster.yaml").contains("runs-on"));
    for file in ["cluster.yaml", "machine.yaml"] {
        desk.run(&format!("policy verify {file} IMAGES")).ends(0);
        let carried = runs(&desk, file);
        assert_eq!(carried.pod.services.is_empty(), file == "machine.yaml");
        // Said once, it is said for good.
        desk.run(&format!("policy generate -f {file} IMAGES --in-place")).ends(0).says("unchanged");
    }
    let bare = runs(&desk, "pod.yaml");
    assert_eq!(bare.pod, runs(&desk, "machine.yaml").pod);
    // What run would write is read alike again.
    desk.write("again.yaml", &bare.yaml);
    assert!(bare.yaml.contains(RUNS_ON), "{}", bare.yaml);
    assert_eq!(runs(&desk, "again.yaml").document, bare.document);
    desk.run("policy generate -f machine.yaml IMAGES --runs-on cluster")
        .ends(1)
        .says("anchorhold.dev/runs-on says machine, --runs-on cluster")
        .says("hint: change the annotation");
    let wrong = desk.read("machine.yaml").replace("\"machine\"", "\"moon\"");
    desk.write("wrong.yaml", &wrong);
    desk.run("policy verify wrong.yaml IMAGES").ends(2).says("expected \"cluster\" or \"machine\"");
}

#[test]
fn attack_a_policy_for_one_machine_does_not_let_a_cluster_s_token_in() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    desk.run("policy generate -f pod.yaml IMAGES --runs-on machine -o machine.yaml").ends(0);
    desk.run("policy generate -f pod.yaml IMAGES -o cluster.yaml").ends(0);
    for (policy, cases, code) in
        [("cluster", "cluster", 0), ("machine", "machine", 0), ("machine", "cluster", 1)]
    {
        let requests = desk.run(&format!("policy cases {cases}.yaml")).ends(0).out;
        desk.write("cases.json", &requests);
        desk.run(&format!("policy test {policy}.yaml --cases cases.json")).ends(code);
    }
}

const USER: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: user}\nspec:\n  containers:\n  - name: web\n    image: localhost/web:1\n    envFrom: [{configMapRef: {name: settings}}]\n";
const SETTINGS: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {COLOUR: green}\n";

#[test]
fn what_a_pod_uses_is_found_in_the_other_files_and_needed_by_no_reader_of_its_policy() {
    let desk = Desk::new();
    desk.write("set/pod.yaml", USER);
    desk.write("set/settings.json", r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"COLOUR": "green"}}"#);
    desk.write("beside/settings.yaml", SETTINGS);
    let file = "policy generate -f set/pod.yaml IMAGES";
    desk.run(file).ends(1).says("ConfigMap \"settings\" is not in the file").says("hint: ");
    desk.run("policy generate -f set IMAGES -o out").ends(0);
    let generated = desk.read("out/pod.yaml");
    // The order of files and the way in which the object is given decide nothing.
    for (number, files) in [
        "-f set/settings.json -f set/pod.yaml -o",
        "-f set/pod.yaml --with beside -o",
        "-f set/pod.yaml --with beside/settings.yaml -o",
    ]
    .into_iter()
    .enumerate()
    {
        let at = format!("again{number}/");
        desk.run(&format!("policy generate IMAGES {files} {at}")).ends(0);
        assert_eq!(desk.read(&format!("{at}pod.yaml")), generated, "{files}");
        assert!(number == 0 || !desk.path(&format!("{at}settings.yaml")).exists());
    }
    desk.run("policy show out/pod.yaml").ends(0).says("COLOUR=green");
    desk.run("policy verify out IMAGES").ends(0).says("Pod user: the annotation is the policy");
    desk.run("policy verify out/pod.yaml IMAGES --with beside").ends(0);
    desk.run("policy verify out/pod.yaml IMAGES").ends(2).says("is not in the file");
    let other = "policy verify out/pod.yaml IMAGES --with other.yaml";
    desk.write("other.yaml", &SETTINGS.replace("green", "red"));
    desk.run(other).ends(1).says("lets in    COLOUR=red");
    desk.write("plain.yaml", PLAIN);
    let ran = desk.run(&format!("{file} --with beside --with plain.yaml")).ends(1);
    ran.says("declares Pod plain").says("hint: ");
    desk.run(&format!("{file} --with beside --with ./beside")).ends(1).says("is given twice");
}

#[test]
fn kinds_of_one_s_own_are_read_by_rules_of_one_s_own() {
    let desk = Desk::new();
    let fleet = "apiVersion: example.com/v1\nkind: Fleet\nmetadata: {name: north}\nspec:\n  ship:\n    spec:\n      containers:\n      - {name: web, image: \"localhost/web:1\"}\n";
    desk.write("fleet.yaml", fleet);
    desk.write("kinds.yaml", "rules:\n- apiVersion: example.com/v1\n  kind: Fleet\n  pods:\n  - path: spec.ship\n    name: {form: deployment, base: \"{name}-ship\"}\n");
    let line = "policy generate -f fleet.yaml IMAGES -o out.yaml";
    desk.run(line).ends(1).says("has no rule").says("hint: ");
    desk.run(&format!("{line} --pass-unknown-pods")).ends(0).says("warning: no pod");
    assert_eq!(desk.read("out.yaml"), fleet);
    desk.run(&format!("{line} --kinds kinds.yaml")).ends(0);
    desk.run("policy show out.yaml").ends(1).says("has no pod");
    desk.run("policy show out.yaml --kinds kinds.yaml").ends(0).says("container web");
    desk.run("policy verify out.yaml IMAGES --kinds kinds.yaml").ends(0);
    desk.write("wrong.yaml", "rules: [{kind: Fleet, apiVersion: v1, fleet: 1}]\n");
    desk.run(&format!("{line} --kinds wrong.yaml")).ends(1).says("unknown field");
}

#[test]
fn images_are_those_of_the_machines_that_the_pod_may_be_placed_on() {
    let desk = Desk::new();
    let placed = |arch: &str| {
        PLAIN
            .replace("spec:\n", &format!("spec:\n  nodeSelector: {{kubernetes.io/arch: {arch}}}\n"))
    };
    for (file, text) in [("plain", PLAIN), ("amd", &placed("amd64")), ("arm", &placed("arm64"))] {
        desk.write(&format!("{file}.yaml"), text);
    }
    let check = |file: &str, platform: &str, code: i32, text: &str| {
        let line = format!("policy generate -f {file}.yaml IMAGES {platform} -o out.yaml");
        desk.run(&line).ends(code).says(text)
    };
    check("plain", "", 0, "written to");
    check("amd", "", 0, "written to");
    check("amd", "--platform linux/amd64", 0, "written to");
    check("arm", "", 1, "nodeSelector says arm64").says("hint: --platform linux/arm64");
    check("amd", "--platform linux/arm64", 1, "nodeSelector says amd64");
    // The images of this desk are for one platform.
    check("arm", "--platform linux/arm64", 1, "found \"linux/amd64\"");
    check("plain", "--platform linux/riscv64", 2, "linux/amd64 or linux/arm64");
    desk.run("run -f plain.yaml IMAGES --platform linux/arm64 --tee software").ends(1);
}

#[test]
fn one_policy_for_the_images_of_two_platforms() {
    let desk = Desk::new();
    let image = |word: &str| ImageSpec {
        layers: vec![LayerSpec::of(Packing::Gzip, [Entry::file("web", word)])],
        entrypoint: vec!["/web".to_owned()],
        env: vec![format!("WORD={word}")],
        ..ImageSpec::default()
    };
    let mut layout = LayoutBuilder::create(desk.path("both")).unwrap();
    let images = [("amd64", &image("amd")), ("arm64", &image("arm"))];
    let digest = layout.add_index("localhost/web:1", &images).unwrap();
    layout.finish().unwrap();
    desk.write("plain.yaml", PLAIN);
    let generate = "policy generate -f plain.yaml --images both";
    let both = "--platform linux/amd64,linux/arm64";
    desk.run(&format!("{generate} {both} --lock both.lock -o out.yaml")).ends(0);
    assert!(desk.read("out.yaml").contains(&format!("localhost/web:1@{}", digest.to_oci())));
    let shown = desk.run("policy show out.yaml").ends(0);
    shown.says("or, on linux/arm64:").says("WORD=arm").says("WORD=amd");
    // the lock file has both, and the check reads them again
    desk.run(&format!(
        "policy generate -f plain.yaml --offline {both} --lock both.lock -o again.yaml"
    ))
    .ends(0);
    assert_eq!(desk.read("again.yaml"), desk.read("out.yaml"));
    desk.run(&format!("policy verify out.yaml --images both {both}")).ends(0);
    desk.run("policy verify out.yaml --images both").ends(1).says("other platforms");
    desk.run(&format!("{generate} --platform linux/amd64 -o amd.yaml")).ends(0);
    desk.run("policy diff amd.yaml out.yaml").ends(1).says("lets in    linux/arm64: layers");
    // an image that is no index has another digest on each
    desk.run(&format!("policy generate -f plain.yaml IMAGES {both} -o no.yaml"))
        .ends(1)
        .says("found \"linux/amd64\"");
    desk.run(&format!("run -f plain.yaml --images both {both} --tee software")).ends(1);
}
