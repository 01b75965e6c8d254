//! Every other request: the honest one, and what a host could want instead.

mod support;

use ah_agent_api::agent::{
    CloseStdinRequest, CopyFileRequest, DestroySandboxRequest, ExecProcessRequest, KernelModule,
    ReadStreamRequest, RemoveContainerRequest, SetPolicyRequest, SignalProcessRequest,
    StartContainerRequest, StatsContainerRequest, Storage, TtyWinResizeRequest,
    UpdateContainerRequest, UpdateEphemeralMountsRequest, WaitProcessRequest, WriteStreamRequest,
};
use ah_agent_api::{PolicyRequest, Request, request_names};
use ah_pod::{Logs, Port, Protocol, requests};
use support::{Case, pod};

const FILE: &str = "0123456789abcdef";

fn exec(case: &Case, args: &[&str]) -> ExecProcessRequest {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    requests::exec_process(&case.pod, 1, &args, "exec-1", &case.host).unwrap()
}

#[test]
fn attack_exec_of_any_command() {
    let case = Case::running(pod());
    case.allowed(exec(&case, &["/bin/check", "--now"]));
    for args in [
        &["/bin/sh"][..],
        &["/bin/check"],
        &["/bin/check", "--now", "x"],
        &["/bin/check --now"],
        &[],
    ] {
        case.denied(exec(&case, args), "/process/Args");
    }
    let mut none = pod();
    none.containers[1].execs.clear();
    let case = Case::running(none);
    case.denied(exec(&case, &["/bin/check", "--now"]), "/process/Args");
}

#[test]
fn attack_exec_with_another_process() {
    let case = Case::running(pod());
    let honest = exec(&case, &["/bin/check", "--now"]);
    let check = |field: &str, change: &dyn Fn(&mut ExecProcessRequest)| {
        let mut request = honest.clone();
        change(&mut request);
        case.denied(request, field);
    };
    check("/process/User/UID", &|r| r.process.as_mut().unwrap().User.as_mut().unwrap().UID = 0);
    check("/process/Env/6", &|r| r.process.as_mut().unwrap().Env.push("LD_PRELOAD=/x".into()));
    check("/process/Cwd", &|r| r.process.as_mut().unwrap().Cwd = "/".into());
    check("/process/Terminal", &|r| r.process.as_mut().unwrap().Terminal = true);
    check("/process/Capabilities/Bounding/0", &|r| {
        r.process.as_mut().unwrap().Capabilities.as_mut().unwrap().Bounding.remove(0);
    });
    check("/stdin_port", &|r| r.stdin_port = 1);
    check("/exec_id", &|r| r.exec_id = "../x".into());
    check("/exec_id", &|r| r.exec_id = r.container_id.clone());
    check("/container_id", &|r| r.container_id = "e".repeat(64));
    let mut case = case;
    case.commit(honest.clone());
    case.denied(honest, "/exec_id");
}

#[test]
fn attack_exec_before_the_container_is_started() {
    let mut case = Case::before("web");
    case.commit(case.create("web"));
    case.denied(exec(&case, &["/bin/check", "--now"]), "not started");
}

#[test]
fn attack_set_policy() {
    let case = Case::new(pod());
    let policy = "package agent_policy\ndefault SetPolicyRequest := true".to_owned();
    case.denied(SetPolicyRequest { policy, ..Default::default() }, "HOST_DATA");
}

fn read(case: &Case) -> ReadStreamRequest {
    let id = case.id("web");
    ReadStreamRequest { container_id: id.clone(), exec_id: id, len: 1, ..Default::default() }
}

#[test]
fn attack_read_stream_when_logs_are_off() {
    let open = Case::running(pod());
    open.allowed(read(&open));
    let mut closed = pod();
    closed.logs = Logs::Closed;
    let closed = Case::running(closed);
    closed.denied(read(&closed), "does not let the host read");
}

