// SPDX-License-Identifier: GPL-2.0-only

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// A root directory with files; `/home` is the user's.
fn root(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = text.replace("ROOT", root.path().to_str().unwrap());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    root
}

fn read(root: &TempDir, sources: &Sources) -> Result<Found, OptionFileError> {
    let home = root.path().join("home");
    let login = home.join(".mylogin.cnf");
    let known =
        |name: &str| ["host", "user", "password", "port", "ssl-mode", "compress"].contains(&name);
    sources.read_from(root.path(), Some(&home), Some(&login), &known)
}

fn pairs(found: &Found) -> Vec<(&str, Option<&str>)> {
    found.entries.iter().map(|e| (&*e.name, e.value.as_ref().map(|value| value.as_str()))).collect()
}

/// The options of one file.
fn options(text: &str) -> Vec<(String, Option<String>)> {
    let root = root(&[("etc/my.cnf", text)]);
    let found = read(&root, &Sources::default()).unwrap();
    let owned = |(name, value): (&str, Option<&str>)| (name.into(), value.map(Into::into));
    pairs(&found).into_iter().map(owned).collect()
}

/// What is wrong with one file.
fn wrong(text: &str) -> String {
    let root = root(&[("etc/my.cnf", text)]);
    read(&root, &Sources::default()).unwrap_err().to_string()
}

/// The value of a line `password=...`.
fn value(text: &str) -> String {
    options(&format!("[client]\npassword={text}\n"))[0].1.clone().unwrap()
}

#[test]
fn files_come_in_order() {
    let root = root(&[
        ("etc/my.cnf", "[client]\nuser=one\n"),
        ("etc/mysql/my.cnf", "[mysql-clone]\nuser=two\n[mysqld]\nuser=mysql\n"),
        ("home/.my.cnf", "[client]\nuser=four\n"),
        ("extra", "[client]\nuser=three\nunknown=1"),
    ]);
    let path = root.path().join("extra");
    let users = |sources: &Sources| {
        let found = read(&root, sources).unwrap();
        found.entries.iter().map(|entry| entry.value.as_ref().unwrap().to_string()).collect()
    };
    let all = Sources { defaults_extra_file: Some(path.clone()), ..Sources::default() };
    let found: Vec<String> = users(&all);
    assert_eq!(found, ["one", "two", "three", "four"]);
    let only = Sources { defaults_file: Some(path.clone()), ..Sources::default() };
    let found: Vec<String> = users(&only);
    assert_eq!(found, ["three"]);
    let none = Sources { no_defaults: true, ..Sources::default() };
    let found: Vec<String> = users(&none);
    assert!(found.is_empty());
    for sources in [
        Sources { defaults_file: Some("/nowhere".into()), ..Sources::default() },
        Sources { defaults_extra_file: Some("/nowhere".into()), ..Sources::default() },
    ] {
        let error = read(&root, &sources).unwrap_err().to_string();
        assert!(error.starts_with("Could not open required defaults file: /nowhere"), "{error}");
    }
}

#[test]
fn lines_are_read_as_mysql_reads_them() {
    let text = "# comment\n; comment\n\n  [ client ] \n user = root # the boss\ncompress\n\
                ssl_mode=REQUIRED\r\npassword=\n[mysqld]\nport=1\n[mysql-clone]\nport=2\n\
                loose-port=3\nloose_no_such=4\n[client]\nno_such=5";
    let expected = [
        ("user", Some("root")),
        ("compress", None),
        ("ssl-mode", Some("REQUIRED")),
        ("password", Some("")),
        ("port", Some("2")),
        ("port", Some("3")),
    ];
    let found = options(text);
    let found: Vec<_> = found.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
    assert_eq!(found, expected);
}

