use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn request(path: &Path, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: path.display().to_string(),
        file_size: i64::try_from(data.len()).unwrap(),
        file_mode: 0o100_640,
        dir_mode: 0o755,
        data: data.to_vec(),
        ..Default::default()
    }
}

fn own(mut request: CopyFileRequest) -> CopyFileRequest {
    request.uid = i32::try_from(rustix::process::geteuid().as_raw()).unwrap();
    request.gid = i32::try_from(rustix::process::getegid().as_raw()).unwrap();
    request
}

#[test]
fn file_is_written_whole_and_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c1-0011223344556677-hosts");
    copy_file(&own(request(&path, b"127.0.0.1 localhost\n")), folder.path()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"127.0.0.1 localhost\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);

    let deep = folder.path().join("a/b/parts");
    let mut first = own(request(&deep, b"one "));
    first.file_size = 7;
    copy_file(&first, folder.path()).unwrap();
    assert!(!deep.exists(), "a half-written file is not there yet");
    let mut second = own(request(&deep, b"two"));
    second.file_size = 7;
    second.offset = 4;
    copy_file(&second, folder.path()).unwrap();
    assert_eq!(std::fs::read(&deep).unwrap(), b"one two");
}

#[test]
fn attack_copy_file_into_a_half_written_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut first = own(request(&path("x"), b"one "));
    first.file_size = 7;
    copy_file(&first, folder.path()).unwrap();
    let made = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().file_name();
    assert!(made.to_str().is_none(), "{made:?} is a name that a request can have");
    for name in ["x.part", "x~", ".x", "x\u{ff}"] {
        copy_file(&own(request(&path(name), b"evil evil")), folder.path()).unwrap();
    }
    let mut second = own(request(&path("x"), b"two"));
    (second.file_size, second.offset) = (7, 4);
    copy_file(&second, folder.path()).unwrap();
    assert_eq!(std::fs::read(path("x")).unwrap(), b"one two");
    assert_eq!(std::fs::read(path("x.part")).unwrap(), b"evil evil");
}

#[test]
fn folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let mut made = own(request(&path, b""));
    made.file_mode = 0o040_750;
    copy_file(&made, folder.path()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o750);
}

#[test]
fn attack_copy_file_out_of_the_shared_folder() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("shared");
    std::fs::create_dir(&base).unwrap();
    copy_file(&own(request(&base.join("x"), b"fine")), &base).unwrap();
    let outside = folder.path().join("outside");
    let text = base.display().to_string();
    for path in [
        outside.display().to_string(),
        format!("{text}/../outside"),
        format!("{text}/a/../../outside"),
        format!("{text}/./x"),
        format!("{text}//x"),
        format!("{text}/x/"),
        format!("{text}x/y"),
        text.clone(),
        "outside".to_owned(),
        String::new(),
    ] {
        let found = copy_file(&own(request(Path::new(&path), b"evil")), &base);
        assert!(matches!(found, Err(Failure::Denied { .. })), "{path}: {found:?}");
    }
    assert!(!outside.exists());
}

#[test]
fn attack_copy_file_through_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("shared");
    let outside = folder.path().join("outside");
    std::fs::create_dir(&base).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("target"), b"kept").unwrap();
    symlink(&outside, base.join("link")).unwrap();
    symlink(outside.join("target"), base.join("file")).unwrap();
    symlink(outside.join("made"), base.join(OsStr::from_bytes(&part_name("half")))).unwrap();
    assert!(copy_file(&own(request(&base.join("link/made"), b"evil")), &base).is_err());
    assert!(copy_file(&own(request(&base.join("half"), b"evil")), &base).is_err());
    // A link in the place of the file itself is replaced, not followed.
    copy_file(&own(request(&base.join("file"), b"new")), &base).unwrap();
    assert_eq!(std::fs::read(outside.join("target")).unwrap(), b"kept");
    assert!(!outside.join("made").exists());
    assert!(base.join("file").symlink_metadata().unwrap().is_file());
}

#[test]
fn a_link_leads_to_what_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let link = |name: &str, target: &[u8]| {
        let mut link = own(request(&folder.path().join(name), target));
        (link.file_mode, link.file_size) = (0o120_777, 0);
        copy_file(&link, folder.path())
    };
    copy_file(&own(request(&folder.path().join("v/..1/key"), b"one")), folder.path()).unwrap();
    copy_file(&own(request(&folder.path().join("v/..2/key"), b"two")), folder.path()).unwrap();
    link("v/..data", b"..1").unwrap();
    link("v/key", b"..data/key").unwrap();
    assert_eq!(std::fs::read(folder.path().join("v/key")).unwrap(), b"one");
    link("v/..data", b"..2").unwrap();
    assert_eq!(std::fs::read(folder.path().join("v/key")).unwrap(), b"two");
    // the version that nothing leads to is gone, and a link that stays takes nothing away
    link("v/..data", b"..2").unwrap();
    let left = std::fs::read_dir(folder.path().join("v")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["..2", "..data", "key"]);
}

