//! The figures of `cargo xtask bench main` that need the whole system: start-up, policy decision, report verification.
//!
//! Prints one row a figure; with `--json` one object a line: name, value, unit, reference, ratio, goal, met.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use ah_agent_api::Request;
use ah_evidence::{GuestPolicy, HostData};
use ah_permit::{Policy, State, decide};
use ah_pod::Pod;
use ah_policy::PolicyDocument;
use ah_sandbox::StageName;
use ah_software_tee::SoftwareTee;
use ah_testkit_bare_boot::BareBoot;
use ah_testkit_e2e::Scene;
use ah_testkit_figures::{Row, median, on_two_cores, percentile};
use ah_testkit_images::busybox;
use ah_verifier::{Revocation, TrustedRoots};
use anchorhold::guest;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;

/// Runs of the pod, and of the bare boot, taken in turns.
const ROUNDS: usize = 7;
const DECISIONS: usize = 100;
const LOADS: usize = 21;
const CONTAINERS: usize = 20;
const VARIABLES: usize = 60;
const VERIFY_FOR: Duration = Duration::from_secs(3);
const LINE: &str = "first line of output";

#[derive(Parser)]
struct Options {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The static program that powers off at once
    #[arg(long)]
    bench_init: PathBuf,
}

fn main() -> Result<()> {
    ah_vmm::supervisor::run_if_asked();
    let options = Options::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(start_up(&options))?;
    runtime.block_on(release(&options))?;
    runtime.block_on(decision(&options))?;
    verification(&options)
}

/// `anchorhold run`, everything cached, to the first line; and the bare boot of the same kernel by the same QEMU command.
async fn start_up(options: &Options) -> Result<()> {
    let scene = Scene::shell(&format!("echo {LINE}"))?;
    let bare_boot = bare_boot(&scene, &options.bench_init).await?;
    let mut to_first_line = Vec::new();
    let mut bare = Vec::new();
    let mut stages: Vec<(String, Vec<f64>)> = Vec::new();
    run_pod(&scene, &mut Vec::new())?;
    for _ in 0..ROUNDS {
        bare.push(bare_boot.seconds().await?);
        to_first_line.push(run_pod(&scene, &mut stages)?);
    }
    let (run, bare) = (median(&mut to_first_line), median(&mut bare));
    let over = run - bare;
    for (name, times) in &mut stages {
        let name = format!("start-up, {name}");
        Row { name: &name, value: median(times), unit: "s", reference: None, goal: None }
            .print(options.json);
    }
    Row {
        name: "run to first output, all cached",
        value: run,
        unit: "s",
        reference: Some(bare),
        goal: None,
    }
    .print(options.json);
    Row {
        name: "the same less the bare boot",
        value: over,
        unit: "s",
        reference: None,
        goal: on_two_cores().then_some(("at most 1.0 s on two idle cores", over <= 1.0)),
    }
    .print(options.json);
    Ok(())
}

/// What the release of a key takes in a pod's life: from the guest's call of the key service to the end of its answer.
async fn release(options: &Options) -> Result<()> {
    let secret = [7; 32];
    let scene = Scene::sealed_message(&secret, "a message")?;
    let mut times = Vec::new();
    let prepared = scene.prepared().await?;
    scene.import_key(&prepared, &secret).await?;
    for _ in 0..ROUNDS {
        let outcome = scene.run().await?;
        let port = ah_agent_api::ports::KEY_RELEASE.to_string();
        let at = |name| {
            let mut stages = outcome.stages.iter();
            let stage = stages.find(|s| s.name == name && s.subject.as_deref() == Some(&port));
            stage.map(|stage| stage.at.as_secs_f64()).with_context(|| format!("no stage {name}"))
        };
        times.push(at(StageName::ServiceAnswered)? - at(StageName::ServiceCalled)?);
    }
    let value = median(&mut times);
    let name = "release, the guest's call to the service's answer";
    Row { name, value, unit: "s", reference: None, goal: None }.print(options.json);
    Ok(())
}

/// Time from the start of the process to its first line on standard output, seconds.
fn run_pod(scene: &Scene, stages: &mut Vec<(String, Vec<f64>)>) -> Result<f64> {
    let start = Instant::now();
    let mut child = Command::new(beside("anchorhold")?)
        .args(scene.run_arguments())
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
    let seconds = start.elapsed().as_secs_f64();
    let errors = std::io::read_to_string(child.stderr.take().context("stderr")?)?;
    ensure!(child.wait()?.success() && line.contains(LINE), "the pod failed: {line}{errors}");
    for stage in errors.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let (Some(name), Some(at)) = (stage["stage"].as_str(), stage["total_s"].as_f64()) else {
            continue;
        };
        match stages.iter_mut().find(|(known, _)| known == name) {
            Some((_, times)) => times.push(at),
            None => stages.push((name.into(), vec![at])),
        }
    }
    Ok(seconds)
}

