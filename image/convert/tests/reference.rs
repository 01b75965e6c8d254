//! Converted layers against the reference tools: the kernel's EROFS, fsck.erofs, veritysetup, and another tar reader.

use std::fs::File;
use std::path::Path;
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
    let mount_point = folder.join("mounted");
    std::fs::create_dir(&mount_point).unwrap();
    if !mount(&["-t", "erofs", "-o", "ro,loop"], image, &mount_point) {
        println!("skipped: this machine cannot mount an EROFS image");
        return;
    }
    let found = listing::from_dir(&mount_point);
    run("umount", &[mount_point.to_str().unwrap()]);
    assert_same(expected, &listing::text(&found.unwrap()), "kernel");
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
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut mounted = Vec::new();
    for (name, tar) in [("lower", awkward_layer()), ("upper", awkward_upper_layer())] {
        convert(&tar, &at(&format!("{name}.image")));
        std::fs::create_dir(at(name)).unwrap();
        if mount(&["-t", "erofs", "-o", "ro,loop"], &at(&format!("{name}.image")), &at(name)) {
            mounted.push(at(name));
        }
    }
    std::fs::create_dir(at("merged")).unwrap();
    let layers = format!("ro,lowerdir={}:{}", at("upper").display(), at("lower").display());
    let options = ["-t", "overlay", "-o", &layers];
    let merged = mounted.len() == 2 && mount(&options, Path::new("overlay"), &at("merged"));
    let exists = |path: &str| at("merged").join(path).symlink_metadata().is_ok();
    let found = [
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
    ]
    .map(|(path, expected)| (path, expected, exists(path)));
    let many_is_file = at("merged").join("many").is_file();
    mounted.push(at("merged"));
    mounted.iter().rev().for_each(|at| drop(Command::new("umount").arg(at).output()));
    if !merged {
        println!("skipped: this machine cannot mount EROFS and overlayfs");
        return;
    }
    assert!(many_is_file);
    for (path, expected, found) in found {
        assert_eq!(found, expected, "{path}");
    }
}

fn mount(options: &[&str], what: &Path, at: &Path) -> bool {
    let status =
        Command::new("mount").args(options).arg(what).arg(at).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
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
