// SPDX-License-Identifier: GPL-2.0-only

//! Digests of the pages of an older copy, by their places. The recipient makes them
//! ([`Base`](crate::base::Base)), and the donor compares them with its own pages.

use std::fmt;

use clone_io::Digester;
use clone_protocol::innodb::SpacePlace;
use clone_protocol::{Digest, EqualUnits, MAX_DIGESTS, Run, Units};

/// Digests by their places, in order.
#[derive(Debug)]
pub(crate) struct Digests {
    unit: u32,
    runs: Vec<Known>,
    /// What counts for [`MAX_DIGESTS`].
    cost: usize,
}

#[derive(Debug)]
struct Known {
    space_id: u32,
    first: u64,
    digests: Vec<Digest>,
}

impl Known {
    fn end(&self) -> u64 {
        self.first + self.digests.len() as u64
    }
}

/// Why digests are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// There are [`MAX_DIGESTS`].
    Full,
    /// They do not lie behind those before.
    Order,
    /// No memory.
    Memory,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotTaken::Full => write!(f, "it has more than {MAX_DIGESTS} digests"),
            NotTaken::Order => f.write_str("its digests are not in order"),
            NotTaken::Memory => f.write_str("no memory"),
        }
    }
}

impl Digests {
    pub(crate) fn new(unit: u32) -> Self {
        Self { unit, runs: Vec::new(), cost: 0 }
    }

    /// Bytes of a unit.
    pub(crate) fn unit(&self) -> u32 {
        self.unit
    }

    /// Adds a run, which lies behind all others.
    ///
    /// # Errors
    /// See [`NotTaken`]. Nothing was added.
    pub(crate) fn push(&mut self, run: &Run<'_>) -> Result<(), NotTaken> {
        let last = self.runs.last().map(|last| (last.space_id, last.end()));
        if last.is_some_and(|last| last > (run.space_id, run.first)) {
            return Err(NotTaken::Order);
        }
        let cost = self.cost.saturating_add(run.cost());
        if cost > MAX_DIGESTS {
            return Err(NotTaken::Full);
        }
        let mut digests = Vec::new();
        digests.try_reserve_exact(run.digests.len()).map_err(|_| NotTaken::Memory)?;
        self.runs.try_reserve(1).map_err(|_| NotTaken::Memory)?;
        digests.extend_from_slice(run.digests);
        self.runs.push(Known { space_id: run.space_id, first: run.first, digests });
        self.cost = cost;
        Ok(())
    }

    /// The digest of a unit.
    pub(crate) fn get(&self, space_id: u32, unit: u64) -> Option<&Digest> {
        let behind = self.runs.partition_point(|run| (run.space_id, run.first) <= (space_id, unit));
        let run = self.runs[..behind].last().filter(|run| run.space_id == space_id)?;
        run.digests.get(usize::try_from(unit - run.first).ok()?)
    }

    /// Whether a block at this place has units with digests.
    pub(crate) fn concern(&self, place: SpacePlace, len: u32) -> bool {
        let units = self.units(place, len);
        let mut numbers = (units.first..).take(units.count);
        numbers.any(|unit| self.get(place.space_id, unit).is_some())
    }

    /// The units of a block at this place.
    pub(crate) fn units(&self, place: SpacePlace, len: u32) -> Units {
        Units::of(place.offset, len, self.unit)
    }

    /// Which units of the block have the digests that are known of them.
    pub(crate) fn compare(
        &self,
        digester: &Digester,
        place: SpacePlace,
        block: &[u8],
    ) -> Option<EqualUnits> {
        let units = self.units(place, u32::try_from(block.len()).ok()?);
        EqualUnits::find(units, |index| {
            let known = self.get(place.space_id, units.first + index as u64);
            known.is_some_and(|known| digester.digest(&block[units.range(index)]) == *known)
        })
    }

    /// All runs, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().map(|run| Run {
            space_id: run.space_id,
            first: run.first,
            digests: &run.digests,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clone_protocol::RUN_COST;

    use super::*;

    #[test]
    fn digests_are_found_by_their_places() {
        let digests: Vec<Digest> = (0..10).map(|number| [number; 16]).collect();
        let mut known = Digests::new(4096);
        let place = SpacePlace { space_id: 1, offset: 19 * 4096 };
        let run = |space_id, first, digests| Run { space_id, first, digests };
        known.push(&run(1, 5, &digests[..3])).unwrap();
        known.push(&run(1, 8, &digests[3..4])).unwrap();
        known.push(&run(1, 20, &digests[4..5])).unwrap();
        known.push(&run(7, 0, &digests[5..])).unwrap();
        let found = |space_id, unit| known.get(space_id, unit).map(|digest| digest[0]);
        assert_eq!(
            [4, 5, 7, 8, 9, 20, 21].map(|unit| found(1, unit)),
            [None, Some(0), Some(2), Some(3), None, Some(4), None]
        );
        assert_eq!(
            [found(7, 4), found(7, 5), found(0, 0), found(3, 5)],
            [Some(9), None, None, None]
        );
        assert!(known.concern(place, 2 * 4096));
        assert!(!known.concern(place, 2 * 4096 - 1), "the unit is not whole");
        assert_eq!(known.push(&run(7, 4, &digests[..1])), Err(NotTaken::Order));
        assert_eq!(known.push(&run(6, 9, &digests[..1])), Err(NotTaken::Order));
        known.cost = MAX_DIGESTS - RUN_COST - 1;
        assert_eq!(known.push(&run(8, 0, &digests[..2])), Err(NotTaken::Full));
        known.push(&run(8, 0, &digests[..1])).unwrap();
    }
}
