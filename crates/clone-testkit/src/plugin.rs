// SPDX-License-Identifier: GPL-2.0-only

//! Which clone plugin a server loads: ours, the stock one, or none.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::server::{Server, workspace};

/// A clone plugin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Plugin {
    /// No clone plugin at all.
    None,
    /// This repository's `libmysql_clone.so`.
    Ours,
    /// The `mysql_clone.so` that came with the server.
    Stock,
}

impl FromStr for Plugin {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "stock" => Ok(Self::Stock),
            "ours" => Ok(Self::Ours),
            other => bail!("a clone plugin is 'stock' or 'ours', not '{other}'"),
        }
    }
}

impl Plugin {
    /// The plugin that the environment variable `MYSQL_CLONE_PLUGIN` asks for (`stock` or `ours`);
    /// ours when it is not set.
    ///
    /// The tests are validated against the stock plugin: what the stock plugin fails is a wrong
    /// test.
    pub fn under_test() -> Result<Self> {
        match env::var("MYSQL_CLONE_PLUGIN").as_deref() {
            Ok("") | Err(env::VarError::NotPresent) => Ok(Self::Ours),
            Ok(name) => name.parse().context("MYSQL_CLONE_PLUGIN"),
            Err(error) => Err(anyhow!("MYSQL_CLONE_PLUGIN: {error}")),
        }
    }

    /// The name to give to `INSTALL PLUGIN clone SONAME`.
    pub fn file_name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Ours => Some("libmysql_clone.so"),
            Self::Stock => Some("mysql_clone.so"),
        }
    }

    /// Fills the directory `dir` with links to all plugins of `server` and to this plugin.
    ///
    /// All plugins must lie in one directory: a recipient looks there for each plugin that the
    /// donor names.
    pub(crate) fn link_into(self, dir: &Path, server: &Server) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        for entry in fs::read_dir(&server.plugin_dir)? {
            let entry = entry?;
            symlink(entry.path(), dir.join(entry.file_name()))?;
        }
        if self == Self::Ours {
            let link = dir.join("libmysql_clone.so");
            let library = Self::library()?;
            symlink(library, &link).with_context(|| format!("link {}", link.display()))?;
        }
        Ok(())
    }

    /// Our shared library: `$MYSQL_CLONE_SO`, or else a release build of the checkout as it stands.
    ///
    /// # Errors
    /// There is no such file, or cargo fails.
    pub fn library() -> Result<&'static Path> {
        static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        LIBRARY
            .get_or_init(|| Self::find_or_build().map_err(|error| format!("{error:#}")))
            .as_deref()
            .map_err(|error| anyhow!("no libmysql_clone.so: {error}"))
    }

    fn find_or_build() -> Result<PathBuf> {
        if let Some(library) = env::var_os("MYSQL_CLONE_SO") {
            let library = PathBuf::from(library);
            return fs::canonicalize(&library)
                .with_context(|| format!("find MYSQL_CLONE_SO '{}'", library.display()));
        }
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace().join("target"), PathBuf::from);
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--quiet", "-p", "mysql-clone", "--lib", "--target-dir"])
            .arg(&target)
            .current_dir(workspace())
            .status()
            .context("run cargo build")?;
        ensure!(status.success(), "cargo build failed with {status}");
        let library = target.join("release/libmysql_clone.so");
        fs::canonicalize(&library).with_context(|| format!("find {}", library.display()))
    }
}
