//! What a fresh Debian machine with Rust lacks: packages, two tools, the guest image. Asks nothing, skips what is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ah_guest_image::GuestBuild;
use anyhow::{Context, Result, bail};

use crate::cmd::{Done, cargo, is_root, on_path, output, root, run_quiet, step, target};

/// Debian packages and what each is for.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "the virtual machine"),
    ("kmod", "depmod orders the guest's kernel modules"),
    ("xz-utils", "unpacks the kernel package's modules"),
    ("libseccomp-dev", "system call filters of containers, linked statically into the agent"),
    ("cpio", "the reference that our initrd archives are compared with"),
    ("openssl", "the reference that our certificates and signatures are compared with"),
    ("busybox-static", "the demo's and the tests' ordinary container"),
    ("erofs-utils", "the reference that our EROFS images are compared with"),
    ("cryptsetup-bin", "the reference that our dm-verity trees are compared with"),
    ("containerd", "what the snapshotter and the shim are tested with"),
    ("runc", "the runtime of pods without a VM, in the same tests"),
    ("containernetworking-plugins", "the network of pods in the same tests"),
    ("postgresql", "the database that several key services share, in their tests"),
    ("softhsm2", "the token that the key service's key-encryption key is in, in its tests"),
];

/// The vhost-user vsock device for kernels without vhost-vsock; pinned, from the crate registry.
const VHOST_DEVICE_VSOCK: &str = "0.3.0";
/// The test runner, pinned, built only where none is installed.
const NEXTEST: &str = "0.9.143";

/// Everything that demo and bench need.
pub(crate) fn run() -> Result<()> {
    packages()?;
    vsock_device()?;
    guest_binaries()?;
    command_line()?;
    guest_image()
}

/// Everything that the tests need, and the guest once more from another folder. The guest's builds have tails of one
/// thread, so `beside` runs at the same time, with another target folder; it builds the `anchorhold` command, too.
pub(crate) fn run_for_tests(beside: impl FnOnce() -> Result<()>) -> Result<()> {
    packages()?;
    nextest()?;
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            vsock_device()?;
            guest_binaries()?;
            sidecar_for_tests()?;
            guest_binaries_elsewhere()
        });
        let beside = beside();
        if let Err(error) = &beside {
            eprintln!("error: {error:#} (the guest's builds are waited for)");
        }
        let guest = guest.join().map_err(|_| anyhow::anyhow!("the guest's build panicked"))?;
        beside.and(guest)
    })?;
    guest_image()?;
    same_guest_from_elsewhere()
}

/// What `cargo xtask soak` needs.
pub(crate) fn for_soak() -> Result<()> {
    packages()?;
    nextest()
}

/// Where tools that this project builds for itself are kept.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// Where the guest image of this checkout is kept.
pub(crate) fn guest_dir() -> PathBuf {
    target().join("guest-image")
}

/// The `anchorhold` command of this checkout, in the profile that demo and tests use.
pub(crate) fn anchorhold() -> PathBuf {
    target().join("debug/anchorhold")
}

/// PATH with our tools first.
pub(crate) fn path_with_tools() -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = vec![tools().join("bin")];
    dirs.extend(std::env::split_paths(&old));
    std::env::join_paths(dirs).context("PATH")
}

/// Installs the Debian packages that are missing.
pub(crate) fn packages() -> Result<()> {
    install_packages("packages", PACKAGES)
}

/// What only `cargo xtask bench policy` needs.
pub(crate) fn packages_for_policy_bench() -> Result<()> {
    install_packages("packages for the benchmark", &[("docker-registry", "serves its images")])
}

pub(crate) fn install_packages(name: &str, packages: &[(&str, &str)]) -> Result<()> {
    step(name, || {
        let missing: Vec<&str> =
            packages.iter().map(|(name, _)| *name).filter(|name| !installed(name)).collect();
        if missing.is_empty() {
            return Ok(Done::Skipped(format!("all {} are installed", packages.len())));
        }
        if on_path("apt-get").is_none() {
            bail!(
                "these Debian packages are missing and there is no apt-get: {}",
                missing.join(" ")
            );
        }
        run_quiet(apt(&["update"])?.env("DEBIAN_FRONTEND", "noninteractive"))?;
        let mut args = vec!["install", "--yes", "--no-install-recommends"];
        args.extend(&missing);
        run_quiet(apt(&args)?.env("DEBIAN_FRONTEND", "noninteractive"))?;
        Ok(Done::Did(format!("installed {}", missing.join(" "))))
    })
}

