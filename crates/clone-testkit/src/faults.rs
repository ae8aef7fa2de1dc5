// SPDX-License-Identifier: GPL-2.0-only

//! What goes wrong in practice: a disk that is too small, DDL that gets stuck. A network that
//! breaks is in [`proxy`](crate::proxy).

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::mysqld::Mysqld;
use crate::sql::Session;

/// A file system of a given size, in memory. Unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts a tmpfs of `bytes` bytes. `None` when this process may not mount.
    pub fn mount(bytes: u64) -> Result<Option<Self>> {
        let dir = TempDir::with_prefix("mysql-clone-disk-")?;
        let options = CString::new(format!("size={bytes},mode=700"))?;
        match mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())) {
            Ok(()) => Ok(Some(Self { dir })),
            Err(rustix::io::Errno::PERM) => Ok(None),
            Err(error) => Err(error).context("mount a tmpfs"),
        }
    }

    /// As [`fill_disk`].
    pub fn fill(&self) -> Result<()> {
        fill_disk(self.path())
    }

    /// As [`relieve_disk`].
    pub fn relieve(&self) -> Result<()> {
        relieve_disk(self.path())
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.dir.path(), UnmountFlags::DETACH) {
            log::warn!("unmount {}: {error}", self.dir.path().display());
        }
    }
}

/// Writes a file to `directory`, as large as the space that is left.
pub fn fill_disk(directory: &Path) -> Result<()> {
    let mut file = File::create(directory.join(BALLAST))?;
    let block = vec![0; 1 << 20];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes the file of [`fill_disk`], if there is one.
pub fn relieve_disk(directory: &Path) -> Result<()> {
    match fs::remove_file(directory.join(BALLAST)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The file of [`fill_disk`].
const BALLAST: &str = "ballast";

/// An `ALTER TABLE` that waits for an open transaction. As long as it waits, a clone with
/// `clone_block_ddl = ON` cannot get the backup lock, and waits too.
#[derive(Debug)]
pub struct StuckDdl {
    /// The open transaction; closing it lets the DDL go on.
    reader: Session,
    ddl: JoinHandle<Result<()>>,
}

impl StuckDdl {
    /// Creates a table and gets stuck on it.
    pub fn start(server: &Mysqld) -> Result<Self> {
        let mut reader = server.session()?;
        reader.run_all([
            "CREATE DATABASE IF NOT EXISTS stuck",
            "CREATE TABLE IF NOT EXISTS stuck.t (id INT PRIMARY KEY)",
            "START TRANSACTION",
            "SELECT * FROM stuck.t",
        ])?;
        let mut session = server.session()?;
        let id = session.id();
        let ddl = thread::spawn(move || session.run("ALTER TABLE stuck.t COMMENT 'altered'"));
        crate::until("the DDL to get stuck", Duration::from_secs(20), || {
            reader.first::<u32>(format!(
                "SELECT 1 FROM performance_schema.processlist \
                 WHERE ID = {id} AND STATE = 'Waiting for table metadata lock'"
            ))
        })?;
        Ok(Self { reader, ddl })
    }

    /// Lets the DDL go on and waits for its end.
    pub fn release(mut self) -> Result<()> {
        self.reader.run("COMMIT")?;
        self.ddl.join().map_err(|_| anyhow!("the DDL's thread panicked"))?
    }
}
