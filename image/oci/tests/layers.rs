//! The strict reading of a layer: what each special case becomes, and the smallest change that is refused.

use std::convert::Infallible;
use std::io::{self, BufReader, Read};

use ah_oci::tar::TarError;
use ah_oci::{ContentSink, FileTree, LayerError, NodeKind, PathError, Shape, read_layer};
use ah_testkit_images::{Entry, TarBuilder, awkward_layer, awkward_upper_layer};

type Error = LayerError<Infallible>;

/// Keeps files in memory, holes filled.
#[derive(Default)]
struct Memory(Vec<u8>);

impl ContentSink for Memory {
    type Content = Vec<u8>;
    type Error = Infallible;

    fn begin(&mut self, shape: Shape<'_>) -> Result<(), Infallible> {
        self.0 = vec![0; shape.size as usize];
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        self.0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<Vec<u8>, Infallible> {
        Ok(std::mem::take(&mut self.0))
    }
}

fn read(tar: &[u8]) -> Result<FileTree<Vec<u8>>, Error> {
    read_layer(tar, &mut Memory::default())
}

fn entries(entries: impl IntoIterator<Item = Entry>) -> Result<FileTree<Vec<u8>>, Error> {
    read(&TarBuilder::bytes(entries))
}

fn find<'a>(tree: &'a FileTree<Vec<u8>>, path: &str) -> Option<&'a NodeKind<Vec<u8>>> {
    let mut at = 0;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match &tree.nodes[at].kind {
            NodeKind::Directory { entries, .. } => at = *entries.get(part.as_bytes())?,
            _ => return None,
        }
    }
    Some(&tree.nodes[at].kind)
}

/// The tree in short: `d` directory, `D` opaque directory, `f` file with its text, `w` whiteout, `-` nothing.
fn check(layer: impl IntoIterator<Item = Entry>, expect: &[(&str, &str)]) {
    let tree = entries(layer).unwrap();
    for (path, expect) in expect {
        let found = match find(&tree, path) {
            None => "-".to_owned(),
            Some(NodeKind::Directory { opaque: false, .. }) => "d".into(),
            Some(NodeKind::Directory { opaque: true, .. }) => "D".into(),
            Some(NodeKind::File(data)) => format!("f{}", String::from_utf8_lossy(data)),
            Some(NodeKind::Whiteout) => "w".into(),
            Some(_) => "other".into(),
        };
        assert_eq!(found, *expect, "{path}");
    }
}

fn refused(layer: impl IntoIterator<Item = Entry>, expect: fn(&Error) -> bool) {
    match entries(layer) {
        Ok(_) => panic!("accepted"),
        Err(error) => assert!(expect(&error), "{error:?}"),
    }
}

fn file(path: &str) -> Entry {
    Entry::file(path, "x")
}

#[test]
fn missing_parents_are_made_and_the_last_entry_wins() {
    check([file("a/b/c")], &[("a", "d"), ("a/b", "d"), ("a/b/c", "fx")]);
    check([file("a"), Entry::file("a", "y")], &[("a", "fy")]);
    check([Entry::dir("a"), file("a/b"), Entry::dir("a/")], &[("a", "d"), ("a/b", "fx")]);
    check([file("a/b"), file("a")], &[("a", "fx"), ("a/b", "-")]);
    check([file("a"), Entry::dir("a")], &[("a", "D")]);
    check(
        [file("a"), Entry::hard_link("b", "a"), Entry::file("a", "y")],
        &[("a", "fy"), ("b", "fx")],
    );
    check([file("d//./e")], &[("d/e", "fx")]);
}

#[test]
fn whiteouts_are_about_lower_layers_only() {
    let whiteout = |path: &str| Entry::file(path, "");
    check([whiteout("a/.wh.b")], &[("a", "d"), ("a/b", "w")]);
    check([whiteout(".wh.a"), file("a")], &[("a", "fx")]);
    check([file("a"), whiteout(".wh.a")], &[("a", "fx")]);
    check([whiteout(".wh.a"), Entry::dir("a")], &[("a", "D")]);
    check([Entry::dir("a"), file("a/b"), whiteout(".wh.a")], &[("a", "D"), ("a/b", "fx")]);
    check([whiteout(".wh.a"), file("a/b")], &[("a", "D"), ("a/b", "fx")]);
    check([file("a/b"), whiteout("a/.wh..wh..opq")], &[("a", "D"), ("a/b", "fx")]);
    check([whiteout("a/.wh..wh..opq"), file("a/b"), Entry::dir("a")], &[("a", "D"), ("a/b", "fx")]);
    check([whiteout(".wh..wh..opq")], &[("", "D")]);
    for path in [".wh.", ".wh..", ".wh...", ".wh..wh.plnk", ".wh..wh.aufs", ".wh.a/b"] {
        refused([whiteout(path)], |error| matches!(error, Error::Whiteout { .. }));
    }
    refused([file(".wh.a")], |error| matches!(error, Error::Whiteout { .. }));
    refused([Entry::dir(".wh.a")], |error| matches!(error, Error::Whiteout { .. }));
}