#[test]
fn a_name_that_the_next_version_lacks_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, mode: u32, data: &[u8]| {
        let mut made = own(request(&folder.path().join(name), data));
        made.file_mode = mode;
        if mode != 0o100_644 {
            made.file_size = 0;
        }
        copy_file(&made, folder.path()).unwrap();
    };
    let (file, link) = (0o100_644, 0o120_777);
    for name in ["v/..1/kept", "v/..1/gone", "v/..1/deep/file", "v/..2/kept"] {
        make(name, file, name.as_bytes());
    }
    make("v/..data", link, b"..1");
    // What leads elsewhere stays, whether it is there or not.
    for (name, target) in [
        ("kept", "..data/kept"),
        ("gone", "..data/gone"),
        ("deep", "..data/deep"),
        ("own", "nothing"),
    ] {
        make(&format!("v/{name}"), link, target.as_bytes());
    }
    make("v/..data", link, b"..2");
    let left = std::fs::read_dir(folder.path().join("v")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["..2", "..data", "kept", "own"]);
    assert_eq!(std::fs::read(folder.path().join("v/kept")).unwrap(), b"v/..2/kept");
}

#[test]
fn attack_version_link_that_takes_more_than_its_version_away() {
    let folder = tempfile::tempdir().unwrap();
    let link = |name: &str, target: &[u8]| {
        let mut link = own(request(&folder.path().join(name), target));
        (link.file_mode, link.file_size) = (0o120_777, 0);
        copy_file(&link, folder.path())
    };
    for name in ["v/key", "v/..1/a/key", "w/..data/key"] {
        copy_file(&own(request(&folder.path().join(name), b"kept")), folder.path()).unwrap();
    }
    // a file or a part of a version is no version
    for target in [b"key".as_slice(), b"..1/a", b"..2"] {
        link("v/..data", target).unwrap();
    }
    // and a folder of that name is no link
    assert!(link("w/..data", b"..1").is_err());
    for name in ["v/key", "v/..1/a/key", "w/..data/key"] {
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"kept", "{name}");
    }
}

#[test]
fn copies_go_with_their_container() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let base = folder.path().join("shared");
    std::fs::create_dir(&base).unwrap();
    for name in ["c1-00-hosts", "c1-01-config/..1/key", "c11-00-hosts", "c2-00-hosts"] {
        copy_file(&own(request(&base.join(name), b"x")), &base).unwrap();
    }
    std::fs::write(outside.join("kept"), b"x").unwrap();
    symlink(&outside, base.join("c1-02-link")).unwrap();
    symlink(&outside, base.join("c1-01-config/link")).unwrap();
    remove_copies(&base, &ContainerId::parse("c1").unwrap());
    let left = std::fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name());
    let left: std::collections::BTreeSet<_> = left.collect();
    assert_eq!(left, ["c11-00-hosts".into(), "c2-00-hosts".into()].into());
    assert!(outside.join("kept").exists());
}

#[test]
fn attack_link_that_leads_out_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let link = |name: &str, target: &[u8]| {
        let mut link = own(request(&folder.path().join(name), target));
        (link.file_mode, link.file_size) = (0o120_777, 0);
        copy_file(&link, folder.path())
    };
    link("v/a", b"b").unwrap();
    let long = [b'x'; MAX_TARGET_BYTES + 1];
    let targets: [&[u8]; 10] =
        [b"../b", b"/etc", b"b/../../c", b"..", b".", b"", b"b/", b"b\0c", &[0xff], &long];
    for target in targets {
        let found = link("v/a", target);
        assert!(matches!(found, Err(Failure::Denied { .. })), "{target:?}: {found:?}");
    }
    // What a mount could start from is never a link.
    assert!(matches!(link("v2", b"v"), Err(Failure::Denied { .. })));
    assert!(!folder.path().join("v2").exists());
    // Nothing is written through a link, also not through one that leads to a fine place.
    link("v/in", b"..1").unwrap();
    std::fs::create_dir(folder.path().join("v/..1")).unwrap();
    let through = own(request(&folder.path().join("v/in/made"), b"evil"));
    assert!(copy_file(&through, folder.path()).is_err());
    assert!(!folder.path().join("v/..1/made").exists());
}

#[test]
fn attack_copy_file_makes_a_device() {
    let folder = tempfile::tempdir().unwrap();
    for mode in [0o020_666, 0o060_666, 0o010_666, 0o140_666, 0o644] {
        let mut bad = own(request(&folder.path().join("x"), b"/etc/shadow"));
        bad.file_mode = mode;
        assert!(matches!(copy_file(&bad, folder.path()), Err(Failure::Denied { .. })), "{mode:o}");
    }
}

#[test]
fn attack_copy_file_of_another_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let change = |size: i64, offset: i64| {
        let mut changed = own(request(&path, b"1234"));
        changed.file_size = size;
        changed.offset = offset;
        copy_file(&changed, folder.path())
    };
    assert!(change(4, 0).is_ok());
    for (size, offset) in [(3, 0), (4, 1), (-1, 0), (4, -1), ((16 << 20) + 1, 0), (4, i64::MAX)] {
        assert!(matches!(change(size, offset), Err(Failure::Denied { .. })), "{size} {offset}");
    }
}
