// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use clone_testkit::Plugin;

/// Records the stream of a clone between two real servers.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// The release of both servers, as `mysql-test/server.sh --list` prints it.
    #[arg(long)]
    pub server: String,
    /// The donor's plugin: stock or ours.
    #[arg(long, default_value = "stock")]
    pub donor: Plugin,
    /// Threads of the recipient (clone_max_concurrency).
    #[arg(long, default_value_t = 4)]
    pub threads: u32,
    /// Where the proxy cuts all connections.
    #[arg(long, default_value = "none")]
    pub cut: Cut,
    /// innodb_page_size of both servers: 4k, 8k, 16k, 32k or 64k.
    #[arg(long, default_value = "16k")]
    pub page_size: String,
    /// The directory to write the record to.
    #[arg(long)]
    pub out: PathBuf,
}

/// Where the proxy cuts all connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Cut {
    /// Nowhere.
    None,
    /// In FILE_COPY.
    FileCopy,
    /// Instead of passing on the master's end of REDO_COPY.
    RedoCopy,
}

impl Cut {
    /// A sentence for the head of the record.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::FileCopy => "The proxy cut all connections in FILE_COPY. ",
            Self::RedoCopy => {
                "The proxy cut all connections instead of passing on the end of REDO_COPY. "
            }
        }
    }
}

impl Options {
    /// The record's name.
    pub(crate) fn file_name(&self, version: &str) -> String {
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        let mut name = format!("{version}_{}_{threads}", self.threads);
        if self.page_size != "16k" {
            name.push('_');
            name.push_str(&self.page_size);
        }
        if self.donor == Plugin::Ours {
            name.push_str("_our_donor");
        }
        name.push_str(match self.cut {
            Cut::None => "",
            Cut::FileCopy => "_cut_in_file_copy",
            Cut::RedoCopy => "_cut_in_redo_copy",
        });
        name + ".txt"
    }
}
