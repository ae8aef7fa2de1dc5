// SPDX-License-Identifier: GPL-2.0-only

//! Who gets files, and who may give them, when the other process is in a container: a giver or a
//! taker that `unshare` puts into namespaces of its own.
//!
//! This program starts itself for that. `MYSQL_CLONE_TEST_KEY` tells the second process what it is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clone_io::{FileGiver, FileTaker, Taken};

const LIMIT: Duration = Duration::from_secs(10);

const KEY: &str = "MYSQL_CLONE_TEST_KEY";

/// What the second process prints before its key or its result.
const SAYS: &str = "says: ";

/// The second process, in namespaces of its own.
struct Other {
    child: Child,
    lines: io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    /// Starts the test `role` of this program under `unshare` with these arguments; without
    /// arguments, in our own namespaces.
    fn start(unshare: &[&str], role: &str, key: &str) -> Self {
        let program = env::current_exe().unwrap();
        let mut command = match unshare {
            [] => Command::new(program),
            arguments => {
                let mut command = Command::new("unshare");
                command.args(arguments).arg("--").arg(program);
                command
            }
        };
        command.args(["--exact", role, "--ignored", "--nocapture"]).env(KEY, key);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next thing that it says.
    fn says(&mut self) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find_map(|line| Some(line.split_once(SAYS)?.1.to_owned())).unwrap()
    }

    fn end(mut self) {
        self.lines.by_ref().for_each(drop);
        assert!(self.child.wait().unwrap().success());
    }
}

/// False, and said, where this machine does not let us have such namespaces.
fn can_unshare(arguments: &[&str]) -> bool {
    let outcome = Command::new("unshare").args(arguments).args(["--", "true"]).output();
    if outcome.is_ok_and(|output| output.status.success()) {
        return true;
    }
    println!("SKIPPED: unshare {} is not permitted", arguments.join(" "));
    false
}

fn to_text(key: [u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_key(text: &str) -> [u8; 32] {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    std::array::from_fn(byte)
}

/// A file of the donor's.
fn file() -> File {
    File::open(env::current_exe().unwrap()).unwrap()
}

/// How giving a block of no bytes to a taker in other namespaces ends, and what the taker says of
/// it.
fn give_to(unshare: &[&str]) -> (io::Result<Taken>, String) {
    let mut taker = Other::start(unshare, "takes", "");
    let giver = FileGiver::connect(to_key(&taker.says()));
    let outcome = giver.and_then(|giver| {
        let file = file();
        giver.give(file.as_fd())?;
        giver.wait(file.as_fd(), 0, LIMIT, &mut || false)
    });
    let said = taker.says();
    taker.end();
    (outcome, said)
}

#[test]
fn a_taker_of_our_own_mount_namespace_gets_files() {
    let (outcome, said) = give_to(&[]);
    assert_eq!(outcome.unwrap(), Taken::Copied);
    assert_eq!(said, "a file");
}

/// Its files have other names, or none, so it shall not have descriptors of ours: what is open for
/// reading could be opened for writing.
#[test]
fn a_taker_of_another_mount_namespace_gets_no_file() {
    if can_unshare(&["--mount"]) {
        let (outcome, said) = give_to(&["--mount"]);
        assert_eq!(outcome.unwrap(), Taken::Refused);
        assert_eq!(said, "UnexpectedEof");
    }
}

#[test]
fn a_taker_of_another_network_namespace_is_not_found() {
    if can_unshare(&["--net"]) {
        let (outcome, said) = give_to(&["--net"]);
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(said, "TimedOut");
    }
}

/// Our process has no number in the PID namespace of the other one, and no user number in its user
/// namespace.
#[test]
fn a_taker_without_a_number_is_refused() {
    let own_pids: &[&str] = &["--pid", "--fork", "--kill-child"];
    let own_users: &[&str] = &["--user"];
    for unshare in [own_pids, own_users] {
        if !can_unshare(unshare) {
            continue;
        }
        let taker = FileTaker::listen().unwrap();
        let mut giver = Other::start(unshare, "gives", &to_text(taker.key()));
        assert_eq!(giver.says(), "PermissionDenied", "{unshare:?}");
        giver.end();
    }
}

#[test]
#[ignore = "the second process of the other tests"]
fn takes() {
    let Ok(_) = env::var(KEY) else { return };
    let mut taker = FileTaker::listen().unwrap();
    println!("{SAYS}{}", to_text(taker.key()));
    // The limit of a taker that is never found.
    match taker.take(Duration::from_secs(2)) {
        Ok(file) => {
            file.confirm_copy();
            println!("{SAYS}a file");
        }
        Err(error) => println!("{SAYS}{:?}", error.kind()),
    }
}

#[test]
#[ignore = "the second process of the other tests"]
fn gives() {
    let Ok(key) = env::var(KEY) else { return };
    match FileGiver::connect(to_key(&key)) {
        Ok(_) => println!("{SAYS}connected"),
        Err(error) => println!("{SAYS}{:?}", error.kind()),
    }
}
