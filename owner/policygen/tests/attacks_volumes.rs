//! Volumes of files: the honest copies, and what a host could put in their place.

mod support;

use std::sync::OnceLock;

use ah_agent_api::Request;
use ah_agent_api::agent::CopyFileRequest;
use ah_pod::{
    FileBytes, FileContent, FileVolume, FsGroup, FsGroupChange, HostFact, Pod, PodName, Unpinned,
    Volume, VolumeFile, VolumeMount, VolumeSource, requests,
};
use ah_policygen::{Options, generate, show};
use support::{Case, pod};

fn file(path: &str, text: &str) -> VolumeFile {
    let content = FileContent::Fixed(FileBytes(text.as_bytes().to_vec()));
    VolumeFile { path: path.to_owned(), mode: 0o644, content }
}

fn volume(name: &str, files: Vec<VolumeFile>) -> Volume {
    let source = VolumeSource::Files(FileVolume { files, unpinned: None });
    Volume { name: name.to_owned(), source }
}

fn mount(volume: &str, path: &str, sub_path: Option<&str>) -> VolumeMount {
    let (volume, sub_path) = (volume.to_owned(), sub_path.map(str::to_owned));
    VolumeMount { volume, path: path.to_owned(), read_only: true, sub_path }
}

/// `web` has a volume of a file beside one in a folder, and a file of it alone; `db` has another volume under the same name.
fn with_volumes() -> Pod {
    let mut pod = pod();
    let mut script = file("bin/run", "#!/bin/sh\n");
    script.mode = 0o755;
    pod.volumes.push(volume("config", vec![file("key", "value"), script]));
    pod.volumes.push(volume("other", vec![file("key", "other"), file("more", "x")]));
    pod.containers[1].mounts.push(mount("config", "/etc/config", None));
    pod.containers[1].mounts.push(mount("config", "/app/hosts", Some("key")));
    pod.containers[2].mounts.push(mount("other", "/srv/config", None));
    pod
}

const WEB: usize = 1;

/// The state before `web`'s files are copied in, and those of its volumes.
fn before_copies(pod: Pod) -> (Case, Vec<CopyFileRequest>) {
    let mut case = Case::new(pod);
    let id = case.id("web");
    case.run_until(|r| matches!(r, Request::CopyFile(copy) if copy.path.contains(&id)));
    let copies = requests::copy_container_files(&case.pod, WEB, &case.host).unwrap();
    let copies = copies.into_iter().filter(|copy| copy.path.contains("config")).collect();
    (case, copies)
}

/// The state in which `web` is created next, with its files copied in.
fn before_web(pod: Pod) -> Case {
    let mut case = Case::new(pod);
    let id = case.id("web");
    case.run_until(|r| matches!(r, Request::CreateContainer(create) if create.container_id == id));
    case
}

fn named<'a>(copies: &'a [CopyFileRequest], end: &str) -> &'a CopyFileRequest {
    copies.iter().find(|copy| copy.path.ends_with(end)).unwrap()
}

/// The copy of the file is allowed; with the change it is denied.
fn tampered(end: &str, field: &str, change: impl FnOnce(&mut CopyFileRequest)) {
    static USUAL: OnceLock<(Case, Vec<CopyFileRequest>)> = OnceLock::new();
    let (case, copies) = USUAL.get_or_init(|| before_copies(with_volumes()));
    let mut copy = named(copies, end).clone();
    case.allowed(copy.clone());
    change(&mut copy);
    case.denied(copy, field);
}

const KEY: &str = ".1/key";

#[test]
fn volumes_pass_the_dry_run_and_every_copy_may_be_repeated() {
    generate(&with_volumes(), &Options::default()).unwrap();
    let (mut case, copies) = before_copies(with_volumes());
    assert_eq!(copies.len(), 8);
    for copy in copies.iter().chain(copies.iter().rev()) {
        case.commit(copy.clone());
    }
}

#[test]
fn attack_volume_file_changed_by_one_byte() {
    tampered(KEY, "/data_sha256", |copy| copy.data[0] ^= 1);
    tampered(KEY, "/data_sha256", |copy| {
        copy.data.push(0);
        copy.file_size += 1;
    });
    tampered(KEY, "/data_sha256", |copy| {
        copy.data.clear();
        copy.file_size = 0;
    });
}

