//! Fragments: what somebody whom the owner names adds to a pod, beside what a host or that somebody would like to make of it.

mod support;

use ah_agent_api::Request;
use ah_grant::{Fragment, FragmentSource, SecretKey};
use ah_permit::{FragmentRefused, Policy, State, decide, extend, may_release_keys};
use ah_pod::{Container, ContainerSecurity, Pod, PodSecurity, Port, Protocol, Role, WholePod};
use ah_policygen::{
    Agent, Options, ends, generate, honest_requests, make_fragment, show, stand_in_host,
};
use serde_json::json;
use support::{container, pod};

fn key() -> SecretKey {
    SecretKey::from_seed(&[5; 32])
}

fn owners() -> Pod {
    let mut pod = pod();
    pod.owner_keys.fragments = vec![FragmentSource {
        issuer: "platform".into(),
        key: key().public(),
        feed: "mesh".into(),
        min_version: 3,
    }];
    pod
}

fn proxy() -> Container {
    Container {
        env: Vec::new(),
        mounts: Vec::new(),
        execs: Vec::new(),
        security: ContainerSecurity { no_new_privileges: true, ..Default::default() },
        ..container("proxy", Role::Main)
    }
}

/// The platform's pod: its own settings are no part of the fragment.
fn platforms() -> Pod {
    Pod {
        security: PodSecurity::default(),
        volumes: Vec::new(),
        containers: vec![proxy()],
        ..pod()
    }
}

fn fragment() -> Fragment {
    make_fragment(&platforms(), "mesh", 3).unwrap()
}

fn compiled(pod: &Pod) -> Policy {
    Policy::compile(&generate(pod, &Options::default()).unwrap().policy).unwrap()
}

/// The owner's pod as the cluster runs it.
fn injected() -> Pod {
    let mut pod = owners();
    pod.containers.push(proxy());
    pod
}

/// Follows the honest life of the pod with the container; the first denial.
fn life(policy: &Policy, state: &mut State) -> Result<(), String> {
    let pod = injected();
    for request in honest_requests(&pod, &stand_in_host(&pod)).unwrap() {
        let ended = ends(&request).map(str::to_owned);
        let permit = decide(policy, state, request).map_err(|denial| denial.to_string())?;
        state.commit(permit.into_parts().1).unwrap();
        if let Some(id) = ended {
            state.note_exit(&id, 0);
        }
    }
    Ok(())
}

fn refused(pod: &Pod, text: &str) -> FragmentRefused {
    extend(&compiled(pod), &State::new(), text).unwrap_err()
}

#[test]
fn a_fragment_adds_its_container_and_without_it_the_policy_is_as_before() {
    let policy = compiled(&owners());
    let extended = extend(&policy, &State::new(), &fragment().sign(&key()).unwrap()).unwrap();
    assert_eq!(extended.words, "platform added proxy (feed mesh, version 3)");
    let mut state = extended.state;
    life(&extended.policy, &mut state).unwrap();
    let denial = life(&policy, &mut State::new()).unwrap_err();
    assert!(denial.contains("no container of this name is declared"), "{denial}");
    // The pod's own life goes on in both: a host may leave the fragment out, or the container.
    let own = owners();
    for policy in [&policy, &extended.policy] {
        let mut state = State::new();
        for request in honest_requests(&own, &stand_in_host(&own)).unwrap() {
            let ended = ends(&request).map(str::to_owned);
            let permit =
                decide(policy, &state, request).unwrap_or_else(|denial| panic!("{denial}"));
            state.commit(permit.into_parts().1).unwrap();
            if let Some(id) = ended {
                state.note_exit(&id, 0);
            }
        }
    }
}

