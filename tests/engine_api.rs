// SPDX-License-Identifier: GPL-2.0-only

//! The example for authors of engines, compiled by the host's C compiler against the library that
//! mysqld would load, and run.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Cargo builds the library beside its tests.
fn library_directory() -> PathBuf {
    let test = env::current_exe().expect("this test has a path");
    let directory = test.parent().expect("it is in a directory");
    assert!(directory.join("libmysql_clone.so").exists(), "no library in {directory:?}");
    directory.to_owned()
}

fn success(mut command: Command) -> Output {
    // Cargo's, which names directories where an older build may lie, and goes before the program's
    // own.
    command.env_remove("LD_LIBRARY_PATH");
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Compiles `source` for `standard` without a warning.
fn compile(compiler: &str, standard: &str, source: &Path, to: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = library_directory();
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Werror", "-g", "-I"]).arg(root.join("include"));
    command.arg(source).arg("-o").arg(to).arg("-L").arg(&library).arg("-lmysql_clone");
    command.arg(format!("-Wl,-rpath,{}", library.display())).arg("-pthread");
    success(command);
}

fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let file = |entry: fs::DirEntry| {
        let content = fs::read_to_string(entry.path()).expect("a file");
        (entry.file_name().into_string().expect("a name"), content)
    };
    entries.map(|entry| file(entry.expect("an entry"))).collect()
}

#[test]
fn an_engine_in_c_clones() {
    let directory = TempDir::new().expect("a directory");
    let program = directory.path().join("example");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/engine_example.c");
    compile("cc", "-std=c11", &source, &program);
    let mut command = Command::new(program);
    command.arg(directory.path());
    let output = success(command);

    let mut live = files(&directory.path().join("live"));
    let clone = files(&directory.path().join("target/notes"));
    assert_eq!(live["000100.log"], "before the clone\nafter the clone\n");
    live.insert("000100.log".to_owned(), "before the clone\n".to_owned());
    assert_eq!(clone, live);
    assert_eq!(clone.len(), 22);
    let bytes: usize = clone.values().map(String::len).sum();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("cloned, estimate {bytes} bytes\n")
    );
    let left = fs::read_dir(directory.path().join("target")).expect("a directory");
    assert_eq!(left.count(), 1, "nothing is left beside the database");
}

/// The header is for C++ as well: on its own, and in a source of MySQL, which has types of the same
/// names.
#[test]
fn the_header_is_cxx() {
    let directory = TempDir::new().expect("a directory");
    let alone = r#"
        #include "clone_engine.h"
        int main() {
          handlerton hton = {0, 41};
          return clone_copy(&hton, nullptr, nullptr, 0, 0, nullptr) == 0;
        }
    "#;
    let in_mysql = r#"
        #define HANDLER_INCLUDED
        class THD;
        struct handlerton;
        class Ha_clone_cbk;
        #include "clone_engine.h"
        int main() { return clone_engine_unregister(41) == 0; }
    "#;
    for (name, text) in [("alone", alone), ("in_mysql", in_mysql)] {
        let source = directory.path().join(format!("{name}.cc"));
        let program = directory.path().join(name);
        fs::write(&source, text).expect("a file");
        compile("c++", "-std=c++17", &source, &program);
        success(Command::new(program));
    }
}
