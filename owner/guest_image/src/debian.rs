//! The newest Debian cloud kernel that apt knows, downloaded and unpacked into a cache folder; the system is not touched.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ah_digest::Sha256;

use crate::ImageError;

/// Meta packages that name a kernel of 6.12 or later, which has configfs-tsm for SEV-SNP and TDX; the first that apt knows is taken.
/// Debian 12 has the first (from its security archive), Debian 13 the second.
const META_PACKAGES: [&str; 2] = ["linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64"];
/// Oldest kernel that will do: major, minor.
const OLDEST: (u32, u32) = (6, 12);

/// A kernel package, unpacked.
#[derive(Debug)]
pub(crate) struct KernelPackage {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) sha256: Sha256,
    /// As `uname -r` prints it.
    pub(crate) release: String,
    /// Holds `boot/vmlinuz-<release>` and `lib/modules/<release>` (possibly below `usr/`).
    pub(crate) folder: PathBuf,
}

/// Finds, downloads and unpacks; a second call finds everything in `cache`.
pub(crate) fn fetch(cache: &Path) -> Result<KernelPackage, ImageError> {
    fs::create_dir_all(cache).map_err(ImageError::file("make", cache))?;
    let package = newest_package()?;
    let file = locate(&package)?;
    let deb = cache.join(&file.name);
    if !deb.exists() {
        let arguments = ["-q", "-o", "APT::Sandbox::User=root", "download", &package];
        run("apt-get", Command::new("apt-get").args(arguments).current_dir(cache))?;
    }
    let bytes = fs::read(&deb).map_err(ImageError::file("read", &deb))?;
    let found = Sha256::of(&bytes);
    if found != file.sha256 {
        return Err(ImageError::Digest { path: deb, found, expected: file.sha256 });
    }
    let folder = unpack(cache, &deb, &file)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    Ok(KernelPackage { package, version: file.version, sha256: found, release, folder })
}

struct PackageFile {
    name: String,
    version: String,
    sha256: Sha256,
}

fn newest_package() -> Result<String, ImageError> {
    for meta in META_PACKAGES {
        let mut command = Command::new("apt-cache");
        command.args(["show", "--no-all-versions", meta]);
        let output = command.output().map_err(program("apt-cache"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(package) = text.lines().find_map(dependency) {
            return Ok(package);
        }
    }
    Err(ImageError::NoKernelPackage { expected: META_PACKAGES.join(", ") })
}

/// The kernel package in a line such as `Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)`.
fn dependency(line: &str) -> Option<String> {
    let package = line.strip_prefix("Depends: ")?.split([' ', ',']).next()?;
    let release = package.strip_prefix("linux-image-")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    let well_formed = package.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-~".contains(&b));
    (well_formed && version >= OLDEST).then(|| package.to_owned())
}

/// Asks apt for the file without downloading it: `'URL' NAME SIZE SHA256:HEX`. Run outside the cache, since apt says nothing of a file that is there.
fn locate(package: &str) -> Result<PackageFile, ImageError> {
    let elsewhere = Path::new("/");
    let output = run(
        "apt-get",
        Command::new("apt-get")
            .args(["-q", "--print-uris", "download", package])
            .current_dir(elsewhere),
    )?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found =
        || ImageError::Output { program: "apt-get", found: text.chars().take(500).collect() };
    let line = text.lines().find(|line| line.starts_with('\'')).ok_or_else(found)?;
    let mut words = line.split_whitespace().skip(1);
    let name = words
        .next()
        .filter(|name| !name.contains('/') && name.ends_with(".deb"))
        .ok_or_else(found)?;
    let version = name.split('_').nth(1).ok_or_else(found)?;
    let sha256 = words.nth(1).and_then(|word| word.strip_prefix("SHA256:")).ok_or_else(found)?;
    let sha256 = sha256.parse().map_err(|_| found())?;
    Ok(PackageFile { name: name.to_owned(), version: version.to_owned(), sha256 })
}

/// Unpacks into a folder named by the package's digest, under another name until it is whole.
fn unpack(cache: &Path, deb: &Path, file: &PackageFile) -> Result<PathBuf, ImageError> {
    let folder = cache.join(format!("kernel-{}", file.sha256));
    if folder.exists() {
        return Ok(folder);
    }
    let partial = cache.join(format!("kernel-{}.{}", file.sha256, std::process::id()));
    run(
        "dpkg-deb",
        Command::new("dpkg-deb").args([OsStr::new("-x"), deb.as_os_str(), partial.as_os_str()]),
    )?;
    match fs::rename(&partial, &folder) {
        Err(_) if folder.exists() => {
            fs::remove_dir_all(&partial).map_err(ImageError::file("remove", &partial))?;
        }
        result => result.map_err(ImageError::file("rename", &partial))?,
    }
    Ok(folder)
}

fn run(name: &'static str, command: &mut Command) -> Result<Output, ImageError> {
    let output = command.env("LC_ALL", "C").output().map_err(program(name))?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let message = text.chars().take(2000).collect();
    Err(ImageError::Failed { program: format!("{command:?}"), status: output.status, message })
}

fn program(program: &'static str) -> impl FnOnce(std::io::Error) -> ImageError {
    move |source| ImageError::Program { program, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_package_is_read_from_the_meta_packages_dependency() {
        let check =
            |line: &str, expect: Option<&str>| assert_eq!(dependency(line).as_deref(), expect);
        let newest = "linux-image-6.12.117+deb12-cloud-amd64";
        check(&format!("Depends: {newest} (= 6.12.117-1~deb12u1)"), Some(newest));
        check(
            "Depends: linux-image-7.0.1+deb14-cloud-amd64, x",
            Some("linux-image-7.0.1+deb14-cloud-amd64"),
        );
        check("Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)", None);
        check("Description: linux-image-6.12.117+deb12-cloud-amd64", None);
        check("Depends: linux-image-6.12/../x", None);
    }
}
