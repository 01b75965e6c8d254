//! Layout folders and archives: what is accepted, and the smallest change that is refused.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use ah_oci::{Layout, LayoutError, Platform, ResolvedImage};
use ah_testkit_images::{
    BuiltImage, Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, write_archive,
};

const NAME: &str = "localhost/app:1";

fn spec(text: &str) -> ImageSpec {
    let layer = |packing| LayerSpec::of(packing, [Entry::file("a", text)]);
    ImageSpec {
        layers: vec![layer(Packing::Plain), layer(Packing::Gzip), layer(Packing::Zstd)],
        entrypoint: vec!["/a".into()],
        ..ImageSpec::default()
    }
}

fn build(folder: &Path) -> BuiltImage {
    let mut layout = LayoutBuilder::create(folder).unwrap();
    let built = layout.add(NAME, &spec("one")).unwrap();
    layout.add("busybox", &spec("two")).unwrap();
    layout.finish().unwrap();
    built
}

fn resolve(layout: &Layout, name: &str) -> Result<ResolvedImage, LayoutError> {
    layout.resolve(name, Platform::LinuxAmd64)
}

fn check_image(layout: &Layout, built: &BuiltImage) {
    let image = resolve(layout, NAME).unwrap();
    assert_eq!(image.manifest_digest, built.manifest_digest);
    assert_eq!(image.config_digest, built.config_digest);
    let entrypoint = image.config.config().as_ref().unwrap().entrypoint().clone();
    assert_eq!(entrypoint, Some(vec!["/a".to_owned()]));
    for (layer, built) in image.layers.iter().zip(&built.layers) {
        assert_eq!(layer.diff_id, built.diff_id);
        let blob = layout.open_blob(layer.digest, layer.size_bytes).unwrap();
        let mut tar = Vec::new();
        layer.media_type.decompress(blob).unwrap().read_to_end(&mut tar).unwrap();
        assert_eq!(ah_digest::Sha256::of(&tar), layer.diff_id);
    }
}

#[test]
fn folders_and_archives_give_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&folder.path().join("layout"));
    check_image(&Layout::open_dir(folder.path().join("layout")).unwrap(), &built);
    let archive = folder.path().join("image.tar");
    write_archive(&folder.path().join("layout"), &archive).unwrap();
    check_image(&Layout::open_archive(&archive).unwrap(), &built);
    let packed = folder.path().join("image.tar.gz");
    let mut encoder = flate2::write::GzEncoder::new(
        fs::File::create(&packed).unwrap(),
        flate2::Compression::fast(),
    );
    encoder.write_all(&fs::read(&archive).unwrap()).unwrap();
    encoder.finish().unwrap();
    check_image(&Layout::open_archive(&packed).unwrap(), &built);
}

#[test]
fn names_are_found_in_their_short_and_full_form() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(folder.path());
    let layout = Layout::open_dir(folder.path()).unwrap();
    assert!(resolve(&layout, "docker.io/library/busybox:latest").is_ok());
    assert!(resolve(&layout, "busybox").is_ok());
    let pinned = |name: &str, digest: &str| resolve(&layout, &format!("{name}@{digest}"));
    assert!(pinned(NAME, &built.manifest_digest.to_oci()).is_ok());
    let other = pinned("busybox", &built.manifest_digest.to_oci());
    assert!(matches!(other, Err(LayoutError::NotFound { .. })));
    assert!(matches!(resolve(&layout, "busybox:2"), Err(LayoutError::NotFound { .. })));
}

#[test]
fn two_images_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut layout = LayoutBuilder::create(folder.path()).unwrap();
    layout.add(NAME, &spec("one")).unwrap();
    layout.add(NAME, &spec("two")).unwrap();
    layout.finish().unwrap();
    let layout = Layout::open_dir(folder.path()).unwrap();
    assert!(matches!(resolve(&layout, NAME), Err(LayoutError::Ambiguous { .. })));
}

#[test]
fn attack_changed_documents_are_refused() {
    for what in ["manifest", "config"] {
        let folder = tempfile::tempdir().unwrap();
        let built = build(folder.path());
        let digest = if what == "config" { built.config_digest } else { built.manifest_digest };
        let path = folder.path().join("blobs/sha256").join(digest.to_string());
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() = b' ';
        fs::write(&path, bytes).unwrap();
        let layout = Layout::open_dir(folder.path()).unwrap();
        assert!(matches!(resolve(&layout, NAME), Err(LayoutError::File { .. })), "{what}");
    }
}

#[test]
fn attack_changed_layer_blob_fails_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(folder.path());
    let layer = &built.layers[0];
    let path = folder.path().join("blobs/sha256").join(layer.digest.to_string());
    let mut bytes = fs::read(&path).unwrap();
    bytes[600] ^= 1;
    fs::write(&path, bytes).unwrap();
    let layout = Layout::open_dir(folder.path()).unwrap();
    let mut blob = layout.open_blob(layer.digest, layer.size_bytes).unwrap();
    let error = blob.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}
