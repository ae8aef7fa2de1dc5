// SPDX-License-Identifier: GPL-2.0-only

//! A running RocksDB: the few calls of its C interface that the tests need, made safe. All unsafe
//! code of this crate is here.
//!
//! The database is laid out as MyRocks lays out its own: several column families over one
//! write-ahead log, which at recovery must not have a torn end (`kAbsoluteConsistency`, the default
//! of `rocksdb_wal_recovery_mode`).

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::ptr::null_mut;
use std::slice;
use std::sync::Arc;
use std::sync::RwLock;

use librocksdb_sys as c;

/// Column families, in the order in which they are opened. MyRocks has at least these two as well:
/// data and `__system__`.
pub const FAMILIES: [&CStr; 2] = [c"default", c"__system__"];

/// What a log that ends within a record is when a database opens (`rocksdb::WALRecoveryMode`).
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub enum TornLog {
    /// The trace of a kill within a write, which nobody had been told of; the record is left out
    /// (`kTolerateCorruptedTailRecords`).
    Tolerated = 0,
    /// An error (`kAbsoluteConsistency`): a clone is cut between two records.
    Refused = 1,
}

/// `rocksdb::InfoLogLevel::WARN_LEVEL`.
const WARN_LEVEL: i32 = 2;

/// What RocksDB says when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksError(String);

impl fmt::Display for RocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RocksDB: {}", self.0)
    }
}

impl std::error::Error for RocksError {}

/// What a call of RocksDB gives.
pub type Result<T> = std::result::Result<T, RocksError>;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the write-ahead logs, if it is not the database's own.
    pub wal_directory: Option<PathBuf>,
    /// Size at which a memtable is flushed, in bytes. Small values give many files.
    pub memtable: usize,
    /// Size at which a compaction begins a new file, in bytes.
    pub file: u64,
    /// Values of at least this many bytes go to blob files.
    pub blobs_from: Option<u64>,
    /// Number of old logs that are kept to be written over.
    pub recycled_logs: usize,
    /// What becomes of a log that ends within a record.
    pub torn_log: TornLog,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wal_directory: None,
            memtable: 1 << 20,
            file: 1 << 20,
            blobs_from: None,
            recycled_logs: 0,
            torn_log: TornLog::Refused,
        }
    }
}

/// An open database. Closed when the last of its references and [`Snapshot`]s goes.
#[derive(Debug)]
pub struct Live {
    database: NonNull<c::rocksdb_t>,
    families: [NonNull<c::rocksdb_column_family_handle_t>; FAMILIES.len()],
    write_options: NonNull<c::rocksdb_writeoptions_t>,
    directory: PathBuf,
    settings: Settings,
    /// Writers hold it shared. What RocksDB's `LockWAL` does in a server, and the C interface
    /// lacks: exclusive, nobody writes.
    gate: RwLock<()>,
}

// SAFETY: rocksdb/db.h: a DB "is safe for concurrent access from multiple threads without any
// external synchronization"; the column family handles and write options are only read after the
// open.
unsafe impl Send for Live {}
// SAFETY: as above.
unsafe impl Sync for Live {}

impl Live {
    /// Opens the database in `directory`, made if it is not there.
    ///
    /// # Errors
    /// RocksDB's: corruption, a torn log, a second open at once.
    pub fn open(directory: &Path, settings: Settings) -> Result<Arc<Self>> {
        let options = Options::new(&settings);
        let path = c_path(directory);
        let names = FAMILIES.map(CStr::as_ptr);
        let each = [options.0.as_ptr().cast_const(); FAMILIES.len()];
        let mut families = [null_mut(); FAMILIES.len()];
        let count = i32::try_from(FAMILIES.len()).unwrap_or(i32::MAX);
        // SAFETY: all arrays have `count` elements; RocksDB copies names and options and fills the
        // handles if it succeeds.
        let database = checked(|error| unsafe {
            c::rocksdb_open_column_families(
                options.0.as_ptr(),
                path.as_ptr(),
                count,
                names.as_ptr(),
                each.as_ptr(),
                families.as_mut_ptr(),
                error,
            )
        })?;
        // SAFETY: no arguments.
        let write_options = unsafe { c::rocksdb_writeoptions_create() };
        Ok(Arc::new(Self {
            database: made(database),
            families: families.map(made),
            write_options: made(write_options),
            directory: directory.to_owned(),
            settings,
            gate: RwLock::new(()),
        }))
    }

