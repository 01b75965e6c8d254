//! What the writer makes of single cases, and what it refuses.

use std::collections::BTreeMap;

use ah_erofs::{
    FileKind, FileShape, Image, ImageWriter, Kind, Meta, Node, ReadError, Tree, WriteError,
};

type Writer = ImageWriter<Vec<u8>>;

fn node(kind: Kind) -> Node {
    Node { meta: Meta { mode: 0o755, ..Meta::default() }, kind }
}

fn directory(entries: &[(&str, usize)]) -> Node {
    let entries = entries.iter().map(|(name, id)| (name.as_bytes().into(), *id)).collect();
    node(Kind::Directory(entries))
}

fn image(nodes: Vec<Node>) -> Result<Image<Vec<u8>>, WriteError> {
    let (bytes, summary) = Writer::new(Vec::new()).finish(&Tree { nodes })?;
    assert_eq!(bytes.len() as u64, summary.blocks * 4096);
    Ok(Image::open(bytes).unwrap())
}

fn refused(nodes: Vec<Node>, expect: fn(&WriteError) -> bool) {
    let error = image(nodes).map(drop).unwrap_err();
    assert!(expect(&error), "{error:?}");
}

/// One sparse file with data at these offsets.
fn sparse(size: u64, data: &[(u64, &[u8])]) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer::new(Vec::new());
    writer.begin_file(FileShape { size, sparse: true, xattr_bytes: 0 })?;
    for (offset, bytes) in data {
        writer.write_file(*offset, bytes)?;
    }
    let file = node(Kind::File(writer.end_file()?));
    Ok(writer.finish(&Tree { nodes: vec![directory(&[("s", 1)]), file] })?.0)
}

#[test]
fn sparse_files_keep_their_holes() {
    let bytes = sparse(100 << 20, &[(5, b"a"), (6, b"b"), (50 << 20, &[7; 70_000])]).unwrap();
    // 100 MiB in chunks of 32 KiB: one for the start, three for 70,000 bytes; and the metadata.
    assert_eq!(bytes.len(), (1 + 8 + 3 * 8 + 5) * 4096);
    let image = Image::open(bytes).unwrap();
    let inode = image.lookup(b"s").unwrap().unwrap();
    let data = image.read_file(&inode, 1 << 30).unwrap();
    assert_eq!(&data[..8], b"\0\0\0\0\0ab\0");
    let filled: Vec<usize> = (0..data.len()).filter(|at| data[*at] == 7).collect();
    assert_eq!((filled.len(), filled[0]), (70_000, 50 << 20));
    let too_large = image.read_file(&inode, 1 << 20);
    assert!(matches!(too_large, Err(ReadError::TooLarge { .. })));
}

#[test]
fn file_data_comes_in_order_and_in_full() {
    fn misfit(result: Result<Vec<u8>, WriteError>) -> bool {
        matches!(result, Err(WriteError::FileData { .. }))
    }
    assert!(sparse(10, &[(5, b"a"), (6, b"b")]).is_ok());
    assert!(misfit(sparse(10, &[(5, b"a"), (5, b"b")])));
    assert!(misfit(sparse(10, &[(9, b"ab")])));
    assert!(matches!(sparse((1 << 40) + 1, &[]), Err(WriteError::FileTooLong { .. })));
    let dense = |data: &[u8]| {
        let mut writer = Writer::new(Vec::new());
        writer.begin_file(FileShape { size: 3, sparse: false, xattr_bytes: 0 })?;
        writer.write_file(0, data)?;
        writer.end_file().map(|_| Vec::new())
    };
    assert!(dense(b"abc").is_ok());
    assert!(misfit(dense(b"ab")));
    assert!(misfit(dense(b"abcd")));
}

#[test]
fn chunk_maps_have_a_budget() {
    let mut writer = Writer::new(Vec::new());
    let mut one = || {
        writer.begin_file(FileShape { size: 1 << 30, sparse: true, xattr_bytes: 0 })?;
        writer.end_file().map(drop)
    };
    assert!((0..2048).all(|_| one().is_ok()));
    assert!(matches!(one(), Err(WriteError::TooManyChunks)));
}

