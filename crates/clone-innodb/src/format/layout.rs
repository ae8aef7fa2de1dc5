// SPDX-License-Identifier: GPL-2.0-only

//! Where fields stand in a page, and the types of pages (`fil0types.h`, `fil0fil.h`,
//! `page0types.h`, `fsp0fsp.h`, `fsp0types.h`, `trx0sys.h`).

/// `FIL_NULL`: no page.
pub(crate) const NULL: u32 = u32::MAX;

/// `FIL_PAGE_SPACE_OR_CHKSUM`.
pub(crate) const CHECKSUM: usize = 0;
/// `FIL_PAGE_OFFSET`.
pub(crate) const NUMBER: usize = 4;
/// `FIL_PAGE_PREV`.
pub(crate) const PREV: usize = 8;
/// `FIL_PAGE_NEXT`.
pub(crate) const NEXT: usize = 12;
/// `FIL_PAGE_SRV_VERSION`, in page 0 of a tablespace in place of [`PREV`].
pub(crate) const SERVER_VERSION: usize = PREV;
/// `FIL_PAGE_SPACE_VERSION`, in page 0 of a tablespace in place of [`NEXT`].
pub(crate) const SPACE_VERSION: usize = NEXT;
/// `FIL_PAGE_LSN`.
pub(crate) const LSN: usize = 16;
/// `FIL_PAGE_TYPE`.
pub(crate) const TYPE: usize = 24;
/// `FIL_PAGE_FILE_FLUSH_LSN`; in a page with page compression what follows.
pub(crate) const FLUSH_LSN: usize = 26;
/// `FIL_PAGE_VERSION`, one byte.
pub(crate) const COMPRESSION_VERSION: usize = 26;
/// `FIL_PAGE_ALGORITHM_V1`, one byte.
pub(crate) const COMPRESSION_ALGORITHM: usize = 27;
/// `FIL_PAGE_ORIGINAL_TYPE_V1`, two bytes.
pub(crate) const ORIGINAL_TYPE: usize = 28;
/// `FIL_PAGE_ORIGINAL_SIZE_V1`, two bytes.
pub(crate) const ORIGINAL_SIZE: usize = 30;
/// `FIL_PAGE_COMPRESS_SIZE_V1`, two bytes.
pub(crate) const COMPRESSED_SIZE: usize = 32;
/// `FIL_PAGE_SPACE_ID`.
pub(crate) const SPACE_ID: usize = 34;
/// `FIL_PAGE_DATA`.
pub(crate) const DATA: usize = 38;
/// `FIL_PAGE_END_LSN_OLD_CHKSUM`, from the end of the page.
pub(crate) const TRAILER: usize = 8;

/// `FSP_SPACE_ID` and what follows, in page 0.
pub(crate) const FSP_SPACE_ID: usize = DATA;
/// `FSP_SIZE`.
pub(crate) const FSP_SIZE: usize = DATA + 8;
/// `FSP_FREE_LIMIT`.
pub(crate) const FSP_FREE_LIMIT: usize = DATA + 12;
/// `FSP_SPACE_FLAGS`.
pub(crate) const FSP_FLAGS: usize = DATA + 16;
/// `FSP_FRAG_N_USED`.
pub(crate) const FSP_FRAG_N_USED: usize = DATA + 20;
/// `FSP_FREE`, a list.
pub(crate) const FSP_FREE: usize = DATA + 24;
/// `FSP_FREE_FRAG`, a list.
pub(crate) const FSP_FREE_FRAG: usize = DATA + 40;
/// `FSP_FULL_FRAG`, a list.
pub(crate) const FSP_FULL_FRAG: usize = DATA + 56;
/// `XDES_ARR_OFFSET`: the first extent descriptor of a page.
pub(crate) const XDES_ARRAY: usize = DATA + 112;
/// `XDES_FLST_NODE`, in a descriptor.
pub(crate) const XDES_NODE: usize = 8;
/// `XDES_STATE`, in a descriptor.
pub(crate) const XDES_STATE: usize = 20;
/// `XDES_BITMAP`, in a descriptor: two bits for each page, the lower one is set if it is free.
pub(crate) const XDES_BITMAP: usize = 24;

/// `FSEG_ARR_OFFSET`: the first segment inode of a page.
pub(crate) const INODE_ARRAY: usize = DATA + 12;
/// `FSEG_MAGIC_N_VALUE`.
pub(crate) const INODE_MAGIC: u32 = 97_937_874;

