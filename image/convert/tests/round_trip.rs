//! Any layer made of ordinary entries reads back as another tar reader lists it; damaged images never panic the reader.

use std::collections::BTreeMap;

use ah_convert::convert_layer;
use ah_digest::Sha256;
use ah_erofs::Image;
use ah_oci::LayerMediaType;
use ah_testkit_images::{Entry, TarBuilder, listing, random_bytes};
use proptest::prelude::*;

fn image_of(tar: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let file = std::fs::File::create(&path).unwrap();
    convert_layer(tar, LayerMediaType::Tar, &Sha256::of(tar), &file).unwrap();
    std::fs::read(path).unwrap()
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![0..5000usize, Just(4096), Just(8192), Just(2048), Just(2049), 0..40_000usize]
}

fn xattrs() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let value = prop::collection::vec(any::<u8>(), 0..1500);
    prop::collection::btree_map("(user|trusted|security)\\.[a-z]{1,20}", value, 0..4)
}

/// Directories have names in capitals and everything else has not, so that no file is another's parent.
fn entry() -> impl Strategy<Value = Entry> {
    let folder = prop::collection::vec("[A-C]{1,2}/", 0..3).prop_map(|parts| parts.concat());
    let name = prop_oneof!["[a-d]", "[a-z0-9 ._-]{1,120}x", "[a-z]{200,255}"];
    let kind = (0..6u8, sizes(), any::<u64>(), any::<u16>());
    let numbers = (0..=0o7777u32, 0..u32::MAX, 0..u32::MAX, -(1i64 << 40)..1 << 40);
    (folder, name, kind, numbers, xattrs()).prop_map(|(folder, name, kind, numbers, xattrs)| {
        let path = format!("{folder}{name}");
        let (kind, size, seed, device) = kind;
        let (major, minor) = (u32::from(device) % 4095 + 1, u32::from(device) * 7);
        let entry = match kind {
            0 => Entry::dir(if folder.is_empty() { "./".into() } else { folder }),
            1 => Entry::symlink(path, "t".repeat(size % 4095 + 1)),
            2 => Entry::char_device(path, major, minor),
            3 => Entry::fifo(path),
            _ => Entry::file(path, random_bytes(seed, size)),
        };
        let (mode, uid, gid, mtime) = numbers;
        let entry = entry.mode(mode).owner(uid.into(), gid.into()).mtime(mtime);
        xattrs.iter().fold(entry, |entry, (name, value)| entry.xattr(name, value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn layers_round_trip(entries in prop::collection::vec(entry(), 0..60)) {
        let tar = TarBuilder::bytes(entries);
        let image = image_of(&tar);
        let expected = listing::text(&listing::from_tar(&tar).unwrap());
        let found = listing::text(&listing::from_image(image).unwrap());
        let differing = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
        let fields = differing.map(|(a, b)| a.split('\t').zip(b.split('\t')).find(|(a, b)| a != b));
        prop_assert_eq!(fields, None);
        prop_assert_eq!(expected.len(), found.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn attack_damaged_images_never_panic_the_reader(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut image = SMALL.with(Clone::clone);
        for (at, byte) in changes {
            let at = at.index(image.len());
            image[at] = byte;
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        let _ = listing::from_image(image);
    }
}

thread_local! {
    static SMALL: Vec<u8> = image_of(&TarBuilder::bytes([
        Entry::dir("d/").xattr("user.a", "value"),
        Entry::file("d/inline", "text"),
        Entry::file("d/blocks", random_bytes(3, 9000)),
        Entry::symlink("d/link", "inline"),
        Entry::hard_link("d/second", "d/inline"),
        Entry::char_device("d/null", 1, 3),
        Entry::file("d/e/f", ""),
    ]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Headers get their checksums again, so that what lies behind them is reached.
    #[test]
    fn attack_damaged_layers_are_refused_or_become_whole_images(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..512usize, any::<u8>()), 1..4),
    ) {
        let mut tar = AWKWARD.with(Clone::clone);
        for (block, at, byte) in changes {
            let blocks = tar.as_chunks_mut::<512>().0;
            let count = blocks.len();
            let block = &mut blocks[block.index(count)];
            block[at] = byte;
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let file = std::fs::File::create(&path).unwrap();
        let diff_id = Sha256::of(&tar);
        if convert_layer(&*tar, LayerMediaType::Tar, &diff_id, &file).is_ok() {
            let image = Image::open(std::fs::File::open(&path).unwrap()).unwrap();
            image.walk().unwrap();
        }
    }
}

thread_local! {
    /// Without its seven hundred empty files at the end.
    static AWKWARD: Vec<u8> = {
        let mut tar = ah_testkit_images::awkward_layer();
        let many = tar.windows(5).position(|name| name == b"many/").unwrap();
        tar.truncate(many);
        tar
    };
}
