//! Converted layers against the reference tools: the kernel's EROFS, fsck.erofs, veritysetup, and another tar reader.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ah_convert::{Converted, convert_layer};
use ah_digest::Sha256;
use ah_oci::LayerMediaType;
use ah_testkit_images::{awkward_layer, awkward_upper_layer, busybox, listing, random_layer};

fn convert(tar: &[u8], image: &Path) -> Converted {
    let out = File::create(image).unwrap();
    convert_layer(tar, LayerMediaType::Tar, &Sha256::of(tar), &out).unwrap()
}

fn run(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{program} {args:?}: {text}");
            Some(text)
        }
        Err(error) => {
            println!("skipped: {program} does not start: {error}");
            None
        }
    }
}

/// An image cut off its hash tree, as the tools expect a file system of their own.
fn check_tools(name: &str, tar: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join(format!("{name}.image"));
    let converted = convert(tar, &image);
    let path = image.to_str().unwrap();
    run("fsck.erofs", &["--extract", path]);
    let offset = format!("--hash-offset={}", converted.info.hash_offset_bytes());
    let root = converted.info.root_hash.to_string();
    run("/usr/sbin/veritysetup", &["verify", path, path, &root, &offset]);
    let expected = listing::text(&listing::from_tar(tar).unwrap());
    let found = listing::text(&listing::from_image(File::open(&image).unwrap()).unwrap());
    assert_same(&expected, &found, "reader");
    check_mount(&image, folder.path(), &expected);
}

fn check_mount(image: &Path, folder: &Path, expected: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::image(image, folder.join("mounted")).unwrap();
    let found = listing::from_dir(&mounted.0);
    drop(mounted);
    assert_same(expected, &listing::text(&found.unwrap()), "kernel");
}

/// Whether this machine can mount what the reference tool makes: then an image of ours that it cannot mount is wrong.
fn can_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (image, empty) = (folder.path().join("image"), folder.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    if run("mkfs.erofs", &[image.to_str().unwrap(), empty.to_str().unwrap()]).is_none() {
        return false;
    }
    is_able("an EROFS image", Mounted::image(&image, folder.path().join("mounted")))
}

/// The same of overlayfs, asked of ordinary folders.
fn can_stack() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let layers = ["upper", "lower"].map(|name| folder.path().join(name));
    layers.iter().for_each(|layer| std::fs::create_dir(layer).unwrap());
    let [upper, lower] = &layers;
    is_able("overlayfs", Mounted::overlay(upper, lower, folder.path().join("merged")))
}

fn is_able(what: &str, mounted: Result<Mounted, String>) -> bool {
    match mounted {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: this machine cannot mount {what}: {error}");
            false
        }
    }
}

/// A mount point; unmounted when dropped, also by a failed assertion.
struct Mounted(PathBuf);

impl Mounted {
    fn image(image: &Path, at: PathBuf) -> Result<Self, String> {
        Self::new(&["-t", "erofs", "-o", "ro,loop"], image, at)
    }

    fn overlay(upper: &Path, lower: &Path, at: PathBuf) -> Result<Self, String> {
        let layers = format!("ro,lowerdir={}:{}", upper.display(), lower.display());
        Self::new(&["-t", "overlay", "-o", &layers], Path::new("overlay"), at)
    }

    fn new(options: &[&str], what: &Path, at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir(&at).unwrap();
        let output = Command::new("mount").args(options).arg(what).arg(&at).output();
        let output = output.map_err(|error| format!("mount does not start: {error}"))?;
        match output.status.success() {
            true => Ok(Self(at)),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).output());
    }
}

fn assert_same(expected: &str, found: &str, by: &str) {
    if let Some((expected, found)) = expected.lines().zip(found.lines()).find(|(a, b)| a != b) {
        panic!("{by} differs:\nexpected {expected}\nfound    {found}");
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{by}");
}

/// Lower and upper layer under the kernel's overlayfs, as the guest stacks them.
#[test]
fn whiteouts_and_opaque_directories_are_what_overlayfs_reads() {
    if !can_mount() || !can_stack() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let layer = |name: &str, tar: &[u8]| {
        let image = at(&format!("{name}.image"));
        convert(tar, &image);
        Mounted::image(&image, at(name)).unwrap()
    };
    let lower = layer("lower", &awkward_layer());
    let upper = layer("upper", &awkward_upper_layer());
    // declared last, so that it is unmounted first
    let merged = Mounted::overlay(&upper.0, &lower.0, at("merged")).unwrap();
    assert!(merged.0.join("many").is_file());
    for (path, expected) in [
        ("etc/hosts", false),
        ("etc/passwd", true),
        ("etc/added-too", true),
        ("sizes/only", true),
        ("sizes/4096", false),
        ("links/new", true),
        ("links/file", false),
        ("third-name", true),
        ("dev/console", false),
        ("dev/disk", true),
        ("attr/ping", true),
    ] {
        assert_eq!(merged.0.join(path).symlink_metadata().is_ok(), expected, "{path}");
    }
}

#[test]
fn awkward_layers_are_what_the_tar_says() {
    check_tools("awkward", &awkward_layer());
    check_tools("upper", &awkward_upper_layer());
}

#[test]
fn busybox_layer_is_what_the_tar_says() {
    match busybox() {
        Ok(image) => check_tools("busybox", &image.layers[0].tar),
        Err(error) => println!("skipped: no busybox: {error}"),
    }
}

#[test]
fn empty_layers_have_a_root() {
    check_tools("nothing", b"");
    check_tools("end-mark", &[0; 1024]);
}

#[test]
fn a_layer_of_many_files_is_what_the_tar_says() {
    let mut tar = Vec::new();
    random_layer(&mut tar, 20 << 20).unwrap();
    check_tools("many", &tar);
}