/// `PAGE_N_DIR_SLOTS`, in an index page.
pub(crate) const N_DIR_SLOTS: usize = DATA;
/// `PAGE_HEAP_TOP`.
pub(crate) const HEAP_TOP: usize = DATA + 2;
/// `PAGE_N_HEAP`: the highest bit says that records are of the new form.
pub(crate) const N_HEAP: usize = DATA + 4;
/// `PAGE_N_RECS`.
pub(crate) const N_RECS: usize = DATA + 16;
/// `PAGE_LEVEL`.
pub(crate) const LEVEL: usize = DATA + 26;
/// `PAGE_INDEX_ID`.
pub(crate) const INDEX_ID: usize = DATA + 28;
/// `PAGE_BTR_SEG_LEAF`, in a root.
pub(crate) const SEG_LEAF: usize = DATA + 36;
/// `PAGE_BTR_SEG_TOP`, in a root.
pub(crate) const SEG_TOP: usize = DATA + 46;

/// `FIL_PAGE_TYPE_ALLOCATED`.
pub(crate) const ALLOCATED: u16 = 0;
/// `FIL_PAGE_INODE`.
pub(crate) const INODE: u16 = 3;
/// `FIL_PAGE_IBUF_FREE_LIST`.
pub(crate) const IBUF_FREE_LIST: u16 = 4;
/// `FIL_PAGE_IBUF_BITMAP`.
pub(crate) const IBUF_BITMAP: u16 = 5;
/// `FIL_PAGE_TYPE_FSP_HDR`.
pub(crate) const FSP_HDR: u16 = 8;
/// `FIL_PAGE_TYPE_XDES`.
pub(crate) const XDES: u16 = 9;
/// `FIL_PAGE_COMPRESSED`.
pub(crate) const COMPRESSED: u16 = 14;
/// `FIL_PAGE_ENCRYPTED`.
pub(crate) const ENCRYPTED: u16 = 15;
/// `FIL_PAGE_COMPRESSED_AND_ENCRYPTED`.
pub(crate) const COMPRESSED_AND_ENCRYPTED: u16 = 16;
/// `FIL_PAGE_ENCRYPTED_RTREE`.
pub(crate) const ENCRYPTED_RTREE: u16 = 17;

/// Whether a page of this type is encrypted behind its header.
pub(crate) fn is_encrypted(kind: u16) -> bool {
    matches!(kind, ENCRYPTED | COMPRESSED_AND_ENCRYPTED | ENCRYPTED_RTREE)
}
/// `FIL_PAGE_TYPE_LEGACY_DBLWR`.
pub(crate) const LEGACY_DBLWR: u16 = 20;
/// `FIL_PAGE_TYPE_LAST`: the highest of the small numbers.
pub(crate) const LAST: u16 = 29;
/// `FIL_PAGE_SDI`.
pub(crate) const SDI: u16 = 17_853;
/// `FIL_PAGE_RTREE`.
pub(crate) const RTREE: u16 = 17_854;
/// `FIL_PAGE_INDEX`.
pub(crate) const INDEX: u16 = 17_855;

/// Whether the page is a node of a tree of records.
pub(crate) fn is_tree(kind: u16) -> bool {
    matches!(kind, SDI | RTREE | INDEX)
}

/// Whether InnoDB has such a type of page.
pub(crate) fn is_known(kind: u16) -> bool {
    kind <= LAST || is_tree(kind)
}

/// What the type is called, for messages.
pub(crate) fn type_name(kind: u16) -> &'static str {
    match kind {
        ALLOCATED => "ALLOCATED",
        2 => "UNDO_LOG",
        INODE => "INODE",
        IBUF_FREE_LIST => "IBUF_FREE_LIST",
        IBUF_BITMAP => "IBUF_BITMAP",
        6 => "SYS",
        7 => "TRX_SYS",
        FSP_HDR => "FSP_HDR",
        XDES => "XDES",
        10..=12 => "BLOB",
        COMPRESSED => "COMPRESSED",
        ENCRYPTED | COMPRESSED_AND_ENCRYPTED | ENCRYPTED_RTREE => "ENCRYPTED",
        18 | 19 => "SDI_BLOB",
        LEGACY_DBLWR => "LEGACY_DBLWR",
        21 => "RSEG_ARRAY",
        22..=29 => "LOB",
        SDI => "SDI",
        RTREE => "RTREE",
        INDEX => "INDEX",
        _ => "unknown",
    }
}

/// `DICT_IBUF_ID_MIN`: the index number of the change buffer.
pub(crate) const CHANGE_BUFFER: u64 = 0xffff_ffff_0000_0000;
/// `FSP_IBUF_TREE_ROOT_PAGE_NO`, in the system tablespace.
pub(crate) const CHANGE_BUFFER_ROOT: u32 = 4;