fn installed(package: &str) -> bool {
    let format = "-f=${db:Status-Status}";
    output(Command::new("dpkg-query").args(["-W", format, package]))
        .is_ok_and(|status| status.trim() == "installed")
}

/// apt-get as root: directly, or through sudo where it needs no password.
fn apt(args: &[&str]) -> Result<Command> {
    let mut command = if is_root()? {
        Command::new("apt-get")
    } else if on_path("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.args(["--non-interactive", "apt-get"]);
        sudo
    } else {
        bail!("installing packages needs root; run once as root: apt-get {}", args.join(" "));
    };
    command.args(args);
    Ok(command)
}

fn vsock_device() -> Result<()> {
    step("vsock device", || {
        if Path::new("/dev/vhost-vsock").exists() {
            return Ok(Done::Skipped("the kernel has /dev/vhost-vsock".into()));
        }
        install("vhost-device-vsock", VHOST_DEVICE_VSOCK, &[])
    })
}

/// cargo-nextest, where none is on PATH.
pub(crate) fn nextest() -> Result<()> {
    step("test runner", || {
        if let Some(found) = on_path("cargo-nextest") {
            return Ok(Done::Skipped(found.display().to_string()));
        }
        install("cargo-nextest", NEXTEST, &[])
    })
}

/// Builds a tool from the crate registry into target/tools.
fn install(package: &str, version: &str, more: &[&str]) -> Result<Done> {
    let binary = tools().join("bin").join(package);
    if binary.is_file() {
        return Ok(Done::Skipped(binary.display().to_string()));
    }
    let mut command = cargo(&["install", "--quiet", "--locked", package, "--version", version]);
    command.arg("--root").arg(tools()).args(more);
    // One shared build folder would be rebuilt by each tool; its own keeps ours warm.
    command.env("CARGO_TARGET_DIR", target().join("tools-build"));
    run_quiet(&mut command)?;
    Ok(Done::Did(format!("built {package} {version}")))
}

/// The guest's programs, and those of containers in demo and tests.
pub(crate) fn guest_binaries() -> Result<()> {
    step("guest binaries", || {
        build_guest(&root(), &target().join("guest"), &[])?;
        Ok(Done::Did("anchorhold-init and anchorhold-agent, static".into()))
    })?;
    // A build of their own: what is built together shares features, and the guest's bytes are measured.
    step("container programs", || {
        build_guest(&root(), &target().join("guest"), &CONTAINER_PROGRAMS)?;
        Ok(Done::Did("what demo and tests run in containers, static".into()))
    })
}

/// What tests run beside the sidecar; demo and benches do without.
fn sidecar_for_tests() -> Result<()> {
    step("sidecar's client", || {
        build_guest(&root(), &target().join("guest"), &["-pah-sidecar", "--example=skr_grpc"])?;
        Ok(Done::Did("what tests run beside the sidecar, static".into()))
    })?;
    sidecar_program()
}

/// The key-release sidecar, a build of its own: with its example it would have the features of its tests' packages.
pub(crate) fn sidecar_program() -> Result<()> {
    step("sidecar, static", || {
        build_guest(&root(), &target().join("guest"), &["-pah-sidecar", "--bins"])?;
        Ok(Done::Did("anchorhold-sidecar".into()))
    })
}

/// Packages of the demo's workload and of what tests run in containers; never part of the guest image.
const CONTAINER_PROGRAMS: [&str; 6] = [
    "-pah-example-sealed-message",
    "-pah-testkit-images",
    "--example=list_tree",
    "--example=udp_echo",
    "--example=sctp_echo",
    "--bins",
];

/// The program that `cargo xtask bench kubernetes` reads a disk with, in a VM of its own.
pub(crate) fn verity_reader() -> Result<()> {
    step("disk reader", || {
        let what = ["-pah-rootfs", "--example=bench_verity"];
        build_guest(&root(), &target().join("guest"), &what)?;
        Ok(Done::Did("the benchmark's, static".into()))
    })
}

/// Where [`verity_reader`] has it.
pub(crate) fn verity_reader_program() -> PathBuf {
    guest_build().bench_init.with_file_name("examples").join("bench_verity")
}

