//! What a node is told.

use ah_node::{DoctorOptions, Finding, doctor};

#[tokio::test]
async fn a_machine_without_daemons_is_told_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let options = DoctorOptions {
        containerd_socket: folder.path().join("containerd.sock"),
        snapshotter_socket: folder.path().join("snapshotter.sock"),
        config: folder.path().join("config.toml"),
        cache: folder.path().to_owned(),
    };
    let checks = doctor(&options).await;
    for name in ["containerd", "snapshotter", "configuration"] {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.finding, Finding::Missing, "{check:?}");
        assert!(check.remedy.is_some());
    }
}
