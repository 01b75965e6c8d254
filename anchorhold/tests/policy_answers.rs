//! `anchorhold policy show`, `explain`, `test`, `cases`, `diff` and `verify` as people type them.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Desk, PLAIN, Ran, SHOP};

/// The honest request for a container, of the cases that the policy itself gives.
fn honest(desk: &Desk, file: &str, description: &str) -> Value {
    let cases = desk.run(&format!("policy cases {file} --with-secrets")).ends(0).json();
    let mut cases = cases.as_array().unwrap().iter();
    cases.find(|case| case["description"] == description).unwrap().clone()
}

#[test]
fn show_folds_what_is_the_same_for_every_pod_and_never_shows_a_secret() {
    let desk = Desk::new();
    desk.generated("shop.yaml", SHOP);
    let shown = desk.run("policy show shop.yaml --pod shop").ends(0);
    let expect = [
        "container web",
        "PASSWORD=(secret) (from a Secret)",
        "command      /bin/web --login=(secret)",
        "standard files: hosts, termination log, hostname, resolv.conf, shared memory",
        "the host may run /bin/check --now",
        "exec         the commands listed above, in web",
        "stdin        writes to no container",
        "the host MAY READ what the containers print",
        "keys: no container may ask for keys",
        "secrets: PASSWORD of web: the policy holds the values, AND THE HOST CAN READ IT",
        "everything else is denied",
        "HOST_DATA: ",
    ];
    let shown = expect.into_iter().fold(shown, Ran::says);
    shown.does_not_say("hush").does_not_say("/run/kata-containers").does_not_say("=== ");
    let all = desk.run("policy show -f shop.yaml -v").ends(0);
    all.says("=== Pod shop")
        .says("=== Deployment back")
        .says("-> /etc/hosts (rbind")
        .says("MRCONFIGID");
    let json = desk.run("policy show shop.yaml --json").ends(0).does_not_say("hush").json();
    let env = &json["pods"][0]["policy"]["containers"][0]["env"][2];
    let others = json["pods"][0]["policy"]["containers"][0]["env"].as_array().unwrap();
    let secret = others.iter().find(|env| env["name"] == "PASSWORD").unwrap();
    assert_eq!(secret, &json!({ "name": "PASSWORD", "value": null, "secret": true }), "{env}");
    desk.run("policy show shop.yaml --pod none")
        .ends(1)
        .says("hint: it has Pod shop, Deployment back");
    desk.write("bare.yaml", PLAIN);
    desk.run("policy show bare.yaml").ends(1).says("hint: `anchorhold policy generate");
    desk.run("policy show").ends(2);
}

#[test]
fn explain_names_the_nearest_container_and_its_field_in_every_form_of_a_request() {
    let desk = Desk::new();
    desk.generated("shop.yaml", SHOP);
    let case = honest(&desk, "shop.yaml --pod shop", "container web is created");
    let explain = |name: &str, document: &Value, more: &str| {
        desk.write(name, &document.to_string());
        desk.run(&format!("policy explain shop.yaml --pod shop --request {name} {more}"))
    };
    let wrapped = json!({ "kind": case["kind"], "request": case["request"] });
    explain("ok.json", &wrapped, "").ends(0).says("allowed");
    explain("case.json", &case, "").ends(0);
    explain("bare.json", &case["request"], "--kind CreateContainerRequest").ends(0);
    explain("method.json", &case["request"], "--kind CreateContainer").ends(0);

    let mut other = case.clone();
    other["request"]["OCI"]["Process"]["Cwd"] = "/tmp".into();
    let denied = explain("cwd.json", &other, "").ends(1);
    denied.says("container web: /OCI/Process/Cwd: found \"/tmp\", expected \"/\"");
    let denied = explain("cwd.json", &other, "--json").ends(1).json();
    assert_eq!(denied["reasons"][0]["field"], "/OCI/Process/Cwd");

    explain("kind.json", &other, "--kind StartContainer").ends(2).says("was asked for");
    explain("none.json", &case["request"], "").ends(2).says("request document");
    explain("list.json", &json!([]), "--kind CreateContainer").ends(2);
    explain("unknown.json", &json!({ "kind": "Dance", "request": {} }), "").ends(2).says("Dance");
}

