// SPDX-License-Identifier: GPL-2.0-only

//! All that differs between releases of mysqld, and nowhere else in this package.
//!
//! A service table says nothing of its own form, and calling a wrong slot is undefined behaviour.
//! But the methods whose arrival moved slots are thin covers over exported C++ functions that
//! arrived with them. So whether mysqld exports such a function tells which form the table has.
//! The probes decide. [`KNOWN`] holds what was read in the sources (or the published source
//! documentation) of releases, and a server that contradicts it is refused rather than guessed at.
//!
//! Three kinds of fact:
//!
//! | Known by | Facts |
//! |---|---|
//! | version and probes | slots, offset of `clone_interface`: [`Layout`], [`KNOWN`] |
//! | version | variables ([`has_variable`]); protocol, DDL, redo files ([`Layout::release`]) |
//! | whether mysqld has the service | [`STRING_COLUMNS`], [`TEXT_COLUMN`], [`STATUS_VARIABLES`] |
//! | whether mysqld exports the function | `Option` fields of [`super::symbols::Symbols`] |

use std::ffi::CStr;
use std::fmt;

use clone_core::settings::ReleaseFacts;
use clone_protocol::Version;

use super::version::Release;
use super::version::ServerVersion;

/// The facts about one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The slot of `message` in `log_builtins`.
    pub(crate) log_message: usize,
    /// The slots of `clone_protocol`.
    pub(crate) clone_protocol: CloneProtocolSlots,
    /// Whether threads are registered with `PSI_thread_info_v5`. Before, the record was another.
    pub(crate) thread_info_v5: bool,
    /// Where `clone_interface` is expected in a handlerton, where that was measured. The place that
    /// is used is found by [`super::plugins::find_clone_interface`].
    pub(crate) clone_interface: Option<usize>,
    /// `MYSQL_VERSION_MATURITY` of the server's build, which no variable tells: what a donor of 9.7
    /// says of itself.
    pub(crate) maturity: &'static str,
    /// Whether InnoDB writes a donor's tablespaces to any directory. Since 9.7 it refuses those in
    /// which it does not look for tablespaces (`clone0apply.cc:build_file_path`).
    pub(crate) writes_anywhere: bool,
    /// What has to do with clones, rather than with the server's interfaces.
    pub(crate) release: ReleaseFacts,
}

impl Layout {
    /// The layout of the server `version`, which exports what `probes` say.
    pub(crate) fn for_version(
        version: &ServerVersion,
        probes: Probes,
    ) -> Result<Self, Unsupported> {
        let unsupported = |reason| Unsupported { version: version.to_string(), reason };
        let known = KNOWN
            .iter()
            .find(|known| (known.first..=known.last).contains(&version.release))
            .ok_or_else(|| unsupported(Reason::UnknownVersion))?;
        if known.log_message.is_some_and(|slot| slot != probes.log_message()) {
            return Err(unsupported(Reason::Contradiction("log_builtins")));
        }
        if known
            .validate_version
            .is_some_and(|present| present != probes.are_versions_clone_compatible)
        {
            return Err(unsupported(Reason::Contradiction("clone_protocol")));
        }
        Ok(Self {
            log_message: probes.log_message(),
            clone_protocol: CloneProtocolSlots::new(probes.are_versions_clone_compatible),
            thread_info_v5: known.thread_info_v5,
            clone_interface: known.clone_interface,
            maturity: maturity(version.release),
            writes_anywhere: version.release < Release::new(9, 7, 0),
            release: release_facts(version.release),
        })
    }
}

/// WL#14035: the clone is told of each file that DDL changes. Before, a donor has to hold the
/// backup lock.
const CONCURRENT_DDL: Release = Release::new(8, 0, 27);

/// WL#12527: the redo log is as many files as it takes, in a directory of its own.
const DYNAMIC_REDO: Release = Release::new(8, 0, 30);

