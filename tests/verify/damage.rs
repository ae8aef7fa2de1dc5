// SPDX-License-Identifier: GPL-2.0-only

//! Kinds of damage to a table with good checksums, as wrong writes, lost writes and bugs make them.

use clone_innodb::verify::Kind;

use super::table::{NULL, Table};

/// A kind of damage, and the fault that it must be told as.
pub(crate) struct Damage {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Damages the first table; the second one is another of the same form.
    pub(crate) make: fn(&mut Table, &Table),
}

const INODE: usize = 50;

/// Copies a page to another place, with the number and checksum of that place.
fn transplant(table: &mut Table, from: u32, to: u32) {
    let page = table.page(from).to_vec();
    table.raw(to).copy_from_slice(&page);
    table.put32(to, 4, to);
}

/// Swaps the bytes of two pages but for their number.
fn swap(table: &mut Table, one: u32, other: u32) {
    let page = table.page(one).to_vec();
    transplant(table, other, one);
    table.raw(other).copy_from_slice(&page);
    table.put32(other, 4, other);
}

/// The inode of the first index's leaves, in page 2: its place.
fn leaf_inode(table: &Table) -> usize {
    usize::from(table.u16(table.root(), 38 + 36 + 8))
}

fn frag_leaf(table: &Table) -> usize {
    let inode = leaf_inode(table);
    let slot = (0..32).find(|slot| table.u32(2, inode + 64 + slot * 4) != NULL);
    inode + 64 + slot.unwrap() * 4
}

/// An extent that belongs to a segment as a whole.
fn extent(table: &Table) -> usize {
    let number =
        (0..table.len() / 64).find(|extent| table.u32(0, Table::descriptor(extent * 64) + 20) == 4);
    Table::descriptor(number.unwrap() * 64)
}

macro_rules! damages {
    ($($name:literal, $kind:ident, $make:expr;)+) => {
        vec![$(Damage { name: $name, kind: Kind::$kind, make: $make }),+]
    };
}

