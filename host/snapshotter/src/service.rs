use std::sync::Arc;

use ah_agent_api::TraceParent;
use ah_containerd_api::snapshots::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use ah_containerd_api::types::{Empty, Mount};
use ah_containerd_api::{Code, Snapshotter, Status};
use ah_layers::SnapshotLayers;
use tokio::task::spawn_blocking;

use crate::convert::{Converter, whole_text};
use crate::filter::Filter;
use crate::mounts::mounts;
use crate::name::Name;
use crate::snapshot::{Kind, Snapshot};
use crate::spans::Spans;
use crate::store::{Draft, Store, StoreError};
use crate::{trace, usage};

/// Most snapshots in one message of a list.
const LIST_CHUNK: usize = 100;

/// What containerd speaks to.
pub struct Service {
    store: Arc<Store>,
    converter: Converter,
    spans: Option<Spans>,
}

impl Service {
    pub(crate) fn new(store: Arc<Store>, converter: Converter, spans: Option<Spans>) -> Self {
        Self { store, converter, spans }
    }

    /// Begins to convert what was committed and not converted when the program ended.
    pub(crate) fn resume(&self) {
        for snapshot in self.store.list() {
            if snapshot.kind == Kind::Committed && is_image_layer(&snapshot) {
                self.converter.begin(&snapshot);
            }
        }
    }

    async fn make(&self, new: New, kind: Kind) -> Result<Vec<Mount>, Status> {
        let New { key, parent, labels } = new;
        let store = Arc::clone(&self.store);
        let draft = blocking(move || {
            let parent = (!parent.is_empty()).then_some(parent);
            store.begin(&key, parent.as_deref(), kind, labels.into_iter().collect())
        })
        .await?;
        let unpacking = Name::parse(&draft.snapshot.name).is_some_and(Name::is_unpacking);
        if !unpacking && !draft.ancestors.is_empty() {
            self.write_layers(&draft).await?;
        }
        let (snapshot, ancestors) = blocking(move || draft.keep()).await?;
        Ok(self.mounts_of(&snapshot, &ancestors))
    }

    /// Waits for the layers below a snapshot, and writes down what they are.
    async fn write_layers(&self, draft: &Draft) -> Result<(), Status> {
        let layers = self.converter.layers(&draft.ancestors).await;
        let writable = draft.snapshot.kind == Kind::Active;
        let layers = SnapshotLayers::new(draft.snapshot.name.clone(), writable, layers);
        let folder = draft.folder();
        let written = spawn_blocking(move || layers.write(&folder)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Status::new(Code::Internal, whole_text(&error))),
            Err(_) => Err(Status::new(Code::Internal, "layers not written down")),
        }
    }

    fn mounts_of(&self, snapshot: &Snapshot, ancestors: &[Snapshot]) -> Vec<Mount> {
        let ids: Vec<u64> = ancestors.iter().map(|ancestor| ancestor.id).collect();
        mounts(self.store.folder(), snapshot, &ids)
    }
}

struct New {
    key: String,
    parent: String,
    labels: std::collections::HashMap<String, String>,
}

impl Snapshotter for Service {
    async fn lead<T: Send>(
        &self,
        path: &'static str,
        said: Option<TraceParent>,
        work: impl Future<Output = Result<T, Status>> + Send,
    ) -> Result<T, Status> {
        trace::lead(self.spans.as_ref(), path, said, work).await
    }

    async fn prepare(
        &self,
        request: PrepareSnapshotRequest,
    ) -> Result<PrepareSnapshotResponse, Status> {
        let PrepareSnapshotRequest { key, parent, labels, .. } = request;
        let mounts = self.make(New { key, parent, labels }, Kind::Active).await?;
        Ok(PrepareSnapshotResponse { mounts, ..Default::default() })
    }

    async fn view(&self, request: ViewSnapshotRequest) -> Result<ViewSnapshotResponse, Status> {
        let ViewSnapshotRequest { key, parent, labels, .. } = request;
        let mounts = self.make(New { key, parent, labels }, Kind::View).await?;
        Ok(ViewSnapshotResponse { mounts, ..Default::default() })
    }

    async fn mounts(&self, request: MountsRequest) -> Result<MountsResponse, Status> {
        let lineage = self.store.lineage(&request.key).map_err(status)?;
        let mounts = match lineage.split_first() {
            Some((snapshot, _)) if snapshot.kind == Kind::Committed => {
                let text = format!("snapshot {:?} is committed: it has no mounts", request.key);
                return Err(Status::new(Code::FailedPrecondition, text));
            }
            Some((snapshot, ancestors)) => self.mounts_of(snapshot, ancestors),
            None => return Err(Status::new(Code::NotFound, request.key)),
        };
        Ok(MountsResponse { mounts, ..Default::default() })
    }