/// Variables that the stock plugin did not have from the beginning, and their first release.
const LATER_VARIABLES: [(&CStr, Release); 3] = [
    (c"donor_timeout_after_network_failure", DONOR_TIMEOUT),
    (c"block_ddl", CONCURRENT_DDL),
    (c"delay_after_data_drop", Release::new(8, 0, 29)),
];
const DONOR_TIMEOUT: Release = Release::new(8, 0, 24);

/// Whether the stock plugin of a release has the variable `name`, without the prefix `clone_`.
pub(crate) fn has_variable(release: Release, name: &CStr) -> bool {
    LATER_VARIABLES.iter().all(|&(later, first)| later != name || release >= first)
}

fn release_facts(release: Release) -> ReleaseFacts {
    ReleaseFacts {
        protocol: match release {
            release if release >= Release::new(9, 7, 0) => Version::V4,
            // V3 is for this variable. Whether the stock plugin spoke V2 before is not known, and
            // does not matter.
            release if release >= DONOR_TIMEOUT => Version::V3,
            _ => Version::V1,
        },
        allows_ddl: release >= CONCURRENT_DDL,
        has_spare_redo_file: release < DYNAMIC_REDO,
    }
}

/// Services that fill CHAR and VARCHAR columns, the newest first. The older one has its methods in
/// other slots: `set_char_utf8` instead of `set_char_utf8mb4` before them.
pub(crate) const STRING_COLUMNS: [(&CStr, StringColumns); 2] = [
    (c"pfs_plugin_column_string_v2", StringColumns::V2),
    (c"pfs_plugin_column_string_v1", StringColumns::V1),
];

/// The form of a service in [`STRING_COLUMNS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StringColumns {
    V1,
    V2,
}

/// The service that fills a LONGTEXT column, since 8.0.34. Where there is none, a VARCHAR takes its
/// place.
pub(crate) const TEXT_COLUMN: &CStr = c"pfs_plugin_column_text_v1";

/// The services that read a session's status variables, since 8.0.32: the reader, and the owner and
/// the converter of its strings. Without them a donor does not know whether its connection is
/// plain, and sends everything through mysqld.
pub(crate) const STATUS_VARIABLES: [&CStr; 3] =
    [c"mysql_status_variable_string", c"mysql_string_factory", c"mysql_string_converter"];

/// Series with long-term support; all others up to the next one are innovation releases.
const LTS_SERIES: [(u16, u16); 3] = [(8, 0), (8, 4), (9, 7)];

fn maturity(release: Release) -> &'static str {
    if LTS_SERIES.contains(&(release.major, release.minor)) { "LTS" } else { "INNOVATION" }
}

/// `include/mysql/components/services/clone_protocol_service.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloneProtocolSlots {
    pub(crate) start_statement: usize,
    pub(crate) finish_statement: usize,
    pub(crate) get_charsets: usize,
    pub(crate) validate_charsets: usize,
    pub(crate) get_configs: usize,
    pub(crate) validate_configs: usize,
    /// The form with four arguments, which 9.7 inserted before connect. Version 26 gave it a fifth.
    pub(crate) validate_version: Option<usize>,
    pub(crate) connect: usize,
    pub(crate) send_command: usize,
    pub(crate) get_response: usize,
    pub(crate) kill: usize,
    pub(crate) disconnect: usize,
    pub(crate) get_error: usize,
    pub(crate) get_command: usize,
    pub(crate) send_response: usize,
    pub(crate) send_error: usize,
}

impl CloneProtocolSlots {
    const fn new(validate_version: bool) -> Self {
        let moved = validate_version as usize;
        Self {
            start_statement: 0,
            finish_statement: 1,
            get_charsets: 2,
            validate_charsets: 3,
            get_configs: 4,
            validate_configs: 5,
            validate_version: if validate_version { Some(6) } else { None },
            connect: 6 + moved,
            send_command: 7 + moved,
            get_response: 8 + moved,
            kill: 9 + moved,
            disconnect: 10 + moved,
            get_error: 11 + moved,
            get_command: 12 + moved,
            send_response: 13 + moved,
            send_error: 14 + moved,
        }
    }
}

