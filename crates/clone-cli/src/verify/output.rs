// SPDX-License-Identifier: GPL-2.0-only

//! What `verify` prints: faults on standard output, one a line, and progress on standard error if
//! that is a terminal.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clone_innodb::verify::{Fault, Observer, Plan, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::{Failure, Kind, Result};

/// Prints while files are checked.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    bar: ProgressBar,
    unreadable: AtomicU64,
    /// Whether standard output could not be written.
    failed: AtomicBool,
}

/// A line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Fault {
        file: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        page: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<u64>,
        kind: &'a str,
        detail: &'a str,
        meaning: &'a str,
    },
    Note {
        text: &'a str,
    },
    Unreadable {
        file: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        page: Option<u32>,
        error: String,
    },
    Summary {
        files: u64,
        pages: u64,
        bytes: u64,
        encrypted_pages: u64,
        seconds: f64,
        faults: u64,
        unreadable: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        redo_end_lsn: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        clean_shutdown: Option<bool>,
    },
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool, bytes: u64) -> Self {
        let bar = if quiet || !io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            let style = ProgressStyle::with_template(
                "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            );
            ProgressBar::new(bytes)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        };
        let (unreadable, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { json, quiet, bar, unreadable, failed }
    }

    /// Files and pages that could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Prints the summary.
    pub(super) fn finish(&self, summary: &Summary, time: Duration) -> Result<()> {
        self.bar.finish_and_clear();
        let seconds = time.as_secs_f64();
        let Summary { files, pages, bytes, faults, encrypted, redo } = *summary;
        if self.json {
            self.json(&Line::Summary {
                files,
                pages,
                bytes,
                encrypted_pages: encrypted,
                seconds,
                faults,
                unreadable: self.unreadable(),
                redo_end_lsn: redo.map(|end| end.lsn),
                clean_shutdown: redo.map(|end| end.is_clean()),
            });
        } else if !self.quiet {
            let mib = bytes as f64 / f64::from(1 << 20);
            let speed = mib / seconds.max(0.001);
            self.line(&format!(
                "{files} files, {pages} pages, {mib:.0} MiB in {seconds:.2} seconds ({speed:.0} \
                 MiB/s), {faults} faults"
            ));
        }
        if self.failed.load(Ordering::Relaxed) {
            return Err(Failure::new(Kind::Disk, "standard output cannot be written"));
        }
        Ok(())
    }

    fn json(&self, line: &Line<'_>) {
        match serde_json::to_string(line) {
            Ok(line) => self.line(&line),
            Err(_) => self.failed.store(true, Ordering::Relaxed),
        }
    }

    /// One write for each line, so that lines of several threads do not mix.
    fn line(&self, line: &str) {
        let line = format!("{line}\n");
        let written = self.bar.suspend(|| io::stdout().lock().write_all(line.as_bytes()));
        if written.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for Output {
    fn fault(&self, fault: &Fault) {
        if !self.json {
            return self.line(&fault.to_string());
        }
        self.json(&Line::Fault {
            file: &fault.file.to_string_lossy(),
            page: fault.page,
            index: fault.index,
            kind: fault.kind.name(),
            detail: &fault.detail,
            meaning: fault.kind.meaning(),
        });
    }

    fn note(&self, text: &str) {
        if self.json {
            self.json(&Line::Note { text });
        } else if !self.quiet {
            self.line(&format!("note: {text}"));
        }
    }

    fn unreadable(&self, path: &Path, page: Option<u32>, error: &io::Error) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        let file = path.to_string_lossy();
        if self.json {
            self.json(&Line::Unreadable { file: &file, page, error: error.to_string() });
        } else {
            let page = page.map_or_else(String::new, |page| format!(", page {page}"));
            self.line(&format!("{file}{page}: cannot be read: {error}"));
        }
    }

    fn progress(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

/// Bytes of all tablespaces, for the progress.
pub(super) fn total_bytes(plan: &Plan) -> u64 {
    let paths = plan.spaces.iter().flat_map(|space| &space.paths);
    paths.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}
