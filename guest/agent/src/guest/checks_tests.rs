use ah_agent_api::agent::{FSGroup, SharedMount, Storage, StringUser};

use super::*;

const HASH: &str = "aa";

fn hash(byte: &str) -> String {
    byte.repeat(32)
}

fn blk(byte: &str) -> Storage {
    Storage {
        driver: "blk".into(),
        source: "02".into(),
        fstype: "erofs".into(),
        options: vec![
            "ro".into(),
            format!("X-kata.dmverity.roothash={}", hash(byte)),
            format!("X-kata.dmverity.salt={}", hash("00")),
            "X-kata.dmverity.hashoffset=8192".into(),
        ],
        mount_point: format!("/run/kata-containers/layers/{}", hash(byte)),
        shared: true,
        ..Default::default()
    }
}

fn overlay_of(bytes: &[&str]) -> Storage {
    let folders: Vec<String> =
        bytes.iter().map(|b| format!("/run/kata-containers/layers/{}", hash(b))).collect();
    Storage {
        driver: "overlayfs".into(),
        source: "overlay".into(),
        fstype: "overlay".into(),
        options: vec![format!("lowerdir={}", folders.join(":"))],
        mount_point: "/run/kata-containers/c1/rootfs".into(),
        ..Default::default()
    }
}

fn bind(destination: &str, source: &str) -> oci::Mount {
    oci::Mount {
        destination: destination.into(),
        source: source.into(),
        type_: "bind".into(),
        options: vec!["bind".into()],
        ..Default::default()
    }
}

fn good() -> CreateContainerRequest {
    let spec = oci::Spec {
        Root: Some(oci::Root {
            Path: "/run/kata-containers/c1/rootfs".into(),
            ..Default::default()
        })
        .into(),
        Mounts: vec![
            bind("/etc/hosts", "/run/kata-containers/shared/containers/c1-0011223344556677-hosts"),
            bind("/dev/shm", "/run/kata-containers/sandbox/shm"),
            bind(RELEASE_SOCKET, RELEASE_SOCKET),
        ],
        Annotations: [(CRI_TYPE.to_owned(), "container".to_owned())].into(),
        ..Default::default()
    };
    CreateContainerRequest {
        container_id: "c1".into(),
        exec_id: "c1".into(),
        storages: vec![blk("aa"), blk("bb"), overlay_of(&["aa", "bb"])],
        OCI: Some(spec).into(),
        ..Default::default()
    }
}

fn check(change: impl FnOnce(&mut CreateContainerRequest)) -> Result<Plan, String> {
    let mut request = good();
    change(&mut request);
    plan(&request, &Layout::guest()).map_err(|e| e.to_string())
}

fn spec(request: &mut CreateContainerRequest) -> &mut oci::Spec {
    request.OCI.as_mut().unwrap()
}

#[track_caller]
fn refused(change: impl FnOnce(&mut CreateContainerRequest), word: &str) {
    match check(change) {
        Ok(plan) => panic!("accepted: {plan:?}"),
        Err(text) => assert!(text.contains(word), "{text:?} does not say {word:?}"),
    }
}

#[test]
fn a_request_as_kata_makes_it_is_planned() {
    let plan = check(|_| ()).unwrap();
    assert_eq!(plan.kind, Kind::Workload);
    let hashes: Vec<String> = plan.layers.iter().map(|l| l.verity.root_hash.to_string()).collect();
    assert_eq!(hashes, [hash(HASH), hash("bb")]);
    assert_eq!(plan.layers[0].verity.data_blocks, 2);
}

#[test]
fn a_sandbox_has_no_storages() {
    let sandbox = |r: &mut CreateContainerRequest| {
        r.storages.clear();
        spec(r).Mounts.clear();
        spec(r).Annotations = [
            (CRI_TYPE.to_owned(), "sandbox".to_owned()),
            (KATA_TYPE.to_owned(), "pod_sandbox".to_owned()),
        ]
        .into();
    };
    assert_eq!(check(sandbox).unwrap().kind, Kind::Sandbox);
    let with_layers = |r: &mut CreateContainerRequest| {
        let storages = r.storages.clone();
        sandbox(r);
        r.storages = storages;
    };
    refused(with_layers, "the sandbox has no root");
    let disagreeing = |r: &mut CreateContainerRequest| {
        sandbox(r);
        spec(r).Annotations.insert(KATA_TYPE.into(), "pod_container".into());
    };
    refused(disagreeing, "different kinds");
}

