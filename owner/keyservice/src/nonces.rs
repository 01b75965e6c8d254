//! Challenges that are open: each good once, for a while, and never more of them than fit.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use ah_release_api::Nonce;

/// Why a nonce is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceError {
    /// Never given out by this service since it started, or forgotten since it expired or too many came after it.
    #[error(
        "nonce is not one that this service gave out lately: the report answers another challenge"
    )]
    Unknown,
    /// Used before.
    #[error("nonce was used before: the report is a replay")]
    Used,
    /// Too old.
    #[error("nonce has expired: it is {age_s} s old, expected at most {limit_s} s")]
    Expired {
        /// Its age, seconds.
        age_s: u64,
        /// Oldest age, seconds.
        limit_s: u64,
    },
}

struct Entry {
    issued: SystemTime,
    used: bool,
}

/// The challenges given out. When it is full the oldest makes room: a peer that floods can delay others, and cannot make the service grow or
/// refuse for as long as a nonce lives.
pub(crate) struct Nonces {
    entries: HashMap<Nonce, Entry>,
    order: VecDeque<Nonce>,
    lifetime: Duration,
    capacity: usize,
}

impl Nonces {
    pub(crate) fn new(lifetime: Duration, capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            lifetime,
            capacity: capacity.max(1),
        }
    }

    /// Remembers a fresh nonce.
    pub(crate) fn issue(&mut self, nonce: Nonce, now: SystemTime) {
        while self.order.len() >= self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.entries.remove(&oldest);
            }
        }
        if self.entries.insert(nonce, Entry { issued: now, used: false }).is_none() {
            self.order.push_back(nonce);
        }
    }

    /// Uses a nonce up, whatever becomes of the request it came with.
    pub(crate) fn spend(&mut self, nonce: &Nonce, now: SystemTime) -> Result<(), NonceError> {
        let entry = self.entries.get_mut(nonce).ok_or(NonceError::Unknown)?;
        if std::mem::replace(&mut entry.used, true) {
            return Err(NonceError::Used);
        }
        match now.duration_since(entry.issued) {
            Ok(age) if age <= self.lifetime => Ok(()),
            Ok(age) => {
                Err(NonceError::Expired { age_s: age.as_secs(), limit_s: self.lifetime.as_secs() })
            }
            // The clock went back: how old the nonce is cannot be known.
            Err(_) => Err(NonceError::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        START + Duration::from_secs(1000 + seconds)
    }

    fn nonce(byte: u8) -> Nonce {
        Nonce::new([byte; 32])
    }

    fn nonces() -> Nonces {
        let mut nonces = Nonces::new(Duration::from_secs(60), 3);
        nonces.issue(nonce(1), at(0));
        nonces
    }

    #[test]
    fn a_nonce_is_good_once() {
        let mut nonces = nonces();
        assert_eq!(nonces.spend(&nonce(2), at(0)), Err(NonceError::Unknown));
        assert_eq!(nonces.spend(&nonce(1), at(60)), Ok(()));
        assert_eq!(nonces.spend(&nonce(1), at(60)), Err(NonceError::Used));
    }

    #[test]
    fn a_nonce_is_good_for_its_lifetime_only() {
        let late = Err(NonceError::Expired { age_s: 61, limit_s: 60 });
        assert_eq!(nonces().spend(&nonce(1), at(61)), late);
        assert_eq!(nonces().spend(&nonce(1), START), Err(NonceError::Unknown));
        let mut nonces = nonces();
        let _ = nonces.spend(&nonce(1), at(61));
        assert_eq!(nonces.spend(&nonce(1), at(1)), Err(NonceError::Used));
    }

    #[test]
    fn the_store_is_bounded_and_the_oldest_goes_first() {
        let mut nonces = nonces();
        for byte in 2..=4 {
            nonces.issue(nonce(byte), at(1));
        }
        assert_eq!((nonces.entries.len(), nonces.order.len()), (3, 3));
        assert_eq!(nonces.spend(&nonce(1), at(1)), Err(NonceError::Unknown));
        assert_eq!(nonces.spend(&nonce(2), at(1)), Ok(()));
        for byte in 0..=255 {
            nonces.issue(nonce(byte), at(2));
        }
        assert_eq!((nonces.entries.len(), nonces.order.len()), (3, 3));
    }
}
