// SPDX-License-Identifier: GPL-2.0-only

//! `innodb_data_file_path`: the files of the system tablespace.

use std::fs;
use std::path::{Path, PathBuf};

use clone_core::error::{Error, Result};

/// The files of the system tablespace. Example: `ibdata1:12M;ibdata2:12M:autoextend`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DataFilePath {
    pub(super) files: Vec<DataFile>,
}

/// One of these files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    /// The file grows. Only the last one can.
    extends: bool,
    /// The file is a device.
    is_device: bool,
}

impl DataFilePath {
    /// Parses the variable. Relative paths are below `home`, `innodb_data_home_dir`.
    ///
    /// # Errors
    /// The variable has another form. InnoDB would not have started with it.
    pub(super) fn parse(variable: &str, home: &Path) -> Result<Self> {
        let files = variable.split(';').map(|file| DataFile::parse(file, home));
        let files: Option<Vec<_>> = files.collect();
        files.map(|files| Self { files }).ok_or_else(|| {
            Error::SystemConfig(format!("innodb_data_file_path: cannot read '{variable}'"))
        })
    }

    /// Whether a file is a device, which cannot be renamed.
    pub(super) fn has_device(&self) -> bool {
        self.files.iter().any(|file| file.is_device)
    }

    /// Checks the donor's file number `index` of `size` bytes, as InnoDB does
    /// (`clone0apply.cc:update_sys_file_name`).
    ///
    /// # Errors
    /// The server would not start with this file.
    pub(super) fn accept(&self, index: usize, size: u64) -> Result<()> {
        let count = self.files.len();
        let Some(file) = self.files.get(index) else {
            return Err(Error::SystemConfig(format!(
                "innodb_data_file_path: Recipient file count: {count} is less than Donor file count."
            )));
        };
        let path = &file.path;
        let own = fs::metadata(path)
            .map_err(|error| Error::file(false, &path.to_string_lossy(), &error))?
            .len();
        if own == size || file.extends {
            return Ok(());
        }
        Err(Error::SystemConfig(format!(
            "innodb_data_file_path: Recipient value for {index}th file size: {own} doesn't match \
             Donor file size: {size}"
        )))
    }
}

impl DataFile {
    /// `path:size`, `path:size:autoextend`, `path:size:autoextend:max:size`, `path:sizeraw`.
    fn parse(text: &str, home: &Path) -> Option<Self> {
        let mut parts = text.split(':');
        let path = parts.next().filter(|path| !path.is_empty())?;
        let size = parts.next()?;
        let extends = parts.next() == Some("autoextend");
        Some(Self { path: home.join(path), extends, is_device: size.ends_with("raw") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variable: &str) -> Result<DataFilePath> {
        DataFilePath::parse(variable, Path::new("/data"))
    }

    #[test]
    fn the_forms_of_the_variable() {
        let path = parse("ibdata1:12M;/big/ibdata2:50M:autoextend:max:2G").expect("two files");
        let file = |path: &str, extends| DataFile { path: path.into(), extends, is_device: false };
        assert_eq!(path.files, [file("/data/ibdata1", false), file("/big/ibdata2", true)]);
        assert!(!path.has_device());
        assert!(parse("/dev/sda5:3Gnewraw").expect("a device").has_device());
        for wrong in ["", "ibdata1", ":12M", "ibdata1:12M;"] {
            assert_eq!(parse(wrong).map_err(|error| error.number()), Err(3869), "{wrong}");
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        let home = tempfile::tempdir().expect("a directory");
        for name in ["one", "two"] {
            fs::write(home.path().join(name), [0; 100]).expect("a file");
        }
        let path = DataFilePath::parse("one:12M;two:12M:autoextend", home.path()).expect("files");
        let refused = |index, size| match path.accept(index, size) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(refused(0, 100), "");
        assert_eq!(refused(1, 4711), "");
        assert!(
            refused(0, 4711).ends_with("0th file size: 100 doesn't match Donor file size: 4711")
        );
        assert!(refused(2, 100).contains("Recipient file count: 2 is less than Donor file count"));
    }
}