#[test]
fn attack_a_secret_s_value_is_neither_explained_nor_compared_in_the_open() {
    let desk = Desk::new();
    desk.generated("shop.yaml", SHOP);
    let case = honest(&desk, "shop.yaml --pod shop", "container web is created");
    desk.run("policy cases shop.yaml --pod shop")
        .ends(1)
        .does_not_say("hush")
        .says("hint: --with-secrets");
    let swapped = case.to_string().replace("hush-hush", "guess");
    assert!(swapped.contains("PASSWORD=guess") && swapped.contains("--login=guess"));
    desk.write("guess.json", &swapped);
    let denied = desk.run("policy explain shop.yaml --pod shop --request guess.json").ends(1);
    let denied = denied.says("found \"PASSWORD=(secret)\"").says("the values differ");
    denied.does_not_say("hush").does_not_say("PASSWORD=guess");

    desk.generated("new.yaml", &SHOP.replace("hush-hush", "hush-hush-2"));
    for json in ["", "--json"] {
        let diff = desk.run(&format!("policy diff shop.yaml new.yaml {json}")).ends(1);
        diff.says("PASSWORD=(secret) (another value, not shown)").does_not_say("hush");
    }
}

#[test]
fn explain_after_cases_decides_in_the_state_that_they_lead_to() {
    let desk = Desk::new();
    desk.generated("pod.yaml", PLAIN);
    let cases = desk.run("policy cases pod.yaml").ends(0).json();
    let sandbox: Vec<Value> = cases.as_array().unwrap()[..1].to_vec();
    desk.write("all.json", &cases.to_string());
    desk.write("sandbox.json", &json!(sandbox).to_string());
    let create = honest(&desk, "pod.yaml", "container web is created");
    desk.write("create.json", &create.to_string());
    let line = "policy explain pod.yaml --request create.json --after";
    // Again under the same id it is a retry; right after the sandbox it comes before its turn.
    desk.run(&format!("{line} all.json")).ends(0);
    desk.run(&format!("{line} sandbox.json")).ends(1).says("created before its turn");
    desk.write(
        "wrong.json",
        &json!([{ "allowed": false, "kind": "CreateSandboxRequest",
        "request": sandbox[0]["request"] }])
        .to_string(),
    );
    desk.run(&format!("{line} wrong.json")).ends(2).says("case 1 is allowed, expected denied");
}

#[test]
fn test_decides_cases_in_order_from_a_fresh_state() {
    let desk = Desk::new();
    desk.generated("shop.yaml", SHOP);
    let mut cases = desk.run("policy cases shop.yaml --pod back").ends(0).json();
    let all = cases.as_array_mut().unwrap();
    let exec = json!({ "description": "a shell", "allowed": false, "kind": "ExecProcess",
        "request": { "container_id": "00", "process": { "Args": ["sh"] } } });
    all.push(exec.clone());
    // As Kata's own test cases write it, missing fields filled with defaults.
    all.push(json!({ "allowed": true, "request": { "type": "GuestDetailsRequest" } }));
    let check = |name: &str, cases: &Value, code: i32, text: &str| {
        desk.write(name, &cases.to_string());
        desk.run(&format!("policy test shop.yaml --pod back --cases {name}")).ends(code).says(text)
    };
    let count = cases.as_array().unwrap().len();
    check("ok.json", &cases, 0, &format!("{count} ok, 0 not ok")).says("a shell: denied");
    let json = desk.run("policy test shop.yaml --pod back --cases ok.json --json").ends(0).json();
    assert_eq!((&json["passed"], &json["failed"]), (&json!(count), &json!(0)));
    // The state is fresh for each run and kept in it: without the sandbox nothing can be created.
    let mut headless = cases.clone();
    headless.as_array_mut().unwrap().remove(0);
    check("headless.json", &headless, 1, "there is no sandbox yet").says("NOT OK");
    let mut wrong = cases.clone();
    wrong.as_array_mut().unwrap().push(json!({ "description": "a shell again", "allowed": true,
        "kind": exec["kind"], "request": exec["request"] }));
    check("wrong.json", &wrong, 1, "NOT OK").says("expected: allowed (ExecProcessRequest)");
    check(
        "field.json",
        &json!([{ "allowed": true, "kind": "StartContainer",
        "request": { "container": 1 } }]),
        2,
        "case 1",
    );
    check(
        "allowed.json",
        &json!([{ "kind": "GetOOMEvent", "request": {} }]),
        2,
        "\"allowed\" is missing",
    );
    check("object.json", &json!({}), 2, "no list of cases");
    desk.run("policy test shop.yaml --cases ok.json").ends(2).says("hint: --pod NAME");
}

