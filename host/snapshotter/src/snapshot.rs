use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ah_containerd_api::snapshots::{Info, Kind as WireKind};
use ah_containerd_api::types::Timestamp;
use ah_digest::Sha256;
use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// Version of a snapshot's file.
pub(crate) const VERSION: u32 = 1;

/// A snapshot, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snapshot {
    pub(crate) version: u32,
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) parent: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: Moment,
    pub(crate) updated: Moment,
    /// Of a committed snapshot: the disk that its files take.
    pub(crate) usage: Usage,
    /// Of a committed snapshot: the layer that it is, once that is converted.
    pub(crate) layer: Option<Sha256>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    View,
    Active,
    Committed,
}

/// A moment, since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment {
    seconds: u64,
    nanos: u32,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs(), nanos: since.subsec_nanos() }
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        Self {
            seconds: i64::try_from(moment.seconds).unwrap_or(i64::MAX),
            nanos: i32::try_from(moment.nanos).unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl Kind {
    /// As filters write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

impl From<Kind> for WireKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::View => Self::VIEW,
            Kind::Active => Self::ACTIVE,
            Kind::Committed => Self::COMMITTED,
        }
    }
}

impl From<&Snapshot> for Info {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.name.clone(),
            parent: snapshot.parent.clone().unwrap_or_default(),
            kind: WireKind::from(snapshot.kind).into(),
            created_at: Some(snapshot.created.into()).into(),
            updated_at: Some(snapshot.updated.into()).into(),
            labels: snapshot.labels.clone().into_iter().collect(),
            ..Self::default()
        }
    }
}
