//! How the guest's programs are built: static, and with equal bytes wherever the checkout, the registry and the target folder are.

use std::path::{Path, PathBuf};

/// The target triple; the programs are static, so glibc's own name stands for no dependency.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// One run of cargo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestBuild {
    /// Arguments to cargo.
    pub args: Vec<String>,
    /// Variables to set; RUSTFLAGS and CARGO_BUILD_RUSTFLAGS have to be absent, CARGO_ENCODED_RUSTFLAGS goes before them anyway.
    pub env: Vec<(String, String)>,
    /// The finished `anchorhold-init`.
    pub init: PathBuf,
    /// The finished `anchorhold-agent`.
    pub agent: PathBuf,
    /// The finished `anchorhold-bench-init`.
    pub bench_init: PathBuf,
}

/// The cargo run that builds `anchorhold-init`, `anchorhold-agent` and `anchorhold-bench-init`.
///
/// `workspace` is the checkout, `target` the target folder to use, `cargo_home` cargo's own folder (`$CARGO_HOME`, else `~/.cargo`); all absolute.
///
/// What makes the bytes equal: paths that end up in panic messages are renamed to fixed ones, no build id, the lock file is binding, a profile
/// with one codegen unit and no debug information. What is left is the toolchain and the system's libc.a and libseccomp.a.
pub fn guest_build(workspace: &Path, target: &Path, cargo_home: &Path) -> GuestBuild {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
        remap(cargo_home, "/cargo"),
        remap(workspace, "/anchorhold"),
        // Last, since a target folder is often inside the workspace, and rustc takes the last prefix that fits.
        remap(target, "/target"),
    ];
    let args = [
        "build",
        "--locked",
        "--profile",
        "guest",
        "--target",
        TARGET,
        "-p",
        "ah-init",
        "-p",
        "ah-agent",
    ];
    let env = [
        ("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
        ("CARGO_TARGET_DIR", target.display().to_string()),
        ("CARGO_INCREMENTAL", "0".to_owned()),
        ("SOURCE_DATE_EPOCH", "0".to_owned()),
        ("LIBSECCOMP_LINK_TYPE", "static".to_owned()),
        ("LIBSECCOMP_LIB_PATH", "/usr/lib/x86_64-linux-gnu".to_owned()),
    ];
    let built = target.join(TARGET).join("guest");
    GuestBuild {
        args: args.map(str::to_owned).to_vec(),
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        init: built.join("anchorhold-init"),
        agent: built.join("anchorhold-agent"),
        bench_init: built.join("anchorhold-bench-init"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_folders_of_the_build_differs_between_two_checkouts() {
        let one = guest_build(Path::new("/a"), Path::new("/a/target"), Path::new("/h/.cargo"));
        let two = guest_build(Path::new("/b c"), Path::new("/t"), Path::new("/h/.cargo"));
        assert_eq!(one.args, two.args);
        let flags = |build: &GuestBuild| {
            build.env[0].1.split('\u{1f}').map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(flags(&one)[3], "--remap-path-prefix=/a=/anchorhold");
        assert_eq!(flags(&two)[3], "--remap-path-prefix=/b c=/anchorhold");
        assert_eq!(flags(&one)[..3], flags(&two)[..3]);
        assert_eq!(one.env[2..], two.env[2..]);
    }
}
