//! Figures beside their goals, each with the reference measured in the same run.

use anyhow::{Result, bail};

use crate::cmd::{Done, cargo, is_root, run as command, run_quiet, step, target};
use crate::setup;

/// What is measured together.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Group {
    /// Start-up, layer conversion, policy decision, report verification
    Main,
    /// The policy generator: images cold and warm from a registry on loopback, many pods, memory
    Policy,
    /// Report verification, releases of the key service, its start, the sidecar
    Attestation,
    /// Pods below containerd, in a VM and with runc: start, exec, logs, snapshots, memory, reading through verity (as root)
    Kubernetes,
}

#[derive(clap::Args)]
#[command(after_help = "Rows go to standard output, steps to standard error. Use a quiet machine.")]
pub(crate) struct Options {
    /// Which figures
    #[arg(value_enum, default_value_t = Group::Main)]
    group: Group,
    /// With the guest kernel that `cargo xtask kernel` builds, instead of Debian's (kubernetes)
    #[arg(long)]
    trimmed: bool,
    /// One JSON object a line: name, value, unit, reference, ratio, goal, met
    #[arg(long)]
    json: bool,
}

/// The `bench` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.trimmed && !matches!(options.group, Group::Kubernetes) {
        bail!("--trimmed: only bench kubernetes runs with another kernel");
    }
    match options.group {
        Group::Main => main_figures(options.json),
        Group::Policy => policy_figures(options.json),
        Group::Attestation => attestation_figures(options.json),
        Group::Kubernetes => kubernetes_figures(options.json, options.trimmed),
    }
}

fn policy_figures(json: bool) -> Result<()> {
    setup::packages()?;
    setup::packages_for_policy_bench()?;
    step("release build", || {
        // by themselves: what is built together shares features
        for package in ["anchorhold", "ah-testkit-images"] {
            let build = ["build", "--quiet", "--locked", "--release", "--bins", "--package"];
            run_quiet(cargo(&build).arg(package))?;
        }
        Ok(Done::Did("anchorhold and the benchmark".into()))
    })?;
    step("policy generation", || {
        let work = target().join("bench-policy");
        std::fs::create_dir_all(&work)?;
        let mut bench = std::process::Command::new(target().join("release/bench-policy"));
        bench.arg("--anchorhold").arg(target().join("release/anchorhold"));
        bench.arg("--work").arg(work).args(json.then_some("--json"));
        command(&mut bench)?;
        Ok(Done::Did("5 runs of each, medians; images are made by the first run".into()))
    })
}

fn attestation_figures(json: bool) -> Result<()> {
    setup::packages()?;
    step("release build", || {
        // by themselves: what is built together shares features
        for package in ["anchorhold", "ah-sidecar", "ah-testkit-attestation"] {
            let build = ["build", "--quiet", "--locked", "--release", "--bins", "--package"];
            run_quiet(cargo(&build).arg(package))?;
        }
        Ok(Done::Did("anchorhold, the sidecar and the benchmark".into()))
    })?;
    step("verification, release, sidecar", || {
        let mut bench = std::process::Command::new(target().join("release/bench-attestation"));
        bench.arg("--anchorhold").arg(target().join("release/anchorhold"));
        bench.arg("--sidecar").arg(target().join("release/anchorhold-sidecar"));
        command(bench.args(json.then_some("--json")))?;
        Ok(Done::Did("clients and services on the same cores".into()))
    })
}

fn kubernetes_figures(json: bool, trimmed: bool) -> Result<()> {
    if !is_root()? {
        bail!("bench kubernetes starts a containerd, which needs root");
    }
    setup::run()?;
    if trimmed {
        crate::kernel::run()?;
    }
    let guest = if trimmed { crate::kernel::guest_dir() } else { setup::guest_dir() };
    setup::verity_reader()?;
    step("release build", || {
        let mut build = cargo(&["build", "--quiet", "--locked", "--release", "--workspace"]);
        for program in
            ["containerd-shim-anchorhold-v2", "anchorhold-snapshotter", "bench-kubernetes"]
        {
            build.args(["--bin", program]);
        }
        run_quiet(&mut build)?;
        Ok(Done::Did("shim, snapshotter and the benchmark".into()))
    })?;
    step("pods in VMs and with runc", || {
        let programs = target().join("release");
        let mut bench = std::process::Command::new(programs.join("bench-kubernetes"));
        bench.arg("--programs").arg(&programs).arg("--guest").arg(&guest);
        bench.arg("--tools").arg(setup::tools().join("bin"));
        bench.arg("--bench-init").arg(setup::guest_build().bench_init);
        bench.arg("--bench-verity").arg(setup::verity_reader_program());
        bench.args(json.then_some("--json")).env("PATH", setup::path_with_tools()?);
        command(&mut bench)?;
        Ok(Done::Did("medians; each ratio is of two figures of this session".into()))
    })
}

fn main_figures(json: bool) -> Result<()> {
    setup::run()?;
    step("release build", || {
        let programs = ["--workspace", "--bin", "anchorhold", "--bin", "bench-main"];
        run_quiet(cargo(&["build", "--quiet", "--locked", "--release"]).args(programs))?;
        run_quiet(&mut cargo(&["bench", "--quiet", "--locked", "-p", "ah-convert", "--no-run"]))?;
        Ok(Done::Did("anchorhold and the benchmarks".into()))
    })?;
    step("start-up, decision, verification", || {
        let mut bench = std::process::Command::new(target().join("release/bench-main"));
        bench.arg("--bench-init").arg(setup::guest_build().bench_init);
        bench.args(json.then_some("--json")).env("PATH", setup::path_with_tools()?);
        bench.env("ANCHORHOLD_GUEST", setup::guest_dir());
        command(&mut bench)?;
        Ok(Done::Did("7 runs of each, medians".into()))
    })?;
    step("layer conversion", || {
        let mut bench =
            cargo(&["bench", "--quiet", "--locked", "-p", "ah-convert", "--bench", "convert"]);
        bench.arg("--").args(json.then_some("--json"));
        command(&mut bench)?;
        Ok(Done::Did("best of 5, in turns with the reference".into()))
    })
}
