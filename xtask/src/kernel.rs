//! A guest kernel with what guests need and nothing else, built from Debian's source package, and a guest image with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ah_digest::Sha256;
use anyhow::{Context as _, Result, bail};

use crate::cmd::{Done, output, root, run_quiet, step, target};
use crate::setup;

/// Debian's package of the source, with its own changes applied; the same version as the cloud kernel of Debian's backports and security archives.
const SOURCE: &str = "linux-source-6.12";
/// The folder in that package's archive.
const UNPACKED: &str = "linux-source-6.12";
const PACKAGES: &[(&str, &str)] = &[
    ("gcc", "compiles the kernel"),
    ("make", "runs its build"),
    ("flex", "reads its configuration"),
    ("bison", "reads its configuration"),
    ("bc", "computes its constants"),
    ("libelf-dev", "checks its code"),
];
/// What is built in; what is not here is what Linux' `allnoconfig` has.
const CONFIG: &str = "guest/kernel.config";
/// Nothing of the machine, the user or the time gets into the kernel (Linux Documentation/kbuild/reproducible-builds.rst).
const REPRODUCIBLE: [(&str, &str); 5] = [
    ("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 +0000"),
    ("KBUILD_BUILD_USER", "anchorhold"),
    ("KBUILD_BUILD_HOST", "anchorhold"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("LC_ALL", "C"),
];

/// The `kernel` command.
pub(crate) fn run() -> Result<()> {
    setup::packages()?;
    setup::install_packages("packages to build a kernel", PACKAGES)?;
    kernel()?;
    setup::guest_binaries()?;
    setup::command_line()?;
    step("guest image with it", || {
        setup::assemble(&setup::guest_build(), &guest_dir(), Some(&folder().join("vmlinuz")))?;
        Ok(Done::Did(guest_dir().display().to_string()))
    })
}

/// Where the guest image with this kernel is.
pub(crate) fn guest_dir() -> PathBuf {
    target().join("guest-image-trimmed")
}

/// Holds `vmlinuz`, `config` as it was finished, and `from`: the kernel's SHA-256, and what both were made of and by.
fn folder() -> PathBuf {
    target().join("guest-kernel")
}

fn kernel() -> Result<()> {
    step("kernel", || {
        let wanted = fs::read_to_string(root().join(CONFIG)).context(CONFIG)?;
        let package = source_file()?;
        let compiler = output(Command::new("gcc").arg("--version"))?;
        let compiler = compiler.lines().next().unwrap_or_default();
        let from = format!("{package}\n{compiler}\n{wanted}");
        if is_made(&folder(), &from) {
            return Ok(Done::Skipped(folder().join("vmlinuz").display().to_string()));
        }
        let work = target().join("guest-kernel.making");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(&work)?;
        let source = unpack(&work, &package)?;
        make(&source, &["allnoconfig"])?;
        let finished = fs::read_to_string(source.join(".config"))?;
        check(&wanted, &finished)?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        make(&source, &[&format!("-j{jobs}"), "bzImage"])?;
        // Under another name first: a folder that is there is whole.
        let made = work.join("made");
        fs::create_dir(&made)?;
        fs::rename(source.join("arch/x86/boot/bzImage"), made.join("vmlinuz"))?;
        fs::write(made.join("config"), finished)?;
        let digest = Sha256::of(fs::read(made.join("vmlinuz"))?);
        fs::write(made.join("from"), format!("{digest}\n{from}"))?;
        if folder().exists() {
            fs::remove_dir_all(folder())?;
        }
        fs::rename(made, folder())?;
        fs::remove_dir_all(&work)?;
        Ok(Done::Did(format!("{package}: {}", folder().join("vmlinuz").display())))
    })
}

/// Whether the kernel in `folder` was made from this, and is as it was made.
fn is_made(folder: &Path, from: &str) -> bool {
    let known = fs::read_to_string(folder.join("from"));
    let kernel = fs::read(folder.join("vmlinuz"));
    matches!((known, kernel), (Ok(known), Ok(kernel)) if known == format!("{}\n{from}", Sha256::of(&kernel)))
}

/// Name of the newest source package's file: it has the version in it.
fn source_file() -> Result<String> {
    let said = ["-q", "--print-uris", "download", SOURCE];
    let said = output(Command::new("apt-get").args(said).current_dir("/"))?;
    // 'ADDRESS' NAME SIZE SHA256:DIGEST
    let name = said.lines().find_map(|line| line.strip_prefix('\'')?.split(' ').nth(1));
    let name = name.filter(|name| name.ends_with(".deb") && !name.contains('/'));
    name.map(str::to_owned).with_context(|| {
        format!("apt knows no package {SOURCE}\nhint: apt-get update, with Debian 12's security archive or a later Debian")
    })
}

/// Downloads the package, which apt checks against its signed lists, and unpacks the source in it.
fn unpack(work: &Path, package: &str) -> Result<PathBuf> {
    let download = ["-q", "-o", "APT::Sandbox::User=root", "download", SOURCE];
    run_quiet(Command::new("apt-get").args(download).current_dir(work))?;
    run_quiet(Command::new("dpkg-deb").args(["-x", package, "package"]).current_dir(work))?;
    let archive = work.join(format!("package/usr/src/{UNPACKED}.tar.xz"));
    run_quiet(Command::new("tar").arg("-xJf").arg(&archive).current_dir(work))?;
    fs::remove_dir_all(work.join("package"))?;
    Ok(work.join(UNPACKED))
}

fn make(source: &Path, what: &[&str]) -> Result<()> {
    let mut make = Command::new("make");
    // Variables of a make that runs us, and of the user's own builds, are not this kernel's.
    make.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    make.current_dir(source).args(["-s", "ARCH=x86_64"]).args(what).envs(REPRODUCIBLE);
    make.env("KCONFIG_ALLCONFIG", root().join(CONFIG));
    run_quiet(&mut make)
}

/// Kconfig drops what depends on something that is not set, without a word.
fn check(wanted: &str, finished: &str) -> Result<()> {
    let lines: std::collections::BTreeSet<&str> = finished.lines().collect();
    let asked = wanted.lines().filter(|line| line.starts_with("CONFIG_"));
    let lost: Vec<&str> = asked.filter(|line| !lines.contains(line)).collect();
    if !lost.is_empty() {
        bail!(
            "{CONFIG}: not in the finished configuration: {}\nhint: what they depend on is not set, or their names are another version's",
            lost.join(", ")
        );
    }
    // `allnoconfig` turns them off one by one, and nothing but the hardware would show it.
    let off = lines.iter().filter(|line| line.starts_with("# CONFIG_MITIGATION_"));
    let off: Vec<&str> = off.map(|line| line.trim_start_matches("# ")).collect();
    if !off.is_empty() {
        bail!("{CONFIG}: mitigations of processors' faults are off: {}", off.join(", "));
    }
    if lines.contains("CONFIG_MODULES=y") {
        bail!("{CONFIG}: the kernel would load modules, expected none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_kernel_that_was_altered_is_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert!(!is_made(folder.path(), "from"));
        write("vmlinuz", "kernel");
        write("from", &format!("{}\nfrom", Sha256::of("kernel")));
        assert!(is_made(folder.path(), "from"));
        assert!(!is_made(folder.path(), "from another compiler"));
        write("vmlinuz", "kernek");
        assert!(!is_made(folder.path(), "from"));
    }

    #[test]
    fn attack_an_option_that_was_dropped_is_not_missed() {
        let wanted = "# why\nCONFIG_SECCOMP=y\nCONFIG_NR_CPUS=64\n";
        let finished = "CONFIG_SECCOMP=y\nCONFIG_NR_CPUS=64\nCONFIG_MORE=y\n";
        check(wanted, finished).unwrap();
        for (change, named) in [
            (
                finished.replace("CONFIG_SECCOMP=y", "# CONFIG_SECCOMP is not set"),
                "CONFIG_SECCOMP=y",
            ),
            (finished.replace("=64", "=6"), "CONFIG_NR_CPUS=64"),
            (format!("{finished}CONFIG_MODULES=y\n"), "modules"),
            (format!("{finished}# CONFIG_MITIGATION_MDS is not set\n"), "MITIGATION_MDS"),
        ] {
            let error = check(wanted, &change).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
