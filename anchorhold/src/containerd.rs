//! The images that a containerd on this machine has: their names from its database, their blobs from its content store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ah_containerd_api::images::ListImagesRequest;
use ah_containerd_api::introspection::PluginsRequest;
use ah_containerd_api::{Call, Client};
use ah_digest::Sha256;
use anyhow::Result;
use tokio::time::timeout;

use crate::cli;
use crate::ui::failure;

/// What the kubelet's images are in.
const NAMESPACE: &str = "k8s.io";
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The plugin that keeps blobs in a folder (containerd, plugins/content/local).
const CONTENT: &str = "io.containerd.content.v1";

/// The content store with its names; none where no containerd was named.
pub(crate) async fn stores(images: &cli::Images) -> Result<Vec<(PathBuf, Vec<(String, Sha256)>)>> {
    let Some(socket) = &images.containerd else { return Ok(Vec::new()) };
    let namespace = images.containerd_namespace.as_deref().unwrap_or(NAMESPACE);
    let client = Client::new(socket).in_namespace(namespace);
    let filters = vec![format!("type=={CONTENT}")];
    let plugins = ask(&client, socket, PluginsRequest { filters, ..Default::default() }).await?;
    let folder = plugins.plugins.into_iter().find_map(|mut plugin| plugin.exports.remove("root"));
    let Some(folder) = folder else {
        return Err(failure(
            format!("containerd at {} does not say where its content store is", socket.display()),
            "name the folder io.containerd.content.v1.content with --images, and images by their digests",
        ));
    };
    let listed = ask(&client, socket, ListImagesRequest::default()).await?;
    let named = listed.images.into_iter().filter_map(|image| {
        // an image of another digest algorithm is none that could be asked for
        Some((image.name, Sha256::from_oci(&image.target.digest).ok()?))
    });
    Ok(vec![(PathBuf::from(folder), named.collect())])
}

async fn ask<R: Call>(client: &Client, socket: &Path, request: R) -> Result<R::Response> {
    let failed = |why: &str| {
        failure(
            format!("containerd at {} did not answer: {why}", socket.display()),
            "name the socket of a running containerd that you may use, such as /run/containerd/containerd.sock",
        )
    };
    match timeout(ANSWER_LIMIT, client.call(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) => Err(failed(status.message())),
        Err(_) => Err(failed("not within 30 s")),
    }
}
