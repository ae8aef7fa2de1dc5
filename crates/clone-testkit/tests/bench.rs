// SPDX-License-Identifier: GPL-2.0-only

//! `make bench` in small: every kind of scenario runs, and the table is written.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::process::Command;

#[test]
fn a_small_benchmark_measures_both_plugins() {
    let out = tempfile::tempdir().unwrap();
    let frame = "before\n<!-- begin of what `make bench` writes -->\n<!-- end of what `make bench` writes -->\nafter\n";
    fs::write(out.path().join("performance.md"), frame).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_bench"))
        .env("BENCH_ROUNDS", "1")
        .env("BENCH_MIB", "32")
        .env("BENCH_LINES", "plain on tmpfs,compressed text,OLTP,local on disk")
        .env("BENCH_OUT", out.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{text}{}", String::from_utf8_lossy(&run.stderr));
    let table = fs::read_to_string(out.path().join("performance.md")).unwrap();
    assert!(table.starts_with("before\n") && table.ends_with("after\n"), "{table}");
    for line in ["| remote plain on tmpfs | **", "| local on disk | **", "transactions per second"]
    {
        assert!(table.contains(line), "no {line} in\n{table}");
    }
    let picture = fs::read_to_string(out.path().join("performance.svg")).unwrap();
    assert!(picture.trim_end().ends_with("</svg>"));
}
