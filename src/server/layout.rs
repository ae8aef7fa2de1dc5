// SPDX-License-Identifier: GPL-2.0-only

//! What differs between versions of mysqld: one table, and the probes that it is checked against.
//!
//! A service table says nothing of its own form, and calling a wrong slot is undefined behaviour. But the methods whose
//! arrival moved slots are thin covers over exported C++ functions that arrived with them, so whether mysqld exports such
//! a function tells which form the table has. The probes decide; [`KNOWN`] holds what was read in the sources (or the
//! published source documentation) of releases, and a server that contradicts it is refused rather than guessed at.

use std::ffi::CStr;
use std::fmt;

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
    /// Where `clone_interface` is expected in a handlerton, where that was measured. The place that is used is found by
    /// [`super::handlerton::find_clone_interface`].
    pub(crate) clone_interface: Option<usize>,
    /// `MYSQL_VERSION_MATURITY` of the server's build, which no variable tells: what a donor of 9.7 says of itself.
    pub(crate) maturity: &'static str,
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
        })
    }
}

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
    /// With its four arguments came the slot `mysql_clone_validate_version`; the mangled name tells how many they are.
    pub(crate) are_versions_clone_compatible: bool,
}

impl Probes {
    const LOG_LINE_GET_OUTPUT_BUFFER: &CStr = c"_Z26log_line_get_output_bufferP9_log_line";
    const LOG_LINE_SET_FLAG: &CStr = c"_Z17log_line_set_flagP9_log_linemm";
    const ARE_VERSIONS_CLONE_COMPATIBLE: &CStr =
        c"_Z29are_versions_clone_compatibleRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEES6_bb";

    /// Asks `exports` for each of the functions.
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

/// Sources: headers of 8.0.21 (a fork), 8.0.27 (Percona), 8.0.40, 8.1.0 and 8.4.3 (forks), 9.7.4; member lists at
/// dev.mysql.com/doc/dev/mysql-server for 8.0.37 to 8.0.45, 8.3.0, 8.4.1 to 8.4.10, 9.0.1, 9.1.0, 9.3.0 and 9.7.0.
#[rustfmt::skip]
const KNOWN: &[Known] = &[
    // The first release with CLONE. Between headers that were read, only the probes know.
    known((8, 0, 17), (8, 0, 20), None, Some(false), false, None),
    known((8, 0, 21), (8, 0, 21), Some(26), Some(false), false, Some(0x230)),
    known((8, 0, 22), (8, 0, 26), None, Some(false), false, None),
    known((8, 0, 27), (8, 0, 27), Some(27), Some(false), true, Some(0x230)),
    known((8, 0, 28), (8, 0, 39), Some(27), Some(false), true, None),
    known((8, 0, 40), (8, 0, 40), Some(27), Some(false), true, Some(0x260)),
    known((8, 0, 41), (8, 0, ANY), None, Some(false), true, None),
    known((8, 1, 0), (8, 3, ANY), Some(27), Some(false), true, Some(0x260)),
    // 8.4.9 has log_line_set_flag, 8.4.7 does not.
    known((8, 4, 0), (8, 4, 7), Some(27), Some(false), true, Some(0x268)),
    known((8, 4, 8), (8, 4, ANY), None, None, true, Some(0x268)),
    known((9, 0, 0), (9, 0, ANY), Some(27), Some(false), true, None),
    known((9, 1, 0), (9, 6, ANY), Some(28), Some(false), true, None),
    known((9, 7, 0), (9, 7, ANY), Some(28), Some(true), true, Some(0x278)),
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
            Reason::Contradiction(service) => {
                write!(f, ": its service {service} has an unexpected form")
            }
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

    #[test]
    fn measured_releases() {
        for (version, probes, log_message, connect, send_error, clone_interface) in [
            ("8.0.21", OLDEST, 26, 6, 14, Some(0x230)),
            ("8.0.27-18", MIDDLE, 27, 6, 14, Some(0x230)),
            ("8.0.40", MIDDLE, 27, 6, 14, Some(0x260)),
            ("8.1.0", MIDDLE, 27, 6, 14, Some(0x260)),
            ("8.4.3", MIDDLE, 27, 6, 14, Some(0x268)),
            ("8.4.10", FLAGS, 28, 6, 14, Some(0x268)),
            ("9.0.1", MIDDLE, 27, 6, 14, None),
            ("9.3.0", FLAGS, 28, 6, 14, None),
            ("9.7.4-2", NEWEST, 28, 7, 15, Some(0x278)),
        ] {
            let layout = layout(version, probes).expect(version);
            assert_eq!(layout.log_message, log_message, "{version}");
            assert_eq!(layout.clone_protocol.connect, connect, "{version}");
            assert_eq!(layout.clone_protocol.send_error, send_error, "{version}");
            assert_eq!(layout.clone_protocol.validate_version.is_some(), connect == 7, "{version}");
            assert_eq!(layout.clone_interface, clone_interface, "{version}");
        }
        assert_eq!(layout("9.7.4-2", NEWEST).expect("9.7.4").maturity, "LTS");
        assert_eq!(layout("9.3.0", FLAGS).expect("9.3.0").maturity, "INNOVATION");
    }

    #[test]
    fn unknown_releases_are_refused() {
        for version in ["5.7.44", "8.0.16", "8.5.0", "9.8.0", "10.11.6-MariaDB", "26.7.0"] {
            let refused = layout(version, NEWEST).expect_err(version);
            assert_eq!(refused.reason, Reason::UnknownVersion, "{version}");
            assert!(refused.to_string().contains(version), "{refused}");
        }
    }

    #[test]
    fn a_server_that_contradicts_the_table_is_refused() {
        let log =
            layout("9.7.0", Probes { log_line_set_flag: false, ..NEWEST }).expect_err("moved slot");
        assert_eq!(log.reason, Reason::Contradiction("log_builtins"));
        let protocol = layout("9.7.0", FLAGS).expect_err("missing slot");
        assert_eq!(protocol.reason, Reason::Contradiction("clone_protocol"));
    }

    #[test]
    fn where_the_table_is_silent_the_probes_decide() {
        assert_eq!(layout("8.4.8", MIDDLE).expect("8.4.8").log_message, 27);
        assert_eq!(layout("8.4.8", FLAGS).expect("8.4.8").log_message, 28);
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