/// Of the VM that the pod has.
async fn bare_boot(scene: &Scene, bench_init: &Path) -> Result<BareBoot> {
    let launch = scene.launch(scene.prepared().await?).await?;
    let tools = launch.sandbox.tools.clone();
    let mut configured = ah_sandbox::Configured::new(launch.sandbox, std::sync::Arc::new(()))?;
    BareBoot::of(configured.spec_mut().clone(), tools, bench_init)
}

/// The CreateContainer decisions of a pod of [`CONTAINERS`] containers, and the size and the loading of its policy.
async fn decision(options: &Options) -> Result<()> {
    let variable = |number: usize| format!("{{ name: V{number}, value: \"value {number}\" }}");
    let env = (0..VARIABLES).map(variable).collect::<Vec<_>>().join(", ");
    let container = |number: usize| {
        format!(
            "    - {{ name: c{number}, image: \"localhost/busybox:1\", command: [sleep, \"{number}\"], env: [{env}] }}\n"
        )
    };
    let yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: twenty }}\nspec:\n  containers:\n{}",
        (0..CONTAINERS).map(container).collect::<String>()
    );
    let scene = Scene::new(&yaml, |images| {
        images.add("localhost/busybox:1", &busybox()?)?;
        Ok(())
    })?;
    let prepared = scene.prepared().await?;
    let policy = Policy::compile(prepared.document.policy())?;
    let mut times = decisions(&policy, &prepared.pod)?;
    let [p50, p99] = [0.5, 0.99].map(|part| percentile(&mut times, part));
    let goal =
        |most: f64, unit: &str, value: f64| Some((format!("under {most} {unit}"), value < most));
    let mut loads = Vec::new();
    for _ in 0..LOADS {
        let start = Instant::now();
        Policy::compile(prepared.document.policy())?;
        loads.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let load = median(&mut loads);
    let annotation = match &prepared.document {
        PolicyDocument::InitData(initdata) => initdata.to_annotation().len(),
        PolicyDocument::Aks(policy) => policy.to_annotation().len(),
    } as f64
        / 1024.0;
    let pod = format!("{CONTAINERS} containers of {VARIABLES} variables");
    let rows = [
        (format!("CreateContainer, {pod}, p50"), p50, "ms", goal(0.5, "ms", p50)),
        (format!("CreateContainer, {pod}, p99"), p99, "ms", goal(2.0, "ms", p99)),
        (format!("policy load, {pod}, median"), load, "ms", goal(20.0, "ms", load)),
        (format!("annotation, {pod}"), annotation, "KiB", goal(64.0, "KiB", annotation)),
    ];
    for (name, value, unit, goal) in &rows {
        let goal = goal.as_ref().map(|(words, met)| (words.as_str(), *met));
        Row { name, value: *value, unit, reference: None, goal }.print(options.json);
    }
    Ok(())
}

/// Each CreateContainer of the pod's life, again and again in the state in which it comes; milliseconds.
fn decisions(policy: &Policy, pod: &Pod) -> Result<Vec<f64>> {
    let host = ah_policygen::stand_in_host(pod);
    let mut state = State::new();
    let mut times = Vec::new();
    for request in ah_policygen::honest_requests(pod, &host)? {
        if matches!(request, Request::CreateContainer(_)) {
            for _ in 0..DECISIONS {
                let again = request.clone();
                let start = Instant::now();
                decide(policy, &state, again)?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let ended = ah_policygen::ends(&request).map(str::to_owned);
        let (_, changes) = decide(policy, &state, request)?.into_parts();
        state.commit(changes)?;
        if let Some(id) = ended {
            state.note_exit(&id, 0);
        }
    }
    Ok(times)
}

/// Chain and signature of one report, again and again on one core.
fn verification(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tee = SoftwareTee::open(folder.path().join("tee"))?;
    let firmware = std::fs::read(guest::firmware(ah_evidence::Tee::Software)?)?;
    let inputs = guest::launch_inputs(&firmware, b"kernel", b"initrd", "cmdline", 1);
    let guest = tee.launch(&inputs, HostData::of(b"initdata"), GuestPolicy::STRICT)?;
    let made = guest.report(&[7; 64])?;
    let raw = made.report.clone();
    let revocation = Revocation::NotChecked { reason: "a benchmark".into() };
    let collateral = ah_collateral::from_cert_table(&made.auxblob, revocation)?;
    let roots = TrustedRoots::amd().danger_with_software_root(tee.root_der())?;
    let (start, now) = (Instant::now(), SystemTime::now());
    let mut count = 0u32;
    while start.elapsed() < VERIFY_FOR {
        ah_verifier::verify(&raw, &collateral, now, &roots)?;
        count += 1;
    }
    let value = f64::from(count) / start.elapsed().as_secs_f64();
    Row {
        name: "report verification, chain and signature, one core",
        value,
        unit: "1/s",
        reference: None,
        goal: Some(("at least 500/s", value >= 500.0)),
    }
    .print(options.json);
    Ok(())
}

fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}
