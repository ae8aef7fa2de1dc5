// SPDX-License-Identifier: GPL-2.0-only

//! The auxiliary connection, which the master and the thread that sends heartbeats use in turns.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::session::Clock;

/// How often the master looks whether the connection is free. A heartbeat takes one round trip.
const POLL: Duration = Duration::from_millis(2);

/// The connection. No lock is held while it is used: who uses it takes it out.
pub(super) struct Auxiliary<L>(Mutex<Slot<L>>);

enum Slot<L> {
    /// There is no connection.
    Closed,
    /// Somebody uses the connection.
    InUse,
    Free(L),
}

impl<L> Default for Auxiliary<L> {
    fn default() -> Self {
        Self(Mutex::new(Slot::Closed))
    }
}

impl<L> Auxiliary<L> {
    /// The connection is opened.
    pub(super) fn put(&self, link: L) {
        *self.slot() = Slot::Free(link);
    }

    /// Takes the connection. None if it is in use or closed.
    pub(super) fn take_if_free(&self) -> Option<InUseLink<'_, L>> {
        self.take_now().ok().flatten()
    }

    /// Takes the connection, waits for it if necessary. None if it is closed.
    pub(super) fn take(&self, clock: &impl Clock) -> Option<InUseLink<'_, L>> {
        loop {
            match self.take_now() {
                Ok(link) => return link,
                Err(InUse) => clock.sleep(POLL),
            }
        }
    }

    fn take_now(&self) -> Result<Option<InUseLink<'_, L>>, InUse> {
        let mut slot = self.slot();
        match std::mem::replace(&mut *slot, Slot::InUse) {
            Slot::Free(link) => Ok(Some(InUseLink { auxiliary: self, link: Some(link) })),
            Slot::InUse => Err(InUse),
            Slot::Closed => {
                *slot = Slot::Closed;
                Ok(None)
            }
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InUse;

/// The connection, which is given back when this is dropped.
pub(super) struct InUseLink<'a, L> {
    auxiliary: &'a Auxiliary<L>,
    /// Present until the connection ends.
    link: Option<L>,
}

impl<L> InUseLink<'_, L> {
    /// The connection is about to end: nobody can take it any more.
    pub(super) fn end(mut self) -> Option<L> {
        self.link.take()
    }
}

impl<L> Deref for InUseLink<'_, L> {
    type Target = L;

    fn deref(&self) -> &L {
        self.link.as_ref().expect("present until `end`")
    }
}

impl<L> DerefMut for InUseLink<'_, L> {
    fn deref_mut(&mut self) -> &mut L {
        self.link.as_mut().expect("present until `end`")
    }
}

/// After a panic nobody knows what is on the connection, which is closed.
impl<L> Drop for InUseLink<'_, L> {
    fn drop(&mut self) {
        let link = self.link.take().filter(|_| !thread::panicking());
        *self.auxiliary.slot() = link.map_or(Slot::Closed, Slot::Free);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn who_takes_the_connection_gives_it_back() {
        let auxiliary = Auxiliary::default();
        assert!(auxiliary.take_if_free().is_none(), "there is none");
        auxiliary.put(7);
        let mut taken = auxiliary.take_if_free().expect("a connection");
        *taken += 1;
        assert!(auxiliary.take_if_free().is_none(), "in use");
        drop(taken);
        let taken = auxiliary.take_if_free().expect("a connection");
        assert_eq!(taken.end(), Some(8));
        assert!(auxiliary.take_now().is_ok_and(|taken| taken.is_none()), "closed");
    }

    #[test]
    fn a_panic_closes_the_connection() {
        let auxiliary = Auxiliary::default();
        auxiliary.put(7);
        let panics = || {
            let _taken = auxiliary.take_if_free();
            panic!("as a test");
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(auxiliary.take_now().is_ok_and(|taken| taken.is_none()), "closed");
    }
}