#[test]
fn attack_volume_file_under_another_name() {
    for path in ["key2", "run", "KEY", "key/x", "bin/key", "", "..", "./key", "$(volume-version)"] {
        tampered(KEY, "/path", |copy| copy.path = copy.path.replace("/key", &format!("/{path}")));
    }
    // A file where the volume has a folder.
    tampered(KEY, "/file_type", |copy| copy.path = copy.path.replace("/key", "/bin"));
    // The bytes of one file in the place of another.
    tampered(".1/bin/run", "/data_sha256", |copy| {
        copy.data = b"value".to_vec();
        copy.file_size = 5;
    });
}

#[test]
fn attack_file_added_to_a_volume() {
    tampered(KEY, "/path", |copy| copy.path = copy.path.replace("/key", "/added"));
    tampered("-config", "/path", |copy| copy.path.push_str("/added"));
    tampered("-config/key", "/path", |copy| copy.path = copy.path.replace("/key", "/added"));
    // A file where the volume has a link: the container would read it instead.
    tampered("-config/key", "/file_type", |copy| {
        copy.file_mode = 0o100_644;
        copy.file_size = i64::try_from(copy.data.len()).unwrap();
    });
    // A version's folder in which everything is fine, and one more beside it, of which a link could lead to.
    let mut case = before_web(with_volumes());
    let (_, copies) = before_copies(with_volumes());
    let mut second = named(&copies, KEY).clone();
    second.path = second.path.replace("..1970", "..1971");
    case.allowed(case.create("web"));
    case.commit(second);
    case.denied(case.create("web"), "not copied in whole");
}

#[test]
fn attack_link_of_a_volume_that_leads_elsewhere() {
    for target in [
        "..data/bin",
        "../../../etc/shadow",
        "/etc/shadow",
        "..data/../../x",
        "..data/key/",
        "..data",
        "",
        "..1970_01_01_00_00_00.1/key",
    ] {
        tampered("-config/key", "/symlink_target", |copy| copy.data = target.into());
    }
    for target in [
        "..",
        "bin",
        "key",
        "..data",
        "..1970_01_01_00_00_00.1/bin",
        "$(volume-version)",
        "..1970_01_01_00_00_00.1\n",
    ] {
        tampered("/..data", "/symlink_target", |copy| copy.data = target.into());
    }
}

#[test]
fn attack_version_folder_of_another_form() {
    for name in [
        "..1970",
        "1970_01_01_00_00_00.1",
        "..1970_01_01_00_00_00.",
        "..1970_01_01_00_00_00.1x",
        "..x",
        "$(volume-version)",
    ] {
        tampered(KEY, "/path", |copy| {
            copy.path = copy.path.replace("..1970_01_01_00_00_00.1", name)
        });
    }
}

#[test]
fn attack_volume_file_in_chunks() {
    // The digest of the chunk that the rule sees is the declared one, of the file it would not be.
    tampered(KEY, "/file_size", |copy| copy.file_size += 1);
    tampered(KEY, "/offset", |copy| copy.offset = 5);
    tampered(KEY, "/offset", |copy| {
        copy.offset = 5;
        copy.file_size = 10;
    });
    tampered(KEY, "/offset", |copy| copy.offset = -1);
}

#[test]
fn attack_volume_file_with_other_rights() {
    for mode in [0o100_755, 0o100_666, 0o104_644, 0o102_644, 0o100_600] {
        tampered(KEY, "/file_mode", |copy| copy.file_mode = mode);
    }
    tampered(KEY, "/file_type", |copy| copy.file_mode = 0o040_644);
    tampered(".1/bin/run", "/file_mode", |copy| copy.file_mode = 0o100_644);
    tampered(KEY, "/uid", |copy| copy.uid = 1000);
    tampered(KEY, "/gid", |copy| copy.gid = 1000);
    // A folder's or a link's rights are bounded, the rest of it is equal.
    for end in ["-config", "/..data"] {
        let is_denied = |change: fn(&mut CopyFileRequest)| {
            let (case, copies) = before_copies(with_volumes());
            let mut copy = named(&copies, end).clone();
            change(&mut copy);
            assert!(case.decide(copy).is_err());
        };
        is_denied(|copy| copy.uid = 1000);
        is_denied(|copy| copy.gid = 1000);
        is_denied(|copy| copy.file_size = 1);
        is_denied(|copy| copy.dir_mode = 0o777);
    }
    tampered("-config", "/file_mode", |copy| copy.file_mode |= 0o4000);
}

