// SPDX-License-Identifier: GPL-2.0-only

//! `packaging/nightly/mysql-clone-nightly` with a stand-in for `mysql-clone`: which copies stay,
//! whatever fails. `backup.rs` runs the program with real servers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Writes what a pull writes, and fails as the test says. `PULL=resumable` leaves a pull that can
/// go on.
const STAND_IN: &str = r#"#!/bin/bash
set -eu
echo "$*" >>"$LOG"
if [ "$1" = pull ]; then
  target=$4
  [ "$3" = --datadir ]
  mkdir -p "$target/.mysql-clone"
  if [ "${PULL-}" = resumable ]; then exit 4; fi
  rm -r "$target/.mysql-clone"
  echo "datadir = $target" >"$target/mysql-clone.cnf"
  echo "{\"datadir\": \"$target\"}" >"$target/mysql-clone.json"
  if [ -n "${PULL-}" ]; then exit "$PULL"; fi
else
  exit "${VERIFY-0}"
fi
"#;

struct Nightly {
    root: TempDir,
}

impl Nightly {
    fn new(settings: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("bin")).unwrap();
        let day = "#!/bin/sh\necho \"$TODAY\"\n";
        for (name, text) in [("mysql-clone", STAND_IN), ("date", day)] {
            let file = path("bin").join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(path("donor.cnf"), "").unwrap();
        let settings = format!(
            "directory={}\noption_file={}\n{settings}\n",
            path("copies").display(),
            path("donor.cnf").display()
        );
        fs::write(path("nightly.conf"), settings).unwrap();
        fs::create_dir(path("copies")).unwrap();
        Self { root }
    }

    fn copies(&self) -> PathBuf {
        self.root.path().join("copies")
    }

    fn run(&self, today: &str, faults: &[(&str, &str)]) -> Output {
        let path = format!("{}/bin:{}", self.root.path().display(), env::var("PATH").unwrap());
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM))
            .arg(self.root.path().join("nightly.conf"))
            .env("PATH", path)
            .env("TODAY", today)
            .env("LOG", self.root.path().join("log"))
            .envs(faults.iter().copied())
            .output()
            .unwrap()
    }

    fn ends_with(&self, code: i32, today: &str, faults: &[(&str, &str)], left: &[&str]) {
        let output = self.run(today, faults);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(self.names(), left, "{output:?}");
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.copies()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }

    /// The calls of `mysql-clone` since the last question.
    fn calls(&self) -> Vec<String> {
        let log = self.root.path().join("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        text.lines().map(first).collect()
    }
}

const PROGRAM: &str = "../../packaging/nightly/mysql-clone-nightly";

#[test]
fn the_newest_copies_stay() {
    let nightly = Nightly::new("keep=2");
    let copies = nightly.copies();
    nightly.ends_with(0, "2026-11-28", &[], &["2026-11-28"]);
    nightly.ends_with(0, "2026-11-29", &[], &["2026-11-28", "2026-11-29"]);
    assert_eq!(nightly.calls(), ["pull", "verify", "pull", "verify"]);
    for file in ["mysql-clone.cnf", "mysql-clone.json"] {
        let text = fs::read_to_string(copies.join("2026-11-29").join(file)).unwrap();
        assert!(text.contains("/2026-11-29") && !text.contains("partial"), "{text}");
    }
    // Directories of others, and what an interrupted run has left.
    fs::create_dir(copies.join("1999-01-01")).unwrap();
    fs::create_dir(copies.join("first")).unwrap();
    fs::create_dir(copies.join("2026-11-27.removed")).unwrap();
    let left = ["1999-01-01", "2026-11-29", "2026-11-30", "first"];
    nightly.ends_with(0, "2026-11-30", &[], &left);
    nightly.calls();
    nightly.ends_with(0, "2026-11-30", &[], &left);
    assert_eq!(nightly.calls(), [""; 0], "one copy a day");
    // A clock that was wrong: the new copy has the oldest name, and stays.
    nightly.ends_with(
        0,
        "2026-11-01",
        &[],
        &["1999-01-01", "2026-11-01", "2026-11-29", "2026-11-30", "first"],
    );
}

#[test]
fn a_failure_costs_no_copy() {
    let nightly = Nightly::new("keep=1");
    nightly.ends_with(0, "2026-11-27", &[], &["2026-11-27"]);
    nightly.ends_with(5, "2026-11-28", &[("PULL", "5")], &["2026-11-27", "2026-11-28.partial"]);
    nightly.ends_with(8, "2026-11-29", &[("VERIFY", "8")], &["2026-11-27", "2026-11-29.damaged"]);
    nightly.ends_with(8, "2026-11-30", &[("VERIFY", "8")], &["2026-11-27", "2026-11-30.damaged"]);
    nightly.ends_with(0, "2026-12-01", &[], &["2026-11-30.damaged", "2026-12-01"]);
}

/// Only exit code 8 of `verify` is damage. After another code the copy is not published, and a
/// damaged copy of another day stays.
#[test]
fn a_copy_that_cannot_be_verified_is_not_called_damaged() {
    let nightly = Nightly::new("keep=1");
    nightly.ends_with(8, "2026-11-27", &[("VERIFY", "8")], &["2026-11-27.damaged"]);
    for (code, text) in [(2, "2"), (3, "3"), (6, "6")] {
        let left = ["2026-11-27.damaged", "2026-11-28.partial"];
        nightly.ends_with(code, "2026-11-28", &[("VERIFY", text)], &left);
    }
    nightly.calls();
    nightly.ends_with(0, "2026-11-28", &[], &["2026-11-27.damaged", "2026-11-28"]);
    assert_eq!(nightly.calls(), ["pull", "verify"], "the copy was not pulled again");
}

#[test]
fn an_interrupted_pull_goes_on_the_same_day() {
    let nightly = Nightly::new("keep=1");
    let interrupted = [("PULL", "resumable")];
    nightly.ends_with(4, "2026-11-29", &interrupted, &["2026-11-29.partial"]);
    fs::write(nightly.copies().join("2026-11-29.partial/ibdata1"), "there").unwrap();
    nightly.ends_with(0, "2026-11-29", &[], &["2026-11-29"]);
    assert!(nightly.copies().join("2026-11-29/ibdata1").exists(), "the pull did not go on");
    nightly.ends_with(4, "2026-11-30", &interrupted, &["2026-11-29", "2026-11-30.partial"]);
    nightly.ends_with(0, "2026-12-01", &[], &["2026-12-01"]);
}

#[test]
fn a_second_run_at_the_same_time_is_refused() {
    let nightly = Nightly::new("keep=1");
    let lock = fs::File::create(nightly.copies().join(".lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    nightly.ends_with(3, "2026-11-30", &[], &[]);
    drop(lock);
    nightly.ends_with(0, "2026-11-30", &[], &["2026-11-30"]);
}

#[test]
fn wrong_settings_are_refused() {
    for settings in
        ["keep=0", "keep=", "keep=-1", "directory=copies", "option_file=/does/not/exist"]
    {
        let nightly = Nightly::new(settings);
        nightly.ends_with(2, "2026-11-30", &[], &[]);
        assert_eq!(nightly.calls(), [""; 0], "{settings}");
    }
}
