use super::*;

/// The addresses that are asked for a blob, in their order.
fn check(hosts: &str, expect: Result<&[&str], &str>) {
    let folder = tempfile::tempdir().unwrap();
    let registry = folder.path().join("quay.io");
    fs::create_dir(&registry).unwrap();
    fs::write(registry.join("hosts.toml"), hosts).unwrap();
    let places = Places {
        registry_folders: vec![folder.path().into()],
        plain_http: vec!["127.0.0.1:5000".into()],
        ..Places::default()
    };
    let found = Hosts::new(&places).endpoints("quay.io").map(|endpoints| {
        let urls = endpoints.iter().map(|e| e.url("a/b", "blobs/x", "quay.io").unwrap());
        urls.map(String::from).collect::<Vec<_>>()
    });
    match (found, expect) {
        (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{hosts}"),
        (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
        (found, expect) => panic!("{found:?}, expected {expect:?}: {hosts}"),
    }
}

#[test]
fn mirrors_are_asked_in_the_files_order() {
    check("", Ok(&["https://quay.io/v2/a/b/blobs/x"]));
    check(
        "server = \"https://quay.io\"\n[host.\"https://z.example/quay\"]\n[host.\"https://a.example\"]\n",
        Ok(&[
            "https://z.example/quay/v2/a/b/blobs/x?ns=quay.io",
            "https://a.example/v2/a/b/blobs/x?ns=quay.io",
            "https://quay.io/v2/a/b/blobs/x",
        ]),
    );
    check(
        "[host.\"https://m.example/own/path\"]\noverride_path = true\n",
        Ok(&[
            "https://m.example/own/path/a/b/blobs/x?ns=quay.io",
            "https://quay.io/v2/a/b/blobs/x",
        ]),
    );
    check(
        "[host.\"http://127.0.0.1:5000\"]\n",
        Ok(&["http://127.0.0.1:5000/v2/a/b/blobs/x?ns=quay.io", "https://quay.io/v2/a/b/blobs/x"]),
    );
}

#[test]
fn attack_a_file_that_takes_tls_away_is_refused() {
    check("skip_verify = true\n", Err("skip_verify is refused"));
    check("[host.\"https://m.example\"]\nskip_verify = true\n", Err("skip_verify is refused"));
    check("[host.\"http://m.example\"]\n", Err("--plain-http m.example"));
    check("servre = \"https://quay.io\"\n", Err("unknown field"));
}

#[test]
fn only_who_may_resolve_is_asked_for_a_tag() {
    let mut endpoint = Endpoint::registry("m", false);
    endpoint.resolves = false;
    assert!(!endpoint.serves("manifests/1.0"));
    assert!(endpoint.serves("manifests/sha256:00"));
    assert!(endpoint.serves("blobs/sha256:00"));
}

#[test]
fn docker_hub_has_its_api_elsewhere() {
    let url = Endpoint::registry("docker.io", false).url("library/busybox", "x", "docker.io");
    assert_eq!(url.unwrap().as_str(), "https://registry-1.docker.io/v2/library/busybox/x");
}