/// Files in a folder that the container's user must not look into are as good as left out.
#[test]
fn attack_volume_folder_that_is_closed() {
    for mode in [0o040_000, 0o040_700, 0o040_750, 0o040_754, 0o040_711, 0o040_355] {
        for end in ["-config", ".1", ".1/bin"] {
            tampered(end, "/file_mode", |copy| copy.file_mode = mode);
        }
    }
    let (case, copies) = before_copies(with_volumes());
    let mut open = named(&copies, "-config").clone();
    open.file_mode = 0o040_555;
    case.decide(open).unwrap();
}

#[test]
fn attack_volume_changed_under_a_created_container() {
    let (_, copies) = before_copies(with_volumes());
    let mut case = before_web(with_volumes());
    case.allowed(copies[0].clone());
    case.commit(case.create("web"));
    for copy in copies {
        case.denied(copy, "/path");
    }
    let files = requests::copy_container_files(&case.pod, WEB, &case.host).unwrap();
    for copy in files {
        assert!(case.decide(copy).is_err(), "a file of the node");
    }
}

/// A volume with files that the owner leaves to the host beside pinned ones, and where it is in a running container.
fn followed() -> (Case, Vec<CopyFileRequest>) {
    let mut pod = with_volumes();
    let unpinned = Unpinned { objects: vec!["configMap/late".to_owned()], mode: 0o644 };
    let free = FileContent::Free("a token".to_owned());
    let token = VolumeFile { path: "token".to_owned(), mode: 0o600, content: free };
    let mixed = FileVolume { files: vec![file("known", "k"), token], unpinned: None };
    let late = FileVolume { files: vec![file("known", "k")], unpinned: Some(unpinned) };
    for (name, files) in [("mixed", mixed), ("late", late)] {
        pod.volumes.push(Volume { name: name.to_owned(), source: VolumeSource::Files(files) });
        pod.containers[1].mounts.push(mount(name, &format!("/etc/{name}-config"), None));
    }
    // under the name that a pinned volume of the same container has, too
    pod.containers[1].mounts.push(mount("late", "/srv/config", None));
    let mut case = before_web(pod);
    case.commit(case.create("web"));
    // a later version of the same volumes
    let mut host = case.host.clone();
    host.volume_version = "..2031_02_03_04_05_06.789".to_owned();
    let copies = requests::copy_container_files(&case.pod, WEB, &host).unwrap();
    (case, copies)
}

fn of<'a>(copies: &'a [CopyFileRequest], volume: &str) -> Vec<&'a CopyFileRequest> {
    copies.iter().filter(|copy| copy.path.contains(volume)).collect()
}

fn with_text(copy: &CopyFileRequest, text: &str) -> CopyFileRequest {
    let file_size = i64::try_from(text.len()).unwrap();
    CopyFileRequest { data: text.into(), file_size, ..copy.clone() }
}

#[test]
fn volumes_with_files_of_the_hosts_choice_follow_the_cluster() {
    let (mut case, copies) = followed();
    for volume in ["-mixed-config", "-late-config"] {
        for copy in of(&copies, volume) {
            case.commit(copy.clone());
        }
    }
    case.commit(with_text(named(&copies, ".789/token"), "another token"));
    let known = of(&copies, "-late-config").into_iter().find(|c| c.path.ends_with(".789/known"));
    let added = known.unwrap();
    case.commit(CopyFileRequest {
        path: added.path.replace("known", "added"),
        ..with_text(added, "x")
    });
}

