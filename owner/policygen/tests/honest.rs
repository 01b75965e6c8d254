//! What an honest host does is allowed, and the policy is the same each time.

mod support;

use ah_agent_api::Request;
use ah_permit::{Policy, State, decide};
use ah_pod::{EnvVar, HostFact, PodName, Resources, RestartPolicy, Role, Text};
use ah_policy::{KeyService, ServiceAddress, ServicePublicKey};
use ah_policygen::{
    Agent, Explained, Options, ends, explain, generate, honest_requests, show, stand_in_host,
};
use support::{Case, container, pod};

#[test]
fn equal_pods_give_equal_bytes() {
    let key_service = KeyService {
        address: ServiceAddress::Vsock { cid: 2, port: 1031 },
        public_key: ServicePublicKey([7; 32]),
    };
    let options = Options { key_service: Some(key_service.clone()), ..Options::default() };
    let (one, two) = (generate(&pod(), &options).unwrap(), generate(&pod(), &options).unwrap());
    assert_eq!(one, two);
    let settings = one.initdata.guest_settings().unwrap();
    assert_eq!(settings.key_service, Some(key_service));
    assert_eq!(one.initdata.policy(), one.policy);
}

#[test]
fn lines_fit_engines_that_do_not_raise_their_limit_and_the_annotation_is_small() {
    let mut pod = pod();
    pod.containers = (0..20).map(|n| container(&format!("c{n}"), Role::Main)).collect();
    let generated = generate(&pod, &Options::default()).unwrap();
    assert!(generated.policy.lines().all(|line| line.len() < 1024));
    let annotation = generated.initdata.to_annotation().len();
    eprintln!(
        "20 containers: policy {} bytes, annotation {annotation} bytes",
        generated.policy.len()
    );
    assert!(annotation < 64 << 10, "{annotation}");
}

/// A third of the rules: the guest compiles them at the first denial, which most pods never have.
#[test]
fn explanations_are_apart_from_what_decides() {
    for agent in [Agent::Anchorhold, Agent::Kata] {
        let options = Options { agent, ..Options::default() };
        let policy = generate(&pod(), &options).unwrap().policy;
        let policy = Policy::compile(&policy).unwrap();
        assert!(
            policy.has_explanations_apart(),
            "{agent:?}: after a change of explain.rego, its SHA-256 belongs into KNOWN_EXPLANATIONS of model/permit"
        );
        // the same for every pod, so that a generator need not look at each time
        policy.check_explanations().unwrap();
    }
}

#[test]
fn every_shape_of_pod_passes_its_dry_run() {
    let check = |change: &dyn Fn(&mut ah_pod::Pod)| {
        let mut pod = pod();
        change(&mut pod);
        generate(&pod, &Options::default()).unwrap();
    };
    check(&|_| ());
    check(&|pod| pod.name = PodName::Generated { prefix: "shop-".to_owned() });
    check(&|pod| pod.restart_policy = RestartPolicy::Never);
    check(&|pod| pod.namespace = Some("prod".to_owned()));
    check(&|pod| pod.containers[1].role = Role::Sidecar);
    check(&|pod| pod.containers[1].tty = true);
    check(&|pod| pod.containers[1].stdin = true);
    check(&|pod| pod.containers[1].security.privileged = true);
    check(&|pod| pod.containers[1].release_socket = true);
    check(&|pod| pod.share_process_namespace = true);
    check(&|pod| pod.logs = ah_pod::Logs::Closed);
    check(&|pod| pod.dns.policy = ah_pod::DnsPolicy::OnlyConfig);
    check(&|pod| {
        pod.containers[1].resources =
            Resources { memory_request_bytes: Some(1 << 20), ..Default::default() };
    });
    check(&|pod| {
        let facts = [HostFact::PodName, HostFact::PodNamespace, HostFact::PodUid, HostFact::HostIp];
        for (number, fact) in facts.into_iter().enumerate() {
            let var = EnvVar { name: format!("F{number}"), value: Text::host(fact) };
            pod.containers[2].env.push(var);
        }
        pod.containers[2]
            .env
            .push(EnvVar { name: "Ü".to_owned(), value: "ß\n'\"\\ {} \u{1}".into() });
    });
}

#[test]
fn a_retry_is_answered_the_same_and_repeats_nothing() {
    let pod = pod();
    let generated = generate(&pod, &Options::default()).unwrap();
    let policy = Policy::compile(&generated.policy).unwrap();
    let mut state = State::new();
    for request in honest_requests(&pod, &stand_in_host(&pod)).unwrap() {
        let retried = matches!(
            request,
            Request::CreateSandbox(_) | Request::CreateContainer(_) | Request::StartContainer(_)
        );
        let permit = decide(&policy, &state, request.clone()).unwrap();
        assert!(!permit.is_repeat());
        state.commit(permit.into_parts().1).unwrap();
        if let Some(id) = ends(&request) {
            state.note_exit(id, 0);
        }
        if retried {
            let again = decide(&policy, &state, request).unwrap();
            assert!(again.is_repeat() && again.changes().is_empty());
        }
    }
}

