// SPDX-License-Identifier: GPL-2.0-only

//! Runs `docs/backup.md`: each command of the document, in its order, against real servers. A
//! command that this test does not know fails the test.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clone_testkit::anyhow::{Context, Result, bail, ensure};
use clone_testkit::verify::{self, Fingerprint};
use clone_testkit::{Mysqld, Plugin, check, dataset, replica};
use serde_json::Value;
use support::{holds, mysqld_program};

/// Programs that the document may use, beside `systemctl`.
const PROGRAMS: [&str; 10] = [
    "chown",
    "cp",
    "grep",
    "install",
    "ls",
    "mv",
    "mysql-clone",
    "mysql-clone-nightly",
    "rm",
    "sed",
];

#[test]
fn each_command_of_the_document_works() {
    check(|| {
        let text = fs::read_to_string(repository().join("docs/backup.md"))?;
        let blocks = blocks(&text)?;
        ensure!(blocks.len() > 15, "{} blocks in the document", blocks.len());
        for block in blocks.iter().filter(|block| block.language == "sh") {
            for command in commands(&block.text) {
                ensure!(is_known(&command), "this test does not know the command '{command}'");
            }
        }
        let mut hosts = Hosts::start()?;
        for block in &blocks {
            let run = match block.language {
                "sh" => commands(&block.text).iter().try_for_each(|command| hosts.command(command)),
                "sql" => hosts.sql(&block.text),
                "ini" => hosts.file(&block.text),
                other => bail!("line {}: a block of '{other}'", block.line),
            };
            run.with_context(|| format!("docs/backup.md, block in line {}", block.line))?;
        }
        hosts.finish()
    });
}

/// A block of code in the document.
struct Block<'a> {
    language: &'a str,
    line: usize,
    text: String,
}

fn blocks(document: &str) -> Result<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in document.lines().enumerate() {
        open = match (open, line.strip_prefix("```")) {
            (None, None) => None,
            (None, Some(language)) => {
                Some(Block { language, line: number + 1, text: String::new() })
            }
            (Some(block), Some(_)) => {
                blocks.push(block);
                None
            }
            (Some(block), None) => Some(Block { text: block.text + line + "\n", ..block }),
        };
    }
    ensure!(open.is_none(), "the last block does not end");
    Ok(blocks)
}