#[test]
fn attack_pinned_files_of_a_running_containers_volume() {
    let (case, copies) = followed();
    for volume in ["-mixed-config", "-late-config"] {
        let copies = of(&copies, volume);
        let known = copies.iter().find(|copy| copy.path.ends_with(".789/known")).unwrap();
        case.allowed((*known).clone());
        assert!(case.decide(with_text(known, "K")).is_err(), "{volume}");
    }
    let token = named(&copies, ".789/token");
    case.allowed(with_text(token, "new"));
    for copy in [
        CopyFileRequest { file_mode: 0o100_644, ..with_text(token, "new") },
        CopyFileRequest { uid: 7, ..with_text(token, "new") },
        CopyFileRequest { path: token.path.replace("token", "other"), ..with_text(token, "new") },
    ] {
        assert!(case.decide(copy).is_err());
    }
    // volumes that are pinned as a whole, and a volume that the container was never given
    for copy in at(&case, &copies, "/etc/config") {
        case.denied(copy.clone(), "stay as they are");
    }
    let id = token.path["/run/kata-containers/shared/containers/".len()..][65..81].to_owned();
    let never =
        CopyFileRequest { path: token.path.replace(&id, "0123456789abcdef"), ..token.clone() };
    assert!(case.decide(never).is_err());
}

/// Where the container has the volume of this mount, and the copies for it.
fn at<'a>(case: &Case, copies: &'a [CopyFileRequest], mount: &str) -> Vec<&'a CopyFileRequest> {
    let id = case.id("web");
    let file_id = &case.host.file_ids[&format!("{id}/{mount}")];
    copies.iter().filter(|copy| copy.path.contains(file_id.as_str())).collect()
}

#[test]
fn attack_pinned_volume_in_whose_place_one_of_the_same_name_is_put() {
    let (case, copies) = followed();
    let (pinned, late) = (at(&case, &copies, "/etc/config"), at(&case, &copies, "/srv/config"));
    assert!(!pinned.is_empty() && !late.is_empty());
    let id = |mount: &str| case.host.file_ids[&format!("{}/{mount}", case.id("web"))].clone();
    for copy in late.into_iter().filter(|copy| !copy.path.ends_with("/..data")) {
        case.allowed(copy.clone());
        let path = copy.path.replace(&id("/srv/config"), &id("/etc/config"));
        assert!(path.starts_with(&pinned[0].path), "{path}");
        case.denied(CopyFileRequest { path, ..copy.clone() }, "stay as they are");
    }
}

#[test]
fn attack_version_of_a_running_containers_volume_without_its_pinned_files() {
    for left_out in [".789/known", ".789/token", ".789"] {
        let (mut case, copies) = followed();
        let (mut turned, mut missing) = (None, None);
        for copy in of(&copies, "-mixed-config") {
            match &copy.path {
                path if path.ends_with(left_out) => missing = Some(copy),
                path if path.ends_with("/..data") => turned = Some(copy),
                _ => case.commit(copy.clone()),
            }
        }
        let turned = turned.unwrap();
        case.denied(turned.clone(), "not whole");
        case.commit(missing.unwrap().clone());
        case.commit(turned.clone());
        // nor back to the version that is gone
        let back = case.host.volume_version.clone();
        case.denied(CopyFileRequest { data: back.into(), ..turned.clone() }, "not whole");
    }
}

#[test]
fn attack_volume_left_out_or_in_part() {
    let (_, copies) = before_copies(with_volumes());
    for left_out in &copies {
        let mut case = Case::new(with_volumes());
        let id = case.id("web");
        let all = ah_policygen::honest_requests(&case.pod, &case.host).unwrap();
        for request in all {
            match &request {
                Request::CreateContainer(create) if create.container_id == id => break,
                Request::CopyFile(copy) if copy.path == left_out.path => {}
                _ => case.follow(request),
            }
        }
        case.denied(case.create("web"), "not copied in whole");
        case.commit(left_out.clone());
        case.allowed(case.create("web"));
    }
}

/// The guest takes the files of a version away that is turned from: turned back, they would still count as copied.
#[test]
fn attack_volume_turned_to_another_version_and_back() {
    let (before, copies) = before_copies(with_volumes());
    let link = named(&copies, "/..data");
    let other = CopyFileRequest { data: b"..2031_01_01_00_00_00.1".into(), ..link.clone() };
    let folder = link.path.trim_end_matches("/..data");
    let mut case = before;
    case.commit(copies.iter().find(|copy| copy.path == folder).unwrap().clone());
    case.allowed(other.clone());
    let mut case = before_web(with_volumes());
    case.denied(other, "the policy does not allow it");
    case.commit(link.clone());
    case.allowed(case.create("web"));
}

