// SPDX-License-Identifier: GPL-2.0-only

//! Says of a mysqld whether the plugin would load into it, and what there is to know about it for
//! those who make it load:
//!
//!     cargo run --example server_report -- /usr/sbin/mysqld
//!     cargo run --example server_report -- mysqld.copy 8.0.36
//!
//! The file is only read. Without a version behind it, it is run as `mysqld --no-defaults
//! --version`. One line on standard output; paste it into a report.

use std::collections::HashSet;
use std::env;
use std::error::Error;
use std::ffi::{CStr, OsStr, OsString};
use std::fs;
use std::process::{Command, ExitCode};

use object::{Object, ObjectSymbol};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let described = match &arguments[..] {
        [mysqld] => version_of(mysqld).and_then(|version| describe(mysqld, &version)),
        [mysqld, version] => describe(mysqld, &version.to_string_lossy()),
        _ => Err("usage: server_report MYSQLD [VERSION]".into()),
    };
    match described {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("server_report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(mysqld: &OsString, version: &str) -> Result<String, Box<dyn Error>> {
    let bytes = fs::read(mysqld)?;
    let file = object::File::parse(&*bytes)?;
    let exported: HashSet<&[u8]> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| symbol.name_bytes().ok())
        .collect();
    let exports = |name: &CStr| exported.contains(name.to_bytes());
    Ok(mysql_clone::server_report::describe(version, &exports))
}

/// The version in "/usr/sbin/mysqld  Ver 8.0.36-2ubuntu3 for Linux on x86_64 ((Ubuntu))".
fn version_of(mysqld: &OsStr) -> Result<String, Box<dyn Error>> {
    let output = Command::new(mysqld).args(["--no-defaults", "--version"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_once(" Ver ").and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(version.ok_or("this mysqld does not tell its version; give it behind the name")?.to_owned())
}