#[test]
fn attack_stdin_of_a_container_that_declares_none() {
    let write = |case: &Case| {
        let id = case.id("web");
        WriteStreamRequest {
            container_id: id.clone(),
            exec_id: id,
            data: b"x".to_vec(),
            ..Default::default()
        }
    };
    let close = |case: &Case| {
        let id = case.id("web");
        CloseStdinRequest { container_id: id.clone(), exec_id: id, ..Default::default() }
    };
    let mut with = pod();
    with.containers[1].stdin = true;
    let case = Case::running(with);
    case.allowed(write(&case));
    case.allowed(close(&case));
    let case = Case::running(pod());
    case.denied(write(&case), "declares no stdin");
    case.denied(close(&case), "declares no stdin");
}

#[test]
fn attack_process_requests_for_unknown_containers() {
    let case = Case::running(pod());
    let id = case.id("web");
    let other = "e".repeat(64);
    macro_rules! check {
        ($($message:ident)*) => { $({
            case.allowed($message { container_id: id.clone(), ..Default::default() });
            let unknown = $message { container_id: other.clone(), ..Default::default() };
            case.denied(unknown, "/container_id");
        })* };
    }
    check!(WaitProcessRequest StatsContainerRequest RemoveContainerRequest ReadStreamRequest);
    let signal =
        SignalProcessRequest { container_id: other.clone(), signal: 15, ..Default::default() };
    case.denied(signal, "/container_id");
    let wait =
        WaitProcessRequest { container_id: id.clone(), exec_id: "x".into(), ..Default::default() };
    case.denied(wait, "/exec_id");
    let start = StartContainerRequest { container_id: other, ..Default::default() };
    case.denied(start, "/container_id");
    let resize = TtyWinResizeRequest { container_id: id, ..Default::default() };
    assert!(case.decide(resize).is_err());
}

#[test]
fn attack_signals_that_do_not_stop_the_container() {
    let signal = |case: &Case, signal| {
        let container_id = case.id("web");
        SignalProcessRequest { container_id, signal, ..Default::default() }
    };
    let mut own = pod();
    own.containers[1].image.stop_signal = Some("SIGRTMIN+3".to_owned());
    let (plain, own) = (Case::running(pod()), Case::running(own));
    for case in [&plain, &own] {
        case.allowed(signal(case, 9));
        case.allowed(signal(case, 15));
        for other in [0, 1, 10, 14, 16, 36, 38, 65] {
            case.denied(signal(case, other), "/signal");
        }
    }
    own.allowed(signal(&own, 37));
    plain.denied(signal(&plain, 37), "/signal");
    let mut none = pod();
    none.containers[1].image.stop_signal = Some("SIGNOPE".to_owned());
    let error = ah_policygen::generate(&none, &ah_policygen::Options::default()).unwrap_err();
    assert!(error.to_string().contains("SIGNOPE"), "{error}");
}

#[test]
fn attack_removed_id_used_again() {
    let mut case = Case::running(pod());
    let id = case.id("web");
    case.commit(RemoveContainerRequest { container_id: id.clone(), ..Default::default() });
    case.denied(case.create("web"), "/container_id");
    case.denied(
        StartContainerRequest { container_id: id.clone(), ..Default::default() },
        "/container_id",
    );
    case.denied(WaitProcessRequest { container_id: id, ..Default::default() }, "/container_id");
}

fn copy(path: &str) -> CopyFileRequest {
    CopyFileRequest {
        path: path.to_owned(),
        file_size: 1,
        file_mode: 0o100644,
        dir_mode: 0o750,
        data: b"x".to_vec(),
        ..Default::default()
    }
}

#[test]
fn attack_files_copied_in_and_used_as_a_containers_root() {
    let case = Case::before("web");
    let id = "e".repeat(64);
    let shared = "/run/kata-containers/shared/containers";
    case.allowed(copy(&format!("{shared}/{id}-{FILE}-hosts")));
    // The first half: an executable below the shared folder.
    for tail in [
        format!("{id}-{FILE}-x/run/kata-containers/abc/rootfs/entrypoint.sh"),
        format!("{id}-{FILE}-hosts/entrypoint.sh"),
        format!("{id}-{FILE}-entrypoint.sh"),
        format!("{id}-{FILE}-hosts\n"),
        format!("{id}-{FILE}-../hosts"),
        format!("{id}-{FILE}-"),
        format!("{id}-0123456789abcde/-hosts"),
        format!("../{id}-{FILE}-hosts"),
        format!("{}-{FILE}-hosts", case.host.sandbox_id),
    ] {
        case.denied(copy(&format!("{shared}/{tail}")), "/path");
    }
    case.denied(copy("/run/kata-containers/abc/rootfs/entrypoint.sh"), "/path");
    case.denied(copy("/etc/passwd"), "/path");
    // The second half: that tree as the root of a declared container without storages.
    let mut request = case.create("web");
    let tree = format!("{shared}/{id}-{FILE}-x/run/kata-containers/abc/rootfs");
    request.OCI.as_mut().unwrap().Root.as_mut().unwrap().Path = tree;
    request.storages.clear();
    case.denied(request, "/OCI/Root/Path");
}

