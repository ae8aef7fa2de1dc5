// SPDX-License-Identifier: GPL-2.0-only

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::progress::Stage;

/// A data directory with `#clone` in it.
struct DataDir(TempDir);

impl DataDir {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("#clone")).unwrap();
        DataDir(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn name(&self) -> &str {
        self.path().to_str().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join("#clone").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    fn load(&self) -> StatusBoard {
        StatusBoard::load(self.path().to_owned())
    }
}

fn replace(board: &StatusBoard) -> Result<(), Busy> {
    let source = Some(("donor1", 3306));
    board.begin(Begin { pid: 8, source, destination: None, now_us: 100, is_dry_run: false })
}

fn copy_to(board: &StatusBoard, directory: &DataDir) {
    let destination = Some(directory.name());
    board
        .begin(Begin { pid: 9, source: None, destination, now_us: 500, is_dry_run: false })
        .unwrap();
}

fn state(board: &StatusBoard) -> State {
    board.status().unwrap().state
}

/// What the file says when a clone has replaced the data.
const REPLACED: &str = "1 1\n100 180\ndonor1:3306\n0\n\n\n0\n\n";

/// What InnoDB notes, without and with the GTID set.
const NOTES: &str = "200\n230\n./binlog.000002\n157\n";
const ALL_NOTES: &str = "200\n230\n./binlog.000002\n157\naa:1-5\n";

#[test]
fn an_unused_server_has_no_rows() {
    let board = DataDir::new().load();
    assert_eq!(board.status(), None);
    assert_eq!(board.progress(), None);
    let board = StatusBoard::load("/nonexistent".into());
    assert_eq!(board.status(), None);
}

#[test]
fn a_clone_of_the_server_keeps_the_board_until_the_restart() {
    let base = DataDir::new();
    let board = base.load();
    replace(&board).unwrap();
    assert_eq!(board.progress(), None, "no stage has begun");
    assert_eq!(replace(&board), Err(Busy));
    board.next_stage(1, 0, 110);
    board.next_stage(4, 1000, 120);
    board.transferred(&Sample { data_bytes: 700, data_speed: 70, ..Sample::default() }, 5);
    let progress = board.progress().unwrap();
    assert_eq!(progress.stage(Stage::FileCopy).data, 700);
    assert_eq!(progress.data_speed(Stage::FileCopy), 70);
    assert!(base.read("#view_status").starts_with("1 1\n100 0\ndonor1:3306\n1317\n"));
    assert!(base.read("#view_progress").starts_with("1\n2 1 110 120 0 0 0\n3 4 120 0 1000 0 0\n"));

    board.end(None, 180);
    assert_eq!(base.read("#view_status"), REPLACED);
    assert_eq!(state(&board), State::InProgress);
    assert_eq!(replace(&board), Err(Busy));

    // The plugin is loaded again before the server has restarted.
    assert_eq!(state(&base.load()), State::InProgress);

    base.write("#status_recovery", ALL_NOTES);
    let board = base.load();
    let status = board.status().unwrap();
    assert_eq!((status.state, status.end_us, status.pid), (State::Completed, 230, 0));
    assert_eq!(status.gtid_executed, "aa:1-5");
    assert!(!base.has("#status_recovery"));
    assert_eq!(Status::parse(base.read("#view_status").as_bytes()), status);
    let progress = board.progress().unwrap();
    assert_eq!(progress.stage(Stage::Recovery).state, State::Completed);
    assert_eq!(Progress::parse(base.read("#view_progress").as_bytes()), progress);
}

#[test]
fn a_clone_into_a_directory_writes_there() {
    let (base, target) = (DataDir::new(), DataDir::new());
    let board = base.load();
    copy_to(&board, &target);
    board.next_stage(1, 0, 510);
    board.end(None, 590);
    assert_eq!(state(&board), State::Completed);
    assert!(!base.has("#view_status"));
    assert_eq!(target.read("#view_status"), "2 1\n500 590\nLOCAL INSTANCE\n0\n\n\n0\n\n");
    assert!(target.read("#view_progress").starts_with("1\n2 1 510 590 0 0 0\n"));
    replace(&board).unwrap();
    assert!(base.has("#view_status"));
}

#[test]
fn a_directory_that_is_not_there_is_no_error_and_not_created() {
    let (base, parent) = (DataDir::new(), DataDir::new());
    let board = base.load();
    let missing = parent.path().join("missing");
    let destination = missing.to_str();
    board
        .begin(Begin { pid: 9, source: None, destination, now_us: 500, is_dry_run: false })
        .unwrap();
    board.next_stage(1, 0, 510);
    board.end(Some((1007, "exists")), 590);
    assert_eq!(state(&board), State::Failed);
    assert!(!missing.exists());
}

#[test]
fn a_failed_clone_frees_the_board() {
    let base = DataDir::new();
    let board = base.load();
    replace(&board).unwrap();
    board.next_stage(1, 0, 110);
    board.end(Some((3862, "Clone Donor Error: 1 : x")), 120);
    let status = board.status().unwrap();
    assert_eq!((status.state, status.error_number), (State::Failed, 3862));
    assert_eq!(board.progress().unwrap().stage(Stage::DropData).state, State::Failed);
    assert_eq!(
        base.read("#view_status"),
        "3 1\n100 120\ndonor1:3306\n3862\nClone Donor Error: 1 : x\n\n0\n\n"
    );
    replace(&board).unwrap();
}

#[test]
fn a_clone_that_has_ended_is_not_changed() {
    let base = DataDir::new();
    let board = base.load();
    replace(&board).unwrap();
    board.next_stage(1, 0, 110);
    board.end(Some((1317, "killed")), 120);
    let (status, progress) = (board.status(), board.progress());
    board.next_stage(1, 0, 200);
    board.transferred(&Sample { data_bytes: 1, ..Sample::default() }, 1);
    board.end(None, 210);
    assert_eq!((board.status(), board.progress()), (status, progress));
}

#[test]
fn a_server_that_died_in_a_clone_shows_it_as_failed() {
    let base = DataDir::new();
    let board = base.load();
    replace(&board).unwrap();
    board.next_stage(1, 0, 110);
    drop(board);
    let status = base.load().status().unwrap();
    assert_eq!((status.state, status.error_number), (State::Failed, 1317));
    assert_eq!(status.error_message.as_str(), "Query execution was interrupted");
    assert!(base.read("#view_status").starts_with("3 1\n"));
}

#[test]
fn a_server_that_died_just_after_a_clone_completes_it() {
    let base = DataDir::new();
    base.write("#view_status", "1 1\n100 0\ndonor1:3306\n1317\nQuery\n\n0\n\n");
    base.write("#view_progress", "1\n2 1 1 2 0 0 0\n");
    base.write("#status_recovery", ALL_NOTES);
    let board = base.load();
    let status = board.status().unwrap();
    assert_eq!((status.state, status.error_number), (State::Completed, 0));
    let progress = board.progress().unwrap();
    assert_eq!(progress.stage(Stage::FileSync).end_us, 200);
}

#[test]
fn a_look_before_innodb_is_through_loses_nothing() {
    let base = DataDir::new();
    base.write("#view_status", REPLACED);
    base.write("#replace_files", "ibdata1\n");
    base.write("#status_recovery", NOTES);
    let board = base.load();
    let status = board.status().unwrap();
    assert_eq!((status.state, status.binlog_position), (State::Completed, 157));
    assert_eq!(status.gtid_executed, "");
    assert!(base.has("#status_recovery"));

    base.write("#status_recovery", ALL_NOTES);
    fs::remove_file(base.file("#replace_files")).unwrap();
    assert_eq!(board.status().unwrap().gtid_executed, "aa:1-5");
    assert!(!base.has("#status_recovery"));
    assert_eq!(base.load().status().unwrap().gtid_executed, "aa:1-5");
}

#[test]
fn notes_stay_until_they_are_written_elsewhere() {
    let base = DataDir::new();
    base.write("#view_status", REPLACED);
    base.write("#status_recovery", ALL_NOTES);
    // A directory in the way makes the write fail, also for root.
    fs::create_dir(base.file("#view_status.new")).unwrap();
    let board = base.load();
    for _ in 0..2 {
        assert_eq!(state(&board), State::Completed);
        assert!(base.has("#status_recovery"));
    }
    fs::remove_dir(base.file("#view_status.new")).unwrap();
    assert_eq!(state(&board), State::Completed);
    assert!(!base.has("#status_recovery"));
    assert!(base.read("#view_status").starts_with("2 1\n100 230\n"));
}

#[test]
fn a_failed_recovery_shows() {
    let base = DataDir::new();
    base.write("#view_status", REPLACED);
    base.write("#status_recovery", "200\n");
    let status = base.load().status().unwrap();
    assert_eq!((status.state, status.error_number), (State::Failed, 1815));
}

#[test]
fn a_new_clone_gives_the_last_one_its_notes_first() {
    let (base, target) = (DataDir::new(), DataDir::new());
    base.write("#view_status", REPLACED);
    base.write("#status_recovery", ALL_NOTES);
    let board = base.load();
    copy_to(&board, &target);
    assert!(!base.has("#status_recovery"));
    assert!(base.read("#view_status").starts_with("2 1\n100 230\n"));
    board.end(None, 590);
    assert_eq!(board.status().unwrap().gtid_executed, "");
}

#[test]
fn unfinished_notes_are_not_taken_for_those_of_a_later_clone_into_a_directory() {
    let (base, target) = (DataDir::new(), DataDir::new());
    base.write("#view_status", REPLACED);
    base.write("#replace_files", "");
    base.write("#status_recovery", NOTES);
    let board = base.load();
    copy_to(&board, &target);
    board.end(Some((1317, "killed")), 590);
    base.write("#status_recovery", ALL_NOTES);
    fs::remove_file(base.file("#replace_files")).unwrap();
    assert_eq!(state(&board), State::Failed);
    // The files here are still those of the clone that the notes are about: the next start
    // completes it.
    assert!(base.has("#status_recovery"));
    assert_eq!(base.load().status().unwrap().gtid_executed, "aa:1-5");
}

#[test]
fn unfinished_notes_are_not_taken_for_those_of_a_later_replacement() {
    let base = DataDir::new();
    base.write("#view_status", REPLACED);
    base.write("#replace_files", "");
    base.write("#status_recovery", NOTES);
    let board = base.load();
    replace(&board).unwrap();
    board.end(Some((2003, "no donor")), 120);
    assert_eq!(state(&board), State::Failed);
    assert!(base.has("#status_recovery"), "InnoDB is not through with it");
    fs::remove_file(base.file("#replace_files")).unwrap();
    assert_eq!(state(&board), State::Failed);
    assert!(!base.has("#status_recovery"));
    assert_eq!(state(&base.load()), State::Failed);
}

#[test]
fn notes_without_a_clone_are_removed() {
    let base = DataDir::new();
    base.write("#status_recovery", ALL_NOTES);
    let board = base.load();
    assert_eq!(board.status(), None);
    assert!(!base.has("#status_recovery"));
    assert!(!base.has("#view_status"));
}

#[test]
fn one_bad_file_does_not_hide_the_other() {
    let base = DataDir::new();
    fs::create_dir(base.file("#view_status")).unwrap();
    base.write("#view_progress", "1\n2 1 1 2 0 0 0\n");
    assert!(base.load().progress().is_some());
}

#[test]
fn only_one_of_many_begins() {
    let base = DataDir::new();
    let board = base.load();
    let begun = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8).map(|_| scope.spawn(|| replace(&board).is_ok())).collect();
        tasks.into_iter().map(|task| task.join().unwrap()).filter(|&begun| begun).count()
    });
    assert_eq!(begun, 1);
}

/// The tables go on to show the last clone, and no second clone runs meanwhile.
#[test]
fn a_dry_run_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let board = StatusBoard::load(directory.path().to_owned());
    let begin = |is_dry_run| Begin {
        pid: 8,
        source: Some(("donor", 3306)),
        destination: Some("/clone"),
        now_us: 100,
        is_dry_run,
    };
    board.begin(begin(false)).unwrap();
    board.next_stage(1, 7, 101);
    board.end(None, 102);
    let (status, progress) = (board.status(), board.progress());
    board.begin(begin(true)).unwrap();
    assert_eq!(board.begin(begin(false)), Err(Busy));
    board.next_stage(1, 7, 201);
    board.end(Some((1290, "dry run")), 202);
    assert_eq!((board.status(), board.progress()), (status, progress));
    board.begin(begin(false)).unwrap();
}
