//! Images from layouts and archives, and what must not be taken for one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ah_digest::Sha256;
use ah_oci::LayoutError;
use ah_pod::ImageFacts;
use ah_registry::{Images, Places, RegistryError, TemporaryFiles};
use ah_testkit_images::{
    BuiltImage, Entry, ImageSpec, LayerSpec, LayoutBuilder, Packing, TarBuilder, write_archive,
};

const NAME: &str = "localhost/app:1";

fn image() -> ImageSpec {
    let base = [
        Entry::file("etc/passwd", "root:x:0:0::/:\nwww:x:33:34::/:\n"),
        Entry::file("etc/group", "web:x:40:www\n"),
    ];
    ImageSpec {
        entrypoint: vec!["/bin/app".into()],
        env: vec!["A=1".into()],
        user: Some("www".into()),
        working_dir: Some("/srv".into()),
        volumes: vec!["/b".into(), "/a".into()],
        ..ImageSpec::default()
    }
    .with_layer(LayerSpec::of(Packing::Gzip, base))
    .with_layer(LayerSpec::of(Packing::Zstd, [Entry::file("bin/app", "program")]))
}

fn layout(folder: &Path) -> BuiltImage {
    let mut builder = LayoutBuilder::create(folder).unwrap();
    let built = builder.add(NAME, &image()).unwrap();
    builder.finish().unwrap();
    built
}

async fn facts(place: PathBuf, name: &str) -> Result<ImageFacts, RegistryError> {
    let images = Images::open(&Places { layouts: vec![place], ..Places::default() })?;
    let image = images.resolve(name).await?;
    images.facts(&image, Arc::new(TemporaryFiles)).await
}

/// The innermost cause, for errors that pass through several libraries.
fn root_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => root_cause(source),
        None => error.to_string(),
    }
}

