// SPDX-License-Identifier: GPL-2.0-only

//! Replaces the data of this server by a clone that waits in a staging directory.

mod data_file_path;
mod dictionary;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clone_core::checks::ServerChecks;
use clone_core::error::{Error, Result};
use clone_core::session::{StagedClone, Variables};
use clone_protocol::innodb::Directories;
use clone_swap::replacement::{self, DoublewriteFile, IndexState, Replacement, Server, Staged};

use super::session::MysqldSession;
use crate::server::error_log::CLIENT;
use crate::server::raise::{Raise, raise};
use crate::server::services::services;
use crate::server::sql::{SqlError, run_apart};
use data_file_path::DataFilePath;

/// Where a clone waits, below the data directory. InnoDB does not look for tablespaces in
/// directories whose names begin with a dot, and neither MySQL nor a donor names a schema so.
const STAGING: &str = ".clone_staging";

/// The schemas whose tables no clone drops. mysqld has files of its own there.
const SYSTEM_SCHEMAS: [&str; 3] = ["mysql", "performance_schema", "sys"];

/// The files of tables in the directories of schemas (`sql/handler.h`: `file_extensions`).
const TABLE_FILES: [&str; 9] = ["ibd", "MYD", "MYI", "sdi", "CSV", "CSM", "ARZ", "ARM", "MRG"];

/// All files of InnoDB's tablespaces but those of temporary ones.
const TABLESPACES: &str = "SELECT FILE_NAME, TABLESPACE_NAME FROM information_schema.FILES \
                           WHERE ENGINE = 'InnoDB' AND FILE_TYPE <> 'TEMPORARY'";

/// Schemas that nobody may drop (`ALTER SCHEMA ... READ ONLY`), since 8.0.22.
const READ_ONLY_SCHEMAS: &str = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA_EXTENSIONS \
                                 WHERE OPTIONS LIKE '%READ ONLY=1%'";

/// `ER_UNKNOWN_TABLE`: what a server says that has no such table.
const ER_UNKNOWN_TABLE: u32 = 1109;

/// Empty for the data directory. No row before 8.0.20.
const DOUBLEWRITE_DIRECTORY: &str = "SELECT VARIABLE_VALUE FROM performance_schema.global_variables \
                                     WHERE VARIABLE_NAME = 'innodb_doublewrite_dir'";

/// The tablespace of `innodb_data_file_path`.
const SYSTEM_TABLESPACE: &str = "innodb_system";

/// The server's configuration, as far as a replacement must know.
struct Configuration {
    data_directory: PathBuf,
    system: DataFilePath,
    undo_directory: PathBuf,
    redo_directory: PathBuf,
    buffer_pool_dump: PathBuf,
    binary_log_index: Option<PathBuf>,
}

impl Configuration {
    fn of(session: &MysqldSession) -> Result<Self> {
        let values = session.variables(&[
            "datadir",
            "innodb_data_home_dir",
            "innodb_data_file_path",
            "innodb_undo_directory",
            "innodb_log_group_home_dir",
            "innodb_buffer_pool_filename",
            "log_bin",
            "log_bin_index",
        ])?;
        let [datadir, data_home, data_files, undo, redo, dump, log_bin, index] =
            <[String; 8]>::try_from(values).map_err(|_| {
                Error::Internal("Error reading the configuration of this server".to_owned())
            })?;
        let data_directory =
            fs::canonicalize(&datadir).map_err(|error| Error::file(false, &datadir, &error))?;
        let below = |path: &str| clean(&data_directory.join(path));
        // Empty: the paths in innodb_data_file_path are absolute.
        let data_home = below(&data_home);
        Ok(Self {
            system: DataFilePath::parse(&data_files, &data_home)?,
            undo_directory: below(&undo),
            redo_directory: below(&redo),
            buffer_pool_dump: below(&dump),
            binary_log_index: (log_bin == "ON" && !index.is_empty()).then(|| below(&index)),
            data_directory,
        })
    }

    fn staging(&self) -> PathBuf {
        self.data_directory.join(STAGING)
    }

    /// The server with all of its files. DDL must be stopped, or the list is soon wrong.
    fn server(self) -> Result<Server> {
        let mut files = BTreeSet::new();
        for row in run_apart(TABLESPACES).map_err(sql_error)? {
            let mut columns = row.into_iter().flatten();
            let (Some(name), Some(tablespace)) = (columns.next(), columns.next()) else { continue };
            if tablespace != SYSTEM_TABLESPACE {
                files.insert(clean(&self.data_directory.join(name)));
            }
        }
        let doublewrite_files = doublewrite_files(&doublewrite_directory(&self.data_directory)?)?;
        let schema_directories = schema_directories(&self.data_directory)?;
        for directory in &schema_directories {
            files.extend(table_files(directory)?);
        }
        Ok(Server {
            data_directory: self.data_directory,
            undo_directory: self.undo_directory,
            redo_directory: self.redo_directory,
            system_files: self.system.files.into_iter().map(|file| file.path).collect(),
            doublewrite_files,
            buffer_pool_dump: self.buffer_pool_dump,
            files: files.into_iter().collect(),
            schema_directories,
            binary_log_index: self.binary_log_index,
        })
    }
}

