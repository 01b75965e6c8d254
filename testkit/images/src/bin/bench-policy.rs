//! The figures of `cargo xtask bench policy`: how long `anchorhold policy generate` takes, and how much memory.
//!
//! Prints one row a figure; with `--json` one object a line: name, value, unit, reference, ratio, goal, met. Images are
//! made once from files of this machine, kept in the work folder, and served by docker-registry on loopback.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ah_testkit_figures::Row;
use ah_testkit_images::{
    DockerRegistry, Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, machine_layer,
    package_files, store_image,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

type Failure = Box<dyn Error>;

/// Changes when the images do.
const IMAGES: &str = "images-1";
const ROUNDS: usize = 5;
/// How often memory is looked at: more often would take time of the processors that are measured.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 4_000_000 };
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// Files and pods of the row with many pods.
const FILES: usize = 50;
const PODS_PER_FILE: usize = 4;

/// A figure's goal, and the figure of the known generator (`docs`: agent policy reference), where there is one.
struct Goal {
    most: f64,
    reference: Option<f64>,
}

struct Bench {
    anchorhold: PathBuf,
    work: PathBuf,
    json: bool,
    registry: DockerRegistry,
}

/// What one run cost.
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1))
            .map(PathBuf::from)
            .ok_or(format!("{name} is missing"))
    };
    let work = value("--work")?;
    let folder = images(&work)?;
    let bench = Bench {
        anchorhold: value("--anchorhold")?,
        json: arguments.iter().any(|argument| argument == "--json"),
        registry: DockerRegistry::start(&folder)?,
        work,
    };
    bench.run()
}

impl Bench {
    fn run(&self) -> Result<(), Failure> {
        let mut peak: f64 = 0.0;
        let cold = [
            ("large (10 gzip layers), cold", "large", Goal { most: 1.7, reference: Some(4.25) }),
            ("medium (5 gzip layers), cold", "medium", Goal { most: 0.5, reference: Some(1.25) }),
        ];
        for (name, image, goal) in cold {
            let mut costs = Vec::new();
            for round in 0..=ROUNDS {
                let cost = self.generate(image, &self.fresh_cache()?)?;
                // the first reads the registry's files into memory
                if round > 0 {
                    costs.push(cost);
                }
            }
            peak = costs.iter().map(|cost| cost.peak_mib).fold(peak, f64::max);
            self.rows(name, &mut costs, &goal);
        }
        let cache = self.fresh_cache()?;
        self.generate("large", &cache)?;
        let mut warm = Vec::new();
        for _ in 0..4 * ROUNDS {
            warm.push(self.generate("large", &cache)?);
        }
        self.rows("large, warm cache", &mut warm, &Goal { most: 0.03, reference: Some(0.08) });
        if let Err(error) = self.many(&cache) {
            eprintln!("  200 pods in 50 files: NOT measured: {error}");
        }
        self.row(
            "peak memory, large and medium, cold",
            peak,
            "MiB",
            &Goal { most: 64.0, reference: Some(33.0) },
        );
        Ok(())
    }

    /// A folder that does not hold anything yet.
    fn fresh_cache(&self) -> Result<PathBuf, Failure> {
        let cache = self.work.join("cache");
        if cache.exists() {
            fs::remove_dir_all(&cache)?;
        }
        fs::create_dir_all(&cache)?;
        Ok(cache)
    }

    fn generate(&self, image: &str, cache: &Path) -> Result<Cost, Failure> {
        let yaml = self.work.join(format!("{image}.yaml"));
        fs::write(&yaml, self.pod("bench", image))?;
        self.measured(&yaml, &self.work.join("out.yaml"), cache)
    }

    fn pod(&self, name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec:\n  containers:\n    - {{ name: app, image: \"{}/bench/{image}:latest\" }}\n",
            self.registry.address()
        )
    }

    /// Many pods in one call, the images known.
    fn many(&self, cache: &Path) -> Result<(), Failure> {
        let (from, to) = (self.work.join("many"), self.work.join("many-out"));
        for folder in [&from, &to] {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
        }
        fs::create_dir_all(&from)?;
        for file in 0..FILES {
            let pods =
                (0..PODS_PER_FILE).map(|pod| self.pod(&format!("pod-{file}-{pod}"), "large"));
            fs::write(
                from.join(format!("{file:02}.yaml")),
                pods.collect::<Vec<_>>().join("---\n"),
            )?;
        }
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            costs.push(self.measured(&from, &to, cache)?);
        }
        self.rows(
            "200 pods in 50 files, warm cache",
            &mut costs,
            &Goal { most: 1.0, reference: None },
        );
        Ok(())
    }

