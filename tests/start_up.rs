// SPDX-License-Identifier: GPL-2.0-only

//! The plugin `clone_swap` in real servers: what waits to be put in place is in place before an
//! engine opens anything.
//!
//! The server has no MyRocks; its files are stood in for.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;

use clone_testkit::anyhow::{Context, Result, ensure};
use clone_testkit::{Mysqld, check, fixture};

/// A server with the plugin of the tests, not started yet.
fn server(option: &str) -> Result<Mysqld> {
    let builder = fixture::server("server")?.install_later();
    let mut server = builder.create()?;
    let file = server.plugin().file_name().context("no plugin")?;
    server.add_option(&format!("--early-plugin-load=clone_swap={file}"));
    server.add_option(option);
    Ok(server)
}

fn put(server: &Mysqld, name: &str, content: &str) -> Result<()> {
    let path = server.data_dir().join(name);
    fs::create_dir_all(path.parent().unwrap())?;
    Ok(fs::write(path, content)?)
}

fn read(server: &Mysqld, name: &str) -> Option<String> {
    fs::read_to_string(server.data_dir().join(name)).ok()
}

/// An old database, and a clone that waits.
fn put_clone(server: &Mysqld) -> Result<()> {
    put(server, ".rocksdb/CURRENT", "old")?;
    put(server, ".rocksdb/000001.sst", "old")?;
    put(server, ".rocksdb/000002.log", "old")?;
    put(server, ".rocksdb.cloned/CURRENT", "new")?;
    put(server, ".rocksdb.wal.cloned/000002.log", "new")
}

fn is_swapped(server: &Mysqld) -> bool {
    let read = |name| read(server, name);
    read(".rocksdb/CURRENT").as_deref() == Some("new")
        && read(".rocksdb/000002.log").as_deref() == Some("new")
        && read(".rocksdb/000001.sst").is_none()
        && !server.data_dir().join(".rocksdb.cloned").exists()
        && !server.data_dir().join(".rocksdb.wal.cloned").exists()
}

/// Where in the error log a text is first.
fn place(server: &Mysqld, text: &str) -> Result<usize> {
    server.log()?.find(text).with_context(|| format!("'{text}' is not in the log"))
}

#[test]
fn a_clone_is_put_in_place_before_engines_open() {
    check(|| {
        let mut server = server("--clone-swap=ON")?;
        put_clone(&server)?;
        server.start()?;
        ensure!(is_swapped(&server));
        let swapped = place(&server, "a clone of MyRocks is put in place")?;
        ensure!(swapped < place(&server, "InnoDB initialization has started")?);

        // Kept until a server that came up has loaded the plugin `clone`.
        ensure!(read(&server, ".rocksdb/.clone_saved/000001.sst").as_deref() == Some("old"));
        server.install_plugin()?;
        ensure!(!server.data_dir().join(".rocksdb/.clone_saved").exists());
        ensure!(!server.data_dir().join(".rocksdb.swap").exists());
        let mut session = server.session()?;
        let status: String = session.one(
            "SELECT GROUP_CONCAT(PLUGIN_STATUS) FROM information_schema.PLUGINS WHERE PLUGIN_NAME LIKE 'clone%'",
        )?;
        ensure!(status == "ACTIVE,ACTIVE", "{status}");

        server.restart()?;
        ensure!(is_swapped(&server));
        Ok(())
    });
}

#[test]
fn a_clone_that_innodb_rolls_back_is_removed() {
    check(|| {
        let mut server = server("--clone-swap=ON")?;
        put_clone(&server)?;
        put(&server, "#clone/#status_error", "")?;
        server.start()?;
        place(&server, "a clone of MyRocks that cannot be used is removed")?;
        ensure!(read(&server, ".rocksdb/CURRENT").as_deref() == Some("old"));
        ensure!(!server.data_dir().join(".rocksdb.cloned").exists());
        Ok(())
    });
}

#[test]
fn a_server_that_cannot_be_put_right_does_not_start() {
    check(|| {
        for option in ["--clone-swap=ON", "--clone-swap=FORCE"] {
            let mut server = server(option)?;
            put_clone(&server)?;
            put(&server, ".rocksdb.swap", "not a journal")?;
            ensure!(server.start().is_err(), "started with {option}");
            place(&server, "MyRocks must not be opened, the server stops")?;
            ensure!(server.log()?.find("InnoDB initialization has started").is_none());
            ensure!(read(&server, ".rocksdb/CURRENT").as_deref() == Some("old"));
            ensure!(read(&server, ".rocksdb.cloned/CURRENT").as_deref() == Some("new"));
            // The operator removes what is not a journal.
            fs::remove_file(server.data_dir().join(".rocksdb.swap"))?;
            server.start()?;
            ensure!(is_swapped(&server));
        }
        Ok(())
    });
}

#[test]
fn directories_as_the_variables_say() {
    check(|| {
        let mut server = server("--clone-swap=ON")?;
        let elsewhere = server.scratch("rocks");
        server.add_option(&format!("--clone-swap-rocksdb-datadir={}", elsewhere.display()));
        server.add_option("--clone-swap-rocksdb-wal-dir=wal");
        put_clone(&server)?;
        server.start()?;
        ensure!(fs::read_to_string(elsewhere.join("CURRENT"))? == "new");
        ensure!(read(&server, "wal/000002.log").as_deref() == Some("new"));
        let mut session = server.session()?;
        let shown: (String, String) =
            session.one("SELECT @@clone_swap_rocksdb_datadir, @@clone_swap_rocksdb_wal_dir")?;
        ensure!(Path::new(&shown.0) == elsewhere && shown.1 == "wal", "{shown:?}");
        Ok(())
    });
}

#[test]
fn without_being_asked_it_does_nothing() {
    check(|| {
        // Loaded with all plugins of the library, as manuals say.
        let mut server = fixture::server("server")?.install_later().create()?;
        let file = server.plugin().file_name().context("no plugin")?;
        server.add_option(&format!("--plugin-load-add={file}"));
        put_clone(&server)?;
        server.start()?;
        let mut session = server.session()?;
        let status: Vec<(String, String)> = session.rows(
            "SELECT PLUGIN_NAME, PLUGIN_STATUS FROM information_schema.PLUGINS WHERE PLUGIN_NAME LIKE 'clone%'",
        )?;
        let expected = [("clone", "ACTIVE"), ("clone_swap", "DISABLED")];
        ensure!(
            status == expected.map(|(name, status)| (name.into(), status.into())),
            "{status:?}"
        );
        ensure!(read(&server, ".rocksdb/CURRENT").as_deref() == Some("old"));

        // INSTALL PLUGIN asks no better: the option says what it is to do.
        session.run("UNINSTALL PLUGIN clone_swap")?;
        session.run(format!("INSTALL PLUGIN clone_swap SONAME '{file}'"))?;
        ensure!(read(&server, ".rocksdb/CURRENT").as_deref() == Some("old"));
        Ok(())
    });
}

#[test]
fn when_engines_are_open_it_is_too_late() {
    check(|| {
        let mut server = fixture::server("server")?.install_later().create()?;
        let file = server.plugin().file_name().context("no plugin")?;
        server.add_option(&format!("--plugin-load-add=clone_swap={file}"));
        server.add_option("--clone-swap=ON");
        put_clone(&server)?;
        server.start()?;
        place(&server, "engines are open already: load it with --early-plugin-load")?;
        ensure!(read(&server, ".rocksdb/CURRENT").as_deref() == Some("old"));
        Ok(())
    });
}
