// SPDX-License-Identifier: GPL-2.0-only

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::message::{COPIED, HALF, NAMESPACE, address, receive, send_descriptor, socket};
use super::peer::mount_namespace;
use super::taker::Giver;
use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn file(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

/// Two ends that have exchanged a block of no bytes.
fn pair() -> (FileTaker, FileGiver) {
    let mut taker = FileTaker::listen().unwrap();
    let giver = FileGiver::connect(taker.key()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| taker.take(LIMIT).unwrap().confirm_copy());
        let first = file("");
        giver.give(first.as_fd()).unwrap();
        let waited = giver.wait(first.as_fd(), 0, LIMIT, &mut || false);
        assert_eq!(waited.unwrap(), Taken::Copied);
    });
    (taker, giver)
}

#[test]
fn blocks_are_read_where_the_giver_stands_before_it_goes_on() {
    let mut taker = FileTaker::listen().unwrap();
    let giver = FileGiver::connect(taker.key()).unwrap();
    let thread = thread::spawn(move || {
        let mut from = file("one, two, three");
        for start in [5, 0] {
            from.seek(io::SeekFrom::Start(start)).unwrap();
            giver.give(from.as_fd()).unwrap();
            // Both have one and the same offset.
            let waited = giver.wait(from.as_fd(), start + 3, LIMIT, &mut || false);
            assert_eq!(waited.unwrap(), Taken::Copied);
        }
        let waited = giver.wait(from.as_fd(), 9, LIMIT, &mut || false);
        assert_eq!(waited.unwrap(), Taken::Refused);
        assert_eq!(from.stream_position().unwrap(), 9);
        assert!(giver.give(from.as_fd()).is_err());
    });
    for expected in [b"two", b"one"] {
        let mut text = [0; 3];
        let from = taker.take(LIMIT).unwrap();
        crate::read_exact(from.as_fd(), &mut text).unwrap();
        assert_eq!(&text, expected);
        from.confirm_copy();
    }
    drop(taker);
    thread.join().unwrap();
}

#[test]
fn neither_waits_for_ever() {
    let moment = Duration::from_millis(20);
    let timed_out = |error: io::Error| error.kind() == io::ErrorKind::TimedOut;
    let mut taker = FileTaker::listen().unwrap();
    assert!(timed_out(taker.take(moment).unwrap_err()));
    let from = file("one");
    let giver = FileGiver::connect(taker.key()).unwrap();
    let waited = giver.wait(from.as_fd(), 0, moment, &mut || false);
    assert!(timed_out(waited.unwrap_err()));
    let waited = giver.wait(from.as_fd(), 0, LIMIT, &mut || true);
    assert_eq!(waited.unwrap(), Taken::Stopped);
    let (mut taker, giver) = pair();
    assert!(timed_out(taker.take(moment).unwrap_err()));
    giver.give(from.as_fd()).unwrap();
    let waited = giver.wait(from.as_fd(), 0, moment, &mut || false);
    assert!(timed_out(waited.unwrap_err()));
    let waited = giver.wait(from.as_fd(), 0, LIMIT, &mut || true);
    assert_eq!(waited.unwrap(), Taken::Stopped);
    drop(giver);
    drop(taker.take(LIMIT).unwrap());
    let error = taker.take(LIMIT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Connections of our own user that say nothing come faster than their time runs out.
#[test]
fn strangers_do_not_hold_up_the_limit() {
    let mut taker = FileTaker::listen().unwrap();
    let address = address(&taker.key()).unwrap();
    let is_over = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        scope.spawn(|| {
            let mut strangers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let stranger = socket().unwrap();
                // It fails while the backlog is full.
                match rustix::net::connect(&stranger, &address) {
                    Ok(()) => strangers.push(stranger),
                    Err(_) => thread::yield_now(),
                }
            }
        });
        thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        let error = taker.take(Duration::from_millis(50)).unwrap_err();
        let took = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        took
    });
    assert!(took < Duration::from_secs(1), "a limit of 50 ms took {took:?}");
}

