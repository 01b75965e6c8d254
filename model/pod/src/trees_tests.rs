use super::*;
use crate::requests::tests::{container, host, pod};
use crate::requests::{copy_container_files, create_container};
use crate::{FileBytes, FsGroup, FsGroupChange, Volume};

fn file(path: &str, content: FileContent) -> VolumeFile {
    VolumeFile { path: path.into(), mode: 0o644, content }
}

fn fixed(text: &str) -> FileContent {
    FileContent::Fixed(FileBytes(text.as_bytes().to_vec()))
}

fn with(files: Vec<VolumeFile>, sub_path: Option<&str>) -> Pod {
    let mut app = container("app");
    app.mounts = vec![VolumeMount {
        volume: "config".into(),
        path: "/etc/app".into(),
        read_only: false,
        sub_path: sub_path.map(Into::into),
    }];
    let mut pod = pod(vec![app]);
    let source = VolumeSource::Files(FileVolume { files, unpinned: None });
    pod.volumes = vec![Volume { name: "config".into(), source }];
    pod
}

fn entries(pod: &Pod) -> BTreeMap<String, Entry> {
    trees(pod, &pod.containers[0]).unwrap().remove(0).entries
}

/// Path below the tree's top, mode, owner, contents of each copy.
fn copied(pod: &Pod) -> Vec<(String, u32, (i32, i32), String)> {
    let host = host(pod);
    let top = tree_path("/etc/app", &host.container_ids["app"], &host).unwrap();
    let all = copy_container_files(pod, 0, &host).unwrap();
    let of_volume = all.into_iter().filter(|request| request.path.starts_with(&top));
    of_volume
        .map(|request| {
            let text = String::from_utf8(request.data).unwrap();
            let owner = (request.uid, request.gid);
            (request.path[top.len()..].to_owned(), request.file_mode, owner, text)
        })
        .collect()
}

#[test]
fn a_volume_is_copied_as_the_kubelet_writes_it() {
    let pod = with(vec![file("key", fixed("value")), file("a/b/c", fixed("deep"))], None);
    let found: Vec<_> =
        copied(&pod).into_iter().map(|(path, mode, _, text)| (path, mode, text)).collect();
    let (link, folder, regular) = (0o120_777, 0o040_755, 0o100_644);
    let version = "/..1970_01_01_00_00_00.1";
    let expect = [
        (String::new(), 0o040_777, ""),
        (version.into(), folder, ""),
        (format!("{version}/a"), folder, ""),
        (format!("{version}/a/b"), folder, ""),
        (format!("{version}/a/b/c"), regular, "deep"),
        (format!("{version}/key"), regular, "value"),
        ("/..data".into(), link, "..1970_01_01_00_00_00.1"),
        ("/a".into(), link, "..data/a"),
        ("/key".into(), link, "..data/key"),
    ];
    let mut expect = expect.map(|(path, mode, text)| (path, mode, text.to_owned())).to_vec();
    expect.sort();
    let mut found = found;
    found.sort();
    assert_eq!(found, expect);
    let host = host(&pod);
    let request = create_container(&pod, 0, &host).unwrap();
    let mount = request.OCI.Mounts.iter().find(|mount| mount.destination == "/etc/app").unwrap();
    assert!(mount.source.ends_with("-app") && mount.options.contains(&"ro".to_owned()));
}

#[test]
fn a_sub_path_is_the_file_or_folder_alone() {
    let files = || vec![file("key", fixed("v")), file("a/b/c", fixed("d")), file("ab", fixed("x"))];
    let paths = |sub_path: &str| -> Vec<String> {
        entries(&with(files(), Some(sub_path))).into_keys().collect()
    };
    assert_eq!(paths("key"), [""]);
    assert_eq!(paths("a/b/c"), [""]);
    assert_eq!(paths("a"), ["", "b", "b/c"]);
    assert_eq!(paths("a/b"), ["", "c"]);
    let [(path, mode, _, text)] = &copied(&with(files(), Some("a/b/c")))[..] else { panic!() };
    assert_eq!((path.as_str(), *mode, text.as_str()), ("", 0o100_644, "d"));
    let none = with(files(), Some("b"));
    let found = trees(&none, &none.containers[0]);
    assert!(matches!(found, Err(RequestError::UnknownSubPath { .. })), "{found:?}");
}

#[test]
fn a_group_may_read_its_volumes_and_a_token_is_its_user_s() {
    let check = |group: Option<u32>, users: &[Option<u32>], expect: (u32, u32, u32)| {
        let mut pod = with(vec![file("key", fixed("v")), file("token", FileContent::Token)], None);
        pod.security.fs_group = group.map(|gid| FsGroup { gid, change: FsGroupChange::Always });
        pod.containers = users
            .iter()
            .map(|user| {
                let mut container = pod.containers[0].clone();
                container.security.run_as.user = *user;
                container
            })
            .collect();
        let entries = entries(&pod);
        let of = |name: &str| match &entries[&format!("$(volume-version)/{name}")] {
            Entry::File { mode, uid, .. } => (mode & 0o7777, *uid),
            other => panic!("{other:?}"),
        };
        assert_eq!((of("key").0, of("token").0, of("token").1), expect, "{group:?} {users:?}");
        assert_eq!(of("key").1, 0);
    };
    check(None, &[None], (0o644, 0o644, 0));
    check(None, &[Some(5), Some(5)], (0o644, 0o600, 5));
    check(None, &[Some(5), Some(6)], (0o644, 0o644, 0));
    check(None, &[Some(5), None], (0o644, 0o644, 0));
    check(Some(7), &[None], (0o644, 0o640, 0));
    check(Some(7), &[Some(5)], (0o644, 0o640, 5));
}

#[test]
fn contents_are_no_texts_of_the_pod() {
    let pod = with(vec![file("key", fixed("$(pod-ip)"))], None);
    crate::requests::check(&pod).unwrap();
    assert!(!format!("{pod:?}").contains("pod-ip"));
    let json = serde_json::to_string(&pod).unwrap();
    assert_eq!(serde_json::from_str::<Pod>(&json).unwrap(), pod);
}

#[test]
fn a_file_cannot_be_a_folder_too() {
    let check = |paths: &[&str], expect: Option<&str>| {
        let files: Vec<_> = paths.iter().map(|path| file(path, fixed(""))).collect();
        assert_eq!(is_file_and_folder(&files), expect, "{paths:?}");
    };
    check(&["a", "b/c", "bc"], None);
    check(&["a", "a/b"], Some("a"));
    check(&["x/y/z", "x/y"], Some("x/y"));
}
