// SPDX-License-Identifier: GPL-2.0-only

//! A freshly initialised data directory, made once per server version (and initial options) and
//! copied for each instance.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::server::{Server, option};

/// Part of the directory's name: raise it when what is initialised changes.
const REVISION: u32 = 1;

/// Copies the template for `server` and `options` to `target`, which must not exist. Initialising
/// takes seconds, copying a fraction of one.
pub(crate) fn copy_to(target: &Path, server: &Server, options: &[String]) -> Result<()> {
    let template = locate(server, options)?;
    copy_dir(&template, target)
        .with_context(|| format!("copy {} to {}", template.display(), target.display()))
}

fn locate(server: &Server, options: &[String]) -> Result<PathBuf> {
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let name = format!("template-{}-{REVISION}{}", server.version, options.concat());
    let template = cache.join(name.replace('/', "_"));
    // Tests run as processes beside each other: one makes the template, the others wait for it.
    let lock = File::create(template.with_added_extension("lock"))?;
    lock.lock().context("lock the template")?;
    if !template.exists() {
        let unfinished = template.with_added_extension("new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        initialise(&unfinished, server, options)?;
        fs::rename(&unfinished, &template)?;
    }
    Ok(template)
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("MYSQL_CLONE_CACHE") {
        return Ok(dir.into());
    }
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("neither MYSQL_CLONE_CACHE nor HOME is set")?;
    Ok(base.join("mysql-clone/testkit"))
}

fn initialise(dir: &Path, server: &Server, options: &[String]) -> Result<()> {
    let output = server
        .command()
        .arg("--initialize-insecure")
        // Since 8.0.30.
        .arg("--loose-innodb-redo-log-capacity=8M")
        .arg("--secure-file-priv=NULL")
        .arg(option("datadir", dir))
        .args(options)
        .stdin(Stdio::null())
        .output()
        .context("run mysqld --initialize-insecure")?;
    if !output.status.success() {
        bail!(
            "mysqld --initialize-insecure failed with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // Each instance makes a server UUID of its own.
    fs::remove_file(dir.join("auto.cnf")).context("remove auto.cnf")
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