/// Which of the functions that came together with a slot mysqld exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probes {
    /// With it came the slot `line_get_output_buffer`, before `message`.
    pub(crate) log_line_get_output_buffer: bool,
    /// With it came the slot `line_set_flag`, before `message`.
    pub(crate) log_line_set_flag: bool,
    /// With its four arguments came the slot `mysql_clone_validate_version`; the mangled name tells
    /// how many they are.
    pub(crate) are_versions_clone_compatible: bool,
}

impl Probes {
    pub(crate) const LOG_LINE_GET_OUTPUT_BUFFER: &CStr =
        c"_Z26log_line_get_output_bufferP9_log_line";
    pub(crate) const LOG_LINE_SET_FLAG: &CStr = c"_Z17log_line_set_flagP9_log_linemm";
    pub(crate) const ARE_VERSIONS_CLONE_COMPATIBLE: &CStr =
        c"_Z29are_versions_clone_compatibleRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEES6_bb";

    /// Asks for each of the functions.
    pub(crate) fn ask(exports: impl Fn(&CStr) -> bool) -> Self {
        Self {
            log_line_get_output_buffer: exports(Self::LOG_LINE_GET_OUTPUT_BUFFER),
            log_line_set_flag: exports(Self::LOG_LINE_SET_FLAG),
            are_versions_clone_compatible: exports(Self::ARE_VERSIONS_CLONE_COMPATIBLE),
        }
    }

    fn log_message(self) -> usize {
        26 + usize::from(self.log_line_get_output_buffer) + usize::from(self.log_line_set_flag)
    }
}

/// What is known of the releases `first` to `last`. `None` is not known, and then not asked for.
struct Known {
    first: Release,
    last: Release,
    log_message: Option<usize>,
    validate_version: Option<bool>,
    thread_info_v5: bool,
    clone_interface: Option<usize>,
}

/// Patch number of a row that holds for all later patches of a series.
const ANY: u16 = u16::MAX;

/// Sources: the servers themselves, where the last column says "run"; headers of 8.0.21 (a fork),
/// 8.0.27 (Percona), 8.0.40, 8.1.0 and 8.4.3 (forks), 9.7.4; member lists at
/// dev.mysql.com/doc/dev/mysql-server for 8.0.37 to 8.0.45, 8.3.0, 8.4.1 to 8.4.10, 9.0.1, 9.1.0,
/// 9.3.0 and 9.7.0.
#[rustfmt::skip]
const KNOWN: &[Known] = &[
    // The first release with CLONE. Between those that were run or read, only the probes know.
    known((8, 0, 17), (8, 0, 18), None, Some(false), false, None),
    known((8, 0, 19), (8, 0, 21), Some(26), Some(false), false, Some(0x230)), // run: 19
    known((8, 0, 22), (8, 0, 26), None, Some(false), false, None),
    known((8, 0, 27), (8, 0, 28), Some(27), Some(false), true, Some(0x230)), // run: 28
    known((8, 0, 29), (8, 0, 35), Some(27), Some(false), true, None),
    known((8, 0, 36), (8, 0, 46), Some(27), Some(false), true, Some(0x260)), // run: 36, 40, 42, 46
    known((8, 0, 47), (8, 0, ANY), None, Some(false), true, None),
    known((8, 1, 0), (8, 3, ANY), Some(27), Some(false), true, Some(0x260)),
    known((8, 4, 0), (8, 4, 8), Some(27), Some(false), true, Some(0x268)), // run: 4, 6, 7, 8
    known((8, 4, 9), (8, 4, 13), Some(28), Some(false), true, Some(0x268)), // run: 10, 13
    known((8, 4, 14), (8, 4, ANY), None, None, true, Some(0x268)),
    known((9, 0, 0), (9, 0, ANY), Some(27), Some(false), true, None),
    known((9, 1, 0), (9, 6, ANY), Some(28), Some(false), true, None),
    known((9, 7, 0), (9, 7, ANY), Some(28), Some(true), true, Some(0x278)), // run: 4
];