#[test]
fn attack_copied_files_as_root() {
    // The chain of the agent policy reference, section 3.1: a tree copied in, then named as the root.
    let copied = "/run/kata-containers/shared/containers/c1-0011223344556677-x/rootfs";
    refused(|r| spec(r).Root.as_mut().unwrap().Path = copied.into(), "Root.Path");
    for path in [
        "/run/kata-containers/c1/rootfs/",
        "/run/kata-containers/c1/../c1/rootfs",
        "/run/kata-containers//c1/rootfs",
        "/run/kata-containers/c2/rootfs",
        "/x/run/kata-containers/c1/rootfs",
        "",
    ] {
        refused(|r| spec(r).Root.as_mut().unwrap().Path = path.into(), "Root.Path");
    }
    refused(|r| r.storages.clear(), "verified layers only");
    refused(|r| spec(r).Root = None.into(), "Root.Path");
}

#[test]
fn attack_no_layer_storage() {
    refused(|r| r.storages.retain(|s| s.driver != "blk"), "expected the layers");
    refused(|r| r.storages.retain(|s| s.driver != "overlayfs"), "verified layers only");
}

#[test]
fn attack_two_roots() {
    refused(|r| r.storages.push(overlay_of(&["aa", "bb"])), "2 overlays");
    refused(|r| r.storages.push(blk("cc")), "follows the overlay");
}

#[test]
fn attack_layers_reordered() {
    refused(|r| r.storages.swap(0, 1), "in their order");
    refused(|r| r.storages[2] = overlay_of(&["bb", "aa"]), "in their order");
    refused(|r| r.storages[2] = overlay_of(&["aa"]), "in their order");
}

#[test]
fn a_root_has_the_limit_that_its_overlay_names() {
    assert_eq!(check(|_| ()).unwrap().root_bytes, None);
    let with = |text: &'static str| {
        move |r: &mut CreateContainerRequest| r.storages[2].options.push(text.into())
    };
    assert_eq!(check(with("size=4097")).unwrap().root_bytes, Some(4097));
    assert_eq!(check(with("size=2m")).unwrap().root_bytes, Some(2 << 20));
    for text in ["size=0", "size=", "size=-1", "size=+1", "size=1 ", "volatile", "upperdir=/x"] {
        refused(with(text), "at most a size above 0");
    }
    let twice = |r: &mut CreateContainerRequest| {
        r.storages[2].options.extend(["size=1".into(), "size=2".into()]);
    };
    refused(twice, "at most a size above 0");
    refused(|r| r.storages[2].options.insert(0, "size=1".into()), "in their order");
}

#[test]
fn attack_layer_without_verity() {
    refused(|r| drop(r.storages[0].options.remove(1)), "roothash");
    refused(|r| drop(r.storages[0].options.remove(0)), "roothash");
    refused(|r| r.storages[0].options.push("rw".into()), "not known");
    refused(|r| r.storages[0].options[3] = "X-kata.dmverity.hashoffset=08192".into(), "decimal");
    refused(|r| r.storages[0].options[3] = "X-kata.dmverity.hashoffset=8193".into(), "multiple");
    refused(|r| r.storages[0].options[3] = "X-kata.dmverity.hashoffset=0".into(), "out of range");
    let again = r#"X-kata.dmverity.salt=00"#;
    refused(|r| r.storages[0].options.push(again.into()), "twice");
    refused(|r| r.storages[0].fstype = "ext4".into(), "erofs");
    refused(|r| r.storages[0].mount_point = "/run/kata-containers/c1/rootfs".into(), "mount_point");
    refused(|r| r.storages[0].source = "/dev/vda".into(), "source");
    refused(|r| r.storages[0].fs_group = Some(FSGroup::default()).into(), "fs_group");
}

#[test]
fn attack_storage_of_another_driver() {
    for driver in ["virtio-fs", "9p", "bind", "image_guest_pull", "scsi", ""] {
        refused(|r| r.storages[0].driver = driver.into(), "storages.driver");
    }
}

#[test]
fn attack_mount_of_a_guest_path() {
    for source in [
        "/",
        "/etc",
        "/run/anchorhold",
        "/run/anchorhold/bundles/c1/config.json",
        "/run/kata-containers",
        "/run/kata-containers/shared/containers",
        "/run/kata-containers/shared/containers/",
        "/run/kata-containers/shared/containers/../../c2/rootfs",
        "/run/kata-containers/shared/containers/./x",
        "/run/kata-containers/shared/containers//x",
        "/run/kata-containers/c2/rootfs",
        "/run/kata-containers/layers/aa",
        "/run/kata-containers/sandbox/shm/x",
        "shared",
        "",
    ] {
        refused(|r| spec(r).Mounts[0].source = source.into(), "comes from");
    }
    refused(|r| spec(r).Mounts[2].destination = "/other.sock".into(), "release socket");
    refused(|r| spec(r).Mounts[0].destination = RELEASE_SOCKET.into(), "release socket");
}

