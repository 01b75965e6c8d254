//! Proves that a log is what its head says and begins with what an earlier head said. Pure: entries and heads come from anywhere.

use ah_digest::Sha256;

use crate::head::{HeadError, SignedHead};
use crate::merkle::{Frontier, leaf_hash};

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// A head that the log did not sign.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// Another log.
    #[error("log has key {found}, expected that of the pinned head, {expected}")]
    OtherLog {
        /// Key found.
        found: String,
        /// Key expected.
        expected: String,
    },
    /// Entries are missing at the end.
    #[error(
        "log has {found} entries, expected at least the {expected} of the pinned head: entries were dropped"
    )]
    Shrunk {
        /// Entries of the head.
        found: u64,
        /// Entries of the pinned head.
        expected: u64,
    },
    /// Other entries came than the head speaks of.
    #[error("{found} entries were read, expected the {expected} of the log's head")]
    Count {
        /// Entries read.
        found: u64,
        /// Entries of the head.
        expected: u64,
    },
    /// An entry was changed, dropped, added or moved.
    #[error("entries do not give the root of the log's head: found {found}, expected {expected}")]
    Root {
        /// Root of the entries.
        found: Sha256,
        /// Root of the head.
        expected: Sha256,
    },
    /// An entry that the pinned head covers was changed, dropped, added or moved.
    #[error(
        "the first {size} entries are not those of the pinned head: found root {found}, expected {expected}"
    )]
    History {
        /// Entries of the pinned head.
        size: u64,
        /// Root of as many entries now.
        found: Sha256,
        /// Root of the pinned head.
        expected: Sha256,
    },
}

/// A check that is going on: entries come one by one.
#[derive(Debug)]
pub struct Audit {
    head: SignedHead,
    pinned: Option<SignedHead>,
    tree: Frontier,
    history: Option<AuditError>,
}

impl Audit {
    /// Begins with what the log says of itself, and what it said earlier.
    ///
    /// # Errors
    /// [`AuditError`] when a signature fails, the log is another one, or it has become shorter.
    pub fn begin(head: SignedHead, pinned: Option<SignedHead>) -> Result<Self, AuditError> {
        head.verify()?;
        if let Some(pinned) = &pinned {
            pinned.verify()?;
            if pinned.public_key != head.public_key {
                let (found, expected) = (head.public_key, pinned.public_key.clone());
                return Err(AuditError::OtherLog { found, expected });
            }
            if pinned.size > head.size {
                return Err(AuditError::Shrunk { found: head.size, expected: pinned.size });
            }
        }
        let mut audit = Self { head, pinned, tree: Frontier::default(), history: None };
        audit.compare_with_pinned();
        Ok(audit)
    }

    /// Takes the next entry, its bytes as they are stored.
    pub fn entry(&mut self, body: &[u8]) {
        self.tree.push(leaf_hash(body));
        self.compare_with_pinned();
    }

    /// Ends the check.
    ///
    /// # Errors
    /// [`AuditError`] when the entries are not those of the heads.
    pub fn finish(self) -> Result<SignedHead, AuditError> {
        if let Some(error) = self.history {
            return Err(error);
        }
        if self.tree.size() != self.head.size {
            return Err(AuditError::Count { found: self.tree.size(), expected: self.head.size });
        }
        match self.tree.root() {
            root if root == self.head.root => Ok(self.head),
            found => Err(AuditError::Root { found, expected: self.head.root }),
        }
    }

    fn compare_with_pinned(&mut self) {
        let Some(pinned) = self.pinned.as_ref().filter(|pinned| pinned.size == self.tree.size())
        else {
            return;
        };
        let (found, expected) = (self.tree.root(), pinned.root);
        if found != expected {
            self.history = Some(AuditError::History { size: pinned.size, found, expected });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::Ed25519KeyPair;
    use std::time::SystemTime;

    const ENTRIES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn key(byte: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[byte; 32]).unwrap()
    }

    fn head(key_byte: u8, entries: &[&str]) -> SignedHead {
        let mut tree = Frontier::default();
        entries.iter().for_each(|entry| drop(tree.push(leaf_hash(entry.as_bytes()))));
        SignedHead::sign(&key(key_byte), tree.size(), tree.root(), SystemTime::UNIX_EPOCH)
    }

    fn check(
        head: SignedHead,
        pinned: Option<SignedHead>,
        entries: &[&str],
    ) -> Result<SignedHead, AuditError> {
        let mut audit = Audit::begin(head, pinned)?;
        entries.iter().for_each(|entry| audit.entry(entry.as_bytes()));
        audit.finish()
    }

    #[test]
    fn a_log_that_grew_passes() {
        for pinned in 0..=5 {
            let pinned = Some(head(1, &ENTRIES[..pinned]));
            assert_eq!(check(head(1, &ENTRIES), pinned, &ENTRIES), Ok(head(1, &ENTRIES)));
        }
        assert!(check(head(1, &[]), None, &[]).is_ok());
    }

    #[test]
    fn attack_log_entry_changed_dropped_added_or_moved() {
        let good = || head(1, &ENTRIES);
        assert!(check(good(), None, &ENTRIES).is_ok());
        let changed = ["a", "b", "x", "d", "e"];
        assert!(matches!(check(good(), None, &changed), Err(AuditError::Root { .. })));
        let moved = ["a", "c", "b", "d", "e"];
        assert!(matches!(check(good(), None, &moved), Err(AuditError::Root { .. })));
        let count = |found| Err(AuditError::Count { found, expected: 5 });
        assert_eq!(check(good(), None, &ENTRIES[..4]), count(4));
        assert_eq!(check(good(), None, &["a", "b", "c", "d", "e", "f"]), count(6));
    }

    /// The service's owner is the adversary: entries are rewritten and the log's own key signs the result.
    #[test]
    fn attack_log_rewritten_and_signed_again() {
        let pinned = || Some(head(1, &ENTRIES[..3]));
        let rewritten = ["a", "x", "c", "d", "e"];
        let answer = check(head(1, &rewritten), pinned(), &rewritten);
        assert!(matches!(answer, Err(AuditError::History { size: 3, .. })), "{answer:?}");
        let answer = check(head(1, &ENTRIES[..2]), pinned(), &ENTRIES[..2]);
        assert_eq!(answer, Err(AuditError::Shrunk { found: 2, expected: 3 }));
        let answer = check(head(2, &ENTRIES), pinned(), &ENTRIES);
        assert!(matches!(answer, Err(AuditError::OtherLog { .. })), "{answer:?}");
    }

    #[test]
    fn attack_head_not_signed_by_the_log() {
        let good = head(1, &ENTRIES);
        let changes: [fn(&mut SignedHead); 4] = [
            |head| head.size = 4,
            |head| head.root = leaf_hash(b"other"),
            |head| head.time.push('0'),
            |head| head.public_key = self::head(2, &[]).public_key,
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(matches!(check(bad.clone(), None, &ENTRIES), Err(AuditError::Head(_))));
            assert!(matches!(check(good.clone(), Some(bad), &ENTRIES), Err(AuditError::Head(_))));
        }
        assert!(check(good, None, &ENTRIES).is_ok());
    }
}
