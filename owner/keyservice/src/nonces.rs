//! Challenges: each good once, for a while, on every replica, without a list of those that were given out.
//!
//! A nonce holds its time and a MAC under a key that the replicas share, so a peer that asks for many makes nobody's memory grow and
//! pushes out nobody's challenge. Which ones were used is in the database; those used lately are remembered here as well, so that most
//! replays cost no verification.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ah_release_api::Nonce;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use subtle::ConstantTimeEq as _;

/// Time in milliseconds, then random bytes.
const STATEMENT_BYTES: usize = 16;
/// How far the clocks of two replicas may be apart.
const SKEW: Duration = Duration::from_secs(5);

/// Why a nonce is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceError {
    /// Not one of this service's.
    #[error("nonce is not one that this service gave out: the report answers another challenge")]
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

/// Makes nonces and knows its own again.
pub(crate) struct Nonces {
    key: Key,
    lifetime: Duration,
    used: Mutex<Used>,
}

struct Used {
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
    capacity: usize,
}

impl Nonces {
    /// `key` is 32 secret bytes; `capacity` used nonces are remembered.
    pub(crate) fn new(key: &[u8], lifetime: Duration, capacity: usize) -> Self {
        let used =
            Used { known: HashSet::new(), order: VecDeque::new(), capacity: capacity.max(1) };
        Self { key: Key::new(HMAC_SHA256, key), lifetime, used: Mutex::new(used) }
    }

    /// A fresh nonce from 8 random bytes.
    pub(crate) fn issue(&self, random: [u8; 8], now: SystemTime) -> Nonce {
        let age = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(age.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&time);
        bytes[8..STATEMENT_BYTES].copy_from_slice(&random);
        let mac = self.mac(&bytes);
        bytes[STATEMENT_BYTES..].copy_from_slice(&mac);
        Nonce::new(bytes)
    }

    /// Uses a nonce up on this replica, whatever becomes of the request it came with; gives when it expires.
    pub(crate) fn spend(&self, nonce: &Nonce, now: SystemTime) -> Result<SystemTime, NonceError> {
        let bytes = nonce.as_bytes();
        if !bool::from(bytes[STATEMENT_BYTES..].ct_eq(&self.mac(bytes))) {
            return Err(NonceError::Unknown);
        }
        let mut time = [0; 8];
        time.copy_from_slice(&bytes[..8]);
        let issued = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_millis(u64::from_be_bytes(time)))
            .ok_or(NonceError::Unknown)?;
        if !self.remember(*bytes) {
            return Err(NonceError::Used);
        }
        match now.duration_since(issued) {
            Ok(age) if age <= self.lifetime => {}
            Ok(age) => {
                return Err(NonceError::Expired {
                    age_s: age.as_secs(),
                    limit_s: self.lifetime.as_secs(),
                });
            }
            Err(ahead) if ahead.duration() <= SKEW => {}
            // The clock went back: how old the nonce is cannot be known.
            Err(_) => return Err(NonceError::Unknown),
        }
        Ok(issued + self.lifetime + SKEW)
    }

    fn remember(&self, nonce: [u8; 32]) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.known.insert(nonce) {
            return false;
        }
        used.order.push_back(nonce);
        while used.order.len() > used.capacity {
            if let Some(oldest) = used.order.pop_front() {
                used.known.remove(&oldest);
            }
        }
        true
    }

    fn mac(&self, bytes: &[u8; 32]) -> [u8; 32 - STATEMENT_BYTES] {
        let tag = sign(&self.key, &bytes[..STATEMENT_BYTES]);
        let mut mac = [0; 32 - STATEMENT_BYTES];
        mac.copy_from_slice(&tag.as_ref()[..32 - STATEMENT_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds)
    }

    fn nonces() -> Nonces {
        Nonces::new(&[7; 32], Duration::from_secs(60), 3)
    }

    #[test]
    fn a_nonce_is_good_once() {
        let (nonces, nonce) = (nonces(), nonces().issue([1; 8], at(0)));
        assert_eq!(nonces.spend(&nonce, at(60)), Ok(at(60) + SKEW));
        assert_eq!(nonces.spend(&nonce, at(60)), Err(NonceError::Used));
    }

    #[test]
    fn attack_nonce_of_ones_own_making() {
        let other = Nonces::new(&[8; 32], Duration::from_secs(60), 3);
        assert_eq!(nonces().spend(&other.issue([1; 8], at(0)), at(0)), Err(NonceError::Unknown));
        let good = *nonces().issue([1; 8], at(0)).as_bytes();
        assert!(nonces().spend(&Nonce::new(good), at(0)).is_ok());
        for index in 0..32 {
            let mut bad = good;
            bad[index] ^= 1;
            assert_eq!(
                nonces().spend(&Nonce::new(bad), at(0)),
                Err(NonceError::Unknown),
                "{index}"
            );
        }
    }

    #[test]
    fn a_nonce_is_good_for_its_lifetime_only() {
        let late = Err(NonceError::Expired { age_s: 61, limit_s: 60 });
        let nonce = nonces().issue([1; 8], at(0));
        assert_eq!(nonces().spend(&nonce, at(61)), late);
        assert_eq!(nonces().spend(&nonce, SystemTime::UNIX_EPOCH), Err(NonceError::Unknown));
        assert!(
            nonces().spend(&nonces().issue([1; 8], at(3)), at(0)).is_ok(),
            "another replica's clock"
        );
        let nonces = nonces();
        let _ = nonces.spend(&nonce, at(61));
        assert_eq!(nonces.spend(&nonce, at(1)), Err(NonceError::Used));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let nonces = nonces();
        for byte in 0..=255 {
            assert!(nonces.spend(&nonces.issue([byte; 8], at(1)), at(1)).is_ok());
        }
        let used = nonces.used.lock().unwrap();
        assert_eq!((used.known.len(), used.order.len()), (3, 3));
    }
}
