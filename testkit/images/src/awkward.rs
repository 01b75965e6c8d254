use crate::random::random_bytes;
use crate::tar_writer::{Entry, TarBuilder, octal};

/// `struct vfs_cap_data`, revision 2, CAP_NET_BIND_SERVICE effective and permitted.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// POSIX ACL, version 2: user::rw-, user:1000:r--, group::r--, mask::r--, other::r--.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

/// A layer tar with every special case that a layer may have: all file types, hard links, attributes of every name
/// space, long names and links in both forms, large ids, sparse files in both forms, sizes around the block, names that
/// are not text, entries twice, missing parents. About 1 MB.
pub fn awkward_layer() -> Vec<u8> {
    let mut tar = TarBuilder::new(Vec::new());
    for entry in plain_entries().into_iter().chain(attribute_entries()).chain(name_entries()) {
        // A vector takes every write.
        let _ = tar.push(&entry);
    }
    let _ = push_gnu_long(&mut tar);
    let _ = push_gnu_sparse(&mut tar);
    let _ = push_pax_sparse(&mut tar);
    let _ = push_base256(&mut tar);
    for entry in repeated_entries().into_iter().chain(large_directory()) {
        let _ = tar.push(&entry);
    }
    tar.finish().unwrap_or_default()
}

/// A layer to lie over [`awkward_layer`]: whiteouts, an opaque directory, a directory that replaces another, files that
/// hide files.
pub fn awkward_upper_layer() -> Vec<u8> {
    TarBuilder::bytes([
        Entry::file("etc/.wh.hosts", []),
        Entry::dir("sizes/"),
        Entry::file("sizes/.wh..wh..opq", []),
        Entry::file("sizes/only", "the only one left\n"),
        Entry::file(".wh.links", []),
        Entry::dir("links/"),
        Entry::file("links/new", "in a directory made anew\n"),
        Entry::file("etc/.wh.added-too", []),
        Entry::file("etc/added-too", "removed below and added here\n"),
        Entry::file("dev/.wh.console", []),
        Entry::file("many", "a file where a directory was\n"),
    ])
}

fn plain_entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::dir("./").mode(0o755).mtime(1_600_000_000),
        Entry::dir("etc/"),
        Entry::file("etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:70000:70001::/srv:/bin/sh\n"),
        Entry::file("etc/group", "root:x:0:\napp:x:70001:\n"),
        Entry::file("etc/hosts", "127.0.0.1 localhost\n"),
        Entry::dir("sizes/").mode(0o2775).owner(5, 6),
        Entry::dir("links/"),
        Entry::file("links/file", "one file, three names\n").mode(0o4755),
        Entry::hard_link("links/second", "links/file"),
        Entry::hard_link("third-name", "./links/file"),
        Entry::symlink("links/relative", "../etc/passwd"),
        Entry::symlink("links/absolute", "/etc/passwd"),
        Entry::symlink("links/dangling", "nowhere/at/all"),
        Entry::symlink("links/up", "../../../../etc"),
        Entry::hard_link("links/name-of-a-symlink", "links/relative"),
        Entry::dir("dev/"),
        Entry::char_device("dev/console", 5, 1),
        Entry::char_device("dev/large", 4095, 1_048_575),
        Entry::block_device("dev/disk", 8, 17).mode(0o660).owner(0, 6),
        Entry::block_device("dev/nvme", 259, 256),
        Entry::fifo("dev/pipe").mode(0o622),
        Entry::dir("tmp/").mode(0o1777),
        Entry::file("missing/parents/of/this", "the parents have no entry\n"),
    ];
    for size in [0, 1, 511, 512, 513, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 10_240, 70_000] {
        entries.push(Entry::file(format!("sizes/{size}"), random_bytes(size as u64 + 1, size)));
    }
    entries.push(Entry::file("sizes/zeros", vec![0; 20_000]));
    entries
}

fn attribute_entries() -> Vec<Entry> {
    vec![
        Entry::dir("attr/").xattr("user.on.a.directory", "yes").xattr("trusted.md5", [1, 2, 3]),
        Entry::file("attr/ping", "a program\n")
            .mode(0o755)
            .xattr("security.capability", CAPABILITY),
        Entry::file("attr/acl", "has an ACL\n").xattr("system.posix_acl_access", ACL),
        Entry::file("attr/binary", "").xattr("user.binary", [0, 1, 10, 61, 255]),
        Entry::file("attr/long", random_bytes(9, 5000)).xattr("user.long", random_bytes(8, 3000)),
        Entry::file("attr/longest", random_bytes(9, 100)).xattr("user.long", random_bytes(8, 9000)),
        Entry::file("attr/several", "x")
            .xattr("user.a", "1")
            .xattr("user.b", "")
            .xattr("user.\u{e4}", "name beyond ASCII"),
        Entry::file("attr/ids", "x").owner(70_000, 4_294_967_294),
        Entry::file("attr/ids16", "x").owner(65_535, 65_536),
        Entry::file("attr/octal-limit", "x").owner(2_097_151, 2_097_152),
        Entry::file("attr/before-1970", "x").mtime(-1),
        Entry::file("attr/nanoseconds", "x").pax("mtime", "1700000001.123456789"),
        Entry::file("attr/after-2106", "x").mtime(5_000_000_000),
        Entry::file("attr/no-rights", "x").mode(0),
        Entry::file("attr/all-rights", "x").mode(0o7777),
    ]
}