/// Where the guest's static programs of this checkout are.
pub(crate) fn guest_build() -> GuestBuild {
    ah_guest_image::guest_build(&root(), &target().join("guest"), &cargo_home())
}

/// Builds the guest's programs of the checkout `source` into the cargo target folder `to`, or in the same way what
/// `instead` selects.
pub(crate) fn build_guest(source: &Path, to: &Path, instead: &[&str]) -> Result<()> {
    let build = ah_guest_image::guest_build(source, to, &cargo_home());
    let mut command = cargo(&[]);
    if instead.is_empty() {
        command.args(build.args);
    } else {
        let packages = build.args.iter().position(|arg| arg == "-p").unwrap_or(build.args.len());
        command.args(&build.args[..packages]).args(instead);
    }
    command.arg("--quiet").current_dir(source);
    command.envs(build.env).env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_RUSTFLAGS");
    run_quiet(&mut command)
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    )
}

/// Builds the `anchorhold` command.
pub(crate) fn command_line() -> Result<()> {
    step("anchorhold", || {
        programs(&["anchorhold"])?;
        Ok(Done::Did(anchorhold().display().to_string()))
    })
}

/// Builds programs of the workspace. All of its packages are selected, so that the dependencies have the same features as for
/// the tests, and are compiled once for both.
pub(crate) fn programs(names: &[&str]) -> Result<()> {
    let mut build = cargo(&["build", "--quiet", "--locked", "--workspace"]);
    for name in names {
        build.args(["--bin", name]);
    }
    run_quiet(&mut build)
}

fn guest_image() -> Result<()> {
    step("guest image", || {
        assemble(&guest_build(), &guest_dir(), None)?;
        Ok(Done::Did(guest_dir().display().to_string()))
    })
}

/// Makes a guest image, with Debian's kernel or another.
pub(crate) fn assemble(build: &GuestBuild, out: &Path, kernel: Option<&Path>) -> Result<()> {
    let mut command = Command::new(anchorhold());
    command.args(["guest", "build"]);
    command.arg("--init").arg(&build.init).arg("--agent").arg(&build.agent).arg("--out").arg(out);
    command.arg("--kernel-cache").arg(target().join("kernel-cache"));
    if let Some(kernel) = kernel {
        command.arg("--kernel").arg(kernel);
    }
    run_quiet(&mut command)
}

/// Folder of the guest's second build.
fn elsewhere() -> PathBuf {
    target().join("another folder")
}

/// Builds the guest's programs once more, from a copy of the sources in another folder, into another target folder.
/// A cache of finished builds would prove nothing, so there is none.
fn guest_binaries_elsewhere() -> Result<()> {
    step("guest binaries again", || {
        if elsewhere().exists() {
            fs::remove_dir_all(elsewhere())?;
        }
        let source = elsewhere().join("checkout");
        copy_sources(&source)?;
        build_guest(&source, &elsewhere().join("target"), &[])?;
        Ok(Done::Did("from a copy of the sources in another folder".into()))
    })
}

/// Assembles an image from the second build and compares every byte with the first.
fn same_guest_from_elsewhere() -> Result<()> {
    step("reproducible guest", || {
        let (source, to) = (elsewhere().join("checkout"), elsewhere().join("target"));
        let out = elsewhere().join("image");
        assemble(&ah_guest_image::guest_build(&source, &to, &cargo_home()), &out, None)?;
        for file in ["initrd", "vmlinuz", "cmdline.software", "cmdline.snp", "manifest.json"] {
            let (one, two) = (fs::read(guest_dir().join(file))?, fs::read(out.join(file))?);
            if one != two {
                bail!(
                    "{file} differs between two builds in two folders ({} and {} bytes)",
                    one.len(),
                    two.len()
                );
            }
        }
        fs::remove_dir_all(elsewhere())?;
        Ok(Done::Did("two builds in two folders gave equal bytes".into()))
    })
}

/// Copies what git tracks, as it is in the working tree.
fn copy_sources(to: &Path) -> Result<()> {
    for file in output(Command::new("git").args(["ls-files", "-z"]).current_dir(root()))?
        .split_terminator('\0')
    {
        let (from, to) = (root().join(file), to.join(file));
        if let (true, Some(parent)) = (from.is_file(), to.parent()) {
            fs::create_dir_all(parent)?;
            fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}
