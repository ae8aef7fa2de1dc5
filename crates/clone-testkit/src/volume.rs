// SPDX-License-Identifier: GPL-2.0-only

//! A file system in a file, for what tmpfs and the machine's disk cannot do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::process;

/// XFS whose files can share blocks, in a loop mount; unmounted and removed when dropped.
///
/// Servers whose data is on it must be dropped before.
#[derive(Debug)]
pub struct Volume {
    mount_point: PathBuf,
    /// Holds the image and the mount point.
    _directory: TempDir,
}

impl Volume {
    /// Makes one of `mib` MiB below `directory`. The image is sparse, and takes the space of what
    /// is written to it.
    ///
    /// # Errors
    /// What keeps this machine from having one: no `mkfs.xfs` (Debian's xfsprogs), no loop devices,
    /// no XFS in the kernel, or no right to mount.
    pub fn xfs(directory: &Path, mib: u32) -> Result<Self> {
        let directory = TempDir::with_prefix_in("mysql-clone-volume-", directory)
            .context("make a directory for a volume")?;
        let (image, mount_point) = (directory.path().join("image"), directory.path().join("v"));
        File::create(&image)?.set_len(u64::from(mib) << 20)?;
        fs::create_dir(&mount_point)?;
        process::succeed(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))?;
        process::succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount_point))?;
        Ok(Self { mount_point, _directory: directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Bytes that files take, a block that is shared once.
    pub fn used(&self) -> Result<u64> {
        rustix::fs::syncfs(File::open(&self.mount_point)?)?;
        let facts = rustix::fs::statvfs(&self.mount_point)?;
        Ok((facts.f_blocks - facts.f_bfree) * facts.f_frsize)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The loop device goes with it, even if a server has still files open.
        if let Err(error) = unmount(&self.mount_point, UnmountFlags::DETACH) {
            log::warn!("unmount {}: {error}", self.mount_point.display());
        }
    }
}