#[test]
fn attack_paths_out_of_the_layer_are_refused() {
    fn path(error: &Error) -> bool {
        matches!(error, Error::Path { source: PathError::Parent | PathError::Absolute, .. })
    }
    for bad in ["../a", "a/../../b", "a/..", "/etc/passwd", "..", "/"] {
        refused([file(bad)], path);
        refused([file("a"), Entry::hard_link("b", bad)], path);
        refused([Entry::dir(bad)], path);
    }
    check([Entry::symlink("a", "../../etc/passwd")], &[("a", "other")]);
}

#[test]
fn attack_paths_through_links_of_the_layer_are_refused() {
    let through = |first: Entry| [first, file("a/b")];
    fn parent(error: &Error) -> bool {
        matches!(error, Error::ParentNotDirectory { .. })
    }
    check(through(Entry::dir("a")), &[("a/b", "fx")]);
    refused(through(Entry::symlink("a", "etc")), parent);
    refused(through(Entry::symlink("a", "/")), parent);
    refused(through(file("a")), parent);
    refused(through(Entry::fifo("a")), parent);
}

#[test]
fn hard_links_go_to_earlier_files_of_the_layer() {
    check([file("a"), Entry::hard_link("b", "a")], &[("b", "fx")]);
    let layers = [
        vec![Entry::hard_link("b", "a")],
        vec![Entry::hard_link("b", "a"), file("a")],
        vec![Entry::dir("a"), Entry::hard_link("b", "a")],
        vec![Entry::file(".wh.a", ""), Entry::hard_link("b", "a")],
        vec![Entry::hard_link("a", "a")],
        vec![Entry::dir("a/c"), Entry::hard_link("b", "./")],
    ];
    for layer in layers {
        refused(layer, |error| matches!(error, Error::LinkTarget { .. }));
    }
}

#[test]
fn attack_overlay_marks_in_a_layer_are_refused() {
    fn mark(error: &Error) -> bool {
        matches!(error, Error::OverlayMark { .. })
    }
    check([Entry::char_device("a", 0, 1)], &[("a", "other")]);
    refused([Entry::char_device("a", 0, 0)], mark);
    check([Entry::dir("a").xattr("trusted.other", "y")], &[("a", "d")]);
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        refused([Entry::dir("a").xattr(name, "y")], mark);
    }
}

#[test]
fn unsupported_entry_types_are_refused_by_name() {
    for kind in [b'7', b'D', b'M', b'N', b'V', b'X', b'A', b'E', b'I', b'Z', 0xff] {
        refused([Entry::of_type("a", kind)], |error| {
            matches!(error, Error::Tar { source: TarError::EntryType { .. }, .. })
        });
    }
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let mut tar = TarBuilder::new(Vec::new());
        let entry = Entry::of_type("a", kind).pax("linkpath", "b");
        tar.push_data(&entry, 1, &mut io::repeat(0)).unwrap();
        let error = read(&tar.finish().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Tar { source: TarError::UnexpectedData { .. }, .. }));
    }
    refused([file("a/")], |error| matches!(error, Error::TrailingSlash { .. }));
    refused([file("./")], |error| matches!(error, Error::Root { .. }));
    refused([Entry::symlink("a", "")], |error| matches!(error, Error::Path { .. }));
}

