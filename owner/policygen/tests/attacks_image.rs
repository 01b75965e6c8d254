//! The image of a container: its layers, in their order, and what it is called.

mod support;

use std::collections::BTreeMap;

use ah_agent_api::agent::{CreateContainerRequest, Storage};
use support::{Case, image, tampered};

/// `web` has the storages: layer `web`, layer `base`, the overlay, the volume.
#[test]
fn attack_no_layer_storage() {
    tampered("/storages/0", |request| drop(request.storages.drain(..2)));
    tampered("/storages/0", |request| request.storages.clear());
    tampered("/storages/1", |request| drop(request.storages.remove(1)));
    tampered("/storages/2", |request| drop(request.storages.remove(2)));
}

#[test]
fn attack_two_layer_storages_for_one() {
    tampered("/storages/1/mount_point", |request| {
        request.storages.insert(1, request.storages[0].clone());
    });
    tampered("/storages/4", |request| {
        request.storages.push(Storage { driver: "blk".into(), ..Default::default() });
    });
    tampered("/storages/3", |request| request.storages.insert(3, request.storages[2].clone()));
}

#[test]
fn attack_layer_swapped_for_another_valid_image() {
    // The root hash of `db` is in the same policy, but not for this container.
    let other = Case::before("web").create("db").storages[0].clone();
    tampered("/storages/0/mount_point", |request| request.storages[0] = other);
    tampered("/storages/0/options/1", |request| {
        let hash = ah_digest::Sha256::of("other");
        request.storages[0].options[1] = format!("X-kata.dmverity.roothash={hash}");
    });
    tampered("/storages/0/options/3", |request| {
        request.storages[0].options[3] = "X-kata.dmverity.hashoffset=4096".into();
    });
    tampered("/storages/0/options/1", |request| drop(request.storages[0].options.remove(1)));
    tampered("/OCI/Annotations/io.kubernetes.cri.image-name", |request| {
        let reference = image("db").reference;
        annotations(request).insert("io.kubernetes.cri.image-name".into(), reference);
    });
    tampered("/storages/0/driver", |request| {
        request.storages[0].driver = "image_guest_pull".into();
    });
}

#[test]
fn attack_an_image_name_of_another_repository() {
    let name = |name: String| {
        move |request: &mut CreateContainerRequest| {
            annotations(request).insert("io.kubernetes.cri.image-name".into(), name.clone());
        }
    };
    // the node has the pinned image under a tag as well, or under another digest (that of an index)
    let other_digest = ah_digest::Sha256::of("index");
    for known in [
        "registry.example/web:1.25".to_owned(),
        "registry.example/web".to_owned(),
        format!("registry.example/web@sha256:{other_digest}"),
        format!("registry.example/web:v1@sha256:{other_digest}"),
    ] {
        let case = Case::before("web");
        let mut request = case.create("web");
        name(known.clone())(&mut request);
        case.allowed(request);
    }
    for other in [
        "registry.example/web2:1.25",
        "registry.example/we",
        "registry.example/web/x:1",
        "registry.example.org/web:1.25",
        "registry.example/web:",
        "registry.example/web:1.25 ",
        "registry.example/web@sha256:00",
        "",
    ] {
        tampered("/OCI/Annotations/io.kubernetes.cri.image-name", name(other.to_owned()));
    }
}

#[test]
fn attack_layers_reordered() {
    tampered("/storages/0/mount_point", |request| request.storages.swap(0, 1));
    tampered("/storages/2/options/0", |request| {
        let option = &mut request.storages[2].options[0];
        let (top, bottom) = option["lowerdir=".len()..].split_once(':').unwrap();
        *option = format!("lowerdir={bottom}:{top}");
    });
}

fn annotations(request: &mut CreateContainerRequest) -> &mut BTreeMap<String, String> {
    &mut request.OCI.as_mut().unwrap().Annotations
}
