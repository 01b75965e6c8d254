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
    let (image, at) = (image.to_str().unwrap(), mount_point.to_str().unwrap());
    let mounted = Command::new("mount")
        .args(["-t", "erofs", "-o", "ro,loop", image, at])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: this machine cannot mount an EROFS image");
        return;
    }
    let found = listing::from_dir(&mount_point);
    run("umount", &[at]);
    assert_same(expected, &listing::text(&found.unwrap()), "kernel");
}

fn assert_same(expected: &str, found: &str, by: &str) {
    if let Some((expected, found)) = expected.lines().zip(found.lines()).find(|(a, b)| a != b) {
        panic!("{by} differs:\nexpected {expected}\nfound    {found}");
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{by}");
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