/// The directory where a clone waits, without what an earlier clone has left. None if this server
/// cannot keep its data, because its system tablespace is a device.
pub(super) fn staging_directory(session: &MysqldSession) -> Result<Option<PathBuf>> {
    let configuration = Configuration::of(session)?;
    if configuration.system.has_device() {
        return Ok(None);
    }
    // The rows of the performance_schema tables are kept there from now on.
    let status = configuration.data_directory.join("#clone");
    match fs::create_dir(&status) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::file(true, &status.to_string_lossy(), &error));
        }
        _ => {}
    }
    let staging = configuration.staging();
    remove_staging(&staging)?;
    Ok(Some(staging))
}

/// What mysqld returns to its supervisor when it wants to be started again
/// (`sql/sql_const.h:MYSQLD_RESTART_EXIT`).
const RESTART_EXIT: i32 = 16;

/// The plugin is loaded, and InnoDB has started. Removes what a clone has left that a crash of the
/// server ended, and brings back the index of the binary logs if InnoDB has rolled a clone back.
pub(crate) fn settle() {
    // mysqld's working directory is its data directory.
    let Ok(data_directory) = std::env::current_dir() else { return };
    let staging = data_directory.join(STAGING);
    if staging.exists() && remove_staging(&staging).is_ok() {
        log::info!(target: CLIENT, "Removed '{STAGING}', which a clone had left");
    }
    match replacement::restore_index(&data_directory) {
        Ok(IndexState::AsItWas) => {}
        Ok(IndexState::Restored) => {
            let text = "The clone is rolled back, the server has its old data. The index of its \
                        binary logs is restored";
            if !services().symbols.is_booting() {
                log::warn!(target: CLIENT, "{text}");
                return;
            }
            // mysqld has opened the index while it was empty, and must not write a binary log now.
            log::error!(target: CLIENT, "{text}, for which the server starts again");
            // SAFETY: ends the process, without the exit handlers of a server that is half up.
            unsafe { libc::_exit(RESTART_EXIT) }
        }
        Ok(IndexState::InUse(kept)) => log::error!(
            target: CLIENT,
            "A clone is rolled back, but the server has begun a new binary log. The old index is \
             in '{}', its first line is the index's path",
            kept.display()
        ),
        Err(error) => log::error!(target: CLIENT, "{error}"),
    }
}

fn remove_staging(staging: &Path) -> Result<()> {
    match fs::remove_dir_all(staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(true, &staging.to_string_lossy(), &error))
        }
        _ => Ok(()),
    }
}

/// See [`RecipientSession::accept_system_file`](clone_core::session::RecipientSession).
pub(super) fn accept_system_file(session: &MysqldSession, index: usize, size: u64) -> Result<()> {
    Configuration::of(session)?.system.accept(index, size)
}

/// Refuses a tablespace where this server does not look for tablespaces, as InnoDB does since 9.7
/// (`clone0apply.cc:build_file_path`).
pub(super) fn accept_outside_file(session: &MysqldSession, path: &Path) -> Result<()> {
    let configuration = Configuration::of(session)?;
    let base = &configuration.data_directory;
    let listed = session.variables(&["innodb_directories", "innodb_data_home_dir"])?;
    let known = listed.iter().flat_map(|list| list.split(';')).filter(|path| !path.is_empty());
    let known = known.map(|path| clean(&base.join(path)));
    let known = known.chain([configuration.undo_directory.clone()]);
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let directories =
        Directories { base: bytes(base), known: known.map(|path| bytes(&path)).collect() };
    if directories.contain(path.as_os_str().as_bytes()) {
        return Ok(());
    }
    let value = path.to_string_lossy();
    Err(Error::Raised(raise(Raise::WrongValue { what: "file path", value: &value })))
}

/// See [`RecipientSession::check_space_without_data`](clone_core::session::RecipientSession).
pub(super) fn check_space_without_data(session: &MysqldSession, needed: u64) -> Result<()> {
    let configuration = Configuration::of(session)?;
    let data_directory = configuration.data_directory.clone();
    let space = rustix::fs::statvfs(&data_directory)
        .map_err(|error| Error::file(false, &data_directory.to_string_lossy(), &error.into()))?;
    let server = configuration.server()?;
    let all = server.files.iter().chain(&server.system_files);
    let blocks = all.filter_map(|file| fs::metadata(file).ok()).map(|file| file.blocks());
    // The unit of st_blocks is 512 bytes everywhere.
    let own: u64 = blocks.map(|blocks| blocks * 512).sum();
    let free = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(own);
    if free < needed {
        return Err(Error::DiskSpace { needed, free });
    }
    Ok(())
}

/// Refuses to replace a schema that is read only, as DROP SCHEMA does (3989).
pub(super) fn check_schemas() -> Result<()> {
    let rows = match run_apart(READ_ONLY_SCHEMAS) {
        Err(error) if error.number == ER_UNKNOWN_TABLE => return Ok(()),
        rows => rows.map_err(sql_error)?,
    };
    let Some(Some(schema)) = rows.first().and_then(|row| row.first()) else { return Ok(()) };
    Err(Error::Raised(raise(Raise::SchemaReadOnly(schema))))
}

