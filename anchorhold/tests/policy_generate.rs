//! `anchorhold policy generate` as people type it.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use support::{Desk, PLAIN, SHOP, names};

const INITDATA: &str = "io.katacontainers.config.hypervisor.cc_init_data";
const AKS: &str = "io.katacontainers.config.agent.policy";

#[test]
fn every_pod_of_every_document_gets_its_policy_and_the_rest_stays() {
    let desk = Desk::new();
    desk.write("shop.yaml", SHOP);
    let ran = desk.run("policy generate -f shop.yaml IMAGES").ends(0);
    assert_eq!(ran.out.matches(INITDATA).count(), 2, "{}", ran.out);
    assert!(ran.out.starts_with("# the shop\n") && ran.out.contains("# pinned by generate"));
    assert!(ran.out.contains("image: localhost/web:1@sha256:"), "{}", ran.out);
    assert!(ran.out.contains("kind: Service"));
    let ran = ran.says("warning: values of Secrets").says("Pod shop, web: PASSWORD");
    assert!(!ran.err.contains('\u{1b}'), "no terminal, no colours: {:?}", ran.err);
    // Standard input, and the result again: the same bytes.
    for input in [SHOP, &ran.out] {
        let again = desk.run_with("policy generate -f - IMAGES", input, &[]).ends(0);
        assert_eq!(again.out, ran.out);
    }
}

#[test]
fn a_policy_for_a_stock_kata_agent_is_shown_verified_and_told_from_ours() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    desk.run("policy generate -f pod.yaml IMAGES -o ours.yaml").ends(0);
    desk.run("policy generate -f pod.yaml IMAGES --for kata -o kata.yaml").ends(0);
    desk.run("policy show kata.yaml").ends(0).says("agent        stock Kata");
    desk.run("policy verify kata.yaml IMAGES").ends(0);
    let diff = desk.run("policy diff ours.yaml kata.yaml").ends(1);
    diff.says("lets in    a stock Kata agent enforces it").does_not_say("read them");
    let key = "--key-service AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    desk.run(&format!("policy generate -f pod.yaml IMAGES --for kata {key}"))
        .ends(1)
        .says("hint: leave --key-service out");
}

#[test]
fn several_files_go_into_a_folder_and_the_same_input_gives_the_same_bytes_everywhere() {
    let desk = Desk::new();
    for folder in ["one", "elsewhere/two"] {
        desk.write(&format!("{folder}/b.yml"), SHOP);
        desk.write(&format!("{folder}/a.yaml"), PLAIN);
        desk.write(&format!("{folder}/README.md"), "not YAML: [");
    }
    let line = "policy generate -f one IMAGES -o out1 --sidecar s1.json --json";
    let first = desk.run(line).ends(0);
    assert_eq!(names(&desk.path("out1")), ["a.yaml", "b.yml"]);
    let described = first.json();
    let pods = described["pods"].as_array().unwrap();
    let named: Vec<String> = pods
        .iter()
        .map(|pod| format!("{} {}", pod["file"].as_str().unwrap(), pod["name"].as_str().unwrap()))
        .collect();
    assert_eq!(named, ["a.yaml plain", "b.yml shop", "b.yml back"]);
    for pod in pods {
        let host_data = pod["host_data"].as_str().unwrap();
        assert_eq!(pod["tdx_mrconfigid"], format!("{host_data}{}", "0".repeat(32)));
        let image = pod["images"].as_object().unwrap().values().next().unwrap();
        assert!(image.as_str().unwrap().contains("@sha256:"), "{pod}");
        assert!(pod["annotation_bytes"].as_u64() > Some(1000) && pod["policy_bytes"].is_u64());
    }
    // The same twice, from another folder, in another order, with another locale, at another place of the world, with an empty
    // cache.
    for (number, from, env) in [
        (2, "-f one", [("LC_ALL", "C"), ("TZ", "UTC")]),
        (3, "-f elsewhere/two", [("LC_ALL", "C.UTF-8"), ("TZ", "Asia/Kathmandu")]),
        (4, "-f one/b.yml -f one/a.yaml", [("LC_ALL", "tr_TR.UTF-8"), ("TZ", "America/Lima")]),
        (5, "-f one", [("ANCHORHOLD_CACHE", "cache5"), ("SOURCE_DATE_EPOCH", "1")]),
    ] {
        let line = format!("policy generate {from} IMAGES -o out{number} --sidecar s{number}.json");
        desk.run_with(&line, "", &env).ends(0);
        for name in ["a.yaml", "b.yml"] {
            let (found, expected) =
                (desk.read(&format!("out{number}/{name}")), desk.read(&format!("out1/{name}")));
            assert!(found == expected, "{line}: {name} differs");
        }
        assert_eq!(desk.read(&format!("s{number}.json")), desk.read("s1.json"), "{line}");
    }
    // To standard output: one stream of documents, each file's bytes in it.
    let stream = desk.run("policy generate -f one IMAGES").ends(0).out;
    assert_eq!(stream, format!("{}---\n{}", desk.read("out1/a.yaml"), desk.read("out1/b.yml")));
}