fn blob(folder: &Path, digest: &Sha256) -> PathBuf {
    folder.join("blobs/sha256").join(digest.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_and_its_archive_give_the_same_facts() {
    let folder = tempfile::tempdir().unwrap();
    let built = layout(folder.path());
    let found = facts(folder.path().into(), NAME).await.unwrap();
    let digest = built.manifest_digest.to_oci();
    assert_eq!(found.reference, format!("localhost/app@{digest}"));
    assert_eq!((found.user.as_str(), found.working_dir.as_str()), ("www", "/srv"));
    assert_eq!(found.volumes, ["/a", "/b"]);
    assert_eq!(found.accounts.group.as_ref().unwrap()[0].members, ["www"]);
    let diff_ids: Vec<_> = found.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(diff_ids, built.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>());

    let archive = tempfile::NamedTempFile::new().unwrap();
    write_archive(folder.path(), archive.path()).unwrap();
    assert_eq!(facts(archive.path().into(), NAME).await.unwrap(), found);
    let pinned = format!("{NAME}@{digest}");
    assert_eq!(facts(folder.path().into(), &pinned).await.unwrap(), found);
}

#[tokio::test(flavor = "multi_thread")]
async fn containerds_content_store_has_images_by_digest() {
    let folder = tempfile::tempdir().unwrap();
    let built = layout(folder.path());
    let pinned = format!("{NAME}@{}", built.manifest_digest.to_oci());
    let expect = facts(folder.path().into(), &pinned).await.unwrap();
    for file in ["oci-layout", "index.json"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    assert_eq!(facts(folder.path().into(), &pinned).await.unwrap(), expect);
    // by the names that containerd's database has for them
    let names = vec![(NAME.to_owned(), built.manifest_digest)];
    let places = Places { stores: vec![(folder.path().into(), names)], ..Places::default() };
    let images = Images::open(&Places { offline: true, ..places }).unwrap();
    assert_eq!(images.resolve(NAME).await.unwrap().target_digest(), built.manifest_digest);
    assert!(images.resolve("localhost/other:1").await.is_err());
    let path = blob(folder.path(), &built.manifest_digest);
    fs::write(&path, fs::read_to_string(&path).unwrap() + " ").unwrap();
    let error = facts(folder.path().into(), &pinned).await.unwrap_err();
    assert!(root_cause(&error).contains("blob digest differs"), "{}", root_cause(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_manifest_digests_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("saved.tar");
    let tar = TarBuilder::bytes([Entry::file("manifest.json", "[]")]);
    fs::write(&archive, tar).unwrap();
    let error = facts(archive, NAME).await.unwrap_err();
    assert!(matches!(&error, RegistryError::Place { source: LayoutError::DockerSave, .. }));
    assert!(error.hint().unwrap().contains("skopeo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_layer_blob_with_another_digest() {
    let folder = tempfile::tempdir().unwrap();
    let built = layout(folder.path());
    let path = blob(folder.path(), &built.layers[0].digest);
    let mut bytes = fs::read(&path).unwrap();
    // the gzip header's time: the tar stays the same
    bytes[4] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = facts(folder.path().into(), NAME).await.unwrap_err();
    assert!(matches!(error, RegistryError::Layer { .. }), "{error:?}");
    assert!(root_cause(&error).contains("blob digest differs"), "{}", root_cause(&error));
}

/// A manifest whose layers are honest blobs, of which one is not what the config's diff id names.
#[tokio::test(flavor = "multi_thread")]
async fn attack_layer_with_another_diff_id() {
    let folder = tempfile::tempdir().unwrap();
    let built = layout(folder.path());
    let manifest = fs::read_to_string(blob(folder.path(), &built.manifest_digest)).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["layers"].as_array_mut().unwrap().reverse();
    add_document(folder.path(), "localhost/swapped:1", &manifest, "linux", "amd64");
    facts(folder.path().into(), NAME).await.unwrap();
    let error = facts(folder.path().into(), "localhost/swapped:1").await.unwrap_err();
    assert!(root_cause(&error).contains("layer diff id differs"), "{}", root_cause(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_index_pointing_to_another_platform() {
    let folder = tempfile::tempdir().unwrap();
    let built = layout(folder.path());
    let index = |platform: &str| {
        let size = fs::metadata(blob(folder.path(), &built.manifest_digest)).unwrap().len();
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": built.manifest_digest.to_oci(),
                "size": size,
                "platform": {"os": "linux", "architecture": platform},
            }],
        })
    };
    add_document(folder.path(), "localhost/index:1", &index("amd64"), "linux", "amd64");
    add_document(folder.path(), "localhost/arm:1", &index("arm64"), "linux", "arm64");
    let found = facts(folder.path().into(), "localhost/index:1").await.unwrap();
    assert_eq!(found.layers, facts(folder.path().into(), NAME).await.unwrap().layers);
    let error = facts(folder.path().into(), "localhost/arm:1").await.unwrap_err();
    assert!(root_cause(&error).contains("no manifest for linux/amd64"), "{}", root_cause(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_config_with_paths_that_lead_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = LayoutBuilder::create(folder.path()).unwrap();
    let with = |volume: &str, dir: &str| ImageSpec {
        volumes: vec![volume.into()],
        working_dir: Some(dir.into()),
        ..image()
    };
    builder.add("localhost/fine:1", &with("/data", "/srv")).unwrap();
    builder.add("localhost/volume:1", &with("/a/../etc", "/srv")).unwrap();
    builder.add("localhost/root:1", &with("/", "/srv")).unwrap();
    builder.add("localhost/dir:1", &with("/data", "srv")).unwrap();
    builder.finish().unwrap();
    facts(folder.path().into(), "localhost/fine:1").await.unwrap();
    for (name, expect) in [("volume", "Volumes"), ("root", "Volumes"), ("dir", "WorkingDir")] {
        let error = facts(folder.path().into(), &format!("localhost/{name}:1")).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Config { field, .. } if field == expect),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_no_layout_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = facts(folder.path().into(), NAME).await.unwrap_err();
    assert!(matches!(error, RegistryError::Place { .. }), "{error:?}");
}

/// Adds a document to the layout under a name.
fn add_document(
    folder: &Path,
    name: &str,
    document: &serde_json::Value,
    os: &str,
    architecture: &str,
) {
    let text = document.to_string();
    let digest = Sha256::of(&text);
    fs::write(blob(folder, &digest), &text).unwrap();
    let path = folder.join("index.json");
    let mut index: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().push(serde_json::json!({
        "mediaType": document["mediaType"],
        "digest": digest.to_oci(),
        "size": text.len(),
        "platform": {"os": os, "architecture": architecture},
        "annotations": {"org.opencontainers.image.ref.name": name},
    }));
    fs::write(&path, index.to_string()).unwrap();
}
