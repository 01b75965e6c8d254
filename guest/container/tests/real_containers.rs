//! Containers with real namespaces, a real cgroup and a real filter, from a root that holds Debian's static busybox.
//!
//! Its own harness: the test binary is also the runtime process, and it moves into a mount namespace of its own where
//! /sys/fs/cgroup is cgroup v2 as in the guest. Without root, busybox or these rights it says so and passes nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use ah_agent_api::oci;
use ah_container::{
    Cgroup, ContainerId, ExecContext, ExecId, ExitStatus, Layout, ParentStdio, ProcessTable,
    Runtime, SpecContext, container_spec, exec_process, make_working_directory, runtime_process,
    stdio_pipes,
};

mod pod;

const NAME: &str = "containers_with_real_namespaces";
const INSIDE: &str = "ANCHORHOLD_TEST_INSIDE";
const BUSYBOX: &str = "/bin/busybox";
const TIMEOUT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [one] = arguments.as_slice()
        && matches!(one.as_str(), "runtime" | "pause")
    {
        return runtime_process(one);
    }
    if arguments.iter().any(|a| a == "--list") {
        if !arguments.iter().any(|a| a == "--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_some() {
        all();
        return ExitCode::SUCCESS;
    }
    if !Path::new(BUSYBOX).exists() {
        println!("skipped {NAME}: no {BUSYBOX}");
        return ExitCode::SUCCESS;
    }
    let script = "mount --make-rprivate / && umount -R -l /sys/fs/cgroup; \
                  mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\"";
    let probe = Command::new("unshare").args(["-m", "sh", "-c", script, "true"]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        println!("skipped {NAME}: no right to unshare and mount cgroup2");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(own)
        .env(INSIDE, "1")
        .status()
        .unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Named = (&'static str, fn(&mut Machine));

/// One machine with its runtime process.
struct Machine {
    layout: Layout,
    runtime: Runtime,
    table: ProcessTable,
    made: u32,
    shared_pid: Option<i32>,
}

/// A container of the machine.
struct Case {
    id: ContainerId,
    pid: i32,
    stdio: Option<ParentStdio>,
    terminal: Option<OwnedFd>,
}

fn all() {
    let folder = PathBuf::from(format!("/tmp/ah-container-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&folder).status();
    assert!(mounted.unwrap().success());
    let layout = Layout::below(&folder, Path::new("/sys/fs/cgroup"));
    let runtime = Runtime::spawn(&layout).unwrap();
    let mut machine =
        Machine { layout, runtime, table: ProcessTable::new(), made: 0, shared_pid: None };
    assert_eq!(machine.runtime.sandbox("cell", false).unwrap(), None);
    let cases: &[Named] = &[
        ("output_and_exit_code", output_and_exit_code),
        ("signals_end_with_128_and_the_number", signals),
        ("isolation_is_what_the_spec_says", isolation),
        ("filter_holds_for_the_first_process_and_for_an_exec", filter),
        ("the_default_filter_lets_a_container_start", default_filter),
        ("a_terminal_is_a_terminal", terminal),
        ("an_exec_joins_the_container", exec),
        ("failures_leave_nothing_behind", failures),
    ];
    for (name, case) in cases {
        let start = Instant::now();
        case(&mut machine);
        println!("ok {name} {} ms", start.elapsed().as_millis());
    }
    let runtime = Runtime::spawn(&machine.layout).unwrap();
    let first = runtime.sandbox("cell", true).unwrap();
    machine.runtime = runtime;
    machine.shared_pid = first;
    shared_pids(&mut machine);
    println!("ok containers_that_share_a_pid_namespace_see_each_other");
}

fn spec(arguments: &[&str]) -> oci::Spec {
    let namespace = |kind: &str| oci::LinuxNamespace { Type: kind.into(), ..Default::default() };
    let mount = |destination: &str, kind: &str, options: &[&str]| oci::Mount {
        destination: destination.into(),
        type_: kind.into(),
        source: kind.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Default::default()
    };
    oci::Spec {
        Version: "1.1.0".into(),
        Process: Some(process(arguments)).into(),
        Root: Some(oci::Root::default()).into(),
        Mounts: vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            ),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        Linux: Some(oci::Linux {
            Namespaces: ["pid", "ipc", "uts", "mount"].map(namespace).into(),
            MaskedPaths: vec!["/proc/kcore".into(), "/proc/timer_list".into()],
            ReadonlyPaths: vec!["/proc/sys".into()],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

fn process(arguments: &[&str]) -> oci::Process {
    oci::Process {
        User: Some(oci::User::default()).into(),
        Args: arguments.iter().map(|a| (*a).to_owned()).collect(),
        Env: vec!["PATH=/bin".into(), "GREETING=hello".into()],
        Cwd: "/srv/app".into(),
        Capabilities: Some(oci::LinuxCapabilities {
            Bounding: vec!["CAP_CHOWN".into()],
            Effective: vec!["CAP_CHOWN".into()],
            Permitted: vec!["CAP_CHOWN".into()],
            ..Default::default()
        })
        .into(),
        NoNewPrivileges: true,
        ..Default::default()
    }
}

impl Machine {
    fn try_create(&mut self, spec: &oci::Spec) -> Result<Case, String> {
        self.made += 1;
        let id = ContainerId::parse(&format!("case{}-{}", self.made, std::process::id())).unwrap();
        let root = self.layout.root(&id);
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "id", "tty", "mkdir", "sleep", "hostname", "env", "pwd", "stty",
            "unshare", "true",
        ] {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        make_working_directory(&root, Path::new("/srv/app")).unwrap();
        let context = SpecContext {
            root: root.clone(),
            cgroup: Path::new("/").join(id.as_str()),
            hostname: "cell".into(),
            home: "/root".into(),
            shared_pid: self.shared_pid,
        };
        let value = container_spec(spec, &context).map_err(|e| e.to_string())?;
        fs::create_dir_all(self.layout.bundle(&id)).unwrap();
        fs::write(self.layout.spec_file(&id), serde_json::to_vec(&value).unwrap()).unwrap();
        let (theirs, ours) = match spec.Process.Terminal {
            true => (None, None),
            false => stdio_pipes(0, 0).map(|(a, b)| (Some(a), Some(b))).unwrap(),
        };
        let made = self.runtime.create(&id, &self.layout.bundle(&id), theirs);
        let (pid, terminal) = made.map_err(|e| e.to_string())?;
        assert_eq!(self.table.claim(pid), None);
        Ok(Case { id, pid, stdio: ours, terminal })
    }

    fn create(&mut self, spec: &oci::Spec) -> Case {
        let case = self.try_create(spec).unwrap_or_else(|e| panic!("create: {e}"));
        self.runtime.start(&case.id).unwrap();
        case
    }

    fn end_of(&mut self, pid: i32) -> i32 {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(found) = self.table.reap().iter().find(|r| r.pid == pid) {
                let ExitStatus(code) = found.status;
                return code;
            }
            assert!(Instant::now() < end, "process {pid} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn remove(&mut self, case: &Case) {
        let cgroup = Cgroup::new(self.layout.cgroup(&case.id));
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
        self.table.reap();
        assert!(!cgroup.folder().exists());
        fs::remove_dir_all(self.layout.runtime_state().join(case.id.as_str())).unwrap();
    }

    /// Runs a shell script to its end: exit code, standard output, standard error.
    fn run(&mut self, change: impl FnOnce(&mut oci::Spec), script: &str) -> (i32, String, String) {
        let mut spec = spec(&["sh", "-c", script]);
        change(&mut spec);
        let mut case = self.create(&spec);
        let code = self.end_of(case.pid);
        let stdio = case.stdio.take().unwrap();
        let texts = (text(stdio.stdout), text(stdio.stderr));
        self.remove(&case);
        (code, texts.0, texts.1)
    }

    fn run_exec(
        &mut self,
        case: &Case,
        name: &str,
        process: &oci::Process,
    ) -> Result<(i32, String), String> {
        let exec = ExecId::parse(name, &case.id).unwrap().unwrap();
        let value = exec_process(process, &ExecContext { home: "/root".into() }).unwrap();
        fs::write(self.layout.exec_file(&case.id, &exec), serde_json::to_vec(&value).unwrap())
            .unwrap();
        let (theirs, ours) = stdio_pipes(0, 0).unwrap();
        let made = self.runtime.exec(&case.id, &exec, &self.layout, Some(theirs));
        let (pid, _) = made.map_err(|e| e.to_string())?;
        assert_eq!(self.table.claim(pid), None);
        let code = self.end_of(pid);
        Ok((code, text(ours.stdout) + &text(ours.stderr)))
    }
}

/// Everything a stream holds whose writers are gone.
fn text(stream: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let _ = File::from(stream).read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

fn output_and_exit_code(m: &mut Machine) {
    let (code, out, err) = m.run(|_| (), "echo $GREETING; echo oops >&2; pwd; echo $HOME; exit 3");
    assert_eq!((code, out.as_str(), err.as_str()), (3, "hello\n/srv/app\n/root\n", "oops\n"));
    let (_, out, _) = m.run(
        |s| s.Process.as_mut().unwrap().Args = vec!["cat".into(), "/proc/self/status".into()],
        "",
    );
    for field in ["SigIgn:", "SigBlk:"] {
        let mask = out.lines().find_map(|l| l.strip_prefix(field)).unwrap().trim();
        // The standard signals; the machine that runs the tests may ignore others.
        let mask = u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff;
        assert_eq!(mask, 0, "{field} {out}");
    }
}

fn signals(m: &mut Machine) {
    let case = m.create(&spec(&["sleep", "1000"]));
    m.table.signal(case.pid, 9).unwrap();
    assert_eq!(m.end_of(case.pid), 137);
    assert!(m.table.signal(case.pid, 9).is_err(), "an ended process is not signalled");
    m.remove(&case);
    let case =
        m.create(&spec(&["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done"]));
    let mut one = [0; 3];
    let stdout = case.stdio.as_ref().unwrap().stdout.try_clone().unwrap();
    let end = Instant::now() + TIMEOUT;
    while rustix::io::read(&stdout, &mut one).is_err() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
    m.table.signal(case.pid, 15).unwrap();
    assert_eq!(m.end_of(case.pid), 7);
    assert!(m.table.signal(case.pid, 65).is_err());
    m.remove(&case);
}

fn isolation(m: &mut Machine) {
    let script = "echo $$; hostname; cat /proc/self/status; cat /proc/self/cgroup; cat /proc/kcore | cat; \
                  echo x > /proc/sys/kernel/hostname; echo x > /ro-test; echo left=$?";
    let (_, out, err) = m.run(|_| (), script);
    assert!(out.starts_with("1\ncell\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000001\n"), "{out}");
    assert!(out.contains("CapBnd:\t0000000000000001\n"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1\n"), "{out}");
    assert!(out.contains("0::/\n"), "its own cgroup namespace: {out}");
    assert!(out.contains("left=0"), "the root can be written: {out}");
    assert!(err.contains("/proc/sys/kernel/hostname: Read-only file system"), "{err}");
    let (_, out, err) =
        m.run(|s| s.Root.as_mut().unwrap().Readonly = true, "echo x > /ro-test; echo left=$?");
    assert!(out.contains("left=1") && err.contains("Read-only"), "{out} {err}");
    let other = |s: &mut oci::Spec| {
        let user = s.Process.as_mut().unwrap().User.as_mut().unwrap();
        (user.UID, user.GID, user.AdditionalGids) = (33, 34, vec![44]);
        s.Process.as_mut().unwrap().Capabilities = None.into();
    };
    let (_, out, _) = m.run(other, "id -u; id -G; cat /proc/self/status");
    assert!(out.starts_with("33\n34 44\n"), "{out}");
    assert!(out.contains("CapEff:\t0000000000000000\n"), "{out}");
    assert!(out.contains("CapBnd:\t0000000000000000\n"), "{out}");
}

fn no_mkdir() -> oci::LinuxSeccomp {
    oci::LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".into(),
        Architectures: vec!["SCMP_ARCH_X86_64".into()],
        Syscalls: vec![oci::LinuxSyscall {
            Names: vec!["mkdir".into(), "mkdirat".into()],
            Action: "SCMP_ACT_ERRNO".into(),
            ErrnoRet: Some(oci::linux_syscall::ErrnoRet::Errnoret(1)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The filter that the host's code puts into a request of a pod with `seccompProfile: RuntimeDefault`.
fn default_filter(m: &mut Machine) {
    let pod = pod::pod();
    let request = ah_pod::requests::create_container(&pod, 0, &pod::host(&pod)).unwrap();
    let filter = request.OCI.Linux.Seccomp.clone();
    assert!(filter.is_some());
    for no_new_privileges in [false, true] {
        let filtered = |s: &mut oci::Spec| {
            s.Linux.as_mut().unwrap().Seccomp = filter.clone();
            s.Process.as_mut().unwrap().NoNewPrivileges = no_new_privileges;
        };
        let script = "cat /proc/self/status; mkdir /made && echo made; unshare -U true";
        let (code, out, err) = m.run(filtered, script);
        assert!(out.contains("Seccomp:\t2\n") && out.contains("made"), "{out} {err}");
        assert!(code != 0 && err.contains("unshare"), "{code} {err}");
        let mut long = spec(&["sleep", "1000"]);
        filtered(&mut long);
        let case = m.create(&long);
        let mut entered = process(&["sh", "-c", script]);
        entered.NoNewPrivileges = no_new_privileges;
        let (_, text) = m.run_exec(&case, "e1", &entered).unwrap();
        assert!(text.contains("Seccomp:\t2\n") && text.contains("made"), "{text}");
        assert!(text.contains("CapPrm:\t0000000000000001\n"), "{text}");
        m.remove(&case);
    }
}

fn filter(m: &mut Machine) {
    let (code, _, _) = m.run(|_| (), "mkdir /made");
    assert_eq!(code, 0);
    let filtered = |s: &mut oci::Spec| s.Linux.as_mut().unwrap().Seccomp = Some(no_mkdir()).into();
    let (code, _, err) = m.run(filtered, "mkdir /made");
    assert!(code == 1 && err.contains("Operation not permitted"), "{code} {err}");
    let mut long = spec(&["sleep", "1000"]);
    filtered(&mut long);
    let case = m.create(&long);
    let (code, text) = m.run_exec(&case, "e1", &process(&["mkdir", "/made"])).unwrap();
    assert!(code == 1 && text.contains("Operation not permitted"), "{code} {text}");
    // Without no-new-privileges the filter takes a capability to load, which the program must not have.
    let mut plain = process(&["sh", "-c", "mkdir /made; cat /proc/self/status"]);
    plain.NoNewPrivileges = false;
    let (_, text) = m.run_exec(&case, "e2", &plain).unwrap();
    assert!(text.contains("Operation not permitted"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000001\n"), "{text}");
    assert!(text.contains("CapPrm:\t0000000000000001\n"), "{text}");
    assert!(text.contains("Seccomp:\t2\n"), "{text}");
    m.remove(&case);
}

fn terminal(m: &mut Machine) {
    let mut spec = spec(&["sh", "-c", "tty; stty size; cat"]);
    spec.Process.as_mut().unwrap().Terminal = true;
    let case = m.create(&spec);
    let master = case.terminal.as_ref().unwrap().try_clone().unwrap();
    let mut master = File::from(master);
    master.write_all(b"typed\n\x04").unwrap();
    let code = m.end_of(case.pid);
    let mut bytes = Vec::new();
    let _ = master.read_to_end(&mut bytes);
    let out = String::from_utf8_lossy(&bytes).into_owned();
    assert!(code == 0 && out.contains("/dev/pts/0") && out.contains("typed"), "{code} {out}");
    m.remove(&case);
}

fn exec(m: &mut Machine) {
    let case = m.create(&spec(&["sleep", "1000"]));
    let (code, text) = m
        .run_exec(&case, "e1", &process(&["sh", "-c", "hostname; cat /proc/1/cmdline; exit 5"]))
        .unwrap();
    assert_eq!((code, text.as_str()), (5, "cell\nsleep\u{0}1000\u{0}"));
    let refused = m.run_exec(&case, "e2", &process(&["no-such-program"])).unwrap_err();
    assert!(refused.contains("no-such-program"), "{refused}");
    m.remove(&case);
}

fn shared_pids(m: &mut Machine) {
    assert!(m.shared_pid.is_some());
    let case = m.create(&spec(&["sleep", "1234"]));
    let (_, out, _) = m.run(|_| (), "cat /proc/[0-9]*/cmdline; cat /proc/self/status");
    assert!(out.contains("sleep\u{0}1234\u{0}") && out.contains("pause\u{0}"), "{out}");
    m.remove(&case);
}

fn failures(m: &mut Machine) {
    let error = |m: &mut Machine, spec: &oci::Spec| match m.try_create(spec) {
        Ok(_) => panic!("created"),
        Err(text) => text,
    };
    let text = error(m, &spec(&["no-such-program"]));
    assert!(text.contains("no-such-program"), "{text}");
    let mut bad = spec(&["sh"]);
    bad.Mounts[1].options.push("mode=bad".into());
    let text = error(m, &bad);
    assert!(!text.is_empty());
    let left: Vec<_> = fs::read_dir(m.layout.runtime_state()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let own = format!("-{}", std::process::id());
    let cgroups = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let left: Vec<_> =
        cgroups.filter(|e| e.file_name().to_string_lossy().ends_with(&own)).collect();
    assert!(left.is_empty(), "{left:?}");
    // The runtime goes on after failures.
    assert_eq!(m.run(|_| (), "exit 0").0, 0);
}