#[test]
fn values_have_quotes_and_escapes() {
    assert_eq!(value(r#" "a # b"  # comment"#), "a # b");
    assert_eq!(value("'it\"s'"), "it\"s");
    assert_eq!(value("\"a\\\"#b\" # c"), "a\"#b");
    assert_eq!(value(r"a\sb\tc\nd\\e\x\b"), "a b\tc\nd\\e\\x\u{8}");
    assert_eq!(value("a=b"), "a=b");
    assert_eq!(value("a#b"), "a");
    assert_eq!(value("\""), "\"");
    assert_eq!(value("\"\""), "");
    assert_eq!(value("'a\""), "'a\"");
    assert_eq!(value(r"ends with \"), r"ends with \");
    assert_eq!(value("pässwörd"), "pässwörd");
}

#[test]
fn lines_that_are_none() {
    assert!(wrong("user=root\n").contains("without preceding group in config file"));
    assert!(wrong("[client\n").starts_with("Wrong group definition in config file"));
    assert!(wrong("[client]\n!inclde x\n").contains("at line 2"));
    assert!(wrong("!include\n").contains("the path is missing"));
    let error = wrong("[mysql-clone]\nno_such=secret\n");
    assert!(error.starts_with("unknown option '--no-such' in config file"), "{error}");
    assert!(!error.contains("secret"));
}

#[test]
fn files_include_files() {
    let root = root(&[
        ("etc/my.cnf", "[client]\nuser=1\n!includedir ROOT/d\nuser=4\n!include ROOT/none\n"),
        ("d/b.cnf", "[client]\nuser=3\n"),
        ("d/a.cnf", "[client]\nuser=2\n"),
        ("d/c.txt", "[client]\nuser=wrong\n"),
        ("home/.my.cnf", "!include ROOT/home/.my.cnf\n[client]\nuser=5\n"),
    ]);
    let found = read(&root, &Sources::default()).unwrap();
    let users: Vec<_> = pairs(&found).into_iter().map(|(_, value)| value.unwrap()).collect();
    assert_eq!(users[..4], ["1", "2", "3", "4"]);
    assert_eq!(users[4..], ["5"; MAX_DEPTH + 1]);
    assert_eq!(found.warnings.len(), 1);
    assert!(wrong("!includedir /nowhere\n").contains("cannot read /nowhere"));
}

#[test]
fn files_of_everybody_are_ignored() {
    let root = root(&[("etc/my.cnf", "[client]\nuser=1\n"), ("home/.mylogin.cnf", "")]);
    for name in ["etc/my.cnf", "home/.mylogin.cnf"] {
        let mode = fs::Permissions::from_mode(0o666);
        fs::set_permissions(root.path().join(name), mode).unwrap();
    }
    let found = read(&root, &Sources::default()).unwrap();
    assert!(found.entries.is_empty());
    assert!(found.warnings[0].starts_with("World-writable config file '"));
    assert!(found.warnings[1].contains("only by current user"));
}

#[test]
fn a_login_file_comes_last_and_without_defaults() {
    let root = root(&[("etc/my.cnf", "[client]\nuser=1\n"), ("home/.mylogin.cnf", "")]);
    let text = "[client]\nuser = \"2\"\n[remote]\nuser = \"3\"\npassword = \"a\\\"b\"\nx=1\n";
    fs::write(root.path().join("home/.mylogin.cnf"), login_path::encrypt(text)).unwrap();
    let found = |login_path: Option<&str>, no_defaults, no_login_paths| {
        let login_path = login_path.map(Into::into);
        let sources = Sources { login_path, no_defaults, no_login_paths, ..Sources::default() };
        let found = read(&root, &sources).unwrap();
        let values = pairs(&found).into_iter().map(|(_, value)| value.unwrap().to_owned());
        values.collect::<Vec<_>>()
    };
    assert_eq!(found(None, false, false), ["1", "2"]);
    assert_eq!(found(Some("remote"), false, false), ["1", "2", "3", "a\"b"]);
    assert_eq!(found(Some("remote"), true, false), ["2", "3", "a\"b"]);
    assert_eq!(found(Some("remote"), false, true), ["1"]);
    fs::write(root.path().join("home/.mylogin.cnf"), "damaged").unwrap();
    let error = read(&root, &Sources::default()).unwrap_err().to_string();
    assert!(error.contains(".mylogin.cnf: "), "{error}");
}

#[test]
fn a_password_is_not_shown() {
    let root = root(&[("etc/my.cnf", "[client]\npassword=hush\n")]);
    let found = read(&root, &Sources::default()).unwrap();
    assert!(!format!("{found:?}").contains("hush"));
}