#[test]
fn attack_container_id_out_of_its_folder() {
    for id in ["", "..", "../c1", "c1/x", "shared", "sandbox", "layers"] {
        refused(
            |r| {
                r.container_id = id.into();
                r.exec_id = id.into();
                spec(r).Root.as_mut().unwrap().Path = format!("/run/kata-containers/{id}/rootfs");
            },
            "container_id",
        );
    }
}

#[test]
fn attack_fields_without_an_effect() {
    refused(|r| r.devices.push(Default::default()), "devices");
    refused(|r| r.shared_mounts.push(SharedMount::default()), "shared_mounts");
    refused(|r| r.string_user = Some(StringUser::default()).into(), "string_user");
    refused(|r| r.stdout_port = 1, "stdout_port");
    refused(|r| r.exec_id = "e".into(), "exec_id");
    refused(|r| r.OCI = None.into(), "OCI");
}

#[test]
fn volumes_lie_in_their_folder() {
    let volume = |name: &str| Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: format!("/run/kata-containers/sandbox/ephemeral{name}"),
        options: vec!["size=64m".into()],
        ..Default::default()
    };
    let with = |storage: Storage| {
        check(|r| {
            spec(r).Mounts.push(bind("/cache", &storage.mount_point));
            r.storages.push(storage);
        })
    };
    let plan = with(volume("/cache")).unwrap();
    assert_eq!(plan.volumes[0].folder, Path::new("/run/kata-containers/sandbox/ephemeral/cache"));
    for name in ["", "/", "/a/b", "/../shm", "/cache/", "x/y"] {
        assert!(with(volume(name)).is_err(), "{name:?}");
    }
}

#[test]
fn a_volume_is_in_memory_or_on_the_scratch_disk() {
    let with = |driver: &str, kind: &str, options: &[&str]| {
        let storage = Storage {
            driver: driver.into(),
            source: kind.into(),
            fstype: kind.into(),
            mount_point: "/run/kata-containers/sandbox/ephemeral/cache".into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Default::default()
        };
        let plan = check(|r| r.storages.push(storage.clone()))?;
        let volume = &plan.volumes[0];
        Ok::<_, String>((volume.medium, volume.size_bytes, volume.mode))
    };
    let memory = with("ephemeral", "tmpfs", &["mode=0777", "size=64m"]);
    assert_eq!(memory, Ok((Medium::Memory, Some(64 << 20), Some(0o777))));
    assert_eq!(with("local", "local", &["size=4096"]), Ok((Medium::Disk, Some(4096), None)));
    assert!(with("local", "tmpfs", &[]).is_err());
    assert!(with("ephemeral", "local", &[]).is_err());
    assert!(with("ephemeral", "ext4", &[]).is_err());
    for options in [
        &["exec"][..],
        &["size="],
        &["size=m"],
        &["size=-1"],
        &["size=1", "size=2"],
        &["size=17179869184g"],
        &["mode=8"],
        &["mode=17777"],
        &["mode=07777", "mode=0"],
        &["fsgid=1"],
    ] {
        assert!(with("local", "local", options).unwrap_err().contains("not known"), "{options:?}");
    }
}

#[test]
fn attack_mount_of_something_beside_a_volume() {
    let base = "/run/kata-containers/sandbox/ephemeral";
    let with =
        |below: &str| check(|r| spec(r).Mounts.push(bind("/cache", &format!("{base}{below}"))));
    assert_eq!(with("/cache").unwrap().parts, []);
    // A part is not mounted by its path: it is opened and held first.
    let parts = with("/cache/x/y").unwrap().parts;
    let volume = Path::new(base).join("cache");
    assert_eq!(
        (&parts[0].volume, parts[0].names.as_slice()),
        (&volume, &["x".into(), "y".into()][..])
    );
    let deep = format!("/cache{}", "/x".repeat(32));
    for below in
        ["", "/", "/cache/", "/cache/./x", "/cache//x", "/../shm/x", "/cache/..", "-x/y", &deep]
    {
        assert!(with(below).unwrap_err().contains("comes from"), "{below:?}");
    }
}
