//! What people are told of a policy: cases, differences, and nothing of a Secret.

mod support;

use ah_pod::{EnvVar, Pod, PodName, Role, Text, expand};
use ah_policy::{AksPolicy, PolicyDocument};
use ah_policygen::{Diff, Explained, Options, diff, explain, generate, honest_cases, show, test};
use support::{Case, container, pod};

fn document(pod: &Pod) -> PolicyDocument {
    PolicyDocument::InitData(generate(pod, &Options::default()).unwrap().initdata)
}

fn changed(change: impl FnOnce(&mut Pod)) -> Diff {
    let mut other = pod();
    change(&mut other);
    diff(&document(&pod()), &document(&other)).unwrap()
}

/// The pod with a variable of a Secret, which a command line holds too.
fn with_secret(value: &str) -> Pod {
    let mut pod = pod();
    let secret = Text::secret(value);
    let web = &mut pod.containers[1];
    web.args = vec![expand("--db=x:$(PW)@y", |name| (name == "PW").then(|| secret.clone()))];
    web.env.push(EnvVar { name: "PW".to_owned(), value: secret });
    pod
}

#[test]
fn honest_cases_of_a_policy_alone_are_all_allowed() {
    let check = |change: &dyn Fn(&mut Pod)| {
        let mut pod = pod();
        change(&mut pod);
        let policy = generate(&pod, &Options::default()).unwrap().policy;
        let cases = honest_cases(&policy).unwrap().to_string();
        let tested = test(&policy, &cases).unwrap();
        assert_eq!(tested.failed, 0, "{tested}");
        assert!(tested.passed > 8);
    };
    check(&|_| ());
    check(&|pod| pod.name = PodName::Generated { prefix: "shop.front-".to_owned() });
    check(&|pod| pod.containers.push(container("side", Role::Sidecar)));
}

#[test]
fn explain_knows_a_state_for_pods_that_a_controller_names() {
    let mut pod = pod();
    pod.name = PodName::Generated { prefix: "shop-".to_owned() };
    let policy = generate(&pod, &Options::default()).unwrap().policy;
    let cases = honest_cases(&policy).unwrap();
    let create = cases
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["description"] == "container web is created");
    let create = &create.unwrap()["request"];
    let explained = |last: &str| {
        let mut process = create["OCI"]["Process"].clone();
        process["Args"] = serde_json::json!(["/bin/check", last]);
        let document = serde_json::json!({ "kind": "ExecProcess", "container": "web", "request": {
            "container_id": create["container_id"], "exec_id": "e1", "process": process } });
        explain(&policy, &document.to_string()).unwrap()
    };
    assert!(matches!(explained("--now"), Explained::Allowed { .. }), "{}", explained("--now"));
    let Explained::Denied(denial) = explained("--later") else { panic!() };
    assert!(denial.to_string().contains("the owner allows only these commands"), "{denial}");
}

#[test]
fn attack_a_secret_is_in_no_text_for_people() {
    let pod = with_secret("hush-hush");
    let policy = generate(&pod, &Options::default()).unwrap().policy;
    // Enforced like any value, so it is in the policy, which the host may read.
    assert!(policy.contains("PW=hush-hush"));
    let shown = show(&policy).unwrap();
    let all = format!("{shown}{shown:#}{}", serde_json::to_string(&shown).unwrap());
    assert!(all.contains("PW=(secret)") && all.contains("--db=x:(secret)@y"), "{all}");
    assert!(!all.contains("hush"), "{all}");

    let mut case = Case::new(pod);
    let id = case.id("web");
    case.run_until(|request| {
        matches!(request, ah_agent_api::Request::CreateContainer(create) if create.container_id == id)
    });
    let mut request = case.create("web");
    case.allowed(request.clone());
    let process = request.OCI.as_mut().unwrap().Process.as_mut().unwrap();
    process.Args[1] = "--db=x:guess@y".to_owned();
    process.Env.iter_mut().find(|env| env.starts_with("PW=")).unwrap().push('!');
    let denial = case.denied(request, "/OCI/Process/Args/1");
    let text = format!("{denial}{}", serde_json::to_string(&denial).unwrap());
    assert!(!text.contains("hush") && text.contains("are not shown"), "{text}");
    assert!(text.contains("expected \"--db=x:(secret)@y\""), "{text}");

    let diff = diff(&document(&with_secret("hush-hush")), &document(&with_secret("hush-again")));
    let diff = diff.unwrap();
    let text = format!("{diff}{}", serde_json::to_string(&diff).unwrap());
    assert!(!text.contains("hush") && text.contains("another value, not shown"), "{text}");
}

#[test]
fn each_change_has_its_words() {
    assert!(changed(|_| ()).is_same());
    let check = |expect: &[&str], change: &dyn Fn(&mut Pod)| {
        let diff = changed(|pod| change(pod));
        let pod = diff.pod.iter();
        let all = pod.chain(diff.containers.iter().flat_map(|container| &container.changes));
        let mut what: Vec<&str> = all.map(|change| change.what.as_str()).collect();
        what.dedup();
        assert_eq!(what, expect, "{diff}");
    };
    check(&["logs"], &|pod| pod.logs = ah_pod::Logs::Closed);
    check(&["env"], &|pod| pod.containers[1].env[0].value = "loud".into());
    check(&["order of env"], &|pod| pod.containers[1].env.swap(0, 1));
    check(&["command"], &|pod| pod.containers[1].args = vec!["x".into()]);
    check(&["working directory"], &|pod| pod.containers[1].working_dir = Some("/x".to_owned()));
    check(&["exec"], &|pod| pod.containers[1].execs.clear());
    check(&["stdin"], &|pod| pod.containers[1].stdin = true);
    check(&["role"], &|pod| pod.containers[1].role = Role::Sidecar);
    check(&["release socket"], &|pod| pod.containers[1].release_socket = true);
    check(&["mounts"], &|pod| pod.containers[1].mounts[0].read_only = true);
    check(&["mounts", "volumes"], &|pod| pod.containers[1].mounts.clear());
    check(&["image", "layers", "command"], &|pod| {
        pod.containers[1].image = support::image("other")
    });
    check(&["/OCI/Process/NoNewPrivileges"], &|pod| {
        pod.containers[1].security.no_new_privileges = true;
    });
    // Two of the node's files follow the root.
    check(&["mounts", "/OCI/Root/Readonly"], &|pod| {
        pod.containers[1].security.read_only_root = true;
    });
}

#[test]
fn another_hand_s_rules_and_documents_are_named() {
    let policy = generate(&pod(), &Options::default()).unwrap().policy;
    let aks = |text: &str| PolicyDocument::Aks(AksPolicy::new(text).unwrap());
    let rules = policy.replace("count(input.dns) <= 32", "count(input.dns) <= 33");
    assert_ne!(rules, policy);
    let found = diff(&aks(&policy), &aks(&rules)).unwrap();
    let [change] = found.pod.as_slice() else { panic!("{found}") };
    assert_eq!(change.what, "rules");
    assert!(change.shuts_out[0].contains("of this generator"), "{found}");
    assert!(change.lets_in[0].contains("read them"), "{found}");
    // Another byte is another HOST_DATA, even where it says the same.
    let spaced = diff(&aks(&policy), &aks(&format!("{policy}\n"))).unwrap();
    assert_eq!(spaced.pod[0].what, "document", "{spaced}");
    let form = diff(&aks(&policy), &document(&pod())).unwrap();
    assert_eq!(form.pod[0].what, "form", "{form}");
    assert!(
        diff(&aks("package agent_policy\ndefault WaitProcessRequest := true\n"), &aks(&policy))
            .is_err()
    );
}
