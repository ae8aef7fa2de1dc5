// SPDX-License-Identifier: GPL-2.0-only

//! What a server notes when it starts with cloned data: the file `#clone/#status_recovery`.

use crate::text::{Numbers, Text, lines};

/// The notes of InnoDB (`clone0api.cc:clone_init_recovery_status`, `clone_update_recovery_status`,
/// `clone_update_gtid_status`).
///
/// Line by line: begin and end of the recovery in microseconds since the Unix epoch, the end being
/// 0 if it failed; binary log file, empty if the donor has no binary log; position in it; GTID set,
/// which may have several lines. InnoDB appends to the file as the server starts, the GTID set
/// last. So lines may be missing from some point on, and what is missing leaves the status as it
/// was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// When the recovery began. None for an empty file.
    pub begin_us: Option<u64>,
    /// When the recovery ended. 0 if it did not succeed.
    pub end_us: u64,
    /// The donor's binary log file; empty if the donor has no binary log.
    pub binlog_file: Option<Text>,
    /// The position in the file, bytes.
    pub binlog_position: Option<u64>,
    /// The donor's `gtid_executed`.
    pub gtid_executed: Option<String>,
}

impl Recovery {
    /// Reads the file, as far as it goes.
    pub fn parse(file: &[u8]) -> Recovery {
        let text = String::from_utf8_lossy(file);
        let mut lines = lines(&text);
        let number = |line: Option<&str>| line.map(|_| Numbers::of(line).bigint());
        let begin_us = number(lines.next());
        let end_us = number(lines.next()).unwrap_or_default();
        let binlog_file = lines.next().map(Text::from);
        let binlog_position = number(lines.next());
        let set: Vec<&str> = lines.collect();
        let gtid_executed = (!set.is_empty()).then(|| set.join("\n"));
        Recovery { begin_us, end_us, binlog_file, binlog_position, gtid_executed }
    }

    /// Whether the server has recovered the data.
    pub fn has_succeeded(&self) -> bool {
        self.end_us != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_as_far_as_it_was_written() {
        let whole = Recovery {
            begin_us: Some(10),
            end_us: 20,
            binlog_file: Some("./binlog.000002".into()),
            binlog_position: Some(157),
            gtid_executed: Some("aa:1-5,\nbb:1".into()),
        };
        let file = "10\n20\n./binlog.000002\n157\naa:1-5,\nbb:1\n";
        assert_eq!(Recovery::parse(file.as_bytes()), whole);

        let without_set = Recovery { gtid_executed: None, ..whole };
        assert_eq!(Recovery::parse(b"10\n20\n./binlog.000002\n157\n"), without_set);

        let without_position = Recovery { binlog_position: None, ..without_set.clone() };
        assert_eq!(Recovery::parse(b"10\n20\n./binlog.000002\n"), without_position);

        let times = Recovery { binlog_file: None, ..without_position };
        assert_eq!(Recovery::parse(b"10\n20\n"), times);
        assert_eq!(Recovery::parse(b"10\n0\n"), Recovery { end_us: 0, ..times.clone() });
        assert_eq!(Recovery::parse(b"10\n"), Recovery { end_us: 0, ..times });
        assert_eq!(Recovery::parse(b""), Recovery::default());
    }

    #[test]
    fn reads_the_notes_of_a_server_without_binary_log() {
        // As MySQL 9.7.4 wrote it.
        let file = "1795248417920731\n1795248418417541\n\n0\n\
                    aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1-2:9,\n\
                    bbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7\n";
        let recovery = Recovery::parse(file.as_bytes());
        assert_eq!(recovery.binlog_file, Some("".into()));
        assert_eq!(recovery.binlog_position, Some(0));
        let set = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1-2:9,\n\
                   bbbbbbbb-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7";
        assert_eq!(recovery.gtid_executed.as_deref(), Some(set));
    }

    #[test]
    fn an_empty_gtid_set_is_one() {
        let recovery = Recovery::parse(b"10\n20\n\n0\n\n");
        assert_eq!(recovery.gtid_executed.as_deref(), Some(""));
    }

    proptest! {
        #[test]
        fn reads_anything(file: Vec<u8>) {
            Recovery::parse(&file);
        }

        #[test]
        fn reads_any_lines(file in "([0-9]{0,22}\n){0,3}([a-f0-9:,\n]{0,30})") {
            let recovery = Recovery::parse(file.as_bytes());
            prop_assert!(recovery.binlog_position.is_none_or(|at| at <= i64::MAX.unsigned_abs()));
        }
    }
}