    /// Where the database is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its write-ahead logs are.
    pub fn wal_directory(&self) -> &Path {
        self.settings.wal_directory.as_deref().unwrap_or(&self.directory)
    }

    /// How it was opened.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Writes all of `batch` at once, or nothing. Waits while writers are [kept
    /// out](Self::without_writers).
    ///
    /// # Errors
    /// RocksDB's.
    pub fn write(&self, batch: &Batch) -> Result<()> {
        let _shared = self.gate.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let inner = Pending::new();
        for (family, key, change) in &batch.changes {
            let family = self.families[*family].as_ptr();
            match change {
                // SAFETY: the handle is open, and the bytes are copied by the call.
                Some(value) => unsafe {
                    c::rocksdb_writebatch_put_cf(
                        inner.0.as_ptr(),
                        family,
                        key.as_ptr().cast(),
                        key.len(),
                        value.as_ptr().cast(),
                        value.len(),
                    );
                },
                // SAFETY: as above.
                None => unsafe {
                    c::rocksdb_writebatch_delete_cf(
                        inner.0.as_ptr(),
                        family,
                        key.as_ptr().cast(),
                        key.len(),
                    );
                },
            }
        }
        // SAFETY: database, options and batch live until the call is back.
        checked(|error| unsafe {
            c::rocksdb_write(
                self.database.as_ptr(),
                self.write_options.as_ptr(),
                inner.0.as_ptr(),
                error,
            );
        })
    }

    /// Runs `work` while nobody writes: all logs end with a whole record, and the state of the
    /// database stands still.
    pub fn without_writers<R>(&self, work: impl FnOnce() -> R) -> R {
        let _alone = self.gate.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        work()
    }

    /// The number of the last write.
    pub fn sequence(&self) -> u64 {
        // SAFETY: the database is open.
        unsafe { c::rocksdb_get_latest_sequence_number(self.database.as_ptr()) }
    }

    /// The state as it is now, kept.
    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        // SAFETY: the database is open.
        let inner = unsafe { c::rocksdb_create_snapshot(self.database.as_ptr()) };
        Snapshot {
            inner: made(inner.cast_mut()),
            sequence: self.sequence(),
            live: Arc::clone(self),
        }
    }

    /// Writes the memtables out.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn flush(&self) -> Result<()> {
        // SAFETY: no arguments.
        let options = made(unsafe { c::rocksdb_flushoptions_create() });
        let mut flushed = Ok(());
        for family in self.families {
            // SAFETY: database, options and handle live until the call is back.
            let one = checked(|error| unsafe {
                c::rocksdb_flush_cf(
                    self.database.as_ptr(),
                    options.as_ptr(),
                    family.as_ptr(),
                    error,
                );
            });
            flushed = flushed.and(one);
        }
        // SAFETY: made above, and not used again.
        unsafe { c::rocksdb_flushoptions_destroy(options.as_ptr()) };
        flushed
    }

    /// Rewrites all files, so that none of those that were there before is in use any more.
    pub fn compact(&self) {
        for family in self.families {
            // SAFETY: a null key with length 0 is "no bound".
            unsafe {
                c::rocksdb_compact_range_cf(
                    self.database.as_ptr(),
                    family.as_ptr(),
                    null_mut(),
                    0,
                    null_mut(),
                    0,
                );
            }
        }
    }

    /// Hands what is written to the logs to the operating system.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn flush_wal(&self) -> Result<()> {
        // SAFETY: the database is open.
        checked(|error| unsafe { c::rocksdb_flush_wal(self.database.as_ptr(), 0, error) })
    }

    /// Makes a checkpoint in `directory`, which must not be there, after the memtables have been
    /// written out.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn create_checkpoint(&self, directory: &Path) -> Result<()> {
        let path = c_path(directory);
        // SAFETY: the database is open.
        let checkpoint = made(checked(|error| unsafe {
            c::rocksdb_checkpoint_object_create(self.database.as_ptr(), error)
        })?);
        // SAFETY: object and path live until the call is back. 0: flush whatever the size of the
        // logs.
        let created = checked(|error| unsafe {
            c::rocksdb_checkpoint_create(checkpoint.as_ptr(), path.as_ptr(), 0, error);
        });
        // SAFETY: made above, and not used again.
        unsafe { c::rocksdb_checkpoint_object_destroy(checkpoint.as_ptr()) };
        created
    }

    /// From now on RocksDB removes no file. Counted: as many
    /// [`enable_file_deletions`](Self::enable_file_deletions) undo it.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn disable_file_deletions(&self) -> Result<()> {
        // SAFETY: the database is open.
        checked(|error| unsafe {
            c::rocksdb_disable_file_deletions(self.database.as_ptr(), error);
        })
    }

    /// Undoes one [`disable_file_deletions`](Self::disable_file_deletions).
    ///
    /// # Errors
    /// RocksDB's.
    pub fn enable_file_deletions(&self) -> Result<()> {
        // SAFETY: the database is open. 0: do not undo those of others.
        checked(|error| unsafe {
            c::rocksdb_enable_file_deletions(self.database.as_ptr(), 0, error);
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for family in self.families {
            // SAFETY: the handle is open and not used again.
            unsafe { c::rocksdb_column_family_handle_destroy(family.as_ptr()) };
        }
        // SAFETY: not used again.
        unsafe { c::rocksdb_writeoptions_destroy(self.write_options.as_ptr()) };
        // SAFETY: iterators and snapshots hold a reference to this, so none is left.
        unsafe { c::rocksdb_close(self.database.as_ptr()) };
    }
}

/// Changes that are written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { changes: Vec::new() }
    }

    /// Adds a value; `family` is an index into [`FAMILIES`].
    pub fn put(&mut self, family: usize, key: &[u8], value: &[u8]) {
        self.changes.push((family, key.to_vec(), Some(value.to_vec())));
    }

    /// Removes a key.
    pub fn delete(&mut self, family: usize, key: &[u8]) {
        self.changes.push((family, key.to_vec(), None));
    }
}

