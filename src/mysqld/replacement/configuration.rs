// SPDX-License-Identifier: GPL-2.0-only

//! Where this server has its files, and which files these are.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clone_core::error::{Error, Result};
use clone_core::session::Variables;
use clone_swap::replacement::{DoublewriteFile, Server};

use super::data_file_path::DataFilePath;
use crate::mysqld::session::MysqldSession;
use crate::server::sql::{SqlError, run_apart};

/// The schemas whose tables no clone drops. mysqld has files of its own there.
const SYSTEM_SCHEMAS: [&str; 3] = ["mysql", "performance_schema", "sys"];

/// The files of tables in the directories of schemas (`sql/handler.h`: `file_extensions`).
const TABLE_FILES: [&str; 9] = ["ibd", "MYD", "MYI", "sdi", "CSV", "CSM", "ARZ", "ARM", "MRG"];

/// All files of InnoDB's tablespaces but those of temporary ones.
const TABLESPACES: &str = "SELECT FILE_NAME, TABLESPACE_NAME FROM information_schema.FILES \
                           WHERE ENGINE = 'InnoDB' AND FILE_TYPE <> 'TEMPORARY'";

/// Empty for the data directory. No row before 8.0.20.
const DOUBLEWRITE_DIRECTORY: &str = "SELECT VARIABLE_VALUE FROM performance_schema.global_variables \
                                     WHERE VARIABLE_NAME = 'innodb_doublewrite_dir'";

/// The tablespace of `innodb_data_file_path`.
const SYSTEM_TABLESPACE: &str = "innodb_system";

/// The server's configuration, as far as a replacement must know.
pub(super) struct Configuration {
    pub(super) data_directory: PathBuf,
    pub(super) system: DataFilePath,
    pub(super) undo_directory: PathBuf,
    redo_directory: PathBuf,
    buffer_pool_dump: PathBuf,
    binary_log_index: Option<PathBuf>,
}

impl Configuration {
    pub(super) fn of(session: &MysqldSession) -> Result<Self> {
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

    /// The server with all of its files. DDL must be stopped, or the list is soon wrong.
    pub(super) fn server(self) -> Result<Server> {
        let mut files = BTreeSet::new();
        for row in run_apart(TABLESPACES).map_err(sql_error)? {
            let mut columns = row.into_iter().flatten();
            let (Some(name), Some(tablespace)) = (columns.next(), columns.next()) else { continue };
            if tablespace != SYSTEM_TABLESPACE {
                files.insert(clean(&self.data_directory.join(name)));
            }
        }
        let doublewrite_files = self.doublewrite_files()?;
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

    /// The files of the doublewrite buffer: `#ib_16384_0.dblwr` and the like. Before 8.0.20 the
    /// buffer is in the system tablespace.
    pub(super) fn doublewrite_files(&self) -> Result<Vec<DoublewriteFile>> {
        let is_doublewrite = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("#ib_") && (name.ends_with(".dblwr") || name.ends_with(".bdblwr"))
        };
        let directory = doublewrite_directory(&self.data_directory)?;
        let paths = entries(&directory)?.into_iter().filter(is_doublewrite);
        let sized = paths.map(|path| match fs::metadata(&path) {
            Ok(metadata) => Ok(DoublewriteFile { path, size: metadata.len() }),
            Err(error) => Err(Error::file(false, &path.to_string_lossy(), &error)),
        });
        sized.collect()
    }
}

/// The path without `.` in it. Symbolic links and `..` stay.
pub(super) fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

pub(super) fn sql_error(error: SqlError) -> Error {
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