#[test]
fn attack_a_fragment_of_another_key_feed_version_or_for_a_policy_that_names_nobody() {
    let text = fragment().sign(&key()).unwrap();
    assert_eq!(refused(&pod(), &text), FragmentRefused::NotWanted);
    let foreign = fragment().sign(&SecretKey::from_seed(&[6; 32])).unwrap();
    assert!(refused(&owners(), &foreign).to_string().contains("not of a key"));
    let old = Fragment { version: 2, ..fragment() }.sign(&key()).unwrap();
    assert!(refused(&owners(), &old).to_string().contains("found 2, expected at least 3"));
    let other = Fragment { feed: "logs".into(), ..fragment() }.sign(&key()).unwrap();
    assert!(refused(&owners(), &other).to_string().contains("expected mesh"));
    let changed = text.replacen("/bin/proxy", "/bin/other", 1);
    assert!(changed != text && refused(&owners(), &changed).to_string().contains("not of a key"));
}

#[test]
fn attack_a_second_fragment_of_a_feed_and_one_that_comes_late() {
    let policy = compiled(&owners());
    let newer = Fragment { version: 4, ..fragment() }.sign(&key()).unwrap();
    let extended = extend(&policy, &State::new(), &newer).unwrap();
    let again = extend(&extended.policy, &extended.state, &fragment().sign(&key()).unwrap());
    assert!(matches!(again, Err(FragmentRefused::Twice { .. })), "{again:?}");
    let mut state = State::new();
    let pod = owners();
    let host = stand_in_host(&pod);
    let requests = honest_requests(&pod, &host).unwrap().into_iter();
    let sandbox = requests.filter(|request| matches!(request, Request::CreateSandbox(_)));
    for request in sandbox {
        let permit = decide(&policy, &state, request).unwrap();
        state.commit(permit.into_parts().1).unwrap();
    }
    let late = extend(&policy, &state, &newer).unwrap_err();
    assert_eq!(late, FragmentRefused::TooLate);
}

#[test]
fn attack_a_fragment_that_redefines_a_container_or_wants_more_than_the_policy_gives() {
    let with = |change: &dyn Fn(&mut Fragment)| {
        let mut fragment = fragment();
        change(&mut fragment);
        refused(&owners(), &fragment.sign(&key()).unwrap())
    };
    let declared = |name: &str| FragmentRefused::Declared { name: name.into() };
    assert_eq!(with(&|f| f.containers[0].name = "web".into()), declared("web"));
    assert_eq!(with(&|f| f.containers.push(f.containers[0].clone())), declared("proxy"));
    let too_much = |change: &dyn Fn(&mut Fragment), words: &str| {
        let found = with(change);
        assert!(matches!(found, FragmentRefused::TooMuch { .. }), "{words}: {found:?}");
        assert!(found.to_string().contains(words), "{found}");
    };
    too_much(
        &|f| {
            let all = f.containers[0].capabilities["Bounding"].as_array_mut().unwrap();
            all.push("CAP_SYS_ADMIN".into());
        },
        "more than the policy gives",
    );
    too_much(&|f| f.containers[0].user["Umask"] = json!(0), "user");
    too_much(&|f| f.containers[0].storages[0]["driver"] = json!("ephemeral"), "another driver");
    let read = |path: serde_json::Value| json!({"kind": "pci", "path": path, "skip": 0, "tail": 0});
    too_much(
        &|f| {
            let read = read(json!(["OCI", "Hostname", "source"]));
            f.containers[0].read.insert("$(pci-path-9)".into(), read);
        },
        "not the place of a layer",
    );
    too_much(
        &|f| {
            let read = read(json!(["storages", 0, "source"]));
            f.containers[0].read.insert("$(sandbox-name)".into(), read);
        },
        "not the place of a layer",
    );
}

#[test]
fn attack_the_pods_own_containers_under_a_fragment() {
    let extended =
        extend(&compiled(&owners()), &State::new(), &fragment().sign(&key()).unwrap()).unwrap();
    let pod = injected();
    let mut state = extended.state;
    for mut request in honest_requests(&pod, &stand_in_host(&pod)).unwrap() {
        if let Request::CreateContainer(create) = &mut request
            && create.OCI.Annotations.contains_key("io.kubernetes.cri.container-name")
        {
            create.OCI.as_mut().unwrap().Process.as_mut().unwrap().Env.push("LD_PRELOAD=/x".into());
            let denial = decide(&extended.policy, &state, request).unwrap_err().to_string();
            assert!(denial.contains("/OCI/Process/Env"), "{denial}");
            return;
        }
        let permit = decide(&extended.policy, &state, request).unwrap();
        state.commit(permit.into_parts().1).unwrap();
    }
    panic!("no container");
}