#[test]
fn attack_volume_of_another_container() {
    // Both are called config: db's files are copied in where web's should be.
    let db = requests::copy_container_files;
    let mut case = Case::new(with_volumes());
    let (web_id, db_id) = (case.id("web"), case.id("db"));
    let pod = case.pod.clone();
    let file_id = |id: &str, path: &str| case.host.file_ids[&format!("{id}/{path}")].clone();
    let (from, to) = (
        format!("{db_id}-{}-config", file_id(&db_id, "/srv/config")),
        format!("{web_id}-{}-config", file_id(&web_id, "/etc/config")),
    );
    let others = db(&pod, 2, &case.host).unwrap();
    let others = others.into_iter().filter(|copy| copy.path.contains(&from));
    let others: Vec<_> = others
        .map(|copy| CopyFileRequest { path: copy.path.replace(&from, &to), ..copy })
        .collect();
    for request in ah_policygen::honest_requests(&pod, &case.host).unwrap() {
        match &request {
            Request::CreateContainer(create) if create.container_id == web_id => break,
            Request::CopyFile(copy) if copy.path.contains(&to) => {}
            _ => case.follow(request),
        }
    }
    for copy in others {
        case.commit(copy);
    }
    case.denied(case.create("web"), "not copied in whole");
}

#[test]
fn attack_free_file_in_the_place_of_a_pinned_one() {
    // `hosts` is a file whose contents are the host's, and the name of a pinned one.
    let mut case = before_web(with_volumes());
    let web = case.create("web");
    let mounts = &web.OCI.Mounts;
    let source =
        |path: &str| mounts.iter().find(|mount| mount.destination == path).unwrap().source.clone();
    let free = CopyFileRequest {
        path: source("/etc/hosts"),
        file_size: 4,
        file_mode: 0o100_644,
        data: b"evil".to_vec(),
        ..Default::default()
    };
    case.commit(free.clone());
    case.denied(CopyFileRequest { path: source("/app/hosts"), ..free.clone() }, "/data_sha256");
    case.allowed(web.clone());
    // A half-written free file cannot be finished once the pinned one is there.
    let part = CopyFileRequest { path: source("/app/hosts"), file_size: 9, ..free };
    case.denied(part, "/data_sha256");
    // And the free file cannot be mounted where the pinned one should be.
    let mut swapped = web.clone();
    let free_source = source("/etc/hosts");
    for mount in &mut swapped.OCI.as_mut().unwrap().Mounts {
        if mount.destination == "/app/hosts" {
            mount.source = free_source.clone();
        }
    }
    assert!(case.decide(swapped).is_err());
}

#[test]
fn files_of_a_group_are_readable_for_it() {
    let mut pod = with_volumes();
    pod.security.fs_group = Some(FsGroup { gid: 2000, change: FsGroupChange::Always });
    let (case, copies) = before_copies(pod);
    let copy = named(&copies, KEY);
    assert_eq!((copy.file_mode, copy.gid), (0o100_644, 2000));
    case.allowed(copy.clone());
    case.denied(CopyFileRequest { gid: 0, ..copy.clone() }, "/gid");
    // The kubelet makes links after it has set the group.
    case.allowed(CopyFileRequest { gid: 0, ..named(&copies, "/..data").clone() });
}

#[test]
fn attack_fact_in_a_file_of_another_kind_or_of_another_pod() {
    let mut pod = with_volumes();
    pod.name = PodName::Generated { prefix: "shop-".to_owned() };
    let content = FileContent::Host(HostFact::PodName);
    let name = VolumeFile { path: "name".to_owned(), mode: 0o644, content };
    pod.volumes.push(volume("info", vec![name]));
    pod.containers[1].mounts.push(mount("info", "/etc/info-config", None));
    generate(&pod, &Options::default()).unwrap();
    let (case, copies) = before_copies(pod);
    let copy = named(&copies, ".1/name");
    case.allowed(copy.clone());
    for text in ["shop-other", "evil", "", "shop-\n", "$(sandbox-name)"] {
        let file_size = i64::try_from(text.len()).unwrap();
        case.denied(CopyFileRequest { data: text.into(), file_size, ..copy.clone() }, "/data_text");
    }
}

