// SPDX-License-Identifier: GPL-2.0-only

//! What InnoDB does with the lists when it starts, as `clone0api.cc` does it.

use std::fs;
use std::path::{Path, PathBuf};

/// How a start ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// With the data that is in place.
    Up,
    /// The recovery of the clone failed. InnoDB wants another start.
    Again,
}

/// Starts InnoDB in the data directory `root`. A clone is recovered if `recovers`.
pub(super) fn start(root: &Path, recovers: bool) -> Started {
    let lists = root.join("#clone");
    if lists.join("#status_error").exists() {
        roll_back(root);
        return Started::Up;
    }
    let is_clone = lists.join("#replace_files").exists();
    for file in list(root, "#old_files") {
        forward_old(&file, false);
    }
    for file in list(root, "#replace_files") {
        forward(&file, false);
    }
    check_names(root);
    if is_clone && !recovers {
        fs::write(lists.join("#status_error"), "").unwrap();
        return Started::Again;
    }
    for file in list(root, "#old_files") {
        forward_old(&file, true);
    }
    for file in list(root, "#replace_files") {
        forward(&file, true);
    }
    for name in ["#old_files", "#new_files", "#replace_files", "#status_fix"] {
        let _ = fs::remove_file(lists.join(name));
    }
    Started::Up
}

/// No tablespace may be found twice: InnoDB looks for names that end with `.ibd`, below the data
/// directory and not below hidden directories.
fn check_names(root: &Path) {
    fn walk(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') {
                walk(&path, found);
            } else if name.ends_with(".ibd") {
                found.push(fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    let sides: std::collections::BTreeSet<_> =
        found.iter().map(|content| content.split(' ').next().unwrap()).collect();
    assert!(sides.len() <= 1, "tablespaces of both: {found:?}");
}

fn roll_back(root: &Path) {
    for file in list(root, "#old_files") {
        if state(&file) == (false, true, false) {
            fs::rename(with(&file, ".#clone_save"), &file).unwrap();
        }
    }
    for file in list(root, "#replace_files") {
        let (saved, cloned) = (with(&file, ".#clone_save"), with(&file, ".#clone"));
        let mut now = state(&file);
        if now == (true, true, false) {
            fs::rename(&file, &cloned).unwrap();
            now = (false, true, true);
        }
        if now == (false, true, true) {
            fs::rename(saved, &file).unwrap();
            now = (true, false, true);
        }
        match now {
            (true, false, true) => remove(&cloned),
            (true, false, false) => {}
            other => panic!("{}: {other:?}", file.display()),
        }
    }
    for file in list(root, "#new_files") {
        remove(&file);
    }
    for name in ["#old_files", "#replace_files", "#new_files", "#status_error"] {
        let _ = fs::remove_file(root.join("#clone").join(name));
    }
}

fn forward_old(file: &Path, finished: bool) {
    let saved = with(file, ".#clone_save");
    match state(file) {
        (true, false, false) => fs::rename(file, &saved).unwrap(),
        (false, true | false, false) => {}
        // Also cloned.
        (true, true | false, _) | (false, true, true) => return,
        other => panic!("{}: {other:?}", file.display()),
    }
    if finished {
        remove(&saved);
    }
}

fn forward(file: &Path, finished: bool) {
    let (saved, cloned) = (with(file, ".#clone_save"), with(file, ".#clone"));
    let mut now = state(file);
    if now == (true, false, true) {
        fs::rename(file, &saved).unwrap();
        now = (false, true, true);
    }
    if now == (false, true, true) {
        fs::rename(cloned, file).unwrap();
        now = (true, true, false);
    }
    match now {
        (true, true, false) if finished => remove(&saved),
        (true, _, false) => {}
        other => panic!("{}: {other:?}", file.display()),
    }
}

/// Which of `f`, `f.#clone_save` and `f.#clone` exist.
fn state(file: &Path) -> (bool, bool, bool) {
    (file.exists(), with(file, ".#clone_save").exists(), with(file, ".#clone").exists())
}

fn with(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

fn list(root: &Path, name: &str) -> Vec<PathBuf> {
    let content = fs::read_to_string(root.join("#clone").join(name)).unwrap_or_default();
    content.lines().map(|line| root.join(line)).collect()
}
