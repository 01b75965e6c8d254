//! Bounds on what one address can take from the others: requests a second, and connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most addresses that are remembered.
const MAX_ADDRESSES: usize = 64 * 1024;

/// Requests of each address: so many a second, and a burst of twice as many.
pub(crate) struct Rate {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.max(1).into(), buckets: Mutex::default() }
    }

    /// Whether one more request of this address is answered.
    pub(crate) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let (most, address) = (self.per_second * 2.0, client(address));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            // Who has not called for two seconds is forgotten: its bucket is full again.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs() < 2);
            if buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert(Bucket { left: most, at: now });
        let refill = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        bucket.left = (bucket.left + refill).min(most);
        bucket.at = now;
        let admitted = bucket.left >= 1.0;
        if admitted {
            bucket.left -= 1.0;
        }
        admitted
    }
}

/// Open connections: of each address, and of all.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Mutex<Open>>);

struct Open {
    of: HashMap<IpAddr, usize>,
    all: usize,
    most_of_one: usize,
    most: usize,
}

/// A connection that counts while it lives.
pub(crate) struct Counted {
    connections: Connections,
    address: IpAddr,
}

impl Connections {
    pub(crate) fn new(most_of_one: usize, most: usize) -> Self {
        Self(Arc::new(Mutex::new(Open { of: HashMap::new(), all: 0, most_of_one, most })))
    }

    /// `None` when this address, or all together, have as many as they may.
    pub(crate) fn open(&self, address: IpAddr) -> Option<Counted> {
        let address = client(address);
        let mut open = self.lock();
        let of_one = open.of.get(&address).copied().unwrap_or_default();
        if open.all >= open.most || of_one >= open.most_of_one {
            return None;
        }
        open.all += 1;
        open.of.insert(address, of_one + 1);
        Some(Counted { connections: self.clone(), address })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.all = open.all.saturating_sub(1);
        if let Some(count) = open.of.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.of.remove(&self.address);
            }
        }
    }
}

/// One client: an IPv4 address, or an IPv6 network of 64 bits, which one machine has to itself.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn attack_requests_of_one_address_in_a_row() {
        let (rate, start) = (Rate::new(10), Instant::now());
        let admitted = (0..1000).filter(|_| rate.admits(address("192.0.2.1"), start)).count();
        assert_eq!(admitted, 20);
        assert!(rate.admits(address("192.0.2.2"), start), "another address is not held back");
        let later = start + Duration::from_millis(500);
        let admitted = (0..1000).filter(|_| rate.admits(address("192.0.2.1"), later)).count();
        assert_eq!(admitted, 5);
        // One machine with many IPv6 addresses is one client.
        let admitted =
            (0..1000).filter(|n| rate.admits(address(&format!("2001:db8::{n:x}")), start)).count();
        assert_eq!(admitted, 20);
    }

    #[test]
    fn attack_many_addresses_make_memory_grow() {
        let (rate, start) = (Rate::new(10), Instant::now());
        for number in 0..(MAX_ADDRESSES as u32 + 10) {
            let admitted = rate.admits(IpAddr::V4(number.into()), start);
            assert_eq!(admitted, number < MAX_ADDRESSES as u32, "{number}");
        }
        assert!(rate.buckets.lock().unwrap().len() <= MAX_ADDRESSES);
        assert!(rate.admits(IpAddr::V4(0.into()), start), "who is known is served");
        assert!(rate.admits(IpAddr::V4(u32::MAX.into()), start + Duration::from_secs(2)));
    }

    #[test]
    fn attack_connections_of_one_address() {
        let connections = Connections::new(2, 3);
        let one = address("192.0.2.1");
        let (first, _second) = (connections.open(one), connections.open(one));
        assert!(first.is_some() && connections.open(one).is_none());
        let other = connections.open(address("192.0.2.2"));
        assert!(
            other.is_some() && connections.open(address("192.0.2.3")).is_none(),
            "all together"
        );
        drop(first);
        assert_eq!(connections.count(), 2);
        assert!(connections.open(one).is_some());
        assert!(connections.0.lock().unwrap().of.len() <= 2);
    }
}
