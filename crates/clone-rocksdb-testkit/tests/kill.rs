// SPDX-License-Identifier: GPL-2.0-only

//! Processes that are killed at random moments of a clone: the recipient, the donor, the network
//! between them, and the server that starts on the clone. After each, the recipient has either all
//! of what it had or all of what the donor had at the point of a clone.
//!
//! `CLONE_KILLS` is the number of kills (40), `CLONE_KILL_SEED` the seed (1).
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// A process of `rocksdb-clone`. Killed, by its id, when this is dropped.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rocksdb-clone"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Shown with a failed test: why a program ended that should not have.
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// The next line, if the process lives long enough to say it.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(len) if len > 0 && line.ends_with('\n') => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    #[track_caller]
    fn expect(&mut self, first: &str) -> String {
        let line = self.line().unwrap_or_else(|| panic!("'{first}' did not come"));
        let rest = line.strip_prefix(first).unwrap_or_else(|| panic!("{line}"));
        rest.trim_start().to_owned()
    }

    fn ask(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end, which has to come. True for success.
    #[track_caller]
    fn end(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a database holds: the number of its last write, and a digest of all keys and values.
type Held = (u64, String);

struct Scene {
    root: tempfile::TempDir,
    donor: Process,
    donor_address: String,
    network: Process,
    address: String,
    random: fastrand::Rng,
    held: Held,
    tally: BTreeMap<&'static str, u32>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (donor, donor_address, _) = donate(root.path());
        let (network, address) = forward("0", &donor_address);
        let mut scene = Self {
            root,
            donor,
            donor_address,
            network,
            address,
            random: fastrand::Rng::with_seed(seed),
            held: Held::default(),
            tally: BTreeMap::new(),
        };
        scene.held = scene.started();
        scene
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_str().unwrap().to_owned()
    }

    fn receive(&mut self) -> Process {
        let tasks = self.random.u32(1..=4).to_string();
        let root = self.path("recipient");
        Process::start(&["receive", &self.address, &root, &tasks])
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Starts the recipient's server, which at times is killed meanwhile, and gives what it holds.
    fn started(&mut self) -> Held {
        let root = self.path("recipient");
        if self.held != Held::default() && self.random.u8(..3) == 0 {
            let mut killed = Process::start(&["start", &root]);
            thread::sleep(Duration::from_millis(self.random.u64(..40)));
            killed.kill();
            self.count("kills of a starting server");
        }
        let mut process = Process::start(&["start", &root]);
        process.expect("swap");
        let has = process.expect("has");
        let (sequence, digest) = has.split_once(' ').unwrap();
        assert!(process.end());
        let names = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name());
        for name in names {
            let name = name.into_string().unwrap();
            assert!([".rocksdb", ".rocksdb.swap"].contains(&&*name), "{name} is left");
        }
        (sequence.parse().unwrap(), digest.to_owned())
    }

    /// The recipient holds what it did, or what the donor had at the point of a clone; gives
    /// whether it is the clone.
    #[track_caller]
    fn check(&mut self) -> bool {
        let held = self.started();
        if held == self.held {
            return false;
        }
        self.donor.ask(&format!("digest {}", held.0));
        assert_eq!(self.donor.expect("digest"), held.1, "at write {}", held.0);
        self.held = held;
        true
    }

    /// A clone that nobody disturbs.
    #[track_caller]
    fn clone(&mut self) -> Duration {
        let mut recipient = self.receive();
        recipient.expect("swap");
        recipient.expect("cloning");
        let began = Instant::now();
        recipient.expect("cloned");
        let duration = began.elapsed();
        assert!(recipient.end());
        assert!(self.check());
        duration
    }

    fn kill_recipient(&mut self, after: Duration) {
        let mut recipient = self.receive();
        recipient.expect("swap");
        recipient.expect("cloning");
        thread::sleep(after);
        recipient.kill();
        let outcome = if self.check() { "clones kept" } else { "clones rolled back" };
        self.count("kills of a recipient");
        self.count(outcome);
    }

    fn kill_network(&mut self, after: Duration) {
        let mut recipient = self.receive();
        recipient.expect("swap");
        recipient.expect("cloning");
        thread::sleep(after);
        self.network.kill();
        self.count("kills of the network");
        let port = self.address.rsplit_once(':').unwrap().1.to_owned();
        (self.network, self.address) = forward(&port, &self.donor_address);
        let said = recipient.line();
        let succeeded = recipient.end();
        let is_clone = self.check();
        let outcome = match said.as_deref().and_then(|said| said.strip_prefix("cloned ")) {
            Some("0") => "clones kept",
            Some(_) => "clones resumed",
            // Before the recipient had the donor's locator there was nothing to resume.
            None => "clones rolled back",
        };
        assert_eq!((succeeded, is_clone), (said.is_some(), said.is_some()));
        self.count(outcome);
    }

    fn kill_donor(&mut self, after: Duration) {
        let mut recipient = self.receive();
        recipient.expect("swap");
        recipient.expect("cloning");
        self.donor.ask("sequence");
        let acknowledged: u64 = self.donor.expect("sequence").parse().unwrap();
        thread::sleep(after);
        self.donor.kill();
        self.count("kills of a donor");
        let said = recipient.line();
        assert_eq!(recipient.end(), said.is_some());
        if said.is_some() {
            // All of it had come. What the donor had at this point died with it, so the proof is
            // that it opens and ends there.
            let held = self.started();
            assert_ne!(held, self.held);
            self.held = held;
            self.count("clones kept");
        } else {
            assert!(!self.check());
            self.count("clones rolled back");
        }
        let (donor, address, sequence) = donate(self.root.path());
        assert!(sequence >= acknowledged, "{sequence} of {acknowledged} writes");
        (self.donor, self.donor_address) = (donor, address);
        self.network.kill();
        (self.network, self.address) = forward("0", &self.donor_address);
    }
}

/// A donor, its address, and the number of its last write when it came up.
fn donate(root: &Path) -> (Process, String, u64) {
    let root = root.join("donor");
    let mut donor = Process::start(&["donate", root.to_str().unwrap()]);
    let sequence = donor.expect("sequence").parse().unwrap();
    let address = donor.expect("listening");
    for entry in fs::read_dir(root.join(".rocksdb")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{name} is left");
    }
    (donor, address, sequence)
}

fn forward(port: &str, to: &str) -> (Process, String) {
    let mut network = Process::start(&["forward", port, to]);
    let address = network.expect("forwarding");
    (network, address)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn nothing_is_lost() {
    let kills = number("CLONE_KILLS", 40);
    let mut scene = Scene::new(number("CLONE_KILL_SEED", 1));
    let duration = scene.clone();
    for _ in 0..kills {
        let after = duration.mul_f64(1.2 * scene.random.f64());
        match scene.random.u8(..10) {
            0..5 => scene.kill_recipient(after),
            5..9 => scene.kill_network(after),
            _ => scene.kill_donor(after),
        }
    }
    // And after all that:
    scene.clone();
    println!("a clone takes {duration:?}; {:?}", scene.tally);
}
