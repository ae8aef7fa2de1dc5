// SPDX-License-Identifier: GPL-2.0-only

//! The donor's part of a clone to a recipient with an older copy: digests of it, and which units of
//! a block are equal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use clone_io::Digester;
use clone_protocol::innodb::{Descriptor, FilePlaces, SpacePlace};
use clone_protocol::{Base, EqualUnits, MAX_DIGESTS};

use crate::digests::{Digests, NotTaken};
use crate::error::{Error, Result};
use crate::log_target::SERVER;
use crate::meter::mib;

/// What all tasks of a clone know of the recipient's base. When the clone ends, the log gets a line
/// about it.
#[derive(Debug, Default)]
pub(crate) struct DonorBase {
    table: RwLock<Option<Table>>,
    places: RwLock<FilePlaces>,
    /// Bytes that were compared, and bytes that were equal.
    compared: AtomicU64,
    equal: AtomicU64,
}

#[derive(Debug)]
struct Table {
    digester: Digester,
    digests: Digests,
}

impl DonorBase {
    /// Takes digests from the recipient. With `is_first` or with another key than before, all
    /// earlier digests are forgotten.
    ///
    /// # Errors
    /// There are too many, or they are not in order; no memory.
    pub(super) fn take(&self, base: &Base<'_>, is_first: bool) -> Result<()> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let known = table.as_ref().map(|table| (table.digester.key(), table.digests.unit()));
        if is_first || known != Some((base.key, base.unit)) {
            let digester = Digester::new(base.key);
            *table = Some(Table { digester, digests: Digests::new(base.unit) });
        }
        let Some(table) = &mut *table else { return Ok(()) };
        base.runs.iter().try_for_each(|run| {
            table.digests.push(run).map_err(|why| match why {
                NotTaken::Full => {
                    let most = format!("more than {MAX_DIGESTS} digests");
                    Error::Protocol(format!("Wrong Clone RPC: Invalid base: {most}"))
                }
                NotTaken::Order => {
                    Error::Protocol("Wrong Clone RPC: Invalid base: not in order".to_owned())
                }
                NotTaken::Memory => Error::OutOfMemory(size_of_val(run.digests)),
            })
        })
    }

    /// Whether the recipient has sent digests.
    pub(super) fn is_known(&self) -> bool {
        self.table.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes a descriptor that has no data: it may describe a file.
    pub(super) fn note(&self, descriptor: &[u8]) {
        if let Ok(Descriptor::FileMetadata(file)) = Descriptor::parse(descriptor) {
            self.places.write().unwrap_or_else(PoisonError::into_inner).note(&file);
        }
    }

    /// Where the block of this descriptor belongs, if there are digests of some of its units.
    pub(super) fn place(&self, descriptor: &[u8], len: u32) -> Option<SpacePlace> {
        let Ok(Descriptor::Data(data)) = Descriptor::parse(descriptor) else { return None };
        let place = self.places.read().unwrap_or_else(PoisonError::into_inner).of(&data)?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.as_ref()?.digests.concern(place, len).then_some(place)
    }

    /// Which units of the block the recipient has. None if it has none of them.
    pub(super) fn compare(&self, place: SpacePlace, block: &[u8]) -> Option<EqualUnits> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let Table { digester, digests } = table.as_ref()?;
        let equal = digests.compare(digester, place, block);
        let equal_len = equal.as_ref().map_or(0, EqualUnits::equal_len);
        self.compared.fetch_add(block.len() as u64, Ordering::Relaxed);
        self.equal.fetch_add(equal_len as u64, Ordering::Relaxed);
        equal
    }
}

impl Drop for DonorBase {
    fn drop(&mut self) {
        let (compared, equal) = (*self.compared.get_mut(), *self.equal.get_mut());
        if compared != 0 {
            log::info!(
                target: SERVER,
                "The recipient has an older copy: {} MiB compared, {} MiB equal and not sent",
                mib(compared),
                mib(equal)
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clone_protocol::{Digest, Run};

    use super::*;

    fn base(key: u8, runs: Vec<Run<'_>>) -> Base<'_> {
        Base { key: [key; 32], unit: 4096, runs }
    }

    #[test]
    fn another_key_begins_anew_and_a_hostile_recipient_is_refused() {
        let known = DonorBase::default();
        assert!(!known.is_known());
        let digests: Vec<Digest> = vec![[0; 16]; 1 << 16];
        let run =
            |first, count: usize| vec![Run { space_id: 1, first, digests: &digests[..count] }];
        known.take(&base(1, run(10, 5)), true).unwrap();
        known.take(&base(1, run(15, 5)), false).unwrap();
        let order = known.take(&base(1, run(12, 1)), false).unwrap_err();
        assert!(order.to_string().contains("not in order"), "{order}");
        // The same recipient over a new connection, and another process.
        known.take(&base(1, run(12, 1)), true).unwrap();
        known.take(&base(2, run(0, 1)), false).unwrap();
        let mut first = 1;
        let refused = loop {
            match known.take(&base(2, run(first, 1 << 16)), false) {
                Ok(()) => first += 1 << 16,
                Err(error) => break error,
            }
        };
        assert!(refused.to_string().contains("more than 16777216 digests"), "{refused}");
        assert!(first <= MAX_DIGESTS as u64);
        assert!(known.is_known());
    }
}
