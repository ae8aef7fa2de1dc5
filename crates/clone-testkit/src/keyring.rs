// SPDX-License-Identifier: GPL-2.0-only

//! Servers with a keyring: `component_keyring_file`, which mysqld loads by manifests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::mysqld::Mysqld;
use crate::server::Server;

/// The same server with a manifest beside the program: it reads the manifest in the data directory.
/// A data directory without a manifest has no keyring.
#[derive(Debug)]
pub struct WithKeyring {
    /// The server.
    pub server: &'static Server,
    directory: TempDir,
}

impl WithKeyring {
    /// Copies the program of a server.
    pub fn new(server: &'static Server) -> Result<Self> {
        let directory = TempDir::with_prefix("mysql-clone-keyring-")?;
        let mysqld = directory.path().join("mysqld");
        fs::copy(&server.mysqld, &mysqld)?;
        fs::write(directory.path().join("mysqld.my"), r#"{"read_local_manifest": true}"#)?;
        let server: &'static Server = Box::leak(Box::new(Server { mysqld, ..server.clone() }));
        Ok(Self { server, directory })
    }

    /// A path that no server uses.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a server whose keyring is what the files in the data directory say.
    pub fn start(&self, mut mysqld: Mysqld) -> Result<Mysqld> {
        let parent = mysqld.data_dir().parent().context("a data directory")?;
        let configuration = parent.join("plugin").join("component_keyring_file.cnf");
        fs::write(configuration, r#"{"read_local_config": true}"#)?;
        mysqld.start()?;
        Ok(mysqld)
    }

    /// As [`start`](Self::start), with a new keyring.
    pub fn start_with_keyring(&self, mysqld: Mysqld, name: &str) -> Result<Mysqld> {
        configure(mysqld.data_dir(), &self.path(name))?;
        self.start(mysqld)
    }
}

/// Gives a data directory a keyring in the file `keyring`.
pub fn configure(directory: &Path, keyring: &Path) -> Result<()> {
    let manifest = r#"{"components": "file://component_keyring_file"}"#;
    fs::write(directory.join("mysqld.my"), manifest)?;
    let configuration = format!(r#"{{"path": "{}", "read_only": false}}"#, keyring.display());
    Ok(fs::write(directory.join("component_keyring_file.cnf"), configuration)?)
}