#[test]
fn a_container_that_ended_is_created_again_under_another_id_unless_it_must_not() {
    for (restart, allowed) in [(RestartPolicy::Always, true), (RestartPolicy::Never, false)] {
        let mut pod = pod();
        pod.restart_policy = restart;
        let mut case = Case::running(pod);
        let remove = ah_agent_api::agent::RemoveContainerRequest {
            container_id: case.id("web"),
            ..Default::default()
        };
        case.commit(remove);
        let old = case.create("web");
        case.denied(old, "/container_id");
        let id = "f".repeat(64);
        case.host.container_ids.insert("web".to_owned(), id.clone());
        for file in ["hosts", "termination-log", "hostname", "resolv.conf"] {
            case.host.file_ids.insert(format!("{id}/{file}"), "0123456789abcdef".to_owned());
        }
        match allowed {
            true => drop(case.allowed(case.create("web"))),
            false => drop(case.denied(case.create("web"), "created already")),
        }
    }
}

#[test]
fn oom_score_of_a_burstable_container_is_the_node_s_within_bounds() {
    let mut pod = pod();
    pod.containers[0].resources =
        Resources { memory_request_bytes: Some(1 << 20), ..Default::default() };
    let mut case = Case::new(pod);
    let id = case.id("setup");
    case.run_until(|r| matches!(r, Request::CreateContainer(c) if c.container_id == id));
    let with = |score: i64| {
        let mut request = case.create("setup");
        request.OCI.as_mut().unwrap().Process.as_mut().unwrap().OOMScoreAdj = score;
        request
    };
    case.allowed(with(3));
    case.allowed(with(999));
    case.denied(with(2), "/OCI/Process/OOMScoreAdj");
    case.denied(with(1000), "/OCI/Process/OOMScoreAdj");
}

#[test]
fn show_says_who_may_run_what() {
    let generated = generate(&pod(), &Options::default()).unwrap();
    let shown = show(&generated.policy).unwrap();
    let names: Vec<&str> = shown.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["setup", "web", "db"]);
    let web = &shown.containers[1];
    assert_eq!(web.command, ["/bin/web", "--serve"]);
    assert_eq!(web.layers.len(), 2);
    assert_eq!(web.execs, [["/bin/check", "--now"]]);
    assert!(shown.logs && web.image.contains("@sha256:"));
    let text = shown.to_string();
    assert!(text.contains("the host MAY READ what the containers print"), "{text}");
    assert!(text.contains("$(pod-ip): the pod's address"), "{text}");
    let mut pod = pod();
    pod.logs = ah_pod::Logs::Closed;
    pod.containers[1].release_socket = true;
    let shown = show(&generate(&pod, &Options::default()).unwrap().policy).unwrap();
    assert!(
        !shown.logs && shown.containers[1].release_socket && !shown.containers[2].release_socket
    );
    serde_json::to_string(&shown).unwrap();
}

#[test]
fn explain_decides_a_recorded_request_alone() {
    let pod = pod();
    let generated = generate(&pod, &Options::default()).unwrap();
    let case = Case::new(pod);
    let explain_json = |kind: &str, request: serde_json::Value| {
        let document = serde_json::json!({ "kind": kind, "request": request });
        explain(&generated.policy, &document.to_string()).unwrap()
    };
    for name in ["setup", "web", "db"] {
        let mut request = serde_json::to_value(case.create(name)).unwrap();
        let rule = "CreateContainerRequest".to_owned();
        assert_eq!(
            explain_json("CreateContainerRequest", request.clone()),
            Explained::Allowed { rule }
        );
        request["OCI"]["Process"]["Cwd"] = "/tmp".into();
        let Explained::Denied(denial) = explain_json("CreateContainer", request) else { panic!() };
        let [reason] = denial.reasons.as_slice() else { panic!("{denial}") };
        assert_eq!(reason.container.as_deref(), Some(name));
        assert_eq!(reason.field.as_deref(), Some("/OCI/Process/Cwd"));
        assert_eq!(reason.found.as_deref(), Some("\"/tmp\""));
        assert_eq!(reason.expected.as_deref(), Some("\"/srv\""));
    }
    let read = serde_json::json!({ "container_id": "a".repeat(64), "exec_id": "a".repeat(64) });
    assert!(matches!(explain_json("ReadStreamRequest", read), Explained::Allowed { .. }));
    let set = serde_json::json!({ "policy": "x" });
    let Explained::Denied(denial) = explain_json("SetPolicyRequest", set) else { panic!() };
    assert!(denial.to_string().contains("HOST_DATA"), "{denial}");
}