    fn measured(&self, from: &Path, to: &Path, cache: &Path) -> Result<Cost, Failure> {
        let mut command = Command::new(&self.anchorhold);
        command.args(["policy", "generate", "--plain-http", self.registry.address(), "-f"]);
        command.arg(from).arg("-o").arg(to).arg("--cache").arg(cache);
        command.arg("--data").arg(self.work.join("data"));
        command.env("HOME", &self.work);
        command.env_remove("DOCKER_CONFIG").env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn()?;
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let mut peak_kib = 0;
        loop {
            peak_kib = peak_kib.max(peak_of(&process));
            if poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&LOOK))? > 0 {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        // of a process that has ended and was not waited for yet
        let ticks = ticks_of(&process);
        if !child.wait()?.success() {
            let mut said = String::new();
            if let Some(mut errors) = child.stderr.take() {
                std::io::Read::read_to_string(&mut errors, &mut said)?;
            }
            return Err(format!("{command:?} failed: {said}").into());
        }
        // Linux counts in hundredths of a second for all programs (USER_HZ)
        let (cpu_seconds, peak_mib) = (f64::from(ticks) / 100.0, f64::from(peak_kib) / 1024.0);
        Ok(Cost { seconds, cpu_seconds, peak_mib })
    }

    fn rows(&self, name: &str, costs: &mut [Cost], goal: &Goal) {
        costs.sort_by(|one, two| one.seconds.total_cmp(&two.seconds));
        let Some(median) = costs.get(costs.len() / 2) else { return };
        self.row(name, median.seconds, "s", goal);
        let cpu: Vec<f64> = costs.iter().map(|cost| cost.cpu_seconds).collect();
        let least = cpu.iter().copied().fold(f64::INFINITY, f64::min);
        eprintln!(
            "  {name}: fastest {:.3} s, least processor time {least:.2} s",
            costs.first().map_or(0.0, |cost| cost.seconds)
        );
    }

    fn row(&self, name: &str, value: f64, unit: &str, goal: &Goal) {
        let text = format!("at most {} {unit}", goal.most);
        let goal_met = Some((text.as_str(), value <= goal.most));
        Row { name, value, unit, reference: goal.reference, goal: goal_met }.print(self.json);
    }
}

fn peak_of(process: &Path) -> u32 {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// User and system time, ticks (proc(5), stat, fields 14 and 15).
fn ticks_of(process: &Path) -> u32 {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number).and_then(|f| f.parse::<u32>().ok()).unwrap_or(0);
    field(11) + field(12)
}

/// The registry's folder with the images in it, made when it is not there.
fn images(work: &Path) -> Result<PathBuf, Failure> {
    let folder = work.join(IMAGES);
    if folder.exists() {
        return Ok(folder);
    }
    let half_made = work.join("half-made");
    if half_made.exists() {
        fs::remove_dir_all(&half_made)?;
    }
    for (name, layers, bytes) in [("large", 10, 80_000_000), ("medium", 5, 40_000_000)] {
        let mut files = package_files()?.into_iter();
        let mut image = ImageSpec {
            entrypoint: vec!["/usr/bin/env".into()],
            cmd: vec!["sleep".into(), "3600".into()],
            env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            ..ImageSpec::default()
        };
        for layer in 0..layers {
            let base = [Entry::file("etc/passwd", PASSWD), Entry::file("etc/group", GROUP)];
            let first = if layer == 0 { &base[..] } else { &[] };
            let mut tar = Vec::new();
            machine_layer(&mut tar, first, &mut files, bytes)?;
            image = image.with_layer(LayerSpec { tar, packing: Packing::Gzip });
        }
        let layout = half_made.join("layout");
        let mut builder = LayoutBuilder::create(&layout)?;
        let built = builder.add(name, &image)?;
        let tar: usize = image.layers.iter().map(|layer| layer.tar.len()).sum();
        let packed: u64 = built.layers.iter().map(|layer| layer.size_bytes).sum();
        eprintln!(
            "  {name}: {layers} layers, tar {:.1} MB, gzip {:.1} MB",
            tar as f64 / 1e6,
            packed as f64 / 1e6
        );
        store_image(&half_made, &format!("bench/{name}"), &layout, &built)?;
        fs::remove_dir_all(&layout)?;
    }
    fs::rename(&half_made, &folder)?;
    Ok(folder)
}