const fn known(
    first: (u16, u16, u16),
    last: (u16, u16, u16),
    log_message: Option<usize>,
    validate_version: Option<bool>,
    thread_info_v5: bool,
    clone_interface: Option<usize>,
) -> Known {
    Known {
        first: Release::new(first.0, first.1, first.2),
        last: Release::new(last.0, last.1, last.2),
        log_message,
        validate_version,
        thread_info_v5,
        clone_interface,
    }
}

/// A server that the plugin does not load into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsupported {
    version: String,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    UnknownVersion,
    /// The named service has not the form that this version is known to have.
    Contradiction(&'static str),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server version {} is not supported", self.version)?;
        match self.reason {
            Reason::UnknownVersion => f.write_str(" (8.0.17 to 8.4, and 9.0 to 9.7 are)"),
            Reason::Contradiction(service) => write!(
                f,
                ": the functions that it exports do not go with the form of its service {service} in this version"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDEST: Probes = Probes {
        log_line_get_output_buffer: false,
        log_line_set_flag: false,
        are_versions_clone_compatible: false,
    };
    const MIDDLE: Probes = Probes { log_line_get_output_buffer: true, ..OLDEST };
    const FLAGS: Probes = Probes { log_line_set_flag: true, ..MIDDLE };
    const NEWEST: Probes = Probes { are_versions_clone_compatible: true, ..FLAGS };

    fn layout(version: &str, probes: Probes) -> Result<Layout, Unsupported> {
        Layout::for_version(&version.parse().expect(version), probes)
    }

    /// A server of each row, at both of its ends, as far as they are known.
    #[test]
    fn every_row_has_its_layout() {
        for known in KNOWN {
            let probes = Probes {
                log_line_get_output_buffer: known.log_message != Some(26),
                log_line_set_flag: known.log_message == Some(28),
                are_versions_clone_compatible: known.validate_version == Some(true),
            };
            for release in [known.first, known.last] {
                let layout = layout(&release.to_string(), probes).expect("a layout");
                let connect = if known.validate_version == Some(true) { 7 } else { 6 };
                assert_eq!(layout.log_message, known.log_message.unwrap_or(27), "{release}");
                assert_eq!(layout.clone_protocol.connect, connect, "{release}");
                assert_eq!(layout.clone_protocol.send_error, connect + 8, "{release}");
                assert_eq!(layout.clone_protocol.validate_version.is_some(), connect == 7);
                assert_eq!(layout.clone_interface, known.clone_interface, "{release}");
                assert_eq!(layout.thread_info_v5, release >= Release::new(8, 0, 27), "{release}");
            }
        }
    }

    /// What was found on the servers themselves: by their log lines and `objdump -T`.
    #[test]
    fn releases_that_were_run() {
        for (version, probes, log_message, connect, clone_interface, protocol) in [
            ("8.0.19-0ubuntu5", OLDEST, 26, 6, 0x230, Version::V1),
            ("8.0.28-0ubuntu4", MIDDLE, 27, 6, 0x230, Version::V3),
            ("8.0.36-2ubuntu3", MIDDLE, 27, 6, 0x260, Version::V3),
            ("8.0.42-0ubuntu0.20.04.1", MIDDLE, 27, 6, 0x260, Version::V3),
            ("8.0.46-0ubuntu0.24.04.5", MIDDLE, 27, 6, 0x260, Version::V3),
            ("8.4.4-0ubuntu2", MIDDLE, 27, 6, 0x268, Version::V3),
            ("8.4.6-0ubuntu3", MIDDLE, 27, 6, 0x268, Version::V3),
            ("8.4.7-0ubuntu0.25.04.2", MIDDLE, 27, 6, 0x268, Version::V3),
            ("8.4.8-0ubuntu1", MIDDLE, 27, 6, 0x268, Version::V3),
            ("8.4.10-0ubuntu0.25.10.1", FLAGS, 28, 6, 0x268, Version::V3),
            ("8.4.13-0ubuntu0.26.04.2", FLAGS, 28, 6, 0x268, Version::V3),
            ("9.7.4-2", NEWEST, 28, 7, 0x278, Version::V4),
        ] {
            let layout = layout(version, probes).expect(version);
            assert_eq!(layout.log_message, log_message, "{version}");
            assert_eq!(layout.clone_protocol.connect, connect, "{version}");
            assert_eq!(layout.clone_interface, Some(clone_interface), "{version}");
            assert_eq!(layout.release.protocol, protocol, "{version}");
            let is_oldest = version == "8.0.19-0ubuntu5";
            assert_eq!(layout.release.allows_ddl, !is_oldest, "{version}");
            let has_spare = is_oldest || version == "8.0.28-0ubuntu4";
            assert_eq!(layout.release.has_spare_redo_file, has_spare, "{version}");
        }
        let (newest, older) = (layout("9.7.4-2", NEWEST), layout("9.3.0", FLAGS));
        let (newest, older) = (newest.expect("9.7.4"), older.expect("9.3.0"));
        assert_eq!((newest.maturity, newest.writes_anywhere), ("LTS", false));
        assert_eq!((older.maturity, older.writes_anywhere), ("INNOVATION", true));
    }

    #[test]
    fn variables_came_one_by_one() {
        for (release, absent) in [
            ((8, 0, 23), 3),
            ((8, 0, 24), 2),
            ((8, 0, 27), 1),
            ((8, 0, 28), 1),
            ((8, 0, 29), 0),
            ((9, 7, 4), 0),
        ] {
            let release = Release::new(release.0, release.1, release.2);
            let names = LATER_VARIABLES.iter().filter(|(name, _)| !has_variable(release, name));
            assert_eq!(names.count(), absent, "{release}");
            assert!(has_variable(release, c"buffer_size"));
        }
    }

    #[test]
    fn unknown_releases_are_refused() {
        for version in ["5.7.44", "8.0.16", "8.5.0", "9.8.0", "10.11.6-MariaDB", "26.7.0"] {
            let refused = layout(version, NEWEST).expect_err(version);
            assert_eq!(refused.reason, Reason::UnknownVersion, "{version}");
            assert!(refused.to_string().contains(version), "{refused}");
        }
    }

    /// Wherever a row knows something, a server that says otherwise is refused.
    #[test]
    fn a_server_that_contradicts_the_table_is_refused() {
        let all = [OLDEST, MIDDLE, FLAGS, NEWEST, Probes { log_line_set_flag: false, ..NEWEST }];
        for known in KNOWN {
            for probes in all {
                let refused = layout(&known.first.to_string(), probes).err().map(|no| no.reason);
                let wrong_log = known.log_message.is_some_and(|slot| slot != probes.log_message());
                let wrong_protocol = known
                    .validate_version
                    .is_some_and(|there| there != probes.are_versions_clone_compatible);
                let expected = match (wrong_log, wrong_protocol) {
                    (true, _) => Some(Reason::Contradiction("log_builtins")),
                    (false, true) => Some(Reason::Contradiction("clone_protocol")),
                    (false, false) => None,
                };
                assert_eq!(refused, expected, "{} with {probes:?}", known.first);
            }
        }
    }

    #[test]
    fn where_the_table_is_silent_the_probes_decide() {
        assert_eq!(layout("8.4.20", MIDDLE).expect("8.4.20").log_message, 27);
        assert_eq!(layout("8.4.20", FLAGS).expect("8.4.20").log_message, 28);
        assert_eq!(layout("8.0.24", OLDEST).expect("8.0.24").log_message, 26);
        assert_eq!(layout("8.0.24", MIDDLE).expect("8.0.24").log_message, 27);
    }

    #[test]
    fn rows_are_in_order_and_do_not_overlap() {
        for pair in KNOWN.windows(2) {
            let [earlier, later] = pair else { unreachable!("windows of two") };
            assert!(earlier.first <= earlier.last);
            assert!(earlier.last < later.first);
        }
    }
}
