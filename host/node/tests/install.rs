//! The configuration's file: replaced whole, given back byte for byte.

use std::fs;
use std::path::Path;

use ah_node::{Handler, InstallError, Wanted, install, uninstall};

fn wanted(handlers: &[&str]) -> Wanted {
    Wanted {
        handlers: handlers
            .iter()
            .map(|name| Handler { name: (*name).to_owned(), config: "/etc/x.toml".into() })
            .collect(),
        snapshotter_socket: "/run/snapshotter.sock".into(),
        version: "1.6.20".parse().unwrap(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn uninstalling_gives_back_every_byte() {
    for original in [Some("version = 2 # theirs\n\n\n"), Some("#x\n"), None] {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        if let Some(text) = original {
            fs::write(&config, text).unwrap();
        }
        let one = wanted(&["anchorhold-cc"]);
        assert!(install(&config, &one).unwrap().changed);
        assert!(!install(&config, &one).unwrap().changed);
        // Another installation over the first.
        let two = wanted(&["anchorhold-cc", "kata-cc"]);
        assert!(install(&config, &two).unwrap().changed);
        assert!(fs::read_to_string(&config).unwrap().contains("kata-cc"));
        assert!(uninstall(&config).unwrap().changed);
        assert_eq!(fs::read_to_string(&config).ok().as_deref(), original);
        assert_eq!(names(folder.path()).len(), usize::from(original.is_some()));
        assert!(!uninstall(&config).unwrap().changed);
    }
}

#[test]
fn a_refused_file_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "version = 1\n").unwrap();
    let error = install(&config, &wanted(&["anchorhold-cc"])).unwrap_err();
    assert!(matches!(error, InstallError::Merge { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&config).unwrap(), "version = 1\n");
    assert_eq!(names(folder.path()), ["config.toml"]);
}

#[test]
fn a_link_stays_one_and_permissions_stay() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("real.toml"), folder.path().join("config.toml"));
    fs::write(&file, "version = 2\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    install(&link, &wanted(&["anchorhold-cc"])).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::read_to_string(&file).unwrap().contains("anchorhold-cc"));
}