/// A state of the database that stays readable.
#[derive(Debug)]
pub struct Snapshot {
    live: Arc<Live>,
    inner: NonNull<c::rocksdb_snapshot_t>,
    sequence: u64,
}

// SAFETY: a snapshot is immutable (rocksdb/snapshot.h: "Snapshots are immutable and can therefore
// be safely accessed from multiple threads without any external synchronization").
unsafe impl Send for Snapshot {}
// SAFETY: as above.
unsafe impl Sync for Snapshot {}

impl Snapshot {
    /// The number of the last write in it. Exact if it was made [without
    /// writers](Live::without_writers).
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The database that it is of.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// All keys of one of the [`FAMILIES`], ascending.
    pub fn iter(&self, family: usize) -> Entries<'_> {
        // SAFETY: no arguments.
        let options = made(unsafe { c::rocksdb_readoptions_create() });
        // SAFETY: the snapshot lives at least as long as what is returned.
        unsafe { c::rocksdb_readoptions_set_snapshot(options.as_ptr(), self.inner.as_ptr()) };
        let database = self.live.database.as_ptr();
        let family = self.live.families[family].as_ptr();
        // SAFETY: database, handle and options are valid; the iterator keeps what it needs of the
        // options.
        let inner = unsafe { c::rocksdb_create_iterator_cf(database, options.as_ptr(), family) };
        // SAFETY: made by the call above.
        unsafe { c::rocksdb_iter_seek_to_first(inner) };
        Entries { inner: made(inner), options, snapshot: self }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let database = self.live.database.as_ptr();
        // SAFETY: made for this database, not used again.
        unsafe { c::rocksdb_release_snapshot(database, self.inner.as_ptr()) };
    }
}

/// Keys and values of a [`Snapshot`]; read them with [`read`](Self::read), then go on with
/// [`advance`](Self::advance).
#[derive(Debug)]
pub struct Entries<'a> {
    inner: NonNull<c::rocksdb_iterator_t>,
    options: NonNull<c::rocksdb_readoptions_t>,
    #[expect(dead_code, reason = "keeps snapshot and database open")]
    snapshot: &'a Snapshot,
}

