// SPDX-License-Identifier: GPL-2.0-only

use std::fs;

use proptest::prelude::*;

use super::*;

const UNIT: usize = 4096;

fn place(space_id: u32, offset: u64) -> SpacePlace {
    SpacePlace { space_id, offset }
}

fn pages(count: usize, seed: u8) -> Vec<u8> {
    (0..count * UNIT).map(|at| (at / UNIT) as u8 ^ (at % 251) as u8 ^ seed).collect()
}

fn one_thread() -> NonZeroUsize {
    NonZeroUsize::MIN
}

#[test]
fn large_bases_have_large_units() {
    let file = |len| BaseFile { place: place(1, 0), len, path: PathBuf::new() };
    assert_eq!(unit(&[file(100 << 30)], 16 << 10), 16 << 10);
    assert_eq!(unit(&[file(1 << 40)], 16 << 10), 128 << 10);
    assert_eq!(unit(&[file(1 << 45)], 16 << 10), 1 << 20);
    assert_eq!(unit(&[file(1 << 20)], 4 << 10), 4 << 10);
}

#[test]
fn a_base_is_told_whole_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    // Two files of one tablespace, of which the second begins inside a unit; one of odd length;
    // one that is not there; and a copy.
    let all = [(0, 0, 3 * UNIT), (0, 3 * UNIT as u64, 2 * UNIT), (9, 0, 5 * UNIT + 100)];
    for (number, (space_id, offset, len)) in all.into_iter().enumerate() {
        let path = directory.path().join(number.to_string());
        fs::write(&path, &pages(6, number as u8)[..len]).unwrap();
        files.push(BaseFile { place: place(space_id, offset), len: len as u64, path });
    }
    let gone = directory.path().join("gone");
    files.push(BaseFile { place: place(4, 0), len: UNIT as u64, path: gone.clone() });
    files.push(BaseFile { place: place(9, 0), len: 5 * UNIT as u64 + 101, path: gone });
    let base = Base::read(files, UNIT as u32, NonZeroUsize::new(3).unwrap()).unwrap();
    assert_eq!(base.bytes(), 10 * UNIT as u64);
    let commands = base.commands();
    assert_eq!(commands.len(), 1);
    let told: Vec<_> = commands[0].runs.iter().map(|run| (run.space_id, run.first)).collect();
    assert_eq!(told, [(0, 0), (0, 3), (9, 0)]);
    assert_eq!(base.locate(place(0, 3 * UNIT as u64)), Some((1, 0)));
    assert_eq!(base.locate(place(0, 3 * UNIT as u64 - 1)), Some((0, 3 * UNIT as u64 - 1)));
    assert_eq!(base.locate(place(0, 5 * UNIT as u64)), None);
    let mut block = pages(5, 2);
    block[2 * UNIT] ^= 1;
    let equal = base.compare(place(9, 0), &block).unwrap();
    assert_eq!(equal.bits(), [0b1_1011]);
    assert_eq!(base.find_changed(9, 0, &block), Some(2));
    assert_eq!(base.find_changed(9, 3, &block[3 * UNIT..]), None);
    assert!(base.compare(place(8, 0), &block).is_none());
}

#[test]
fn of_files_that_overlap_the_first_counts_and_later_tablespaces_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (number, (space_id, offset, count)) in
        [(0, 0, 3), (0, 1, 3), (9, 0, 2)].into_iter().enumerate()
    {
        let path = directory.path().join(number.to_string());
        let content = pages(count, number as u8);
        fs::write(&path, &content).unwrap();
        let place = place(space_id, offset * UNIT as u64);
        files.push(BaseFile { place, len: content.len() as u64, path });
    }
    let base = Base::read(files, UNIT as u32, one_thread()).unwrap();
    assert_eq!(base.bytes(), 5 * UNIT as u64);
    // The bytes are taken from the file that has the digest.
    let at = 2 * UNIT as u64;
    assert_eq!(base.locate(place(0, at)), Some((0, at)));
    assert_eq!(base.locate(place(9, 0)), Some((1, 0)));
}

#[test]
fn many_digests_need_several_commands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    let len = 300 << 20;
    File::create(&path).unwrap().set_len(len).unwrap();
    let file = BaseFile { place: place(1, 0), len, path };
    let base = Base::read(vec![file], UNIT as u32, one_thread()).unwrap();
    let commands = base.commands();
    assert_eq!(commands.len(), 2);
    let mut known = Digests::new(UNIT as u32);
    for command in &commands {
        let mut payload = Vec::new();
        clone_protocol::Command::Base(command.clone()).encode_payload(&mut payload);
        assert!(payload.len() <= 1 << 20, "{}", payload.len());
        let parsed = clone_protocol::Command::parse(33, &payload).unwrap();
        let clone_protocol::Command::Base(parsed) = parsed else { panic!() };
        parsed.runs.iter().for_each(|run| known.push(run).unwrap());
    }
    let count: usize = known.runs().map(|run| run.digests.len()).sum();
    assert_eq!(count as u64, len / UNIT as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What a donor says is equal is equal, and nothing else.
    #[test]
    fn equal_units_are_those_that_have_not_changed(
        changed in prop::collection::btree_set(0..40_usize, 0..10),
        start in 0..20_usize,
        count in 1..20_usize,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("space");
        let old = pages(40, 1);
        fs::write(&path, &old).unwrap();
        let file = BaseFile { place: place(3, 0), len: old.len() as u64, path };
        let base = Base::read(vec![file], UNIT as u32, one_thread()).unwrap();
        let mut new = old;
        for page in &changed {
            new[page * UNIT + 17] ^= 0x80;
        }
        let block = &new[start * UNIT..(start + count) * UNIT];
        let equal = base.compare(place(3, (start * UNIT) as u64), block);
        let expected = (start..start + count).filter(|page| !changed.contains(page)).count();
        prop_assert_eq!(equal.map_or(0, |equal| equal.equal_len()), expected * UNIT);
    }
}
