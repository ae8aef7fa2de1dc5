// SPDX-License-Identifier: GPL-2.0-only

//! How an instance is made.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Mysqld;
use crate::hosts::Host;
use crate::plugin::Plugin;
use crate::server::Server;
use crate::template;

/// What every instance is started with: the features whose state a clone must carry over (binary
/// log, GTIDs), small memory, and no waiting for the disk, since no test pulls the power.
const OPTIONS: &[&str] = &[
    "--loose-mysqlx=OFF",
    "--secure-file-priv=NULL",
    "--log-error-verbosity=3",
    "--log-bin=binlog",
    "--gtid-mode=ON",
    "--enforce-gtid-consistency=ON",
    // By this name since 8.0.26; no test replicates with an older server.
    "--loose-skip-replica-start=ON",
    "--event-scheduler=OFF",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
];

/// The longest path a Unix socket address holds, without the final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Describes an instance; made by [`Mysqld::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    name: String,
    server: Option<&'static Server>,
    plugin: Plugin,
    load_at_start: bool,
    options: Vec<String>,
    initialise: Vec<String>,
    adopt: Option<PathBuf>,
    below: Option<PathBuf>,
    host: Option<Host>,
    supervised: bool,
    keep: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            name: "mysqld".into(),
            server: None,
            plugin: Plugin::None,
            load_at_start: true,
            options: Vec::new(),
            initialise: Vec::new(),
            adopt: None,
            below: None,
            host: None,
            supervised: false,
            keep: false,
        }
    }
}

impl Builder {
    /// What to call the instance in messages.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Runs this server instead of the one that [`Server::locate`] finds.
    pub fn server(mut self, server: &'static Server) -> Self {
        self.server = Some(server);
        self
    }

    /// Which clone plugin to provide and load at start with `--plugin-load-add`.
    pub fn plugin(mut self, plugin: Plugin) -> Self {
        self.plugin = plugin;
        self
    }

    /// Leaves loading the plugin to `INSTALL PLUGIN`.
    pub fn install_later(mut self) -> Self {
        self.load_at_start = false;
        self
    }

    /// Adds an option, e.g. `--clone-block-ddl=ON`.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Adds an option that the data directory must be initialised with, e.g.
    /// `--innodb-page-size=4k`.
    pub fn initialise_with(mut self, option: impl Into<String>) -> Self {
        self.initialise.push(option.into());
        self
    }

    /// Uses the data directory that a clone wrote instead of a fresh one. The directory is moved
    /// into the instance, and removed with it.
    pub fn adopt(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.adopt = Some(data_dir.into());
        self
    }

    /// Puts the instance, and so its data, below this directory instead of `TMPDIR`.
    pub fn below(mut self, directory: impl Into<PathBuf>) -> Self {
        self.below = Some(directory.into());
        self
    }

    /// Runs the server at this host, so that others reach it by the host's address only.
    pub fn at(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Tells the server that a supervisor will start it again when it exits with status 16. This
    /// process is the supervisor: see [`Mysqld::await_restart`].
    pub fn supervised(mut self) -> Self {
        self.supervised = true;
        self
    }

    /// Leaves the files when the instance is dropped.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Makes the data directory and starts the server.
    pub fn start(self) -> Result<Mysqld> {
        let mut mysqld = self.create()?;
        mysqld.start()?;
        Ok(mysqld)
    }

    /// Makes the data directory and leaves starting the server to [`Mysqld::start`].
    pub fn create(self) -> Result<Mysqld> {
        let server = self.server.map_or_else(Server::locate, Ok)?;
        let below = self.below.unwrap_or_else(env::temp_dir);
        let mut dir =
            TempDir::with_prefix_in("mysql-clone-", below).context("make a temporary directory")?;
        dir.disable_cleanup(self.keep);
        let data_dir = dir.path().join("data");
        match &self.adopt {
            Some(cloned) => fs::rename(cloned, &data_dir)
                .with_context(|| format!("move {}", cloned.display()))?,
            None => template::copy_to(&data_dir, server, &self.initialise)?,
        }
        fs::create_dir(dir.path().join("tmp"))?;
        self.plugin.link_into(&dir.path().join("plugin"), server)?;

        let port = free_port()?;
        let mut options: Vec<_> = OPTIONS.iter().map(ToString::to_string).collect();
        options.push(format!("--server-id={port}"));
        if let Some(file) = self.plugin.file_name().filter(|_| self.load_at_start) {
            options.push(format!("--plugin-load-add=clone={file}"));
        }
        options.extend(self.initialise);
        options.extend(self.options);

        let mysqld = Mysqld {
            server,
            name: self.name,
            dir,
            data_dir,
            plugin: self.plugin,
            options,
            port,
            host: self.host,
            supervised: self.supervised,
            keep: self.keep,
            child: None,
            log_start: 0,
        };
        let socket = mysqld.socket();
        ensure!(
            socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "the path {} is too long for a socket: set TMPDIR to a shorter one",
            socket.display()
        );
        Ok(mysqld)
    }
}

/// A TCP port on the loopback address that nobody listens on at the moment.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