    async fn commit(&self, request: CommitSnapshotRequest) -> Result<Empty, Status> {
        let store = Arc::clone(&self.store);
        let snapshot = blocking(move || {
            store.commit(&request.key, &request.name, request.labels.into_iter().collect())
        })
        .await?;
        // containerd waits with a lock on its database: the conversion is not for it to wait for.
        if is_image_layer(&snapshot) {
            self.converter.begin(&snapshot);
        }
        Ok(Empty::default())
    }

    async fn remove(&self, request: RemoveSnapshotRequest) -> Result<Empty, Status> {
        let store = Arc::clone(&self.store);
        let removed = blocking(move || store.remove(&request.key)).await?;
        self.converter.forget(&removed.name);
        if removed.layer.is_some()
            && let Err(error) = self.converter.collect().await
        {
            tracing::warn!(error = whole_text(&error), "block images left for the next cleanup");
        }
        Ok(Empty::default())
    }

    async fn stat(&self, request: StatSnapshotRequest) -> Result<StatSnapshotResponse, Status> {
        let snapshot = self.store.snapshot(&request.key).map_err(status)?;
        Ok(StatSnapshotResponse { info: info(&snapshot), ..Default::default() })
    }

    async fn update(
        &self,
        request: UpdateSnapshotRequest,
    ) -> Result<UpdateSnapshotResponse, Status> {
        let store = Arc::clone(&self.store);
        let snapshot = blocking(move || {
            let (info, mask) = (request.info.unwrap_or_default(), request.update_mask);
            store.update(&info.name, &info.labels, &mask.unwrap_or_default().paths)
        })
        .await?;
        Ok(UpdateSnapshotResponse { info: info(&snapshot), ..Default::default() })
    }

    async fn list(
        &self,
        request: ListSnapshotsRequest,
    ) -> Result<Vec<ListSnapshotsResponse>, Status> {
        let filters: Result<Vec<Filter>, _> =
            request.filters.iter().map(|text| Filter::parse(text)).collect();
        let filters =
            filters.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
        let taken = |snapshot: &Snapshot| {
            filters.is_empty() || filters.iter().any(|filter| filter.takes(snapshot))
        };
        let all: Vec<Info> =
            self.store.list().iter().filter(|s| taken(s)).map(Info::from).collect();
        let message = |info: &[Info]| ListSnapshotsResponse {
            info: info.to_vec(),
            ..ListSnapshotsResponse::default()
        };
        Ok(all.chunks(LIST_CHUNK).map(message).collect())
    }

    async fn usage(&self, request: UsageRequest) -> Result<UsageResponse, Status> {
        let (store, converter) = (Arc::clone(&self.store), self.converter.clone());
        let usage = blocking(move || {
            let snapshot = store.snapshot(&request.key)?;
            let mut usage = match snapshot.kind {
                Kind::Committed => snapshot.usage,
                Kind::Active | Kind::View => {
                    usage::of_folder(&store.folder_of(&snapshot).join("fs"))
                }
            };
            if let Some(diff_id) = snapshot.layer {
                usage.bytes = usage.bytes.saturating_add(converter.image_bytes(&diff_id));
                usage.inodes += 1;
            }
            Ok(usage)
        })
        .await?;
        Ok(UsageResponse {
            size: i64::try_from(usage.bytes).unwrap_or(i64::MAX),
            inodes: i64::try_from(usage.inodes).unwrap_or(i64::MAX),
            ..UsageResponse::default()
        })
    }

    async fn cleanup(&self, _: CleanupRequest) -> Result<Empty, Status> {
        let store = Arc::clone(&self.store);
        blocking(move || store.cleanup()).await?;
        let collected = self.converter.collect().await;
        collected.map_err(|error| Status::new(Code::Internal, whole_text(&error)))?;
        Ok(Empty::default())
    }
}

fn is_image_layer(snapshot: &Snapshot) -> bool {
    Name::parse(&snapshot.name).is_some_and(|name| name.chain_id().is_some())
}

fn info(snapshot: &Snapshot) -> ah_containerd_api::MessageField<Info> {
    Some(Info::from(snapshot)).into()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(status),
        Err(_) => Err(Status::new(Code::Internal, "the operation panicked")),
    }
}

fn status(error: StoreError) -> Status {
    let code = match &error {
        StoreError::NotFound { .. } => Code::NotFound,
        StoreError::Exists { .. } => Code::AlreadyExists,
        StoreError::Kind { .. } | StoreError::HasChildren { .. } => Code::FailedPrecondition,
        StoreError::Field { .. } => Code::InvalidArgument,
        StoreError::InUse { .. } => Code::Unavailable,
        StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Code::ResourceExhausted
        }
        StoreError::File { .. } => Code::Internal,
    };
    Status::new(code, whole_text(&error))
}
