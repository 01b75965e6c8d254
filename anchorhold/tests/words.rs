//! The command under its other names: `anchorhold genpolicy` and `kubectl anchorhold`; help and completions.

mod support;

use std::fs;

use support::{COMMAND, Desk, PLAIN, Ran, SHOP};

const INITDATA: &str = "io.katacontainers.config.hypervisor.cc_init_data";

#[test]
fn genpolicy_rewrites_its_file_or_filters_its_input() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    for option in ["-y", "--yaml-file", "--yaml"] {
        desk.run(&format!("genpolicy {option} pod.yaml IMAGES")).ends(0);
    }
    let rewritten = desk.read("pod.yaml");
    assert!(rewritten.contains(INITDATA));
    desk.write("in.yaml", PLAIN);
    let same = desk.run("policy generate -f in.yaml IMAGES").ends(0).out;
    assert_eq!(rewritten, same);
    let filtered = desk.run_with("genpolicy IMAGES -u", PLAIN, &[]).ends(0).says("-u: ").out;
    assert_eq!(filtered, same);
    let raw = desk.run_with("genpolicy -r IMAGES", PLAIN, &[]).ends(0).out;
    assert!(raw.starts_with("package agent_policy") && !raw.contains("kind: Pod"), "{raw}");
    let value = desk.run_with("genpolicy -b IMAGES", PLAIN, &[]).ends(0).out;
    assert!(same.contains(value.trim()) && value.len() > 1000, "{value}");
    let aks = desk.run_with("genpolicy --form aks IMAGES", PLAIN, &[]).ends(0).out;
    assert!(aks.contains("io.katacontainers.config.agent.policy"), "{aks}");
    desk.run("genpolicy -v").ends(0).says("anchorhold 0.");
    desk.run("genpolicy --help").ends(0).says("Examples:").says("--insecure-registry");
    desk.run("--data elsewhere genpolicy --help").ends(0).says("Examples:");
}

#[test]
fn genpolicy_reads_config_maps_of_other_files_and_picks_pods_by_runtime_class() {
    let desk = Desk::new();
    let (secret, rest) = (
        SHOP.split("---\n").nth(1).unwrap(),
        SHOP.replace(SHOP.split("---\n").nth(1).unwrap(), ""),
    );
    let rest = rest.replace("---\n---\n", "---\n");
    desk.write("secret.yaml", secret);
    desk.write("pods.yaml", &rest);
    desk.run("genpolicy -y pods.yaml IMAGES").ends(1).says("is not in the file");
    for option in ["-c", "--config-map-file", "--config-file"] {
        desk.run(&format!("genpolicy -y pods.yaml {option} secret.yaml IMAGES")).ends(0);
    }
    let text = desk.read("pods.yaml");
    assert!(text.starts_with("# the shop\n") && !text.contains("stringData"), "{text}");
    desk.write("classes.yaml", SHOP);
    desk.run("genpolicy -y pods.yaml -c classes.yaml IMAGES")
        .ends(1)
        .says("expected objects that pods use");
    desk.run("genpolicy -y classes.yaml --runtime-class-names kata IMAGES").ends(0);
    let text = desk.read("classes.yaml");
    assert_eq!(text.matches(INITDATA).count(), 1, "{text}");
    assert!(text.find(INITDATA) > text.find("kind: Deployment"), "{text}");
}

#[test]
fn attack_an_option_that_would_weaken_the_policy_is_refused_and_not_ignored() {
    let desk = Desk::new();
    desk.write("pod.yaml", PLAIN);
    for (option, expect) in [
        ("-p rules.rego", "the rules are part of this program"),
        ("--rego-rules-path rules.rego", "the rules are part of this program"),
        ("--rules-file-name rules.rego", "the rules are part of this program"),
        ("-j settings.json", "there is no settings file"),
        ("--json-settings-path=settings.json", "there is no settings file"),
        ("--settings-file-name s", "there is no settings file"),
        ("-i infra.yaml", "there is no settings file"),
        ("-s", "a field that is ignored is a field that the host decides"),
        ("--silent-unsupported-fields", "a field that is ignored"),
        ("-d", "not taken from containerd"),
        ("-d=/run/c.sock", "not taken from containerd"),
        ("--containerd-pull", "not taken from containerd"),
        ("--containerd-socket-path=/run/c.sock", "not taken from containerd"),
        ("--initdata-path=x.toml", "made of the policy and the key service alone"),
        ("--layers-cache-file-path c.json", "hint: --cache DIR"),
    ] {
        let ran = desk.run(&format!("genpolicy -y pod.yaml IMAGES {option}")).ends(1);
        ran.says("is refused").says("hint: ").says(expect);
    }
    desk.run("genpolicy -y pod.yaml --no-such-option").ends(2).says("no-such-option");
    assert_eq!(desk.read("pod.yaml"), PLAIN);
}

#[test]
fn kubectl_finds_the_command_as_a_plugin() {
    let desk = Desk::new();
    desk.generated("pod.yaml", PLAIN);
    let plugin = desk.path("kubectl-anchorhold");
    std::os::unix::fs::symlink(COMMAND, &plugin).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = desk.command(&plugin);
        command.args(arguments);
        Ran::of(format!("kubectl-anchorhold {arguments:?}"), command, "")
    };
    run(&["policy", "show", "pod.yaml"]).ends(0).says("container web");
    run(&["--help"]).ends(0).says("Usage: kubectl anchorhold");
    run(&["policy", "diff", "pod.yaml"]).ends(2).says("kubectl anchorhold policy diff");
    run(&["genpolicy", "-v"]).ends(0);
    desk.run("--help").ends(0).says("Usage: anchorhold ");
    assert!(fs::symlink_metadata(plugin).unwrap().is_symlink());
}

#[test]
fn every_command_of_the_generator_has_examples_and_is_completed() {
    let desk = Desk::new();
    for command in ["generate", "show", "explain", "test", "cases", "diff", "verify"] {
        desk.run(&format!("policy {command} --help"))
            .ends(0)
            .says("Example")
            .says("anchorhold policy");
        let script = desk.run("completions bash").ends(0).out;
        assert!(
            script.contains(&format!("anchorhold__policy__{command}"))
                || script.contains(&format!("anchorhold__subcmd__policy__subcmd__{command}")),
            "{command}"
        );
    }
    for command in [
        "run",
        "guest build",
        "guest measure",
        "key import",
        "key list",
        "verify",
        "completions",
        "debug key-gen",
        "debug grant",
        "policy fragment make",
        "policy fragment show",
    ] {
        desk.run(&format!("{command} --help")).ends(0).says("Example");
    }
    desk.run("policy --help").ends(0).says("Examples:").says("verify");
}

/// As behind `| head`: whoever reads has read enough.
#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    use std::process::{Command, Stdio};
    let desk = Desk::new();
    desk.generated("shop.yaml", SHOP);
    for words in [&["policy", "show", "shop.yaml"][..], &["completions", "bash"]] {
        let mut command = Command::new(COMMAND);
        command.args(words).current_dir(desk.path(""));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{words:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}