#[test]
fn attack_copied_file_of_another_kind() {
    let case = Case::before("web");
    let path = format!("/run/kata-containers/shared/containers/{}-{FILE}-hosts", "e".repeat(64));
    let check = |change: &dyn Fn(&mut CopyFileRequest)| {
        let mut request = copy(&path);
        change(&mut request);
        case.denied(request, "/path");
    };
    case.allowed(CopyFileRequest { file_mode: 0o100666, ..copy(&path) });
    check(&|r| r.file_mode = 0o100755);
    check(&|r| r.file_mode = 0o104644);
    check(&|r| r.file_mode = 0o120644);
    check(&|r| r.file_mode = 0o040755);
    check(&|r| r.file_mode = 0o644);
    check(&|r| r.dir_mode = 0o777);
    check(&|r| r.uid = 1000);
    check(&|r| r.gid = -1);
    check(&|r| r.file_size = (1 << 20) + 1);
    check(&|r| r.file_size = -1);
    check(&|r| r.offset = 2);
    check(&|r| r.offset = -1);
}

#[test]
fn attack_file_changed_under_a_created_container() {
    let mut case = Case::before("web");
    let path = format!("/run/kata-containers/shared/containers/{}-{FILE}-hosts", case.id("web"));
    case.allowed(copy(&path));
    case.commit(case.create("web"));
    case.denied(copy(&path), "/path");
}

#[test]
fn attack_sandbox_with_more_than_the_pod_s() {
    let case = Case::new(pod());
    let honest = requests::create_sandbox(&case.pod, &case.host);
    case.allowed(honest.clone());
    let check = |field: &str, change: &dyn Fn(&mut ah_agent_api::agent::CreateSandboxRequest)| {
        let mut request = honest.clone();
        change(&mut request);
        case.denied(request, field);
    };
    check("/guest_hook_path", &|r| r.guest_hook_path = "/hooks".into());
    check("/kernel_modules/0", &|r| r.kernel_modules.push(KernelModule::default()));
    check("/kernel_modules/0", &|r| r.kernel_modules = requests::kernel_modules(true));
    check("/storages/1", &|r| r.storages.push(Storage::default()));
    check("/storages/0", &|r| r.storages.clear());
    check("/sandbox_pidns", &|r| r.sandbox_pidns = true);
    check("/hostname", &|r| r.hostname = "other".into());
    check("/sandbox_id", &|r| r.sandbox_id = "x".into());
    check("/sandbox_id", &|r| r.sandbox_id = "$(sandbox-id)".into());
    for line in [
        "nameserver 10.0.0.1 evil",
        "nameserver evil.example",
        "domain x",
        "",
        "search",
        "options rotate;x",
    ] {
        check("/dns/0", &|r| r.dns = vec![line.into()]);
    }
    check("/dns/0", &|r| r.dns = vec!["nameserver 10.0.0.1".into(); 33]);
    for line in ["nameserver fd00::1", "search a.svc b", "options ndots:5 rotate"] {
        let mut request = honest.clone();
        request.dns = vec![line.into()];
        case.allowed(request);
    }
    let mut case = case;
    case.commit(honest.clone());
    assert!(case.allowed(honest.clone()).is_repeat());
    let mut second = honest;
    second.dns.clear();
    case.denied(second, "created already");
}

#[test]
fn attack_container_after_the_sandbox_was_destroyed() {
    let mut case = Case::before("web");
    case.allowed(case.create("web"));
    case.commit(DestroySandboxRequest::default());
    case.denied(case.create("web"), "destroyed");
}

