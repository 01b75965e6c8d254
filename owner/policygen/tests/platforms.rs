//! One policy for the images of several platforms: each container is wholly one platform's or wholly the other's.

mod support;

use ah_agent_api::Request;
use ah_agent_api::agent::CreateContainerRequest;
use ah_permit::{Policy, State};
use ah_pod::Pod;
use ah_policy::PolicyDocument;
use ah_policygen::{
    Agent, GenerateError, Options, diff, generate, generate_for_platforms, show, stand_in_host,
};
use support::{Case, layer, pod};

const ARM: &str = "linux/arm64";

/// The same pod where its images are those of another platform: `web` and `setup` differ, `db` is the same for all.
fn on_arm() -> Pod {
    let mut pod = pod();
    for container in pod.containers.iter_mut().filter(|container| container.name != "db") {
        let name = container.name.clone();
        container.image.layers = vec![layer("arm base"), layer(&format!("arm {name}"))];
    }
    let web = pod.containers.iter_mut().find(|container| container.name == "web").unwrap();
    web.image.env.push("WORD_BITS=64".to_owned());
    web.image.volumes.push("/cache".to_owned());
    pod
}

fn policy() -> String {
    let others = [(ARM.to_owned(), on_arm())];
    generate_for_platforms(&pod(), &others, &Options::default()).unwrap().policy
}

fn case(pod: Pod) -> Case {
    let policy = Policy::compile(&policy()).unwrap();
    Case { host: stand_in_host(&pod), policy, state: State::new(), pod }
}

/// The state before `web` is created on this platform, and the honest request for it.
fn before_web(pod: Pod) -> (Case, CreateContainerRequest) {
    let mut case = case(pod);
    let id = case.id("web");
    case.run_until(
        |request| matches!(request, Request::CreateContainer(create) if create.container_id == id),
    );
    let request = case.create("web");
    (case, request)
}

#[test]
fn a_pods_life_is_allowed_on_each_platform() {
    for pod in [pod(), on_arm()] {
        let mut case = case(pod);
        case.run_until(|request| matches!(request, Request::DestroySandbox(_)));
    }
    // images that are the same everywhere need no more than one
    let same = generate_for_platforms(&pod(), &[(ARM.to_owned(), pod())], &Options::default());
    assert_eq!(same.unwrap(), generate(&pod(), &Options::default()).unwrap());
}

#[test]
fn attack_parts_of_two_platforms_images_in_one_container() {
    let (on_amd, amd) = before_web(pod());
    let (on_arm, arm) = before_web(on_arm());
    on_amd.allowed(amd.clone());
    on_arm.allowed(arm.clone());
    let process = |request: &CreateContainerRequest| request.OCI.Process.clone();
    let changes: [&dyn Fn(&mut CreateContainerRequest); 4] = [
        &|request| request.OCI.mut_or_insert_default().Process = process(&amd),
        &|request| request.storages[0] = amd.storages[0].clone(),
        &|request| request.storages[1] = amd.storages[1].clone(),
        &|request| request.storages.swap(0, 1),
    ];
    for change in changes {
        let mut request = arm.clone();
        change(&mut request);
        assert!(on_arm.decide(request).is_err());
    }
    let mut request = amd.clone();
    request.OCI.mut_or_insert_default().Process = process(&arm);
    on_amd.denied(request, "/OCI/Process/Env/3");
    // the other platform's layers of another container
    let setup = on_arm.create("setup");
    let mut request = arm;
    request.storages[0].options = setup.storages[0].options.clone();
    assert!(on_arm.decide(request).is_err());
}

#[test]
fn attack_images_that_no_platform_has() {
    let mut third = on_arm();
    let web = third.containers.iter_mut().find(|container| container.name == "web").unwrap();
    web.image.layers[1] = layer("third web");
    let (mut case, _) = before_web(on_arm());
    let allowed = case.create("web");
    case.allowed(allowed);
    case.host = stand_in_host(&third);
    case.pod = third;
    let request = case.create("web");
    assert!(case.decide(request).is_err());
}

#[test]
fn what_one_policy_cannot_tell_apart_is_refused() {
    let refused = |change: &dyn Fn(&mut Pod), agent: Agent| {
        let mut other = pod();
        change(&mut other);
        let options = Options { agent, ..Options::default() };
        generate_for_platforms(&pod(), &[(ARM.to_owned(), other)], &options).unwrap_err()
    };
    let env = |pod: &mut Pod| pod.containers[1].image.env.push("MORE=1".to_owned());
    let error = refused(&env, Agent::Anchorhold);
    assert!(matches!(&error, GenerateError::Platforms { container, .. } if container == "web"));
    assert!(error.to_string().contains("make a policy for each platform"), "{error}");
    let signal = |pod: &mut Pod| pod.containers[1].image.stop_signal = Some("SIGQUIT".to_owned());
    let error = refused(&signal, Agent::Anchorhold);
    let words = "web\": its image for linux/arm64 has another stop signal: found 3, expected none as for the first platform";
    assert!(error.to_string().contains(words), "{error}");
    let log = |pod: &mut Pod| pod.containers[1].stdin = !pod.containers[1].stdin;
    let error = refused(&log, Agent::Anchorhold).to_string();
    assert!(error.contains("another stdin: found") && !error.contains("signal"), "{error}");
}

/// Two other platforms with equal layers: the host could run the one with the settings of the other.
#[test]
fn attack_settings_of_a_third_platform_whose_layers_are_the_seconds() {
    const RISC: &str = "linux/riscv64";
    let made = |third: Pod| {
        let others = [(ARM.to_owned(), on_arm()), (RISC.to_owned(), third)];
        generate_for_platforms(&pod(), &others, &Options::default())
    };
    let mut third = on_arm();
    let web = third.containers.iter_mut().find(|container| container.name == "web").unwrap();
    web.image.env.push("DEBUG=1".to_owned());
    let error = made(third).unwrap_err().to_string();
    assert!(error.contains("linux/riscv64 has the layers that it has for linux/arm64"), "{error}");
    // The same image on both is one variant.
    let two = generate_for_platforms(&pod(), &[(ARM.to_owned(), on_arm())], &Options::default());
    assert_eq!(made(on_arm()).unwrap(), two.unwrap());
}

#[test]
fn people_see_each_platform() {
    let policy = policy();
    let shown = show(&policy).unwrap();
    let web = shown.containers.iter().find(|container| container.name == "web").unwrap();
    assert_eq!(web.platforms[0].platform, ARM);
    let text = shown.to_string();
    for line in
        ["  or, on linux/arm64:\n", "  env          WORD_BITS=64\n", "  and on all platforms:\n"]
    {
        assert!(text.contains(line), "{text}");
    }
    let hash = layer("arm web").verity.root_hash.to_string();
    assert!(text.contains(&hash[..12]), "{text}");
    let document = |pods: &[(String, Pod)]| {
        let made = generate_for_platforms(&pod(), pods, &Options::default()).unwrap();
        PolicyDocument::InitData(made.initdata)
    };
    let (one, two) = (document(&[]), document(&[(ARM.to_owned(), on_arm())]));
    let told = diff(&one, &two).unwrap().to_string();
    assert!(told.contains("other platforms"), "{told}");
    assert!(told.contains(&format!("lets in    {ARM}: layers {hash}")), "{told}");
}
