use protobuf::Message;

use crate::content::{
    InfoRequest, InfoResponse, ListContentRequest, ListContentResponse, ReadContentRequest,
    ReadContentResponse,
};
use crate::cri::*;
use crate::snapshots::*;
use crate::types::Empty;

/// A request that is answered once. Its type names the method.
pub trait Call: Message {
    /// The answer.
    type Response: Message;
    /// `/package.Service/Method`.
    const PATH: &'static str;
}

/// A request that is answered by a stream of messages.
pub trait StreamCall: Message {
    /// One message of the answer.
    type Response: Message;
    /// `/package.Service/Method`.
    const PATH: &'static str;
}

macro_rules! calls {
    ($kind:ident, $service:literal: $($method:literal $request:ty => $response:ty;)*) => {$(
        impl $kind for $request {
            type Response = $response;
            const PATH: &'static str = concat!("/", $service, "/", $method);
        }
    )*};
}

calls! { Call, "containerd.services.snapshots.v1.Snapshots":
    "Prepare" PrepareSnapshotRequest => PrepareSnapshotResponse;
    "View" ViewSnapshotRequest => ViewSnapshotResponse;
    "Mounts" MountsRequest => MountsResponse;
    "Commit" CommitSnapshotRequest => Empty;
    "Remove" RemoveSnapshotRequest => Empty;
    "Stat" StatSnapshotRequest => StatSnapshotResponse;
    "Update" UpdateSnapshotRequest => UpdateSnapshotResponse;
    "Usage" UsageRequest => UsageResponse;
    "Cleanup" CleanupRequest => Empty;
}

calls! { StreamCall, "containerd.services.snapshots.v1.Snapshots":
    "List" ListSnapshotsRequest => ListSnapshotsResponse;
}

calls! { Call, "containerd.services.content.v1.Content":
    "Info" InfoRequest => InfoResponse;
}

calls! { StreamCall, "containerd.services.content.v1.Content":
    "List" ListContentRequest => ListContentResponse;
    "Read" ReadContentRequest => ReadContentResponse;
}

calls! { Call, "containerd.services.images.v1.Images":
    "List" crate::images::ListImagesRequest => crate::images::ListImagesResponse;
}

calls! { Call, "containerd.services.introspection.v1.Introspection":
    "Plugins" crate::introspection::PluginsRequest => crate::introspection::PluginsResponse;
}

calls! { Call, "containerd.services.version.v1.Version":
    "Version" Empty => crate::version::VersionResponse;
}

calls! { Call, "runtime.v1.RuntimeService":
    "Version" VersionRequest => VersionResponse;
    "RunPodSandbox" RunPodSandboxRequest => RunPodSandboxResponse;
    "StopPodSandbox" StopPodSandboxRequest => StopPodSandboxResponse;
    "RemovePodSandbox" RemovePodSandboxRequest => RemovePodSandboxResponse;
    "PodSandboxStatus" PodSandboxStatusRequest => PodSandboxStatusResponse;
    "ListPodSandbox" ListPodSandboxRequest => ListPodSandboxResponse;
    "CreateContainer" CreateContainerRequest => CreateContainerResponse;
    "StartContainer" StartContainerRequest => StartContainerResponse;
    "StopContainer" StopContainerRequest => StopContainerResponse;
    "RemoveContainer" RemoveContainerRequest => RemoveContainerResponse;
    "ListContainers" ListContainersRequest => ListContainersResponse;
    "ContainerStatus" ContainerStatusRequest => ContainerStatusResponse;
    "ExecSync" ExecSyncRequest => ExecSyncResponse;
    "Status" StatusRequest => StatusResponse;
}

calls! { Call, "runtime.v1.ImageService":
    "ListImages" ListImagesRequest => ListImagesResponse;
    "ImageStatus" ImageStatusRequest => ImageStatusResponse;
    "PullImage" PullImageRequest => PullImageResponse;
    "RemoveImage" RemoveImageRequest => RemoveImageResponse;
}
