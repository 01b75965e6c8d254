//! The same inputs give the same layout, and other tools than this project's read it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ah_testkit_images::{
    Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, awkward_layer, busybox, listing, program,
    write_archive,
};

fn build(folder: &Path) {
    let mut layout = LayoutBuilder::create(folder.join("layout")).unwrap();
    let spec = ImageSpec::default()
        .with_layer(LayerSpec { tar: awkward_layer(), packing: Packing::Zstd })
        .with_layer(LayerSpec::of(Packing::Gzip, [Entry::file("a", "x")]));
    layout.add("localhost/awkward:1", &spec).unwrap();
    match busybox() {
        Ok(spec) => drop(layout.add("busybox:latest", &spec).unwrap()),
        Err(error) => println!("skipped: no busybox: {error}"),
    }
    let own = std::env::current_exe().unwrap();
    layout.add("localhost/own", &program(&own, "/usr/local/bin/own").unwrap()).unwrap();
    let layout = layout.finish().unwrap();
    write_archive(&layout, &folder.join("image.tar")).unwrap();
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    walk(folder)
        .into_iter()
        .map(|path| (name(folder, &path), std::fs::read(path).unwrap()))
        .collect()
}

fn name(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap().to_string_lossy().into_owned()
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn two_builds_are_equal() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(one.path());
    build(two.path());
    assert!(files(one.path()) == files(two.path()));
}

/// What GNU tar unpacks is what the listing of the tar says, for entries that need no root.
#[test]
fn gnu_tar_reads_the_tars() {
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("layer.tar");
    let entries = [
        Entry::dir("./").mode(0o750),
        Entry::dir("d/").mode(0o700),
        Entry::file("d/file", "text").mode(0o640),
        Entry::file(format!("d/{}", "long".repeat(60)), vec![1; 5000]),
        Entry::hard_link("d/second", "d/file"),
        Entry::symlink("d/link", "file"),
    ];
    let spec = LayerSpec::of(Packing::Plain, entries);
    std::fs::write(&tar, &spec.tar).unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let status = Command::new("tar")
        .args(["--no-same-owner", "-pxf"])
        .arg(&tar)
        .arg("-C")
        .arg(&out)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: no GNU tar");
        return;
    }
    let mut expected = listing::from_tar(&spec.tar).unwrap();
    let mut found = listing::from_dir(&out).unwrap();
    for line in expected.values_mut().chain(found.values_mut()) {
        // Whoever runs the test owns the files, and not every file system counts directories' links.
        (line.uid, line.gid) = (0, 0);
        if line.kind == 'd' {
            line.links = 0;
        }
    }
    assert_eq!(listing::text(&expected), listing::text(&found));
}
