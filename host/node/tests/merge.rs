//! containerd's configuration from text to text: what is merged, what stays, what is refused.

use ah_node::{Handler, RUNTIME_TYPE, Wanted, merge, unmerge};
use toml_edit::Item;

const CONFIG: &str = "/etc/anchorhold/anchorhold-cc.toml";
const SNAPSHOTTER: &str = "anchorhold";
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";

fn wanted(version: &str) -> Wanted {
    Wanted {
        handlers: ["anchorhold-cc", "kata-cc"]
            .map(|name| Handler { name: name.into(), config: CONFIG.into() })
            .into(),
        snapshotter_socket: "/run/anchorhold/snapshotter.sock".into(),
        version: version.parse().unwrap(),
    }
}

/// What administrators and distributions have, in the forms that TOML has for it.
const CONFIGS: [&str; 5] = [
    "",
    "# a comment alone\n",
    "version = 2\n\n# theirs\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause:3\" # kept\n\n\
     [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"overlayfs\"\n\
     [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n",
    "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc = { runtime_type = \"io.containerd.runc.v2\" }\n",
    "version = 2\n[proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = \"/run/stargz.sock\"\n",
];

fn entries(text: &str) -> toml_edit::DocumentMut {
    text.parse().unwrap()
}

#[test]
fn what_is_merged_is_there_and_what_was_there_stays() {
    for config in CONFIGS {
        for version in ["1.6.20", "1.7.24", "2.1.0"] {
            let merged = merge(config, &wanted(version)).unwrap();
            let document = entries(&merged);
            let containerd = &document["plugins"][CRI]["containerd"];
            for handler in ["anchorhold-cc", "kata-cc"] {
                let runtime = &containerd["runtimes"][handler];
                assert_eq!(runtime["runtime_type"].as_str(), Some(RUNTIME_TYPE), "{merged}");
                assert_eq!(runtime["options"]["ConfigPath"].as_str(), Some(CONFIG), "{merged}");
                let own = runtime.get("snapshotter").and_then(Item::as_str);
                assert_eq!(own, (version != "1.6.20").then_some(SNAPSHOTTER), "{merged}");
            }
            let all = containerd.get("snapshotter").and_then(Item::as_str);
            assert_eq!(all == Some(SNAPSHOTTER), version == "1.6.20", "{merged}");
            assert_eq!(document["proxy_plugins"][SNAPSHOTTER]["type"].as_str(), Some("snapshot"));
            assert_eq!(document["version"].as_integer(), Some(2));
            for line in config.lines().filter(|line| !line.contains("snapshotter = ")) {
                assert!(merged.contains(line), "{line} is not in:\n{merged}");
            }
        }
    }
}

#[test]
fn merging_again_changes_nothing() {
    for config in CONFIGS {
        let once = merge(config, &wanted("1.6.20")).unwrap();
        assert_eq!(merge(&once, &wanted("1.6.20")).unwrap(), once);
    }
}

#[test]
fn unmerging_gives_the_entries_that_were_there() {
    for config in CONFIGS {
        for version in ["1.6.20", "2.1.0"] {
            let merged = merge(config, &wanted(version)).unwrap();
            let back = unmerge(&merged, config).unwrap();
            let expect = if config.contains("version") { config } else { "version = 2\n" };
            assert_eq!(values(&back), values(expect), "{back}");
            assert!(!back.contains(SNAPSHOTTER), "{back}");
        }
    }
}

#[test]
fn what_was_added_since_stays_when_unmerging() {
    let original = CONFIGS[2];
    let mut merged = merge(original, &wanted("1.6.20")).unwrap();
    merged.push_str("[proxy_plugins.other]\ntype = \"snapshot\"\naddress = \"/x\"\n");
    let back = entries(&unmerge(&merged, original).unwrap());
    assert_eq!(back["proxy_plugins"]["other"]["address"].as_str(), Some("/x"));
    assert!(back["proxy_plugins"].get(SNAPSHOTTER).is_none());
    let containerd = &back["plugins"][CRI]["containerd"];
    assert_eq!(containerd["snapshotter"].as_str(), Some("overlayfs"));
}

#[test]
fn version_3_has_its_own_places() {
    let merged = entries(&merge("version = 3\n", &wanted("2.1.0")).unwrap());
    let runtimes = &merged["plugins"][CRI_RUNTIME]["containerd"]["runtimes"];
    assert_eq!(runtimes["kata-cc"]["snapshotter"].as_str(), Some(SNAPSHOTTER));
    assert!(merged["plugins"].get(CRI).is_none());
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let check = |config: &str, version: &str, expect: &str| {
        let error = merge(config, &wanted(version)).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let cri = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd";
    check("version = 2\n[", "1.6.20", "no TOML");
    check("version = 1\n", "1.6.20", "version 1");
    check("oom_score = 1\n", "1.6.20", "version 1 (none is given)");
    check("version = \"2\"\n", "1.6.20", "version \"2\"");
    check("version = 2\n", "1.5.9", "containerd 1.5 is too old");
    check("version = 2\ndisabled_plugins = [\"cri\"]\n", "1.6.20", "disabled_plugins");
    check(
        "version = 2\nplugins = 3\n",
        "1.6.20",
        "plugins in containerd's configuration is no table",
    );
    check(&format!("{cri}]\nsnapshotter = \"zfs\"\n"), "1.6.20", "\"zfs\"");
    check(&format!("{cri}]\ndiscard_unpacked_layers = true\n"), "2.1.0", "discard_unpacked_layers");
    check(
        &format!("{cri}.runtimes.kata-cc]\nruntime_type = \"io.containerd.kata.v2\"\n"),
        "2.1.0",
        "runtimes.kata-cc",
    );
    check("version = 2\n[proxy_plugins.anchorhold]\naddress = \"/x\"\n", "1.6.20", "/x");
    // The smallest change of the refused ones is taken.
    let taken = |config: &str, version: &str| merge(config, &wanted(version)).unwrap();
    taken(&format!("{cri}]\nsnapshotter = \"zfs\"\n"), "1.7.0");
    taken(&format!("{cri}]\ndiscard_unpacked_layers = false\n"), "2.1.0");
    taken("version = 2\ndisabled_plugins = [\"aufs\"]\n", "1.6.20");
}

/// Every value with its path, whatever form the tables have.
fn values(text: &str) -> Vec<String> {
    fn walk(path: &str, item: &Item, out: &mut Vec<String>) {
        match item.as_table_like() {
            Some(table) => {
                table.iter().for_each(|(k, item)| walk(&format!("{path}/{k}"), item, out))
            }
            None => {
                out.push(format!("{path} = {}", item.as_value().unwrap().clone().decorated("", "")))
            }
        }
    }
    let mut out = Vec::new();
    walk("", entries(text).as_item(), &mut out);
    out.sort();
    out
}
