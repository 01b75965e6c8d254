//! Keys for a container's sealed values, between the policy's decision and the container.

use std::collections::BTreeMap;

use ah_release::{KeyId, Place, ReleasedKey};

/// A key that a container needs, and where it is needed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedKey {
    /// Its name in the key service.
    pub id: KeyId,
    /// The variable or file, for people.
    pub place: Place,
}

/// Keys that were released for one container; wiped when dropped.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<KeyId, ReleasedKey>);

impl Keys {
    /// The key of this name.
    pub fn of(&self, id: &KeyId) -> Option<&ReleasedKey> {
        self.0.get(id)
    }
}

impl FromIterator<(KeyId, ReleasedKey)> for Keys {
    fn from_iter<T: IntoIterator<Item = (KeyId, ReleasedKey)>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}