#[test]
fn attack_name_of_another_pod_of_the_set_in_a_file() {
    let mut pod = with_volumes();
    pod.name = PodName::Ordinal { set: "shop".to_owned() };
    let content = FileContent::Behind { before: "shop-".to_owned(), fact: HostFact::PodIndex };
    let name = VolumeFile { path: "name".to_owned(), mode: 0o644, content };
    pod.volumes.push(volume("info", vec![name]));
    pod.containers[1].mounts.push(mount("info", "/etc/info-config", None));
    generate(&pod, &Options::default()).unwrap();
    let (case, copies) = before_copies(pod);
    let copy = named(&copies, ".1/name");
    assert!(String::from_utf8_lossy(&copy.data).starts_with("shop-"), "{copy:?}");
    case.allowed(copy.clone());
    for text in ["shop-77", "other-0", "0", "shop-", "shop", "", "shop-$(pod-index)"] {
        let file_size = i64::try_from(text.len()).unwrap();
        case.denied(CopyFileRequest { data: text.into(), file_size, ..copy.clone() }, "/data_text");
    }
}

#[test]
fn unpinned_files_are_bounded_and_visible() {
    let mut pod = with_volumes();
    let unpinned = Unpinned { objects: vec!["configMap/late".to_owned()], mode: 0o644 };
    let files = FileVolume { files: vec![file("known", "k")], unpinned: Some(unpinned) };
    pod.volumes.push(Volume { name: "late".to_owned(), source: VolumeSource::Files(files) });
    pod.containers[1].mounts.push(mount("late", "/etc/late-config", None));
    let shown = show(&generate(&pod, &Options::default()).unwrap().policy).unwrap();
    assert_eq!(shown.containers[1].volumes[2].unpinned, ["configMap/late"]);
    let text = shown.to_string();
    assert!(
        text.contains(
            "UNPINNED     /etc/late-config: the host chooses the files of configMap/late"
        ),
        "{text}"
    );
    let (mut case, copies) = before_copies(pod);
    let known = named(&copies, ".1/known").clone();
    let free = |path: &str| CopyFileRequest {
        path: known.path.replace("/known", path),
        data: b"anything".to_vec(),
        file_size: 8,
        ..known.clone()
    };
    case.commit(free("/added"));
    case.commit(free("/a/b"));
    let link = named(&copies, "late-config/known");
    let target = |name: &str, target: &str| CopyFileRequest {
        path: link.path.replace("/known", name),
        data: target.into(),
        ..link.clone()
    };
    case.commit(target("/added", "..data/added"));
    for copy in [
        CopyFileRequest { file_mode: 0o100_755, ..free("/added") },
        CopyFileRequest { uid: 7, ..free("/added") },
        CopyFileRequest { file_size: 9, ..free("/added") },
        free("/known"),
        free("/.."),
        free("/..x"),
        free("/a b"),
        free(&"/x".repeat(8)),
        target("/added", "/etc/shadow"),
        target("/added", "..data/known"),
        target("/known", "..data/added"),
        target("/a/b", "..data/a"),
    ] {
        let name = copy.path.clone();
        assert!(case.decide(copy).is_err(), "{name}");
    }
    // What the owner declared has to be there, what the host adds does not hurt.
    let id = case.id("web");
    let all = ah_policygen::honest_requests(&case.pod, &case.host).unwrap();
    let is_web = |r: &Request| matches!(r, Request::CopyFile(copy) if copy.path.contains(&id));
    for request in all.into_iter().skip_while(|request| !is_web(request)) {
        match &request {
            Request::CreateContainer(create) if create.container_id == id => break,
            Request::CopyFile(copy) if copy.path == known.path => {}
            _ => case.follow(request),
        }
    }
    case.denied(case.create("web"), "not copied in whole");
    case.commit(known);
    case.allowed(case.create("web"));
}

#[test]
fn show_names_each_file_with_its_digest() {
    let shown = show(&generate(&with_volumes(), &Options::default()).unwrap().policy).unwrap();
    let text = shown.to_string();
    let digest = ah_digest::Sha256::of("value");
    assert!(
        text.contains(&format!("file         /etc/config/key (644) sha256:{digest}")),
        "{text}"
    );
    assert!(text.contains(&format!("file         /app/hosts (644) sha256:{digest}")), "{text}");
    assert!(text.contains("/etc/config/bin/run (755)") && !text.contains("UNPINNED"), "{text}");
    serde_json::to_string(&shown).unwrap();
}