impl Entries<'_> {
    /// Key and value of the present entry, or `None` behind the last one.
    ///
    /// # Errors
    /// RocksDB's, for a block that cannot be read or whose checksum is wrong.
    pub fn read(&self) -> Result<Option<(&[u8], &[u8])>> {
        // SAFETY: the iterator is open.
        if unsafe { c::rocksdb_iter_valid(self.inner.as_ptr()) } == 0 {
            // SAFETY: the iterator is open.
            checked(|error| unsafe { c::rocksdb_iter_get_error(self.inner.as_ptr(), error) })?;
            return Ok(None);
        }
        Ok(Some((self.part(c::rocksdb_iter_key), self.part(c::rocksdb_iter_value))))
    }

    /// To the next entry.
    pub fn advance(&mut self) {
        // SAFETY: the iterator is open.
        if unsafe { c::rocksdb_iter_valid(self.inner.as_ptr()) } != 0 {
            // SAFETY: it is valid, which this call demands.
            unsafe { c::rocksdb_iter_next(self.inner.as_ptr()) };
        }
    }

    /// One part of a valid entry.
    fn part(
        &self,
        of: unsafe extern "C" fn(*const c::rocksdb_iterator_t, *mut usize) -> *const c_char,
    ) -> &[u8] {
        let mut len = 0;
        // SAFETY: the caller has found the iterator valid.
        let bytes = unsafe { of(self.inner.as_ptr(), &raw mut len) };
        if len == 0 {
            return &[];
        }
        // SAFETY: RocksDB gives `len` bytes that stay until the iterator moves, which takes
        // `&mut self`.
        unsafe { slice::from_raw_parts(bytes.cast(), len) }
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        // SAFETY: not used again.
        unsafe { c::rocksdb_iter_destroy(self.inner.as_ptr()) };
        // SAFETY: not used again.
        unsafe { c::rocksdb_readoptions_destroy(self.options.as_ptr()) };
    }
}

/// `rocksdb_options_t`, owned.
struct Options(NonNull<c::rocksdb_options_t>);

impl Options {
    fn new(settings: &Settings) -> Self {
        // SAFETY: no arguments.
        let options = Self(made(unsafe { c::rocksdb_options_create() }));
        let inner = options.0.as_ptr();
        #[allow(
            clippy::multiple_unsafe_ops_per_block,
            reason = "setters of one object, for one and the same reason"
        )]
        // SAFETY: `inner` is valid, and each setter only stores its argument.
        unsafe {
            c::rocksdb_options_set_create_if_missing(inner, 1);
            c::rocksdb_options_set_create_missing_column_families(inner, 1);
            c::rocksdb_options_set_wal_recovery_mode(inner, settings.torn_log as i32);
            c::rocksdb_options_set_info_log_level(inner, WARN_LEVEL);
            c::rocksdb_options_set_write_buffer_size(inner, settings.memtable);
            c::rocksdb_options_set_target_file_size_base(inner, settings.file);
            c::rocksdb_options_set_max_bytes_for_level_base(inner, 4 * settings.file);
            c::rocksdb_options_set_recycle_log_file_num(inner, settings.recycled_logs);
            if let Some(size) = settings.blobs_from {
                c::rocksdb_options_set_enable_blob_files(inner, 1);
                c::rocksdb_options_set_min_blob_size(inner, size);
            }
        }
        if let Some(directory) = &settings.wal_directory {
            let path = c_path(directory);
            // SAFETY: the path is copied.
            unsafe { c::rocksdb_options_set_wal_dir(inner, path.as_ptr()) };
        }
        options
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: not used again.
        unsafe { c::rocksdb_options_destroy(self.0.as_ptr()) };
    }
}

/// `rocksdb_writebatch_t`, owned.
struct Pending(NonNull<c::rocksdb_writebatch_t>);

impl Pending {
    fn new() -> Self {
        // SAFETY: no arguments.
        Self(made(unsafe { c::rocksdb_writebatch_create() }))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // SAFETY: not used again.
        unsafe { c::rocksdb_writebatch_destroy(self.0.as_ptr()) };
    }
}

/// Calls `call` with RocksDB's out-argument for errors.
fn checked<R>(call: impl FnOnce(*mut *mut c_char) -> R) -> Result<R> {
    let mut error = null_mut();
    let result = call(&raw mut error);
    if error.is_null() {
        return Ok(result);
    }
    // SAFETY: an error is a string that ends with a zero byte.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: RocksDB made it with malloc and leaves it to the caller.
    unsafe { c::rocksdb_free(error.cast()) };
    Err(RocksError(text))
}

/// What RocksDB gives where it cannot fail.
fn made<T>(pointer: *mut T) -> NonNull<T> {
    NonNull::new(pointer).expect("RocksDB gives a null pointer with an error only")
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path of a test has no zero byte")
}
