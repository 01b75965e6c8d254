//! The programs of a real Kubernetes, for the tests that run pods on one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd::{Done, output, root, run_quiet, step, target};

/// What a cluster of one node consists of, besides etcd and containerd.
const PROGRAMS: [&str; 5] =
    [API_SERVER, "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"];
const API_SERVER: &str = "kube-apiserver";
/// What gives services their addresses: not in the archive.
const PROXY: &str = "kube-proxy";
/// Debian packages that a cluster needs and nothing else.
const PACKAGES: &[(&str, &str)] = &[
    ("etcd-server", "the cluster's store"),
    ("zstd", "unpacks the cluster's programs"),
    ("conntrack", "kube-proxy's: forgets connections of services that have changed"),
    ("docker-registry", "serves a private image"),
    ("iptables", "addresses of services, and ports that are forwarded"),
];
/// Debian packages that build the programs where nobody has built them.
const BUILD_PACKAGES: &[(&str, &str)] =
    &[("golang-go", "builds Kubernetes"), ("curl", "fetches its source")];
/// Debian's source package: Kubernetes' version in it, and where it is in an archive.
const VERSION: &str = "v1.20.2";
const SOURCE: &str = "pool/main/k/kubernetes/kubernetes_1.20.5+really1.20.2.orig.tar.gz";

/// The folder with the programs.
pub(crate) fn folder() -> PathBuf {
    target().join("kubernetes")
}

/// Unpacks the programs from the archive beside the checkout, or builds them from Debian's source package (about ten minutes on two cores),
/// and kube-proxy always (one minute).
pub(crate) fn programs() -> Result<()> {
    crate::setup::install_packages("packages for Kubernetes", PACKAGES)?;
    step("Kubernetes", || {
        let mut how = vec![cluster()?];
        if !folder().join(PROXY).is_file() {
            build(&folder(), &[PROXY])?;
            how.push(format!("{PROXY} {VERSION}, built from Debian's source package"));
        }
        Ok(Done::Did(how.join("; ")))
    })
}

/// The same where only kube-proxy has to be built: whether they are there now.
pub(crate) fn programs_at_hand() -> Result<bool> {
    if !is_there() && archive()?.is_none() {
        let how = "no archive in ../shared/kubernetes: `cargo xtask test --kubernetes` builds one";
        step("Kubernetes", || Ok(Done::Skipped(how.into())))?;
        return Ok(false);
    }
    programs().map(|()| true)
}

fn is_there() -> bool {
    PROGRAMS.iter().all(|program| folder().join(program).is_file())
}

/// The programs of the archive, and how they came.
fn cluster() -> Result<String> {
    if is_there() {
        return Ok(folder().display().to_string());
    }
    // Under another name first: a folder that is there is whole.
    let making = target().join("kubernetes.making");
    if making.exists() {
        fs::remove_dir_all(&making)?;
    }
    fs::create_dir_all(&making)?;
    let how = match archive()? {
        Some(archive) => {
            let mut tar = Command::new("tar");
            tar.arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(&making);
            run_quiet(&mut tar)?;
            format!("from {}", archive.display())
        }
        None => {
            build(&making, &PROGRAMS)?;
            format!("{VERSION}, built from Debian's source package")
        }
    };
    if folder().exists() {
        fs::remove_dir_all(folder())?;
    }
    fs::rename(&making, folder())?;
    Ok(how)
}

/// An archive of the programs in `../shared/kubernetes`.
fn archive() -> Result<Option<PathBuf>> {
    let Ok(entries) = fs::read_dir(root().join("../shared/kubernetes")) else { return Ok(None) };
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("-linux-amd64.tar.zst") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn build(out: &Path, programs: &[&str]) -> Result<()> {
    crate::setup::install_packages("packages to build Kubernetes", BUILD_PACKAGES)?;
    let work = target().join("kubernetes.source");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    // Built as in the days of GOPATH: the source package has its dependencies in vendor/.
    let above = work.join("go/src/k8s.io");
    fs::create_dir_all(&above)?;
    let tar = work.join("source.tar.gz");
    let mut fetch = Command::new("curl");
    fetch.args(["--fail", "--silent", "--show-error", "--location", "--output"]).arg(&tar);
    run_quiet(fetch.arg(format!("{}/{SOURCE}", archive_address()?)))?;
    run_quiet(Command::new("tar").arg("-xzf").arg(&tar).arg("-C").arg(&above))?;
    let unpacked = fs::read_dir(&above)?.next().context("the source package is empty")??.path();
    let source = above.join("kubernetes");
    fs::rename(unpacked, &source)?;
    if programs.contains(&API_SERVER) {
        generate_openapi(&work, &source)?;
    }
    let version = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {version}.gitVersion={VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor=20"
    );
    for program in programs {
        let built = work.join(program);
        let mut build = go(&work, &source);
        build.args(["build", "-ldflags", &flags, "-o"]).arg(&built);
        run_quiet(build.arg(format!("k8s.io/kubernetes/cmd/{program}")))?;
        fs::rename(&built, out.join(program))?;
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn go(work: &Path, source: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(source).env("GOPATH", work.join("go")).env("GOCACHE", work.join("cache"));
    command.envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOFLAGS", "")]);
    command
}

/// Where this machine's apt finds Debian's main archive.
fn archive_address() -> Result<String> {
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Component: main",
        "Label: Debian",
        "Codename: bookworm",
    ]))?;
    let first = targets.lines().next().context("apt knows no archive of Debian 12")?;
    Ok(first.trim_end_matches('/').to_owned())
}

/// The API server's description of its types is generated, and not part of the source.
fn generate_openapi(work: &Path, source: &Path) -> Result<()> {
    let generator = work.join("openapi-gen");
    let mut build = go(work, source);
    build.args(["build", "-o"]).arg(&generator);
    run_quiet(build.arg("k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen"))?;
    let mut find = Command::new("grep");
    find.current_dir(source).args(["-rl", "+k8s:openapi-gen=true", "--include=*.go"]);
    let found = output(find.args(["staging/src/k8s.io", "pkg/apis"]))?;
    let mut packages: Vec<String> = found.lines().filter_map(openapi_package).collect();
    packages.sort();
    packages.dedup();
    if packages.is_empty() {
        bail!("the source package has no types for the API server's description");
    }
    let mut generate = Command::new(&generator);
    generate.current_dir(source).env("GOPATH", work.join("go")).env("GO111MODULE", "off");
    generate.env("GOCACHE", work.join("cache"));
    generate.args(["--go-header-file", "hack/boilerplate/boilerplate.generatego.txt"]);
    generate.args(["-O", "zz_generated.openapi", "-p", "k8s.io/kubernetes/pkg/generated/openapi"]);
    generate.arg("-r").arg(work.join("violations")).arg("-i").arg(packages.join(","));
    run_quiet(&mut generate)
}

/// The import path of the package that a source file is in, unless it is one of tests and tools.
fn openapi_package(file: &str) -> Option<String> {
    let tools = ["/testdata/", "/test/", "sample-", "code-generator", "_test.go"];
    if tools.iter().any(|part| file.contains(part)) {
        return None;
    }
    let folder = Path::new(file).parent()?.to_str()?;
    Some(match folder.strip_prefix("staging/src/") {
        Some(staged) => format!("k8s.io/kubernetes/vendor/{staged}"),
        None => format!("k8s.io/kubernetes/{folder}"),
    })
}
