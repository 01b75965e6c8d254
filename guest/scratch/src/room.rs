//! Which stretches of the disk's second half are free.

/// Sectors in a row, counted from the disk's first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: u64,
    pub(crate) sectors: u64,
}

impl Stretch {
    fn end(self) -> u64 {
        self.start.saturating_add(self.sectors)
    }
}

/// Free stretches in their order; no two of them touch.
#[derive(Debug)]
pub(crate) struct Room(Vec<Stretch>);

impl Room {
    pub(crate) fn new(all: Stretch) -> Self {
        Self(vec![all])
    }

    /// The first that is long enough, cut to this length.
    pub(crate) fn take(&mut self, sectors: u64) -> Option<Stretch> {
        let free = self.0.iter_mut().find(|free| free.sectors >= sectors)?;
        let taken = Stretch { start: free.start, sectors };
        *free = Stretch { start: taken.end(), sectors: free.sectors.saturating_sub(sectors) };
        self.0.retain(|free| free.sectors > 0);
        Some(taken)
    }

    /// Makes a stretch that was taken free again.
    pub(crate) fn give_back(&mut self, stretch: Stretch) {
        let at = self.0.partition_point(|free| free.start < stretch.start);
        self.0.insert(at, stretch);
        self.0.dedup_by(|next, free| {
            let touch = free.end() == next.start;
            if touch {
                free.sectors = free.sectors.saturating_add(next.sectors);
            }
            touch
        });
    }

    /// Length of the longest free stretch, in sectors.
    pub(crate) fn longest(&self) -> u64 {
        self.0.iter().map(|free| free.sectors).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut room = Room::new(Stretch { start: 100, sectors: 30 });
        let taken = [10, 10, 10].map(|sectors| room.take(sectors).unwrap());
        assert_eq!(taken.map(|stretch| stretch.start), [100, 110, 120]);
        assert_eq!((room.take(1), room.longest()), (None, 0));
        room.give_back(taken[0]);
        room.give_back(taken[2]);
        assert_eq!((room.take(11), room.longest()), (None, 10));
        room.give_back(taken[1]);
        assert_eq!(room.take(30), Some(Stretch { start: 100, sectors: 30 }));
    }

    #[test]
    fn no_two_stretches_overlap_whatever_comes_and_goes() {
        let mut room = Room::new(Stretch { start: 7, sectors: 1000 });
        let mut held: Vec<Stretch> = Vec::new();
        for step in 0..2000_u64 {
            let sectors = step * 7919 % 97 + 1;
            match room.take(sectors) {
                Some(stretch) if step % 3 > 0 => held.push(stretch),
                Some(stretch) => room.give_back(stretch),
                None => {
                    room.give_back(held.swap_remove(usize::try_from(step).unwrap() % held.len()))
                }
            }
            let mut all: Vec<Stretch> = held.iter().chain(&room.0).copied().collect();
            all.sort_by_key(|stretch| stretch.start);
            assert!(all.windows(2).all(|two| two[0].end() == two[1].start), "{step}: {all:?}");
            assert_eq!(all.iter().map(|stretch| stretch.sectors).sum::<u64>(), 1000, "{step}");
        }
    }
}
