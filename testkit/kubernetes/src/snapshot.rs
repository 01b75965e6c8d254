//! A container's snapshot on layers that are converted: how long `Prepare` takes, against containerd's overlayfs.

use std::time::Instant;

use ah_containerd_api::snapshots::{
    Kind, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use ah_containerd_api::{Client, Code};
use ah_testkit_figures::{Row, median};
use ah_testkit_node::SNAPSHOTTER;
use anyhow::{Context as _, Result};

use crate::Options;
use crate::site::{IMAGE, Site};

const OVERLAYFS: &str = "overlayfs";
const NAMESPACE: &str = "k8s.io";
const SNAPSHOTS: usize = 51;
const GOAL_MS: f64 = 5.0;

pub(crate) async fn measure(site: &Site, options: &Options) -> Result<()> {
    let listed = site.node.ctr(&["images", "ls", &format!("name=={IMAGE}")])?;
    let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
    let digest = digest.with_context(|| format!("no digest of {IMAGE}: {listed}"))?;
    site.node.ctr(&["snapshots", "--snapshotter", OVERLAYFS, "unpack", digest])?;
    let containerd = site.node.containerd().in_namespace(NAMESPACE);
    let chain = committed(&containerd, OVERLAYFS, "").await?;
    let snapshotter = site.node.snapshotter();
    // containerd names them NAMESPACE/NUMBER/NAME there
    let own = committed(&snapshotter, "", &format!("/{chain}")).await?;
    let places = [
        (&containerd, OVERLAYFS, chain.as_str()),
        (&containerd, SNAPSHOTTER, chain.as_str()),
        (&snapshotter, "", own.as_str()),
    ];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for number in 0..SNAPSHOTS {
        for ((client, name, parent), times) in places.iter().zip(&mut times) {
            times.push(prepare(client, name, parent, number).await?);
        }
    }
    let [overlayfs, through, alone] = times.map(|mut times| median(&mut times));
    let name = "snapshot prepare, layers converted, at the snapshotter";
    let goal = Some(("under 5 ms", alone < GOAL_MS));
    Row { name, value: alone, unit: "ms", reference: None, goal }.print(options.json);
    let name = "the same through containerd; against overlayfs there";
    let reference = Some(overlayfs);
    Row { name, value: through, unit: "ms", reference, goal: None }.print(options.json);
    Ok(())
}

/// A committed snapshot that nothing is committed on, with this end of its name.
async fn committed(client: &Client, snapshotter: &str, end: &str) -> Result<String> {
    let request =
        ListSnapshotsRequest { snapshotter: snapshotter.into(), ..ListSnapshotsRequest::default() };
    let mut answers = client.stream(request).await?;
    let mut all = Vec::new();
    while let Some(answer) = answers.next().await? {
        all.extend(
            answer.info.into_iter().filter(|info| info.kind.enum_value() == Ok(Kind::COMMITTED)),
        );
    }
    let parents: Vec<&str> = all.iter().map(|info| info.parent.as_str()).collect();
    let mut top = all.iter().filter(|info| !parents.contains(&info.name.as_str()));
    let found = top.find(|info| info.name.ends_with(end));
    Ok(found.with_context(|| format!("no committed snapshot {end} in {all:?}"))?.name.clone())
}

/// Milliseconds that `Prepare` took; the snapshot is removed again.
async fn prepare(client: &Client, snapshotter: &str, parent: &str, number: usize) -> Result<f64> {
    let key = format!("bench/{number}/of-{snapshotter}");
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.into(),
        key: key.clone(),
        parent: parent.into(),
        ..PrepareSnapshotRequest::default()
    };
    let begun = Instant::now();
    client.call(request).await?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let snapshotter = snapshotter.into();
    let remove = RemoveSnapshotRequest { snapshotter, key, ..RemoveSnapshotRequest::default() };
    match client.call(remove).await {
        // containerd collects what was made behind its back
        Err(status) if status.code() == Code::NotFound => {}
        removed => drop(removed?),
    }
    Ok(took)
}
