// SPDX-License-Identifier: GPL-2.0-only

//! A file system in a file, for what tmpfs and the machine's disk cannot do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clone_testkit::anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// XFS with reflinks in a loop mount; unmounted and removed when dropped.
pub(crate) struct Volume {
    mount_point: PathBuf,
    /// Holds the image and the mount point.
    _directory: TempDir,
}

impl Volume {
    /// Makes one of `mib` MiB below `directory`. None without `mkfs.xfs`, loop devices or the right to mount.
    pub(crate) fn xfs(directory: &Path, mib: u32) -> Result<Option<Self>> {
        let directory = TempDir::with_prefix_in("bench-", directory).context("make a directory")?;
        let (image, mount_point) = (directory.path().join("image"), directory.path().join("v"));
        File::create(&image)?.set_len(u64::from(mib) << 20)?;
        fs::create_dir(&mount_point)?;
        let made = run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))
            .and_then(|()| {
                run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount_point))
            });
        match made {
            Ok(()) => Ok(Some(Self { mount_point, _directory: directory })),
            Err(error) => {
                eprintln!("{error:#}");
                Ok(None)
            }
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.mount_point)) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("run {}", name.display()))?;
    if !status.success() {
        bail!("{} ended with {status}", name.display());
    }
    Ok(())
}