#[test]
fn diff_says_what_a_change_lets_in_and_shuts_out() {
    let desk = Desk::new();
    desk.generated("old.yaml", PLAIN);
    desk.generated("same.yaml", &format!("# another comment\n{PLAIN}"));
    desk.run("policy diff old.yaml same.yaml").ends(0).says("the same policy");
    let annotated = |annotation: &str| {
        PLAIN.replace(
            "  name: plain\n",
            &format!("  name: plain\n  annotations: {{{annotation}}}\n"),
        )
    };
    let cases: [(&str, String, &[&str]); 7] = [
        ("env", PLAIN.replace("quiet", "loud"), &["shuts out  MODE=quiet", "lets in    MODE=loud"]),
        (
            "command",
            format!("{PLAIN}    command: [sleep, '9']\n"),
            &["lets in    sleep 9", "shuts out  /bin/web"],
        ),
        (
            "container",
            format!("{PLAIN}  - name: db\n    image: localhost/db:1\n"),
            &["container db: added", "lets in    localhost/db@sha256:"],
        ),
        (
            "mount",
            format!(
                "{PLAIN}    volumeMounts: [{{name: v, mountPath: /v}}]\n  volumes: [{{name: v, emptyDir: {{}}}}]\n"
            ),
            &["-> /v (bind"],
        ),
        (
            "logs",
            annotated("anchorhold.dev/logs: 'false'"),
            &["logs               shuts out  the host may read"],
        ),
        (
            "exec",
            annotated(r#"anchorhold.dev/exec: '{"web":[["ls"]]}'"#),
            &["exec               lets in    ls"],
        ),
        (
            "socket",
            annotated("anchorhold.dev/release-socket: web"),
            &["release socket     lets in    /run/anchorhold/release.sock"],
        ),
    ];
    for (name, text, expect) in cases {
        desk.generated(&format!("{name}.yaml"), &text);
        let ran = desk.run(&format!("policy diff old.yaml {name}.yaml")).ends(1);
        expect.iter().fold(ran, |ran, text| ran.says(text));
        // The other way round lets in what this one shuts out.
        let (there, back) = (
            desk.run(&format!("policy diff old.yaml {name}.yaml --json")).ends(1).out,
            desk.run(&format!("policy diff {name}.yaml old.yaml --json")).ends(1).out,
        );
        let swapped = back
            .replace("lets_in", "x")
            .replace("shuts_out", "lets_in")
            .replace("\"x\"", "\"shuts_out\"");
        let sorted = |text: &str| {
            let mut words: Vec<String> =
                text.split(['[', ']', '{', '}', ',']).map(str::to_owned).collect();
            words.sort();
            words
        };
        if name != "container" {
            assert_eq!(sorted(&there), sorted(&swapped), "{name}");
        }
    }
    // Another image under the same name: layers and digest, nothing else.
    desk.make_images("images", "second");
    desk.generated("image.yaml", PLAIN);
    let json = desk.run("policy diff old.yaml image.yaml --json").ends(1).json();
    let changes = json["pods"][0]["diff"]["containers"][0]["changes"].as_array().unwrap();
    let what: Vec<&str> = changes.iter().map(|change| change["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["image", "layers"], "{json}");
    desk.generated("two.yaml", SHOP);
    desk.run("policy diff old.yaml two.yaml")
        .ends(1)
        .says("=== Pod plain: removed")
        .says("=== Pod shop: added");
    desk.write("bare.yaml", PLAIN);
    desk.run("policy diff old.yaml bare.yaml").ends(2).says("hint: ");
    desk.run("policy diff old.yaml none.yaml").ends(2);
    desk.write("foreign.rego", "package agent_policy\ndefault CreateContainerRequest := true\n");
    desk.run("policy diff old.yaml foreign.rego").ends(2).says("policy_data");
}

#[test]
fn attack_a_field_without_a_word_of_its_own_and_changed_rules_are_seen_by_diff() {
    let desk = Desk::new();
    desk.write("in.yaml", PLAIN);
    let policy = desk.run("policy generate -f in.yaml IMAGES --raw").ends(0).out;
    desk.write("old.rego", &policy);
    let swaps = [
        ("\"NoNewPrivileges\":false", "\"NoNewPrivileges\":true", "/OCI/Process/NoNewPrivileges"),
        ("X-kata.dmverity.hashoffset=", "X-kata.dmverity.hashoffset=1", "/storages"),
        (
            "count(input.dns) <= 32",
            "count(input.dns) <= 33",
            "of another generator or another version",
        ),
    ];
    for (old, new, text) in swaps {
        let changed = policy.replacen(old, new, 1);
        assert_ne!(changed, policy, "{old} is not in the policy");
        desk.write("new.rego", &changed);
        desk.run("policy diff old.rego new.rego").ends(1).says(text);
    }
}

#[test]
fn verify_says_whether_the_annotation_is_the_policy_of_this_yaml() {
    let desk = Desk::new();
    desk.generated("pod.yaml", PLAIN);
    let sound = desk.run("policy verify pod.yaml IMAGES").ends(0);
    sound
        .says("Pod plain: the annotation is the policy of this YAML")
        .says("HOST_DATA (SEV-SNP)")
        .says("MRCONFIGID (TDX)")
        .says("the tag names it still");
    let json = desk.run("policy verify pod.yaml IMAGES --json --current-tags").ends(0).json();
    assert_eq!((&json["ok"], &json["pods"][0]["images"][0]["tag"]), (&json!(true), &json!("same")));
    desk.run("policy verify none.yaml").ends(2);
    desk.write("bare.yaml", PLAIN);
    let bare = desk.run("policy verify bare.yaml IMAGES").ends(1);
    bare.says("NOT the policy of this YAML").says("NOT PINNED");

    // The tag moves on: the pod is as it was, and who wants to know can make it an error.
    desk.make_images("newer", "second");
    let line = "policy verify pod.yaml --images newer IMAGES";
    desk.run(line).ends(0).says("the tag names another image by now");
    desk.run(&format!("{line} --current-tags")).ends(1);
}

#[test]
fn attack_yaml_and_annotation_of_different_pods_are_told_apart_part_by_part() {
    let desk = Desk::new();
    let text = fs::read_to_string(desk.generated("pod.yaml", PLAIN)).unwrap();
    let other = PLAIN.replace("value: quiet", "value: loud");
    let other = fs::read_to_string(desk.generated("other.yaml", &other)).unwrap();
    let annotation = |text: &str| {
        let line = text.lines().find(|line| line.contains("cc_init_data")).unwrap();
        line.trim().to_owned()
    };
    let check = |text: &str, more: &str, expect: &[&str]| {
        desk.write("attacked.yaml", text);
        let ran = desk.run(&format!("policy verify attacked.yaml IMAGES {more}")).ends(1);
        expect.iter().fold(ran, |ran, text| ran.says(text));
    };
    let differs = ["NOT the policy of this YAML", "found ", "generating again would change:"];
    let words = |more: &[&'static str]| [&differs[..], more].concat();
    check(
        &text.replace(&annotation(&text), &annotation(&other)),
        "",
        &words(&["shuts out  MODE=loud", "lets in    MODE=quiet"]),
    );
    check(&text.replace("value: quiet", "value: loud"), "", &words(&["lets in    MODE=loud"]));
    // The same pod, with another key service in its settings.
    let key = format!("{}=", "A".repeat(43));
    desk.run(&format!("policy generate -f in/pod.yaml IMAGES --key-service {key} -o theirs.yaml"))
        .ends(0);
    let theirs = desk.read("theirs.yaml");
    let mine = format!("shuts out  vsock://2:1031 {key}");
    check(&theirs, "", &["NOT the policy", "key service", &mine]);
    desk.write("theirs.yaml", &theirs);
    desk.run("policy verify theirs.yaml IMAGES --key-service any").ends(0).says("not compared");
    desk.run(&format!("policy verify theirs.yaml IMAGES --key-service {key}")).ends(0);
    // A policy that allows everything, in a document of its own.
    let raw = "package agent_policy\ndefault CreateContainerRequest := true\n";
    let encoded = base64(raw.as_bytes());
    let allowing = text
        .replace(&annotation(&text), &format!("io.katacontainers.config.agent.policy: {encoded}"));
    check(&allowing, "", &["NOT the policy of this YAML", "policy_data"]);
    check(&text.replace("cc_init_data: \"H4", "cc_init_data: \"H5"), "", &["NOT the policy"]);
}

/// Standard base64, small enough to write down.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let all = chunk.iter().chain([0, 0].iter()).take(3);
        let bits = all.fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let digit = |at: usize| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
        let digits: String = (0..=chunk.len()).map(digit).collect();
        format!("{digits:=<4}")
    };
    bytes.chunks(3).map(group).collect()
}