#[test]
fn names_and_targets_are_what_linux_takes() {
    let named = |name: &str| vec![directory(&[(name, 1)]), node(Kind::Fifo)];
    assert!(image(named(&"n".repeat(255))).is_ok());
    for bad in ["", ".", "..", "a/b", "a\0", &"n".repeat(256)] {
        refused(named(bad), |error| matches!(error, WriteError::Name { .. }));
    }
    let link =
        |target: &str| vec![directory(&[("l", 1)]), node(Kind::Symlink(target.as_bytes().into()))];
    assert!(image(link(&"t".repeat(4095))).is_ok());
    for bad in ["", &"t".repeat(4096), "a\0b"] {
        refused(link(bad), |error| matches!(error, WriteError::Symlink { .. }));
    }
    let device =
        |major, minor| vec![directory(&[("d", 1)]), node(Kind::CharDevice { major, minor })];
    assert!(image(device(4095, 1_048_575)).is_ok());
    refused(device(4096, 0), |error| matches!(error, WriteError::Device { .. }));
}

#[test]
fn trees_are_trees() {
    fn tree(error: &WriteError) -> bool {
        matches!(error, WriteError::Tree { .. })
    }
    let hard_link = vec![directory(&[("a", 1), ("b", 1)]), node(Kind::Fifo)];
    assert_eq!(image(hard_link).unwrap().lookup(b"b").unwrap().unwrap().links, 2);
    refused(vec![directory(&[("a", 1), ("b", 1)]), directory(&[])], tree);
    refused(vec![directory(&[("a", 0)])], tree);
    refused(vec![directory(&[("a", 1)])], tree);
    refused(vec![directory(&[("b", 1), ("a", 1)]), node(Kind::Fifo)], tree);
    refused(vec![directory(&[("a", 1), ("a", 1)]), node(Kind::Fifo)], tree);
    refused(vec![node(Kind::Fifo)], tree);
    refused(vec![], tree);
}

#[test]
fn a_root_with_large_attributes_is_found() {
    let xattrs: BTreeMap<_, _> = [(b"user.a".to_vec(), vec![1; 9000])].into();
    let mut root = directory(&[("f", 1)]);
    root.meta.xattrs = xattrs.clone();
    let image = image(vec![root, node(Kind::Fifo)]).unwrap();
    assert_eq!(image.root().unwrap().meta.xattrs, xattrs);
    assert_eq!(image.lookup(b"/f").unwrap().unwrap().kind, FileKind::Fifo);
    assert!(image.lookup(b"f/x").unwrap().is_none());
    assert!(image.lookup(b"g").unwrap().is_none());
}

#[test]
fn attack_changed_superblocks_are_refused() {
    let (good, _) = Writer::new(Vec::new())
        .finish(&Tree { nodes: vec![directory(&[("f", 1)]), node(Kind::Fifo)] })
        .unwrap();
    for at in 0..4096 {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(Image::open(bad).is_err(), "{at}");
    }
    assert!(Image::open(good[..good.len() - 1].to_vec()).is_err());
    assert!(Image::open([&good[..], &[1; 4096]].concat()).is_ok());
}

#[test]
fn attack_directories_that_form_no_tree_are_refused() {
    let nodes = vec![directory(&[("a", 1)]), directory(&[("b", 2)]), directory(&[])];
    let (good, _) = Writer::new(Vec::new()).finish(&Tree { nodes }).unwrap();
    assert_eq!(Image::open(good.clone()).unwrap().walk().unwrap().len(), 3);
    // The entry `b` of the directory `a` is made to name `a`, the root, and something that is not there.
    let a = Image::open(good.clone()).unwrap().lookup(b"a").unwrap().unwrap().nid;
    let b = Image::open(good.clone()).unwrap().lookup(b"a/b").unwrap().unwrap().nid;
    let entry = good.windows(12).rposition(|w| w[..8] == b.to_le_bytes() && w[8..10] != [36, 0]);
    let entry = entry.unwrap();
    for other in [a, 2, 1000] {
        let mut bad = good.clone();
        bad[entry..entry + 8].copy_from_slice(&other.to_le_bytes());
        assert!(Image::open(bad).unwrap().walk().is_err(), "{other}");
    }
}
