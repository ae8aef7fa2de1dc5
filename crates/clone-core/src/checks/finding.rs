// SPDX-License-Identifier: GPL-2.0-only

//! The checks, and their results.

use std::borrow::Cow;

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The donor's plugins are active here, or could be loaded.
    Plugins,
    /// The donor's collations are known here.
    Collations,
    /// Platform, page size and character sets are equal.
    Settings,
    /// The versions go together.
    Version,
    /// All connections reach one donor.
    SameDonor,
    /// A block of data fits into a packet.
    PacketLimit,
    /// The connection has TLS if the donor's data are encrypted.
    Tls,
    /// This server has a keyring if the donor's data are encrypted.
    Keyring,
    /// All rows are cloned: no table has an engine that is not.
    OtherTables,
    /// The parsers of full-text indexes are active here.
    FulltextParsers,
    /// The donor's components could be loaded here.
    Components,
    /// The libraries of the donor's loadable functions could be loaded here.
    Functions,
    /// No event of the donor starts at once.
    Events,
    /// InnoDB of this server can replace its data.
    ForceRecovery,
    /// The accounts of the donor can log in here.
    Accounts,
    /// `lower_case_table_names` is equal.
    LowerCaseTableNames,
    /// The donor's tablespaces have places here.
    TablespaceFiles,
    /// The disk has room for the clone beside the data of this server.
    DiskSpace,
    /// Somebody starts this server again after the clone.
    Supervisor,
}

impl Check {
    /// All checks, in the order in which they are made.
    pub const ALL: [Self; 19] = [
        Self::Plugins,
        Self::Collations,
        Self::Settings,
        Self::Version,
        Self::SameDonor,
        Self::PacketLimit,
        Self::Tls,
        Self::Keyring,
        Self::OtherTables,
        Self::FulltextParsers,
        Self::Components,
        Self::Functions,
        Self::Events,
        Self::ForceRecovery,
        Self::Accounts,
        Self::LowerCaseTableNames,
        Self::TablespaceFiles,
        Self::DiskSpace,
        Self::Supervisor,
    ];

    /// The name in `performance_schema.clone_checks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugins => "plugins",
            Self::Collations => "collations",
            Self::Settings => "settings",
            Self::Version => "version",
            Self::SameDonor => "same_donor",
            Self::PacketLimit => "max_allowed_packet",
            Self::Tls => "tls",
            Self::Keyring => "keyring",
            Self::OtherTables => "other_tables",
            Self::FulltextParsers => "fulltext_parsers",
            Self::Components => "components",
            Self::Functions => "functions",
            Self::Events => "events",
            Self::ForceRecovery => "innodb_force_recovery",
            Self::Accounts => "accounts",
            Self::LowerCaseTableNames => "lower_case_table_names",
            Self::TablespaceFiles => "tablespace_files",
            Self::DiskSpace => "disk_space",
            Self::Supervisor => "supervisor",
        }
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is in the way.
    Passed,
    /// The donor did not say what the check needs.
    NotChecked,
    /// The clone works, and something hurts later.
    Warning,
    /// The clone is refused.
    Refused,
}

impl Outcome {
    /// The name in `performance_schema.clone_checks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::NotChecked => "Not checked",
            Self::Warning => "Warning",
            Self::Refused => "Refused",
        }
    }
}

/// One result of a check. A check may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// What came of it.
    pub outcome: Outcome,
    /// MySQL's number of the error or the warning, or 0.
    pub number: u32,
    /// What was found.
    pub text: String,
    /// What to do.
    pub remedy: Cow<'static, str>,
}