#[test]
fn attack_network_that_takes_over_loopback() {
    let case = Case::new(pod());
    let interface = requests::interface("52:54:00:12:34:56");
    case.allowed(interface.clone());
    let check = |change: &dyn Fn(&mut ah_agent_api::types::Interface)| {
        let mut request = interface.clone();
        change(request.interface.as_mut().unwrap());
        assert!(case.decide(request).is_err());
    };
    check(&|i| i.name = "lo".into());
    check(&|i| i.device = "lo".into());
    check(&|i| i.hwAddr = "00:00:00:00:00:00".into());
    check(&|i| i.hwAddr = "x".into());
    for itself in [
        "127.0.0.1",
        "0127.0.0.1",
        "::1",
        "0::1",
        "0:0:0:0:0:0:0:0001",
        "::",
        ":::::",
        "::ffff:7f00:1",
        "0:0:0:0:0:ffff:a00:1",
    ] {
        check(&|i| i.IPAddresses[0].address = itself.into());
    }
    let mut six = interface.clone();
    six.interface.as_mut().unwrap().IPAddresses[0].address = "fd00::1:ffff:1".into();
    case.allowed(six);
    check(&|i| i.IPAddresses[0].mask = "129".into());
    check(&|i| i.mtu = 0);
    check(&|i| i.raw_flags = 1);
    check(&|i| i.devicePath = "../x".into());
    let routes = requests::routes();
    case.allowed(routes.clone());
    let check = |change: &dyn Fn(&mut ah_agent_api::types::Route)| {
        let mut request = routes.clone();
        change(&mut request.routes.as_mut().unwrap().Routes[0]);
        assert!(case.decide(request).is_err());
    };
    check(&|r| r.device = "lo".into());
    check(&|r| r.dest = "127.0.0.0/8".into());
    check(&|r| r.dest = "::1".into());
    check(&|r| r.source = "127.0.0.1".into());
    check(&|r| r.gateway = "x".into());
    let neighbour = |state: i32, device: &str| {
        let json = serde_json::json!({ "neighbors": { "ARPNeighbors": [{ "toIPAddress": { "address": "10.0.2.2" },
            "device": device, "lladdr": "52:54:00:12:34:56", "state": state }] } });
        Request::from_json("AddARPNeighbors", json).unwrap()
    };
    case.allowed(neighbour(128, "eth0"));
    assert!(case.decide(neighbour(1, "eth0")).is_err());
    assert!(case.decide(neighbour(128, "lo")).is_err());
}

#[test]
fn attack_requests_that_no_pod_needs() {
    let case = Case::running(pod());
    let container_id = case.id("web");
    let update = UpdateContainerRequest { container_id, ..Default::default() };
    assert!(case.decide(update).is_err());
    assert!(case.decide(UpdateEphemeralMountsRequest::default()).is_err());
    // Empty requests: only those that tell nothing and ask for nothing pass.
    let open = ["GetOOMEventRequest", "GuestDetailsRequest", "DestroySandboxRequest"];
    // An empty list of routes or neighbours changes nothing.
    for rule in request_names() {
        let request = Request::from_json(rule, serde_json::json!({})).unwrap();
        let allowed = case.decide(request.clone()).is_ok();
        assert_eq!(allowed, open.contains(&request.rule_name()), "{rule}");
    }
    assert_eq!(PolicyRequest::rule_name(&SetPolicyRequest::default()), "SetPolicyRequest");
}

/// The guest loads SCTP where a port says so: for the pod's policy only.
#[test]
fn attack_a_protocol_that_the_pod_does_not_speak() {
    let mut speaks = pod();
    speaks.containers[0].ports.push(Port {
        container_port: 3868,
        host_port: None,
        host_ip: None,
        protocol: Protocol::Sctp,
    });
    let case = Case::new(speaks);
    let honest = requests::create_sandbox(&case.pod, &case.host);
    case.allowed(honest.clone());
    let mut without = honest.clone();
    without.kernel_modules.clear();
    case.denied(without, "/kernel_modules/0");
    let mut with_parameters = honest;
    with_parameters.kernel_modules[0].parameters.push("x=1".into());
    case.denied(with_parameters, "/kernel_modules/0/parameters/0");
}
