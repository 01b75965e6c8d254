use std::path::Path;

use ah_containerd_api::types::Mount;

use crate::snapshot::{Kind, Snapshot};

/// What mounts a snapshot whose ancestors have these ids, nearest first. A real mount in every case: containerd itself
/// mounts snapshots when it unpacks layers and when it creates containers.
pub(crate) fn mounts(folder: &Path, snapshot: &Snapshot, ancestors: &[u64]) -> Vec<Mount> {
    let path = |id: u64, part: &str| folder.join(id.to_string()).join(part).display().to_string();
    let own = path(snapshot.id, "fs");
    let writable = snapshot.kind == Kind::Active;
    if ancestors.is_empty() {
        let access = if writable { "rw" } else { "ro" };
        return vec![mount("bind", own, vec![access.into(), "rbind".into()])];
    }
    let mut options = Vec::new();
    if Path::new("/sys/module/overlay/parameters/index").exists() {
        // Otherwise a folder that was moved to another disk could not be mounted any more.
        options.push("index=off".to_owned());
    }
    let lower: Vec<String> = ancestors.iter().map(|id| path(*id, "fs")).collect();
    let lower = lower.join(":");
    if writable {
        options.push(format!("workdir={}", path(snapshot.id, "work")));
        options.push(format!("upperdir={own}"));
        options.push(format!("lowerdir={lower}"));
    } else {
        // Its own folder is empty. It is named so that the runtime finds what stands beside it.
        options.push(format!("lowerdir={own}:{lower}"));
    }
    vec![mount("overlay", "overlay".into(), options)]
}

fn mount(kind: &str, source: String, options: Vec<String>) -> Mount {
    Mount { type_: kind.into(), source, options, ..Mount::default() }
}