/// Whatever is no mount namespace, or not ours, gets no file.
#[test]
fn who_proves_nothing_gets_no_file() {
    let own = mount_namespace().unwrap();
    let other = File::open("/proc/self/ns/pid").unwrap();
    let file_of_ours = file("");
    let proofs: [(u8, Option<BorrowedFd<'_>>); 5] = [
        (NAMESPACE, None),
        (NAMESPACE, Some(other.as_fd())),
        (NAMESPACE, Some(file_of_ours.as_fd())),
        (COPIED, Some(own.as_fd())),
        (COPIED, None),
    ];
    for (byte, proof) in proofs {
        let taker = FileTaker::listen().unwrap();
        let giver = FileGiver::connect(taker.key()).unwrap();
        let Giver::Awaited(listener) = &taker.giver else { unreachable!() };
        let impostor = taker.accept(listener, Instant::now() + LIMIT).unwrap();
        match proof {
            Some(proof) => send_descriptor(impostor.as_fd(), byte, proof).unwrap(),
            None => {
                rustix::net::send(&impostor, &[byte], SendFlags::empty()).unwrap();
            }
        }
        let mut from = file("one");
        giver.give(from.as_fd()).unwrap();
        let waited = giver.wait(from.as_fd(), 3, LIMIT, &mut || false);
        assert_eq!(waited.unwrap(), Taken::Refused);
        assert_eq!(from.stream_position().unwrap(), 3);
        // The connection has ended, and no file came before its end.
        assert!(matches!(receive(impostor.as_fd()), Ok(None)));
    }
}

#[test]
fn a_block_that_is_not_copied_is_the_last() {
    let (mut taker, giver) = pair();
    let from = file("one");
    giver.give(from.as_fd()).unwrap();
    drop(taker.take(LIMIT).unwrap());
    let waited = giver.wait(from.as_fd(), 3, LIMIT, &mut || false);
    assert_eq!(waited.unwrap(), Taken::Refused);
    assert!(giver.give(from.as_fd()).is_err());
}

#[test]
fn who_says_copied_and_has_not_is_found_out() {
    let (mut taker, giver) = pair();
    let from = file("one");
    giver.give(from.as_fd()).unwrap();
    taker.take(LIMIT).unwrap().confirm_copy();
    let error = giver.wait(from.as_fd(), 3, LIMIT, &mut || false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn what_is_no_file_is_refused() {
    let (mut taker, giver) = pair();
    let (reader, _writer) = io::pipe().unwrap();
    giver.give(reader.as_fd()).unwrap();
    assert_eq!(taker.take(LIMIT).unwrap_err().kind(), io::ErrorKind::InvalidData);
    // Nor is a byte without one.
    rustix::net::send(&giver.taker, &[0], SendFlags::empty()).unwrap();
    assert_eq!(taker.take(LIMIT).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn nobody_listens_under_other_names() {
    let taker = FileTaker::listen().unwrap();
    let mut key = taker.key();
    key[0] ^= 1;
    assert!(FileGiver::connect(key).is_err());
    let key = taker.key();
    drop(taker);
    assert!(FileGiver::connect(key).is_err());
}

#[test]
fn strangers_who_know_the_name_alone_give_nothing() {
    let mut taker = FileTaker::listen().unwrap();
    let (silent, mut wrong) = (socket().unwrap(), taker.key());
    rustix::net::connect(&silent, &address(&wrong).unwrap()).unwrap();
    wrong[HALF] ^= 1;
    let stranger = FileGiver::connect(wrong).unwrap();
    let bad = file("bad");
    stranger.give(bad.as_fd()).unwrap();
    let giver = FileGiver::connect(taker.key()).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let one = file("one");
            giver.give(one.as_fd()).unwrap();
            let waited = giver.wait(one.as_fd(), 3, LIMIT, &mut || false);
            assert_eq!(waited.unwrap(), Taken::Copied);
        });
        let from = taker.take(LIMIT).unwrap();
        let mut text = [0; 3];
        crate::read_exact(from.as_fd(), &mut text).unwrap();
        assert_eq!(&text, b"one");
        from.confirm_copy();
    });
    let waited = stranger.wait(bad.as_fd(), 3, LIMIT, &mut || false);
    assert_eq!(waited.unwrap(), Taken::Refused);
}

#[test]
fn only_files_that_cannot_be_written_are_read_only() {
    let named = tempfile::NamedTempFile::new().unwrap();
    assert!(!crate::is_read_only(named.as_file().as_fd()));
    assert!(crate::is_read_only(File::open(named.path()).unwrap().as_fd()));
}
