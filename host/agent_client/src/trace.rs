//! The trace that a call to the agent belongs to.

use std::time::{Duration, SystemTime};

use ah_agent_api::{TRACEPARENT, TraceParent};
use ttrpc::proto::KeyValue;

use crate::{CallError, Limit};

tokio::task_local! {
    static PLACE: Place;
}

/// Where work belongs, and who hears of the calls that it makes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The span that the work is.
    pub here: TraceParent,
    /// Told of each call that has ended, but not of those that wait for something to happen in the guest.
    pub hears: Option<Hears>,
}

/// Who hears of calls.
#[derive(Debug, Clone, Copy)]
pub struct Hears {
    /// Gives a call its span's number: one that no other has, not zero.
    pub number: fn() -> u64,
    /// Is told that it has ended.
    pub ended: fn(&Made<'_>),
}

/// A call to the agent that has ended.
#[derive(Debug)]
pub struct Made<'a> {
    /// The agent's method.
    pub method: &'static str,
    /// The span that made it.
    pub parent: TraceParent,
    /// Its own span, which the agent was told.
    pub here: TraceParent,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub error: Option<&'a CallError>,
}

/// Does `work`, whose calls to the agent tell it where they belong. What `work` spawns is not part of it.
pub async fn in_trace<T>(place: Place, work: impl Future<Output = T>) -> T {
    PLACE.scope(place, work).await
}

/// Where the current work belongs.
pub fn place() -> Option<Place> {
    PLACE.try_with(|place| *place).ok()
}

/// A call on its way.
pub(crate) struct Begun {
    place: Option<Place>,
    /// Its own span, where somebody hears of it.
    own: Option<(TraceParent, Hears)>,
    began: SystemTime,
}

impl Begun {
    pub(crate) fn now(limit: Limit) -> Self {
        let place = place();
        let own = place.filter(|_| limit != Limit::Unlimited).and_then(|place| {
            place.hears.map(|hears| (place.here.with_span((hears.number)()), hears))
        });
        Self { place, own, began: SystemTime::now() }
    }

    /// What the call says of its trace.
    pub(crate) fn metadata(&self) -> Vec<KeyValue> {
        let here = self.own.map(|(here, _)| here).or(self.place.map(|place| place.here));
        let said = here.map(|here| KeyValue {
            key: TRACEPARENT.into(),
            value: here.to_string(),
            ..Default::default()
        });
        said.into_iter().collect()
    }

    pub(crate) fn ended<T>(self, method: &'static str, answer: &Result<T, CallError>) {
        if let (Some(place), Some((here, hears))) = (self.place, self.own) {
            // A clock that was set back makes no time.
            let took = self.began.elapsed().unwrap_or_default();
            let (parent, error) = (place.here, answer.as_ref().err());
            (hears.ended)(&Made { method, parent, here, began: self.began, took, error });
        }
    }
}
