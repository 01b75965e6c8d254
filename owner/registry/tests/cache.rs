//! The cache of facts: filled once, shared by processes, the same answers as whole images give.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ah_pod::ImageFacts;
use ah_registry::{FactsCache, Images, LayerConverter, Places, TemporaryFiles};
use ah_testkit_images::{Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, random_bytes};

/// Images whose account files are found in different ways.
fn layout(folder: &Path) -> Vec<String> {
    let mut builder = LayoutBuilder::create(folder).unwrap();
    let base =
        || [Entry::file("etc/passwd", "low:x:1:2::/:\n"), Entry::file("etc/group", "g:x:3:low\n")];
    let whiteout = || [Entry::file("etc/.wh.passwd", "")];
    let link = || [Entry::symlink("etc/passwd", "/nix/p"), Entry::file("nix/p", "nix:x:4:5::/:\n")];
    let hard = || [Entry::file("p", "hard:x:6:7::/:\n"), Entry::hard_link("etc/passwd", "p")];
    let bulk = || [Entry::file("bulk", random_bytes(1, 3_000_000))];
    let layers = |layers: Vec<Vec<Entry>>| {
        let packings = [Packing::Zstd, Packing::Gzip, Packing::Plain];
        layers.into_iter().zip(packings).fold(ImageSpec::default(), |image, (entries, packing)| {
            image.with_layer(LayerSpec::of(packing, entries))
        })
    };
    let images = [
        ("plain", layers(vec![base().into(), bulk().into()])),
        ("whiteout", layers(vec![base().into(), whiteout().into()])),
        ("link", layers(vec![base().into(), link().into()])),
        ("hard", layers(vec![hard().into()])),
        ("none", layers(vec![bulk().into()])),
    ];
    for (name, image) in &images {
        builder.add(&format!("localhost/{name}:1"), image).unwrap();
    }
    builder.finish().unwrap();
    images.iter().map(|(name, _)| format!("localhost/{name}:1")).collect()
}

fn read(layout: &Path, names: &[String], converter: Arc<dyn LayerConverter>) -> Vec<ImageFacts> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let places = Places { layouts: vec![layout.into()], ..Places::default() };
        let images = Images::open(&places).unwrap();
        let resolved = images.resolve_all(names).await.unwrap();
        images.facts_all(&resolved, converter).await.unwrap()
    })
}

fn cached(cache: &Path) -> Arc<dyn LayerConverter> {
    Arc::new(FactsCache::open(cache).unwrap())
}

#[test]
fn the_cache_says_what_whole_images_say() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = layout(folder.path());
    let whole = read(folder.path(), &names, Arc::new(TemporaryFiles));
    let users: Vec<_> = whole
        .iter()
        .map(|facts| facts.accounts.passwd.as_ref().map(|list| list[0].name.as_str()))
        .collect();
    assert_eq!(users, [Some("low"), None, Some("nix"), Some("hard"), None]);
    assert_eq!(read(folder.path(), &names, cached(cache.path())), whole);
    assert_eq!(read(folder.path(), &names, cached(cache.path())), whole);
}

#[test]
fn a_known_layer_is_not_read_again() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = &layout(folder.path())[..2];
    let first = read(folder.path(), names, cached(cache.path()));
    for entry in fs::read_dir(folder.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        // documents stay, layers go
        if !fs::read(&path).unwrap().starts_with(b"{") {
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(read(folder.path(), names, cached(cache.path())), first);
}

/// Names the folders in the process that this test starts of itself.
const CHILD: &str = "AH_REGISTRY_TEST_FOLDERS";

#[test]
fn processes_share_a_cache() {
    if let Some(folders) = std::env::var_os(CHILD) {
        let folders: Vec<_> = std::env::split_paths(&folders).collect();
        let places = Places { layouts: vec![folders[0].clone()], ..Places::default() };
        let mut names = Images::open(&places).unwrap().names();
        names.dedup();
        let facts = read(&folders[0], &names, cached(&folders[1]));
        println!("facts {}", serde_json::to_string(&facts).unwrap());
        return;
    }
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    layout(folder.path());
    let folders = std::env::join_paths([folder.path(), cache.path()]).unwrap();
    let start = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["processes_share_a_cache", "--exact", "--nocapture"])
            .env(CHILD, &folders)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..3).map(|_| start()).collect();
    let said = children.into_iter().map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_once("facts ").unwrap().1.lines().next().unwrap().to_owned()
    });
    let said: Vec<String> = said.collect();
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]));
}