/// Hands the clone over to InnoDB, for the next start of the server. DDL must be stopped.
pub(super) fn replace_data(session: &MysqldSession, clone: &StagedClone) -> Result<Replacement> {
    check_dictionary(session, &clone.directory)?;
    let server = Configuration::of(session)?.server()?;
    let outside = clone.outside_files.iter();
    let staged = Staged {
        directory: clone.directory.clone(),
        system_files: clone.system_files.clone(),
        undo_files: clone.undo_files.clone(),
        outside: outside
            .map(|file| (file.staged.clone(), clean(&server.data_directory.join(&file.path))))
            .collect(),
    };
    let replacement = Replacement::plan(&server, &staged).map_err(clone_error)?;
    if let Err(error) = replacement.prepare().and_then(|()| replacement.commit()) {
        if let Err(error) = replacement.roll_back() {
            log::error!(
                target: CLIENT,
                "The rest of the clone is removed at the next start of the server: {error}"
            );
        }
        return Err(clone_error(error));
    }
    services().symbols.note_data_dropped();
    // Empty directories, and what only InnoDB's clone into a directory needs.
    if let Err(error) = remove_staging(&clone.directory) {
        log::warn!(target: CLIENT, "{error}");
    }
    Ok(replacement)
}

/// Refuses a clone with which this server would not start (3868).
fn check_dictionary(session: &MysqldSession, clone: &Path) -> Result<()> {
    let path = clone.join("mysql.ibd");
    let value = dictionary::lower_case_table_names(&path)
        .map_err(|error| Error::file(false, &path.to_string_lossy(), &error))?;
    let Some(value) = value else {
        log::warn!(
            target: CLIENT,
            "lower_case_table_names of the donor is not known. If it differs from that of this \
             server, this server will not start: then start it with the donor's value"
        );
        return Ok(());
    };
    let variable = [("lower_case_table_names".to_owned(), value.to_string())];
    session.check_variables(&variable)
}

fn clone_error(error: replacement::Error) -> Error {
    match error {
        replacement::Error::File { what, path, source } => {
            Error::file(what != "read", &path.to_string_lossy(), &source)
        }
        replacement::Error::FileExists(path) => {
            Error::FileExists(path.to_string_lossy().into_owned())
        }
        replacement::Error::SystemFiles { recipient, donor } => Error::SystemConfig(format!(
            "innodb_data_file_path: Recipient file count: {recipient} differs from Donor file \
             count: {donor}"
        )),
        error @ replacement::Error::LineBreak(_) => Error::NotSupported(error.to_string().into()),
    }
}

/// The path without `.` in it. Symbolic links and `..` stay.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

fn sql_error(error: SqlError) -> Error {
    Error::Internal(error.text)
}

/// The directories of all schemas but the system's.
fn schema_directories(data_directory: &Path) -> Result<Vec<PathBuf>> {
    let is_schema = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with(['.', '#']) && !SYSTEM_SCHEMAS.contains(&&*name) && path.is_dir()
    };
    Ok(entries(data_directory)?.into_iter().filter(is_schema).collect())
}

/// Where InnoDB has its doublewrite buffer (`ha_innodb.cc:innobase_ddse_dict_init`).
fn doublewrite_directory(data_directory: &Path) -> Result<PathBuf> {
    let rows = run_apart(DOUBLEWRITE_DIRECTORY).map_err(sql_error)?;
    let value = rows.into_iter().flatten().flatten().next().unwrap_or_default();
    let is_plain = !value.is_empty() && !value.starts_with(['#', '.', '/']);
    let name = if is_plain { format!("#{value}") } else { value };
    Ok(clean(&data_directory.join(name)))
}

/// The files of the doublewrite buffer: `#ib_16384_0.dblwr` and the like. Before 8.0.20 the buffer
/// is in the system tablespace.
fn doublewrite_files(directory: &Path) -> Result<Vec<DoublewriteFile>> {
    let is_doublewrite = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("#ib_") && (name.ends_with(".dblwr") || name.ends_with(".bdblwr"))
    };
    let paths = entries(directory)?.into_iter().filter(is_doublewrite);
    let sized = paths.map(|path| match fs::metadata(&path) {
        Ok(metadata) => Ok(DoublewriteFile { path, size: metadata.len() }),
        Err(error) => Err(Error::file(false, &path.to_string_lossy(), &error)),
    });
    sized.collect()
}

fn table_files(directory: &Path) -> Result<impl Iterator<Item = PathBuf> + use<>> {
    let is_table = |path: &PathBuf| {
        let suffix = path.extension().unwrap_or_default();
        TABLE_FILES.iter().any(|known| suffix == *known)
    };
    Ok(entries(directory)?.into_iter().filter(is_table))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let list =
        || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    list().map_err(|error| Error::file(false, &directory.to_string_lossy(), &error))
}
