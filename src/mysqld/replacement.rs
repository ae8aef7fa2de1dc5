// SPDX-License-Identifier: GPL-2.0-only

//! Replaces the data of this server by a clone that waits in a staging directory.

mod configuration;
mod data_file_path;
mod dictionary;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clone_core::checks::ServerChecks;
use clone_core::error::{Error, Result};
use clone_core::session::{StagedClone, Variables};
use clone_protocol::innodb::Directories;
use clone_swap::replacement::{self, IndexState, Replacement, Staged};

use super::session::MysqldSession;
use super::unfinished;
use crate::server::error_log::CLIENT;
use crate::server::raise::{Raise, raise};
use crate::server::services::services;
use crate::server::sql::run_apart;
use configuration::{Configuration, clean, sql_error};

/// Where a clone waits, below the data directory. InnoDB does not look for tablespaces in
/// directories whose names begin with a dot, and neither MySQL nor a donor names a schema so.
const STAGING: &str = ".clone_staging";

/// Schemas that nobody may drop (`ALTER SCHEMA ... READ ONLY`), since 8.0.22.
const READ_ONLY_SCHEMAS: &str = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA_EXTENSIONS \
                                 WHERE OPTIONS LIKE '%READ ONLY=1%'";

/// `ER_UNKNOWN_TABLE`: what a server says that has no such table.
const ER_UNKNOWN_TABLE: u32 = 1109;

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
    let staging = configuration.data_directory.join(STAGING);
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
        log::info!(target: CLIENT, "Removed '{STAGING}': a crash had ended the clone in it");
    }
    unfinished::remove_left(&data_directory);
    match replacement::restore_index(&data_directory) {
        Ok(IndexState::AsItWas) => {}
        Ok(IndexState::Restored) => {
            let text = "The clone is rolled back. The server has its old data, and the index of its \
                        binary logs is restored.";
            if !services().symbols.is_booting() {
                log::warn!(target: CLIENT, "{text}");
                return;
            }
            // mysqld has opened the index while it was empty, and must not write a binary log now.
            log::error!(target: CLIENT, "{text} The server starts again to open this index.");
            // SAFETY: ends the process, without the exit handlers of a server that is half up.
            unsafe { libc::_exit(RESTART_EXIT) }
        }
        Ok(IndexState::InUse(kept)) => log::error!(
            target: CLIENT,
            "A clone was rolled back, and the server has begun a new binary log since. The old index \
             is in '{}'. The first line of this file is the path of the index",
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

/// See [`RecipientSession::accept_system_file`](clone_core::session::OwnData).
pub(super) fn accept_system_file(session: &MysqldSession, index: usize, size: u64) -> Result<()> {
    Configuration::of(session)?.system.accept(index, size)
}

/// Refuses a tablespace where this server does not look for tablespaces, as InnoDB does since 9.7
/// (`clone0apply.cc:build_file_path`).
pub(super) fn accept_outside_file(session: &MysqldSession, path: &Path) -> Result<()> {
    if looks_for_tablespaces(session, path)? {
        return Ok(());
    }
    let value = path.to_string_lossy();
    Err(Error::Raised(raise(Raise::WrongValue { what: "file path", value: &value })))
}

/// Whether this server looks for tablespaces where `path` is.
pub(super) fn looks_for_tablespaces(session: &MysqldSession, path: &Path) -> Result<bool> {
    let configuration = Configuration::of(session)?;
    let base = &configuration.data_directory;
    let listed = session.variables(&["innodb_directories", "innodb_data_home_dir"])?;
    let known = listed.iter().flat_map(|list| list.split(';')).filter(|path| !path.is_empty());
    let known = known.map(|path| clean(&base.join(path)));
    let known = known.chain([configuration.undo_directory.clone()]);
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let directories =
        Directories { base: bytes(base), known: known.map(|path| bytes(&path)).collect() };
    Ok(directories.contain(path.as_os_str().as_bytes()))
}

/// Free bytes on the disk of the data directory. None if the disk does not tell.
pub(super) fn free_space(session: &MysqldSession) -> Option<u64> {
    let configuration = Configuration::of(session).ok()?;
    let space = rustix::fs::statvfs(&configuration.data_directory).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// See [`RecipientSession::check_space_without_data`](clone_core::session::OwnData).
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

/// See [`OwnData`](clone_core::session::OwnData).
pub(super) fn empty_doublewrite_buffer(session: &MysqldSession) -> Result<()> {
    let configuration = Configuration::of(session)?;
    let files = configuration.doublewrite_files()?;
    replacement::empty_doublewrite_buffer(&configuration.data_directory, &files)
        .map_err(clone_error)
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