/// The commands of a block: lines, continued by a backslash at the end.
fn commands(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn is_known(command: &str) -> bool {
    let is_one = !["; ", "&&", "||", " | ", "$(", "`"].iter().any(|text| command.contains(text));
    let program = command.split_whitespace().next().unwrap_or_default();
    is_one && (program == "systemctl" || PROGRAMS.contains(&program))
}

/// What the document speaks of, and where this test has it.
struct Hosts {
    /// `donor.example`.
    donor: Mysqld,
    /// The server to restore, whose data directory is `/var/lib/mysql`.
    restored: Mysqld,
    /// Holds `/etc` and `/var/backups`.
    root: tempfile::TempDir,
    /// `/usr/sbin/mysqld`.
    mysqld: PathBuf,
    path: String,
    /// How often the restored server was started by the document.
    restores: u32,
    /// How often a replica has caught up.
    replicas: u32,
}

impl Hosts {
    fn start() -> Result<Self> {
        let instance = |name| Mysqld::builder().name(name).plugin(Plugin::Stock).install_later();
        let donor = instance("donor").start()?;
        dataset::load_small(&donor)?;
        let restored = instance("restored").start()?;
        restored.session()?.run("CREATE DATABASE old_data")?;
        let root = tempfile::tempdir()?;
        fs::create_dir_all(root.path().join("etc/mysql/mysql.conf.d"))?;
        // The day of the document.
        let bin = root.path().join("bin");
        fs::create_dir(&bin)?;
        fs::write(bin.join("date"), "#!/bin/sh\necho 2026-11-30\n")?;
        fs::set_permissions(bin.join("date"), fs::Permissions::from_mode(0o755))?;
        let mysqld = mysqld_program(donor.server(), root.path())?;
        let tool = Path::new(env!("CARGO_BIN_EXE_mysql-clone")).parent().context("a folder")?;
        let nightly = repository().join("packaging/nightly");
        let path = env::var("PATH").context("PATH")?;
        let path = format!("{}:{}:{}:{path}", bin.display(), tool.display(), nightly.display());
        Ok(Self { donor, restored, root, mysqld, path, restores: 0, replicas: 0 })
    }

    /// Puts this test's names in place of the document's.
    fn mapped(&self, text: &str) -> String {
        let root = self.root.path().to_string_lossy().into_owned();
        text.replace("/var/lib/mysql", &self.restored.data_dir().to_string_lossy())
            .replace("/var/backups/", &format!("{root}/var/backups/"))
            .replace("/etc/", &format!("{root}/etc/"))
            .replace("/usr/sbin/mysqld", &self.mysqld.to_string_lossy())
            .replace("donor.example", &self.donor.address().to_string())
            .replace("3306", &self.donor.port().to_string())
    }

    fn command(&mut self, command: &str) -> Result<()> {
        eprintln!("$ {command}");
        let words: Vec<_> = command.split_whitespace().collect();
        match words.as_slice() {
            ["systemctl", arguments @ ..] => self.systemctl(arguments),
            _ => {
                let mapped = self.mapped(command);
                // Every path is below this test's own directories.
                for word in mapped.split([' ', '|', '=']).filter(|word| word.starts_with('/')) {
                    let ours = [self.root.path(), self.restored.data_dir().parent().unwrap()];
                    let is_ours = ours.iter().any(|path| Path::new(word).starts_with(path));
                    ensure!(is_ours || word == "/dev/null", "'{word}' is not mapped");
                }
                self.shell(&mapped)
            }
        }
    }

    fn shell(&self, command: &str) -> Result<()> {
        // Files are given to the account of the test in place of `mysql`.
        let owner = format!(
            "{}:{}",
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw()
        );
        let output = Command::new("bash")
            .args(["-euc", &command.replace("mysql:mysql", &owner)])
            .env("PATH", &self.path)
            .env("HOME", self.root.path())
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{command}: {}\n{stdout}\n{stderr}", output.status);
        ensure!(!(stdout + &stderr).contains("backup secret"), "the password was shown");
        Ok(())
    }

    fn systemctl(&mut self, arguments: &[&str]) -> Result<()> {
        let unit =
            |name: &str| fs::read_to_string(repository().join("packaging/nightly").join(name));
        match arguments {
            ["start", name @ "mysql-clone-nightly.service"] => {
                let unit = unit(name)?;
                let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/"));
                let command = self.mapped(start.context("no ExecStart in the unit")?);
                self.shell(&command)
            }
            ["enable", "--now", name @ "mysql-clone-nightly.timer"] => {
                let unit = unit(name)?;
                ensure!(unit.contains("OnCalendar=") && unit.contains("[Install]"), "{unit}");
                Ok(())
            }
            ["stop", "mysql"] => self.restored.stop(),
            ["start", "mysql"] => self.start_restored(),
            other => bail!("this test does not know the command 'systemctl {}'", other.join(" ")),
        }
    }

    /// Starts the restored server with the settings that the document gave it. It must hold what
    /// the donor holds.
    fn start_restored(&mut self) -> Result<()> {
        let file = self.root.path().join("etc/mysql/mysql.conf.d/zz-mysql-clone.cnf");
        let file = fs::read_to_string(file).context("the settings of the copy")?;
        let data_dir = format!("datadir = {}\n", self.restored.data_dir().display());
        ensure!(file.contains(&data_dir), "{file}");
        for line in file.lines().filter(|line| !line.starts_with(['#', '['])) {
            self.restored.add_option(&format!("--{}", line.replacen(" = ", "=", 1)));
        }
        self.restored.start()?;
        holds(&self.restored, &Fingerprint::read(&mut self.donor.session()?)?)?;
        verify::assert_sound(&self.restored)?;
        self.restores += 1;
        Ok(())
    }

    /// Statements at the server that the comment in the first line names.
    fn sql(&mut self, text: &str) -> Result<()> {
        let (place, statements) = text.split_once('\n').context("an empty block")?;
        let is_replica = statements.contains("START REPLICA");
        let server = match place {
            "-- at the donor" => &self.donor,
            "-- at the restored server" | "-- at the restored server, without GTIDs" => {
                &self.restored
            }
            other => bail!("the first line '{other}' names no server"),
        };
        let mut statements = self.mapped(statements);
        let mut session = server.session()?;
        if place.ends_with("without GTIDs") {
            let file = fs::read(self.restored.data_dir().join("mysql-clone.json"))?;
            let report: Value = serde_json::from_slice(&file)?;
            let binlog = report["coordinates"]["binlog_file"].as_str().context("a binary log")?;
            let position = &report["coordinates"]["binlog_position"];
            statements = statements
                .replace("binlog.000042", binlog)
                .replace("SOURCE_LOG_POS = 157", &format!("SOURCE_LOG_POS = {position}"));
            session.run_all(["STOP REPLICA", "RESET REPLICA ALL"])?;
        }
        for statement in statements.split(';').map(str::trim).filter(|one| !one.is_empty()) {
            eprintln!("> {statement}");
            session.run(statement)?;
        }
        if is_replica {
            let table = format!("shop.after_{}", self.replicas);
            self.donor.session()?.run(format!("CREATE TABLE {table} (id INT PRIMARY KEY)"))?;
            replica::catch_up(&self.restored, &self.donor)?;
            verify::assert_equal(&self.donor, &self.restored)?;
            self.replicas += 1;
        }
        Ok(())
    }

    /// A file, whose path is in its first line.
    fn file(&self, text: &str) -> Result<()> {
        let first = text.lines().next().unwrap_or_default();
        let path = first.strip_prefix("# /etc/").context("the first line names no file")?;
        let path = self.root.path().join("etc").join(path);
        fs::write(&path, self.mapped(text)).with_context(|| format!("write {}", path.display()))
    }

    /// The document has restored a copy, and made replicas in both ways.
    fn finish(&self) -> Result<()> {
        ensure!(self.restores == 1 && self.replicas == 2, "{} {}", self.restores, self.replicas);
        let old = self.restored.data_dir().with_extension("old");
        ensure!(!old.exists(), "{} is left", old.display());
        ensure!(!self.restored.data_dir().join("old_data").exists(), "old data are left");
        Ok(())
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
