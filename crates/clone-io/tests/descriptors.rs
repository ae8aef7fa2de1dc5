// SPDX-License-Identifier: GPL-2.0-only

//! Hand-over in a process that may open few more files: nothing is handed over, and nothing is
//! waited for.
//!
//! This program starts itself for that, because a limit is that of a process.
//! `MYSQL_CLONE_TEST_LIMIT` tells the second process what it is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::env;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::iter;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use clone_io::{FREE_DESCRIPTORS, FileGiver, FileTaker, Taken};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LIMIT: Duration = Duration::from_secs(10);

const ROLE: &str = "MYSQL_CLONE_TEST_LIMIT";

/// EMFILE.
const TOO_MANY: Option<i32> = Some(24);

#[test]
fn a_process_with_few_descriptors() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "is_short_of_descriptors", "--ignored", "--nocapture"]);
    assert!(command.env(ROLE, "1").status().unwrap().success());
}

#[test]
#[ignore = "the second process of the other test"]
fn is_short_of_descriptors() {
    if env::var(ROLE).is_err() {
        return;
    }
    neither_end_begins();
    a_file_that_cannot_be_taken();
    a_proof_that_cannot_be_taken();
}

/// Runs `work` in a process that may open `count` files more.
fn with_free<R>(count: u64, work: impl FnOnce() -> R) -> R {
    let before = getrlimit(Resource::Nofile);
    let limit = |limit: u64| {
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
    };
    let numbers = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let last = numbers.map(|name| name.to_str().unwrap().parse::<u64>().unwrap()).max().unwrap();
    // The limit is one of numbers: none below it is left.
    limit(last + 1);
    let _fillers: Vec<_> = iter::from_fn(|| File::open("/dev/null").ok()).collect();
    limit(last + 1 + count);
    let result = work();
    setrlimit(Resource::Nofile, before).unwrap();
    result
}

fn file() -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"one").unwrap();
    file.rewind().unwrap();
    file
}

fn neither_end_begins() {
    // One is the end's own.
    let (few, enough) = (FREE_DESCRIPTORS, FREE_DESCRIPTORS + 1);
    let code = |error: io::Error| error.raw_os_error();
    assert_eq!(code(with_free(few, FileTaker::listen).unwrap_err()), TOO_MANY);
    let taker = with_free(enough, FileTaker::listen).unwrap();
    let connect = || FileGiver::connect(taker.key());
    assert_eq!(code(with_free(few, connect).unwrap_err()), TOO_MANY);
    with_free(enough, connect).unwrap();
}

fn a_file_that_cannot_be_taken() {
    let mut taker = FileTaker::listen().unwrap();
    let giver = FileGiver::connect(taker.key()).unwrap();
    let mut from = file();
    std::thread::scope(|scope| {
        scope.spawn(|| taker.take(LIMIT).unwrap().confirm_copy());
        giver.wait(from.as_fd(), 0, LIMIT, &mut || false).unwrap();
    });
    giver.give(from.as_fd()).unwrap();
    let error = with_free(0, || taker.take(LIMIT)).unwrap_err();
    assert_eq!(error.raw_os_error(), TOO_MANY);
    drop(taker);
    assert_eq!(giver.wait(from.as_fd(), 3, LIMIT, &mut || false).unwrap(), Taken::Refused);
    assert_eq!(from.stream_position().unwrap(), 3);
}

fn a_proof_that_cannot_be_taken() {
    let mut taker = FileTaker::listen().unwrap();
    let giver = FileGiver::connect(taker.key()).unwrap();
    // The taker sends its mount namespace, and gets no file.
    taker.take(Duration::from_millis(50)).unwrap_err();
    let mut from = file();
    let waited = with_free(0, || giver.wait(from.as_fd(), 3, LIMIT, &mut || false));
    assert_eq!(waited.unwrap(), Taken::Refused);
    assert_eq!(from.stream_position().unwrap(), 3);
    assert_eq!(taker.take(LIMIT).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