#[test]
fn keys_wait_for_a_fragments_container_too_where_they_wait_for_the_whole_pod() {
    let mut pod = owners();
    pod.whole = WholePod::Awaited;
    let policy = compiled(&pod);
    let extended = extend(&policy, &State::new(), &fragment().sign(&key()).unwrap()).unwrap();
    for (policy, allowed) in [(&policy, true), (&extended.policy, false)] {
        let mut state = State::new();
        for request in honest_requests(&pod, &stand_in_host(&pod)).unwrap() {
            if matches!(request, Request::SignalProcess(_)) {
                break;
            }
            let ended = ends(&request).map(str::to_owned);
            // Execs wait, too.
            let Ok(permit) = decide(policy, &state, request) else { break };
            state.commit(permit.into_parts().1).unwrap();
            if let Some(id) = ended {
                state.note_exit(&id, 0);
            }
        }
        assert_eq!(may_release_keys(policy, &state).is_ok(), allowed);
    }
}

#[test]
fn what_a_fragment_cannot_say_is_an_error_and_not_left_out() {
    let with = |change: &dyn Fn(&mut Container)| {
        let mut pod = platforms();
        pod.volumes = support::pod().volumes;
        change(&mut pod.containers[0]);
        make_fragment(&pod, "mesh", 3).map_err(|err| err.to_string())
    };
    with(&|_| {}).unwrap();
    with(&|c| c.security.capabilities_drop = vec!["ALL".into()]).unwrap();
    let refused = |change: &dyn Fn(&mut Container), words: &str| {
        let found = with(change).unwrap_err();
        assert!(found.contains(words) && found.contains("cannot say"), "{words}: {found}");
    };
    refused(&|c| c.release_socket = true, "release socket");
    refused(&|c| c.role = Role::Init, "init container");
    refused(&|c| c.execs = vec![vec!["sh".into()]], "run commands");
    refused(&|c| c.mounts = container("x", Role::Main).mounts, "another driver");
    refused(&|c| c.image.stop_signal = Some("SIGQUIT".into()), "stop signal");
    refused(&|c| c.resources.storage_limit_bytes = Some(1), "ephemeral-storage");
    with(&|c| c.resources.storage_limit_bytes = Some(0)).unwrap();
    let sctp = Port { container_port: 1, host_port: None, host_ip: None, protocol: Protocol::Sctp };
    refused(&|c| c.ports.push(sctp.clone()), "SCTP");
    with(&|c| c.image.stop_signal = Some("SIGTERM".into())).unwrap();
    refused(&|c| c.security.privileged = true, "container \"proxy\"");
    refused(
        &|c| c.security.capabilities_add = vec!["SYS_ADMIN".into()],
        "more than the policy gives",
    );
    // Else who adds containers could have the owner's sealed texts opened in one of his own.
    let variable = |value: &str| ah_pod::EnvVar { name: "PW".into(), value: value.into() };
    with(&|c| c.env.push(variable("sealed.orders"))).unwrap();
    refused(&|c| c.env.push(variable("sealed.eyJhbGciOiJkaXIi")), "env: PW is sealed");
    // It makes the standard files read-only, too.
    refused(&|c| c.security.read_only_root = true, "/OCI/Mounts");
    refused(&|c| c.tty = true, "/OCI/Process/Terminal");
}

#[test]
fn who_may_add_containers_is_shown_and_refused_for_stock_kata() {
    let policy = generate(&owners(), &Options::default()).unwrap().policy;
    let shown = show(&policy).unwrap();
    assert_eq!(shown.containers.len(), 3);
    let key = key().public();
    let words = format!(
        "platform, WHO HOLDS THE KEY {key}, MAY ADD CONTAINERS: feed mesh, version 3 and later"
    );
    assert!(shown.to_string().contains(&words), "{shown}");
    let refused = generate(&owners(), &Options { agent: Agent::Kata, ..Options::default() });
    assert!(refused.unwrap_err().to_string().contains("fragments"));
}
