// SPDX-License-Identifier: GPL-2.0-only

//! The variables of the kind [`Choice`](super::Choice): their names, and what each name means.

use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use clone_core::settings::KeepData;
use clone_protocol::Packing;

use super::super::writable::Writable;
use super::kinds::{Setting, c_str};
use crate::server::abi;

/// What a variable chooses among.
trait Choices: Copy + 'static {
    /// The names, and what they mean. The value of the variable is the index of one of them.
    const ALL: &'static [(&'static CStr, Self)];
}

impl Choices for KeepData {
    const ALL: &'static [(&'static CStr, Self)] =
        &[(c"AUTO", KeepData::Auto), (c"ON", KeepData::On), (c"OFF", KeepData::Off)];
}

/// The packings without a level, and Zstandard's levels.
macro_rules! packings {
    ($($level:literal)*) => {
        &[
            (c"AUTO", Packing::Auto),
            (c"OFF", Packing::None),
            (c"LZ4", Packing::Lz4),
            $((c_str(concat!("ZSTD", $level, "\0")), Packing::Zstd($level)),)*
        ]
    };
}

impl Choices for Packing {
    const ALL: &'static [(&'static CStr, Self)] =
        packings!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
}

/// The values of `clone_keep_data`.
pub(super) static KEEP_DATA: Writable<abi::TYPELIB> = typelib(&KEEP_DATA_NAMES);
static KEEP_DATA_NAMES: Writable<Names<{ KeepData::ALL.len() }>> = names::<KeepData, _>();

/// The values of `clone_compression`.
pub(super) static COMPRESSION: Writable<abi::TYPELIB> = typelib(&COMPRESSION_NAMES);
static COMPRESSION_NAMES: Writable<Names<{ Packing::ALL.len() }>> = names::<Packing, _>();

/// The names as mysqld reads them: NULL is behind the last.
#[repr(C)]
struct Names<const N: usize> {
    names: [*const c_char; N],
    end: *const c_char,
}

/// The names of all choices. There are `N`.
const fn names<T: Choices, const N: usize>() -> Writable<Names<N>> {
    let mut names = [null(); N];
    let mut at = 0;
    while at < T::ALL.len() {
        names[at] = T::ALL[at].0.as_ptr();
        at += 1;
    }
    Writable::new(Names { names, end: null() })
}

const fn typelib<const N: usize>(names: &'static Writable<Names<N>>) -> Writable<abi::TYPELIB> {
    Writable::new(abi::TYPELIB {
        count: N,
        name: c"".as_ptr(),
        type_names: names.as_ptr().cast(),
        type_lengths: null_mut(),
    })
}

/// mysqld sets no index without a name.
impl<T: Choices> Setting<AtomicU64> for T {
    fn of(value: &AtomicU64) -> Self {
        let index = usize::try_from(value.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        T::ALL.get(index).unwrap_or(&T::ALL[0]).1
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::slice;

    use super::*;

    /// mysqld is given the names of `T`, and a value means the same here as there.
    fn check<T: Choices + Debug + PartialEq>(typelib: &Writable<abi::TYPELIB>) {
        // SAFETY: nobody writes to it in a test.
        let typelib = unsafe { &*typelib.as_ptr() };
        assert_eq!(typelib.count, T::ALL.len());
        // SAFETY: so many names, and NULL.
        let names = unsafe { slice::from_raw_parts(typelib.type_names, typelib.count + 1) };
        assert!(names[typelib.count].is_null());
        for (index, (own, choice)) in T::ALL.iter().enumerate() {
            // SAFETY: one of the names, a literal.
            assert_eq!(unsafe { CStr::from_ptr(names[index]) }, *own);
            assert_eq!(T::of(&AtomicU64::new(index as u64)), *choice);
        }
        assert_eq!(T::of(&AtomicU64::new(u64::MAX)), T::ALL[0].1);
    }

    #[test]
    fn values_are_indexes_of_names() {
        check::<KeepData>(&KEEP_DATA);
        check::<Packing>(&COMPRESSION);
    }

    /// `clone_compression` and `mysql-clone pull --compress` have the same words.
    #[test]
    fn packings_have_their_own_names() {
        for (name, packing) in Packing::ALL {
            let name = name.to_str().expect("ASCII");
            assert_eq!(name.parse(), Ok(*packing));
            assert_eq!(packing.to_string(), name);
        }
    }
}
