//! Creating containers. One with sealed values needs keys first, and whoever carries the exchange with the key service, the host, can
//! make it last. So the lock is not held meanwhile: the request is decided, keys are asked for, and then it is decided anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use ah_agent_api::agent::CreateContainerRequest;
use ah_permit::{Permit, decide, may_release_keys};
use tokio::sync::watch;

use super::{Gate, Response as _, Rules, denied};
use crate::effects::Effects;
use crate::failure::Failure;
use crate::keys::{Keys, WantedKey};

impl<E: Effects> Gate<E> {
    /// Decides, carries out and commits under the lock; where keys are needed it is let go in between.
    pub(super) async fn create(&self, request: CreateContainerRequest) -> Result<Vec<u8>, Failure> {
        let _begun = self.creating.begin(&request.container_id);
        let mut rules = self.rules.lock().await;
        let permit = self.decide_create(&mut rules, request)?;
        let wanted = self.wanted_keys(&mut rules, &permit).await?;
        if wanted.is_empty() {
            return self.make(&mut rules, permit, Keys::default()).await;
        }
        let (request, _) = permit.into_parts();
        drop(rules);
        let fetched = {
            // Each holds a thread, of which other requests need some.
            let _turn = self.exchanges.acquire().await;
            self.effects.fetch_keys(wanted).await
        };
        let mut rules = self.rules.lock().await;
        let keys = match fetched {
            Ok(keys) => keys,
            Err(failure) => {
                self.effects.give_up(&request.container_id).await;
                return Err(failure);
            }
        };
        // Other requests may have come in between: nothing that was decided or seen before counts any more but the keys.
        let permit = self.decide_create(&mut rules, request)?;
        self.wanted_keys(&mut rules, &permit).await?;
        self.make(&mut rules, permit, keys).await
    }

    fn decide_create(
        &self,
        rules: &mut Rules,
        request: CreateContainerRequest,
    ) -> Result<Permit<CreateContainerRequest>, Failure> {
        let (policy, state) = rules.stand()?;
        for (container_id, exit_code) in self.effects.exits() {
            state.note_exit(&container_id, exit_code);
        }
        decide(policy, state, request).map_err(denied)
    }

    /// Sealed values are opened with keys of the pod's, so the policy's word about those comes first. A retry needs none.
    async fn wanted_keys(
        &self,
        rules: &mut Rules,
        permit: &Permit<CreateContainerRequest>,
    ) -> Result<Vec<WantedKey>, Failure> {
        if permit.is_repeat() {
            return Ok(Vec::new());
        }
        let wanted = self.effects.wanted_keys(permit).await?;
        if !wanted.is_empty() {
            let (policy, state) = rules.stand()?;
            may_release_keys(policy, state).map_err(denied)?;
        }
        Ok(wanted)
    }

    async fn make(
        &self,
        rules: &mut Rules,
        permit: Permit<CreateContainerRequest>,
        keys: Keys,
    ) -> Result<Vec<u8>, Failure> {
        if !permit.is_repeat() {
            self.effects.create_container(&permit, keys).await?;
        }
        let (_, changes) = permit.into_parts();
        let (_, state) = rules.stand()?;
        state.commit(changes).map_err(|e| Failure::effect("commit", &e))?;
        ().bytes()
    }
}

/// Ids of containers whose creation has begun and not ended, each with how many requests of it there are.
#[derive(Clone, Default)]
pub(super) struct Creating(Arc<watch::Sender<BTreeMap<String, usize>>>);

/// One creation; it has ended when this is dropped.
struct Begun {
    creating: Creating,
    id: String,
}

impl Creating {
    fn begin(&self, id: &str) -> Begun {
        self.0.send_modify(|ids| {
            let count = ids.entry(id.to_owned()).or_default();
            *count = count.saturating_add(1);
        });
        Begun { creating: self.clone(), id: id.to_owned() }
    }

    /// Waits until no creation of this container is under way: what removes it must find it.
    pub(super) async fn ended(&self, id: &str) {
        let _ = self.0.subscribe().wait_for(|ids| !ids.contains_key(id)).await;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.creating.0.send_modify(|ids| {
            let left = ids.get(&self.id).map_or(0, |count| count.saturating_sub(1));
            match left {
                0 => drop(ids.remove(&self.id)),
                left => drop(ids.insert(self.id.clone(), left)),
            }
        });
    }
}