/// All kinds.
pub(crate) fn all() -> Vec<Damage> {
    damages! {
        "a page is at another place", PageNumber, |table, _| {
            let leaves = table.leaves();
            let page = table.page(leaves[3]).to_vec();
            table.raw(leaves[9]).copy_from_slice(&page);
        };
        "a page is at another place, with the number of that place", Sibling, |table, _| {
            let leaves = table.leaves();
            transplant(table, leaves[3], leaves[9]);
        };
        "two pages are swapped, with their numbers", Sibling, |table, _| {
            let leaves = table.leaves();
            swap(table, leaves[3], leaves[9]);
        };
        "two pages of two indexes are swapped, with their numbers", IndexId, |table, _| {
            let (one, other) = (table.leaves()[3], table.level(table.indexes()[1], 0)[5]);
            swap(table, one, other);
        };
        "a page of another table with the same number", SpaceId, |table, other| {
            let page = table.leaves()[4];
            table.raw(page).copy_from_slice(other.page(page));
        };
        "a page of another table, with this table's number", IndexId, |table, other| {
            let page = table.leaves()[4];
            table.raw(page).copy_from_slice(other.page(page));
            let space = table.u32(0, 34);
            table.put32(page, 34, space);
        };
        "a write of zeros", ZeroPage, |table, _| {
            let page = table.leaves()[5];
            table.raw(page).fill(0);
        };
        "the first half of a page is older", Torn, |table, _| {
            let page = table.leaves()[5];
            let lsn = table.u64(page, 16);
            table.raw(page)[16..24].copy_from_slice(&(lsn - 1).to_be_bytes());
        };
        "a stale page: its next page is the one after", Sibling, |table, _| {
            let page = table.leaves()[5];
            let next = table.next(table.next(page));
            table.put32(page, 12, next);
        };
        "the previous page is itself", Sibling, |table, _| {
            let page = table.leaves()[5];
            table.put32(page, 8, page);
        };
        "the next page is behind the end", Sibling, |table, _| {
            let (page, len) = (table.leaves()[5], table.len());
            table.put32(page, 12, len + 5);
        };
        "the next page is none", Sibling, |table, _| {
            let page = table.leaves()[5];
            table.put32(page, 12, NULL);
        };
        "a page is left out of the list", Tree, |table, _| {
            let page = table.leaves()[5];
            let (prev, next) = (table.prev(page), table.next(page));
            table.put32(prev, 12, next);
            table.put32(next, 8, prev);
        };
        "a circle of two pages beside the list", Tree, |table, _| {
            let one = table.leaves()[5];
            let other = table.next(one);
            let (prev, next) = (table.prev(one), table.next(other));
            table.put32(prev, 12, next);
            table.put32(next, 8, prev);
            table.put32(one, 8, other);
            table.put32(other, 12, one);
        };
        "the level of a page", Level, |table, _| {
            let page = table.leaves()[5];
            table.put16(page, 64, 1);
        };
        "the index of a page", IndexId, |table, _| {
            let page = table.leaves()[5];
            let index = table.indexes()[1];
            table.put(page, 66, &index.to_be_bytes());
        };
        "the index of a root", Segment, |table, _| {
            // The second index then has two trees.
            let (one, other) = (table.indexes()[1], table.indexes()[2]);
            for level in 0..2 {
                for page in table.level(one, level) {
                    table.put(page, 66, &other.to_be_bytes());
                }
            }
            let root = table.level(other, 1)[0];
            let top = table.level(other, 1)[1];
            table.put16(top, 64, 2);
            let inode = table.page(root)[74..94].to_vec();
            table.put(top, 74, &inode);
        };
        "the type of a page", Sibling, |table, _| {
            let page = table.leaves()[5];
            table.put16(page, 24, 2);
        };
        "a type that nothing has", PageType, |table, _| {
            let page = table.leaves()[5];
            table.put16(page, 24, 999);
        };
        "the type of an inode page", PageType, |table, _| table.put16(2, 24, 6);
        "a page in use is free by its descriptor", FreePage, |table, _| {
            let page = table.leaves()[5];
            let (at, bit) = Table::free_bit(page);
            let byte = table.page(0)[at] | 1 << bit;
            table.put(0, at, &[byte]);
        };
        "a free page is in use by its descriptor", Extent, |table, _| {
            let page = (0..64).find(|page| table.is_free(*page));
            let (at, bit) = match page {
                Some(page) => Table::free_bit(page),
                // The first extent is full: one of another.
                None => Table::free_bit((64..table.len()).find(|page| table.is_free(*page)).unwrap()),
            };
            let byte = table.page(0)[at] & !(1 << bit);
            table.put(0, at, &[byte]);
            table.put32(0, 58, 1000);
        };
        "the state of an extent", ExtentList, |table, _| {
            let at = extent(table) + 20;
            table.put32(0, at, 1);
        };
        "no state of an extent", ExtentList, |table, _| {
            let at = extent(table) + 20;
            table.put32(0, at, 77);
        };
        "the segment of an extent", ExtentList, |table, _| {
            let at = extent(table);
            table.put(0, at, &99_u64.to_be_bytes());
        };
        "the link from one extent to the next", ExtentList, |table, _| {
            let at = extent(table) + 8 + 6;
            table.put32(0, at, 7);
        };
        "the length of a list of extents", ExtentList, |table, _| {
            let len = table.u32(0, 62);
            table.put32(0, 62, len + 1);
        };
        "the count of used pages", Extent, |table, _| {
            let used = table.u32(0, 58);
            table.put32(0, 58, used + 1);
        };
        "a segment loses a page", Segment, |table, _| {
            let at = frag_leaf(table);
            table.put32(2, at, NULL);
        };
        "a segment has a page of another", Inode, |table, _| {
            let at = frag_leaf(table);
            let root = table.root();
            table.put32(2, at, root);
        };
        "the magic number of an inode", Inode, |table, _| {
            let inode = leaf_inode(table);
            table.put32(2, inode + 60, 1);
        };
        "a segment's count of used pages", Inode, |table, _| {
            let inode = leaf_inode(table);
            let used = table.u32(2, inode + 8);
            table.put32(2, inode + 8, used + 1);
        };
        "an inode is zeros", Root, |table, _| {
            let inode = leaf_inode(table);
            table.put(2, inode, &[0; 192]);
        };
        "the root names another inode", Segment, |table, _| {
            let root = table.root();
            let top = table.page(root)[84..94].to_vec();
            table.put(root, 74, &top);
        };
        "the root names no inode", Root, |table, _| {
            let root = table.root();
            table.put16(root, 82, INODE as u16 + 1);
        };
        "a node pointer is lost", Tree, |table, _| {
            let root = table.root();
            let records = table.u16(root, 54);
            // The list is one shorter: the infimum leads to the second record.
            let at = 99_usize;
            let first = at + usize::from(table.u16(root, at - 2));
            let second = first + usize::from(table.u16(root, first - 2));
            table.put16(root, at - 2, (second - at) as u16);
            table.put16(root, 54, records - 1);
        };
        "the count of records", Records, |table, _| {
            let page = table.leaves()[5];
            let records = table.u16(page, 54);
            table.put16(page, 54, records - 1);
        };
        "a record leads out of the page", Records, |table, _| {
            let page = table.leaves()[5];
            table.put16(page, 97, 40_000);
        };
        "the page directory", Records, |table, _| {
            let page = table.leaves()[5];
            table.put16(page, 38, 30_000);
        };
        "an LSN of the future", FutureLsn, |table, _| {
            let page = table.leaves()[5];
            table.put(page, 16, &(1_u64 << 50).to_be_bytes());
        };
        "the last pages are missing", Truncated, |table, _| {
            let len = table.bytes().len() - 20 * table.size();
            table.truncate(len);
        };
        "half a page is missing", Truncated, |table, _| {
            let len = table.bytes().len() - table.size() / 2;
            table.truncate(len);
        };
        "FSP_SIZE", Truncated, |table, _| {
            let size = table.u32(0, 46);
            table.put32(0, 46, size + 64);
        };
        "FSP_SPACE_ID", Header, |table, _| table.put32(0, 38, 5);
        "FSP_SPACE_FLAGS", Header, |table, _| table.put32(0, 54, 0x4029);
        "FSP_FREE_LIMIT", Header, |table, _| table.put32(0, 50, 1 << 20);
        "page 0 is zeros", ZeroPage, |table, _| table.raw(0).fill(0);
        "page 0 is of another table", SpaceId, |table, other| {
            table.raw(0).copy_from_slice(other.page(0));
        };
    }
}
