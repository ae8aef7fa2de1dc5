// SPDX-License-Identifier: GPL-2.0-only

//! The locators that C was given. They are memory of this library. C keeps their addresses, on many
//! threads, from the beginning of the first task to the end of the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Which half of a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Donor,
    Recipient,
}

/// All of them.
pub(super) static LOCATORS: Locators = Locators { lent: Mutex::new(BTreeMap::new()) };

pub(super) struct Locators {
    lent: Mutex<BTreeMap<(u32, Side), Lent>>,
}

/// What one side of an engine has lent.
#[derive(Default)]
struct Lent {
    tasks: usize,
    /// Equal ones are one. Moving a box does not move its bytes.
    locators: BTreeSet<Box<[u8]>>,
}

impl Locators {
    /// Gives bytes an address that stays until the last task of this side of the engine has
    /// ended. The header tells C how long that is.
    pub(super) fn lend(
        &self,
        db_type: u32,
        side: Side,
        locator: &[u8],
        is_new_task: bool,
    ) -> *const [u8] {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = lent.entry((db_type, side)).or_default();
        lent.tasks += usize::from(is_new_task);
        if !lent.locators.contains(locator) {
            lent.locators.insert(locator.into());
        }
        lent.locators.get(locator).map_or(ptr::from_ref(&[]), |kept| &raw const **kept)
    }

    /// A task has ended.
    pub(super) fn task_ended(&self, db_type: u32, side: Side) {
        let mut all = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lent) = all.get_mut(&(db_type, side)) else { return };
        lent.tasks = lent.tasks.saturating_sub(1);
        if lent.tasks == 0 {
            all.remove(&(db_type, side));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_until_the_last_task_ends() {
        let locators = Locators { lent: Mutex::new(BTreeMap::new()) };
        let count = |side| {
            let lent = locators.lent.lock().expect("no panic");
            lent.get(&(42, side)).map_or(0, |lent| lent.locators.len())
        };
        let first = locators.lend(42, Side::Donor, b"one", true);
        for number in 0..100_u32 {
            locators.lend(42, Side::Donor, &number.to_be_bytes(), false);
        }
        assert!(ptr::addr_eq(locators.lend(42, Side::Donor, b"one", true), first));
        locators.lend(42, Side::Recipient, b"one", true);
        assert_eq!((count(Side::Donor), count(Side::Recipient)), (101, 1));
        locators.task_ended(42, Side::Donor);
        assert_eq!(count(Side::Donor), 101);
        locators.task_ended(42, Side::Donor);
        assert_eq!((count(Side::Donor), count(Side::Recipient)), (0, 1));
        locators.task_ended(42, Side::Donor);
    }
}
