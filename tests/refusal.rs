// SPDX-License-Identifier: GPL-2.0-only

//! Servers that the plugin does not know: it says why it does not load, and the server goes on.
//!
//! They are copies of a real mysqld with a text in them changed. What else may be wrong with a
//! server is tried on one that is made up: `src/server/fake.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::server::Server;
use clone_testkit::{Mysqld, Plugin, check};
use tempfile::TempDir;

const INSTALL: &str = "INSTALL PLUGIN clone SONAME 'libmysql_clone.so'";

/// A server that the plugin does not know refuses it with a line that says why, and goes on.
#[test]
fn what_is_not_known_is_refused() {
    check(|| {
        let known = Server::locate()?;
        // Such as 9.7.4; what follows a dash is kept elsewhere.
        let release = known.version.split('-').next().unwrap();
        let (major, rest) = release.split_once('.').context("no version")?;
        let (_, patch) = rest.split_once('.').context("no version")?;
        let unknown = format!("{major}.8.{patch}");
        let version = known.version.replace(release, &unknown);
        // Where the log service is in a server of unknown version is unknown, too.
        const PLAIN: &str = "[MY-000000] [Server] Plugin clone reported: '";
        const KNOWN: &str = "[ERROR] [MY-013272] [Clone] Plugin Clone reported: 'Client: ";
        for (form, from, to, reason) in [
            (
                PLAIN,
                release,
                &*unknown,
                &*format!(
                    "server version {version} is not supported (8.0.17 to 8.4, and 9.0 to 9.7 are)"
                ),
            ),
            (
                KNOWN,
                "_Z17clone_handle_dropv",
                "_Z17clone_handle_dropX",
                "this mysqld does not export _Z17clone_handle_dropv",
            ),
            (
                KNOWN,
                "clone_protocol.mysql_server",
                "clone_protocoX.mysql_server",
                "this mysqld has no service clone_protocol",
            ),
        ] {
            let directory = TempDir::new()?;
            let server = Mysqld::builder()
                .server(patched(known, directory.path(), from, to)?)
                .plugin(Plugin::Ours)
                .install_later()
                .start()?;
            for _ in 0..2 {
                let error = server.session()?.error(INSTALL)?;
                assert_eq!(error.number, 1123, "{error}");
            }
            let log = server.log()?;
            ensure!(log.contains(&format!("{form}{reason}")), "{reason}\n{log}");
            ensure!(log.contains(&format!("{form}for a report: mysql-clone ")), "{log}");
            let plugins: u32 = server.session()?.one(
                "SELECT COUNT(*) FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'",
            )?;
            assert_eq!(plugins, 0);
            server.session()?.run_all(["CREATE DATABASE lives", "DROP DATABASE lives"])?;
        }
        Ok(())
    });
}

/// A setting of the user is the reason, so nobody is asked to report the server.
#[test]
fn a_plugin_that_is_loaded_early_says_what_to_change() {
    check(|| {
        let mut server = Mysqld::builder().plugin(Plugin::Ours).install_later().create()?;
        server.add_option("--early-plugin-load=clone=libmysql_clone.so");
        server.start()?;
        let log = server.log()?;
        let reason = "[ERROR] [MY-013272] [Clone] Plugin Clone reported: 'Client: InnoDB is not open \
            yet: load the plugin with plugin-load-add or INSTALL PLUGIN, not with early-plugin-load.'";
        ensure!(log.contains(reason), "{log}");
        ensure!(!log.contains("for a report"), "{log}");
        server.session()?.run(INSTALL)
    });
}

/// `server` with a mysqld in which one text stands in place of another one of the same length.
fn patched(server: &Server, directory: &Path, from: &str, to: &str) -> Result<&'static Server> {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(&server.mysqld)?;
    let mut places = 0;
    let mut at = 0;
    while let Some(found) = memmem(&bytes[at..], from.as_bytes()) {
        at += found;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        places += 1;
    }
    ensure!(places > 0, "mysqld does not contain {from}");
    let mysqld = directory.join("mysqld");
    fs::write(&mysqld, bytes)?;
    fs::set_permissions(&mysqld, fs::Permissions::from_mode(0o755))?;
    Ok(Box::leak(Box::new(Server { mysqld, ..server.clone() })))
}

fn memmem(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}