fn tar_error(tar: &[u8]) -> Option<TarError> {
    match read(tar) {
        Ok(_) => None,
        Err(Error::Tar { source, .. }) => Some(source),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn attack_bytes_behind_the_end_are_refused() {
    let good = TarBuilder::bytes([file("a")]);
    assert!(tar_error(&good).is_none());
    assert!(tar_error(&[&good[..], &[0; 9000]].concat()).is_none());
    let hidden = [&good[..], &good[..]].concat();
    assert!(matches!(tar_error(&hidden), Some(TarError::TrailingData)));
    let one_byte = [&good[..], &[1]].concat();
    assert!(matches!(tar_error(&one_byte), Some(TarError::TrailingData)));
}

#[test]
fn a_tar_ends_at_a_block_or_is_cut() {
    let good = TarBuilder::bytes([Entry::file("a", vec![7; 1000])]);
    for length in 0..good.len() - 1024 {
        let whole = length == 0;
        let error = tar_error(&good[..length]);
        assert_eq!(error.is_none(), whole, "{length}");
        assert!(whole || matches!(error, Some(TarError::Truncated { .. })), "{length}");
    }
    assert!(tar_error(&good[..good.len() - 1024]).is_none());
    assert!(tar_error(&good[..good.len() - 512]).is_none());
}

#[test]
fn attack_changed_header_bytes_fail_the_checksum() {
    let good = TarBuilder::bytes([file("a")]);
    for at in 0..512 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // The last byte of the checksum field is a space or NUL to every reader.
        assert!(read(&bad).is_err() || at == 155, "{at}");
    }
}

#[test]
fn extended_headers_stand_once_before_an_entry() {
    let build = |kinds: &[(u8, &[u8])], entry: bool| {
        let mut tar = TarBuilder::new(Vec::new());
        for (kind, data) in kinds {
            tar.push_extended(*kind, b"ext", data).unwrap();
        }
        if entry {
            tar.push(&file("a")).unwrap();
        }
        tar.finish().unwrap()
    };
    let (x, long) = ((b'x', &b"9 path=b\n"[..]), (b'L', &b"c\0"[..]));
    assert!(tar_error(&build(&[x], true)).is_none());
    assert!(tar_error(&build(&[long], true)).is_none());
    assert!(matches!(tar_error(&build(&[x, x], true)), Some(TarError::Extended { .. })));
    assert!(matches!(tar_error(&build(&[long, long], true)), Some(TarError::Extended { .. })));
    assert!(matches!(tar_error(&build(&[x], false)), Some(TarError::Extended { .. })));
    assert!(matches!(
        tar_error(&build(&[(b'L', b"a\0b\0")], true)),
        Some(TarError::Extended { .. })
    ));
    assert!(matches!(tar_error(&build(&[(b'L', b"\0")], true)), Some(TarError::Extended { .. })));
    assert!(tar_error(&build(&[(b'g', b"13 comment=x\n")], true)).is_none());
    assert!(matches!(
        tar_error(&build(&[(b'g', b"9 path=b\n")], true)),
        Some(TarError::PaxKey { .. })
    ));
    let huge = vec![b'x'; (1 << 20) + 1];
    assert!(matches!(tar_error(&build(&[(b'L', &huge)], true)), Some(TarError::TooLarge { .. })));
}

#[test]
fn sparse_maps_have_one_reading() {
    let sparse = |map: &str, data: usize, size: &str| {
        let mut body = map.as_bytes().to_vec();
        body.resize(512, 0);
        body.extend(vec![9; data]);
        let entry = Entry::file("s", body)
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "real")
            .pax("GNU.sparse.realsize", size);
        tar_error(&TarBuilder::bytes([entry]))
    };
    assert!(sparse("2\n0\n512\n600\n5\n", 517, "2000").is_none());
    assert!(sparse("0\n", 0, "2000").is_none());
    for (map, data, size) in [
        ("2\n0\n512\n600\n5\n", 517, "604"),
        ("2\n0\n512\n500\n5\n", 517, "2000"),
        ("2\n0\n500\n600\n5\n", 505, "2000"),
        ("2\n0\n512\n600\n5\n", 518, "2000"),
        ("2\n0\n512\n600\n5\n", 516, "2000"),
        ("1\n-1\n512\n", 512, "2000"),
        ("1\n18446744073709551615\n2\n", 2, "2000"),
        ("x\n", 0, "2000"),
    ] {
        let error = sparse(map, data, size);
        assert!(matches!(error, Some(TarError::Sparse { .. })), "{map:?} {error:?}");
    }
    assert!(matches!(sparse("65537\n", 0, "2000"), Some(TarError::TooLarge { .. })));
    for key in ["GNU.sparse.map", "GNU.sparse.numblocks", "GNU.sparse.offset"] {
        let old = TarBuilder::bytes([file("s").pax(key, "0,1")]);
        assert!(matches!(tar_error(&old), Some(TarError::PaxKey { .. })), "{key}");
    }
}

#[test]
fn large_files_are_streamed_past_four_gib() {
    /// Counts what it is given.
    struct Counter(u64);

    impl ContentSink for Counter {
        type Content = u64;
        type Error = Infallible;

        fn begin(&mut self, _: Shape<'_>) -> Result<(), Infallible> {
            self.0 = 0;
            Ok(())
        }

        fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
            assert_eq!(offset, self.0);
            self.0 += bytes.len() as u64;
            Ok(())
        }

        fn end(&mut self) -> Result<u64, Infallible> {
            Ok(self.0)
        }
    }

    for size in [5u64 << 30, (8 << 30) + 1] {
        let entry = Entry::file("large", []);
        let mut header = Vec::new();
        // The writer gives up for want of data, after the header.
        TarBuilder::new(&mut header).push_data(&entry, size, &mut io::empty()).unwrap_err();
        let data = io::repeat(0).take(size.next_multiple_of(512));
        let tar = BufReader::with_capacity(1 << 20, header.as_slice().chain(data));
        let tree = read_layer(tar, &mut Counter(0)).unwrap();
        assert!(matches!(tree.nodes[1].kind, NodeKind::File(found) if found == size));
    }
}

#[test]
fn awkward_layers_are_accepted() {
    let tree = read(&awkward_layer()).unwrap();
    assert!(matches!(find(&tree, "links/file"), Some(NodeKind::File(_))));
    assert!(matches!(find(&tree, "twice/keeps-first"), Some(NodeKind::File(d)) if d == b"first\n"));
    assert!(matches!(find(&tree, "sparse-pax"), Some(NodeKind::File(d)) if d.len() == 64_000_000));
    let upper = read(&awkward_upper_layer()).unwrap();
    assert!(matches!(find(&upper, "etc/hosts"), Some(NodeKind::Whiteout)));
    assert!(matches!(find(&upper, "links"), Some(NodeKind::Directory { opaque: true, .. })));
}