fn name_entries() -> Vec<Entry> {
    let long = "n".repeat(255);
    let deep = format!("names/{}", "deep/".repeat(60));
    vec![
        Entry::dir("names/"),
        Entry::file("names/with space", "x"),
        Entry::file("names/with\nnewline", "x"),
        Entry::file("names/\u{fc}n\u{ef}c\u{f6}de", "x"),
        Entry::file(b"names/not-utf8-\xff\xfe", "x"),
        Entry::file("names/!before-dot", "x"),
        Entry::file("names/-", "x"),
        Entry::file("names/...", "x"),
        Entry::file("names/.wh", "no whiteout, only a name\n"),
        Entry::file(format!("names/{long}"), "x"),
        Entry::symlink("names/long-target", format!("{}x", "t/".repeat(2000))),
        Entry::symlink("names/target-of-two-blocks-less-one", "y".repeat(4095)),
        Entry::file(format!("{deep}file"), "x"),
        Entry::hard_link("names/link-to-long", format!("names/{long}")),
    ]
}

/// Entries that come twice: the last wins, and a directory over a directory keeps its files.
fn repeated_entries() -> Vec<Entry> {
    vec![
        Entry::file("twice/file", "first\n"),
        Entry::hard_link("twice/keeps-first", "twice/file"),
        Entry::file("twice/file", "second\n").mode(0o600),
        Entry::dir("twice/dir/").mode(0o700),
        Entry::file("twice/dir/kept", "kept\n"),
        Entry::dir("twice/dir/").mode(0o711).xattr("user.second", "1"),
        Entry::dir("twice/becomes-file/"),
        Entry::file("twice/becomes-file/lost", "lost\n"),
        Entry::file("twice/becomes-file", "a file now\n"),
        Entry::symlink("twice/becomes-other-link", "a"),
        Entry::symlink("twice/becomes-other-link", "b"),
    ]
}

/// More names than fit one directory block.
fn large_directory() -> Vec<Entry> {
    let mut entries = vec![Entry::dir("many/")];
    entries.extend((0..700).map(|i| Entry::file(format!("many/entry-{i:04}-{}", i * i), "")));
    entries
}

type Tar = TarBuilder<Vec<u8>>;

fn gnu_header(kind: u8, name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    octal(&mut header, 100, 8, 0o640);
    octal(&mut header, 108, 8, 3);
    octal(&mut header, 116, 8, 4);
    octal(&mut header, 124, 12, size);
    octal(&mut header, 136, 12, 1_650_000_000);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    header
}

fn push_data(tar: &mut Tar, data: &[u8]) -> std::io::Result<()> {
    tar.push_raw(data)?;
    tar.push_raw(&vec![0; data.len().next_multiple_of(512) - data.len()])
}

/// GNU `L` and `K` headers.
fn push_gnu_long(tar: &mut Tar) -> std::io::Result<()> {
    let name = format!("gnu/{}\0", "long-".repeat(40));
    let target = format!("{}\0", "target/".repeat(30));
    for (kind, text) in [(b'K', &target), (b'L', &name)] {
        tar.push_header(gnu_header(kind, "././@LongLink", text.len() as u64))?;
        push_data(tar, text.as_bytes())?;
    }
    tar.push_header(gnu_header(b'2', "gnu/cut", 0))
}

/// An old GNU sparse file of 3 MB with regions in the header and in an extension block.
fn push_gnu_sparse(tar: &mut Tar) -> std::io::Result<()> {
    let regions: [(u64, u64); 7] = [
        (0, 512),
        (4096, 1024),
        (8192, 4096),
        (100_000, 512),
        (1_000_000, 512),
        (2_000_000, 10_000),
        (3_000_000, 0),
    ];
    let data: u64 = regions.iter().map(|(_, length)| length).sum();
    let mut header = gnu_header(b'S', "sparse-gnu", data);
    for (slot, (offset, length)) in regions[..4].iter().enumerate() {
        octal(&mut header, 386 + slot * 24, 12, *offset);
        octal(&mut header, 398 + slot * 24, 12, *length);
    }
    header[482] = 1;
    octal(&mut header, 483, 12, 3_000_000);
    tar.push_header(header)?;
    let mut extension = [0; 512];
    for (slot, (offset, length)) in regions[4..].iter().enumerate() {
        octal(&mut extension, slot * 24, 12, *offset);
        octal(&mut extension, 12 + slot * 24, 12, *length);
    }
    tar.push_raw(&extension)?;
    push_data(tar, &random_bytes(77, data as usize))
}

/// A pax sparse file of version 1.0: 64 MB, of which 5072 bytes are data.
fn push_pax_sparse(tar: &mut Tar) -> std::io::Result<()> {
    let mut map = b"2\n1000000\n3072\n60000000\n2000\n".to_vec();
    map.resize(512, 0);
    map.extend(random_bytes(78, 5072));
    let entry = Entry::file("GNUSparseFile.0/sparse-pax", map)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "sparse-pax")
        .pax("GNU.sparse.realsize", "64000000");
    tar.push(&entry)
}

/// Ids in GNU's base-256.
fn push_base256(tar: &mut Tar) -> std::io::Result<()> {
    let mut header = gnu_header(b'0', "gnu/base256", 0);
    header[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    header[116..124].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x20, 0, 0]);
    tar.push_header(header)
}
