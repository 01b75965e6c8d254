//! The store: one conversion for each layer, also with several users, and nothing half made is ever used.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use ah_digest::Sha256;
use ah_layers::{CheckError, LayerImage, LayerStore, LayersError};
use ah_oci::LayerMediaType;
use ah_testkit_images::{Entry, TarBuilder, random_bytes};

fn tar() -> Vec<u8> {
    let file = |i: usize| Entry::file(format!("file{i}"), random_bytes(i as u64, 100_000));
    TarBuilder::bytes((0..20).map(file))
}

fn make(store: &LayerStore, tar: &[u8]) -> Result<LayerImage, LayersError> {
    let blob = tar.to_vec();
    store.image_for(&Sha256::of(tar), LayerMediaType::Tar, || {
        Ok(Box::new(io::Cursor::new(blob)) as Box<dyn Read + Send>)
    })
}

fn cached(store: &LayerStore, tar: &[u8]) -> Result<LayerImage, LayersError> {
    store.image_for(&Sha256::of(tar), LayerMediaType::Tar, || Err(io::ErrorKind::NotFound.into()))
}

/// Writes over a stored image, as only somebody with rights on the folder can.
fn overwrite(image: &LayerImage, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&image.path).unwrap();
    change(&mut bytes);
    fs::remove_file(&image.path).unwrap();
    fs::write(&image.path, bytes).unwrap();
}

#[test]
fn a_layer_is_converted_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let tar = tar();
    assert!(matches!(cached(&store, &tar), Err(LayersError::Open { .. })));
    let image = make(&store, &tar).unwrap();
    assert_eq!(cached(&store, &tar).unwrap(), image);
    assert_eq!(fs::metadata(&image.path).unwrap().permissions().mode() & 0o777, 0o444);
    image.check().unwrap();
    let other = LayerStore::open(folder.path()).unwrap();
    assert_eq!(cached(&other, &tar).unwrap(), image);
}

#[test]
fn many_users_make_one_conversion() {
    let folder = tempfile::tempdir().unwrap();
    let tar = tar();
    let opened = AtomicUsize::new(0);
    let images: Vec<LayerImage> = std::thread::scope(|scope| {
        let user = || {
            let store = LayerStore::open(folder.path()).unwrap();
            let blob = tar.clone();
            let open = || {
                opened.fetch_add(1, Ordering::Relaxed);
                Ok(Box::new(io::Cursor::new(blob)) as Box<dyn Read + Send>)
            };
            store.image_for(&Sha256::of(&tar), LayerMediaType::Tar, open).unwrap()
        };
        let users: Vec<_> = (0..8).map(|_| scope.spawn(user)).collect();
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_refused_layer_leaves_nothing_but_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let tar = tar();
    let refused = store.image_for(&Sha256::of("another"), LayerMediaType::Tar, || {
        Ok(Box::new(io::Cursor::new(tar)) as Box<dyn Read + Send>)
    });
    assert!(matches!(refused, Err(LayersError::Convert { .. })));
    let version = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let left: Vec<_> = fs::read_dir(version).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|e| e == "lock")), "{left:?}");
}

#[test]
fn cut_and_mixed_up_images_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let tar = tar();
    let image = make(&store, &tar).unwrap();
    let good = fs::read(&image.path).unwrap();
    let changes: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.truncate(8192), |bytes| bytes[1030] ^= 1, |bytes| bytes.push(0)];
    for change in changes {
        overwrite(&image, change);
        assert!(cached(&store, &tar).is_err());
        assert_eq!(make(&store, &tar).unwrap(), image);
        assert_eq!(fs::read(&image.path).unwrap(), good);
    }
}

#[test]
fn a_record_of_another_layer_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let (one, two) = (tar(), TarBuilder::bytes([Entry::dir("x/")]));
    let (image, other) = (make(&store, &one).unwrap(), make(&store, &two).unwrap());
    fs::remove_file(&image.path).unwrap();
    fs::copy(&other.path, &image.path).unwrap();
    fs::remove_file(image.path.with_extension("json")).unwrap();
    fs::copy(other.path.with_extension("json"), image.path.with_extension("json")).unwrap();
    assert!(cached(&store, &one).is_err());
    assert_eq!(make(&store, &one).unwrap(), image);
}

#[test]
fn attack_layer_byte_flipped_on_disk_is_found_by_the_full_check() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let image = make(&store, &tar()).unwrap();
    image.check().unwrap();
    overwrite(&image, |bytes| bytes[500_000] ^= 1);
    assert!(matches!(image.check(), Err(CheckError::RootHash { .. })));
}

#[test]
fn attack_verity_hash_tree_altered_on_disk_is_found_by_the_full_check() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let image = make(&store, &tar()).unwrap();
    let tree = usize::try_from(image.info.hash_start_block()).unwrap() * 4096;
    overwrite(&image, |bytes| bytes[tree + 2 * 4096 + 40] ^= 1);
    assert!(matches!(image.check(), Err(CheckError::Tree | CheckError::Block { .. })));
}

/// Names the folder in the process that this test starts of itself.
const CHILD: &str = "AH_LAYERS_TEST_FOLDER";

#[test]
fn two_processes_share_a_folder() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let image = make(&LayerStore::open(folder).unwrap(), &tar()).unwrap();
        image.check().unwrap();
        println!("root hash {}", image.info.root_hash);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["two_processes_share_a_folder", "--exact", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let hash = make(&LayerStore::open(folder.path()).unwrap(), &tar()).unwrap().info.root_hash;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("root hash {hash}")), "{text}");
    }
}

#[test]
fn only_what_is_kept_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = LayerStore::open(folder.path()).unwrap();
    let (kept, other) = (tar(), TarBuilder::bytes([Entry::file("a", "b")]));
    let image = make(&store, &kept).unwrap();
    make(&store, &other).unwrap();
    let versions = image.path.parent().unwrap().to_owned();
    fs::write(versions.join(".tmp123"), "half").unwrap();
    fs::create_dir(folder.path().join("v0")).unwrap();
    fs::write(folder.path().join("v0/old.image"), "old").unwrap();
    fs::write(folder.path().join("theirs"), "not ours").unwrap();

    store.retain(|diff_id| *diff_id == Sha256::of(&kept)).unwrap();
    assert_eq!(store.cached(&Sha256::of(&kept)).unwrap(), image);
    assert!(store.cached(&Sha256::of(&other)).is_none());
    let names = |folder: &std::path::Path| {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names(&versions).len(), 3, "image, record and lock: {:?}", names(&versions));
    let version = versions.file_name().unwrap().to_str().unwrap();
    assert_eq!(names(folder.path()), ["theirs".to_owned(), version.to_owned()].into());
}