#[test]
fn in_place_writes_whole_files_only_when_something_changed() {
    let desk = Desk::new();
    let file = desk.write("pod.yaml", PLAIN);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("pod.yaml", desk.path("link.yaml")).unwrap();
    desk.run("policy generate -f link.yaml IMAGES --in-place").ends(0).says("written to link.yaml");
    let text = desk.read("pod.yaml");
    assert!(text.contains(INITDATA));
    assert!(fs::symlink_metadata(desk.path("link.yaml")).unwrap().is_symlink());
    let before = fs::metadata(&file).unwrap();
    assert_eq!(before.permissions().mode() & 0o777, 0o640);
    desk.run("policy generate -f pod.yaml IMAGES --in-place").ends(0).says("unchanged: pod.yaml");
    let after = fs::metadata(&file).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::ino(&before),
        std::os::unix::fs::MetadataExt::ino(&after)
    );
    assert_eq!(names(&desk.path("")).iter().filter(|name| name.starts_with('.')).count(), 0);
    // One file that is wrong, and none is written.
    desk.write("set/a.yaml", PLAIN);
    desk.write("set/b.yaml", &PLAIN.replace("localhost/web:1", "localhost/none:1"));
    desk.run("policy generate -f set IMAGES --in-place").ends(1);
    assert_eq!(desk.read("set/a.yaml"), PLAIN);
}

#[test]
fn forms_and_raw_texts() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    let aks = desk.run("policy generate -f pod.yaml IMAGES --form aks -o aks.yaml --json").ends(0);
    let text = desk.read("aks.yaml");
    assert!(text.contains(AKS) && !text.contains(INITDATA), "{text}");
    assert!(aks.json()["pods"][0]["tdx_mrconfigid"].is_null());
    desk.run("policy verify aks.yaml IMAGES").ends(0);

    let policy = desk.run("policy generate -f pod.yaml IMAGES --raw").ends(0).out;
    assert!(policy.starts_with("package agent_policy\n"), "{policy}");
    let toml = desk.run("policy generate -f pod.yaml IMAGES --raw=initdata").ends(0).out;
    assert!(toml.starts_with("version = \"0.1.0\"") && toml.contains("package agent_policy"));
    // Each of them is a policy that the other commands read.
    desk.write("p.rego", &policy);
    desk.write("p.toml", &toml);
    for file in ["p.rego", "p.toml", "aks.yaml"] {
        desk.run(&format!("policy show {file}")).ends(0).says("container web");
    }
    desk.write("shop.yaml", SHOP);
    desk.run("policy generate -f shop.yaml IMAGES --raw").ends(1).says("hint: -o FOLDER");
    desk.run("policy generate -f shop.yaml IMAGES --raw -o raw").ends(0);
    assert_eq!(names(&desk.path("raw")), ["deployment-back.rego", "pod-shop.rego"]);
}

#[test]
fn attack_a_second_annotation_with_another_policy_is_refused() {
    let desk = Desk::new();
    let file = desk.generated("pod.yaml", PLAIN);
    let ran = desk.run("policy generate -f pod.yaml IMAGES --form aks").ends(1);
    ran.says("must have one").says("hint: ");
    let both = fs::read_to_string(&file)
        .unwrap()
        .replace("  annotations:\n", &format!("  annotations:\n    {AKS}: cGFja2FnZQ==\n"));
    desk.write("both.yaml", &both);
    desk.run("policy show both.yaml").ends(1).says("found 2");
    desk.run("policy verify both.yaml IMAGES").ends(1).says("found 2");
}

#[test]
fn what_cannot_be_done_is_said_with_its_remedy() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    desk.write(
        "socket.yaml",
        &PLAIN.replace(
            "  name: plain\n",
            "  name: plain\n  annotations: {anchorhold.dev/release-socket: web}\n",
        ),
    );
    desk.write("empty/readme", "");
    desk.write("service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {}\n");
    let check = |line: &str, code: i32, text: &str| {
        desk.run(&format!("policy generate {line} IMAGES")).ends(code).says(text)
    };
    check("-f empty", 1, "hint: folders below it are not read");
    check("-f pod.yaml -f ./pod.yaml", 1, "given twice");
    check("-f pod.yaml --json", 1, "hint: -o FILE");
    check("-f pod.yaml -o x --in-place", 2, "cannot be used with");
    check("-f socket.yaml --form aks", 1, "release socket");
    check("-f socket.yaml --key-service none", 1, "release socket");
    check("-f pod.yaml --key-service short", 1, "--key-service");
    check("-f none.yaml", 1, "reading none.yaml");
    check("-f service.yaml", 0, "warning: no pod");
    let key = format!("{}=", "A".repeat(43));
    check(&format!("-f socket.yaml --key-service {key} --raw=initdata"), 0, &key);
    desk.run_with("policy generate -f - --in-place IMAGES", PLAIN, &[]).ends(1).says("hint: ");
    assert!(!desk.path("x").exists());
}
