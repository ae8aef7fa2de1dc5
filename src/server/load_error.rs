// SPDX-License-Identifier: GPL-2.0-only

//! Why the plugin refuses to load.

use std::ffi::CStr;
use std::fmt;

use super::releases::Unsupported;

/// The reason; its text is one line for the error log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadError {
    /// The library was opened by something other than mysqld's plugin loader.
    NotLoadedByServer,
    /// mysqld does not export a function or variable that the plugin calls.
    MissingSymbol(&'static CStr),
    /// mysqld's text for its own version is not a version.
    UnreadableVersion(String),
    /// See [`Unsupported`].
    Unsupported(Unsupported),
    /// The registry does not have a service.
    MissingService(&'static CStr),
    /// A service has no function in a slot where this version should have one.
    EmptySlot { service: &'static CStr, slot: usize },
    /// What a service has in a slot is not a function of mysqld.
    ForeignSlot { service: &'static CStr, slot: usize },
    /// InnoDB is not open: the plugin was loaded early.
    NoInnodb,
    /// No eight consecutive words of InnoDB's handlerton are InnoDB's eight clone functions.
    NoCloneInterface,
    /// mysqld did not make a clone handle; the number is what it returned.
    CloneHandle(i32),
    /// performance_schema did not take the tables; the number is what it returned.
    PfsTables(i32),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NotLoadedByServer => {
                f.write_str("the library was not loaded by mysqld's plugin loader")
            }
            LoadError::MissingSymbol(name) => {
                write!(f, "this mysqld does not export {}", name.to_string_lossy())
            }
            LoadError::UnreadableVersion(text) => write!(f, "'{text}' is not a server version"),
            LoadError::Unsupported(reason) => reason.fmt(f),
            LoadError::MissingService(name) => {
                write!(f, "this mysqld has no service {}", name.to_string_lossy())
            }
            LoadError::EmptySlot { service, slot } => {
                write!(f, "slot {slot} of the service {} is empty", service.to_string_lossy())
            }
            LoadError::ForeignSlot { service, slot } => {
                let service = service.to_string_lossy();
                write!(f, "slot {slot} of the service {service} is not a function of mysqld")
            }
            LoadError::NoInnodb => f.write_str(
                "InnoDB is not open yet: load the plugin with plugin-load-add or INSTALL PLUGIN, \
                 not with early-plugin-load",
            ),
            LoadError::NoCloneInterface => {
                f.write_str("the clone interface was not found in InnoDB's handlerton")
            }
            LoadError::CloneHandle(code) => write!(f, "mysqld made no clone handle (error {code})"),
            LoadError::PfsTables(code) => {
                write!(f, "performance_schema refused the clone tables (error {code})")
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    /// Whether facts about the server help those who maintain the plugin: the server differs from
    /// what the plugin knows. Otherwise a setting of the server's user is the reason.
    pub(crate) fn is_about_server(&self) -> bool {
        match self {
            LoadError::NotLoadedByServer | LoadError::NoInnodb | LoadError::PfsTables(_) => false,
            LoadError::MissingSymbol(_)
            | LoadError::UnreadableVersion(_)
            | LoadError::Unsupported(_)
            | LoadError::MissingService(_)
            | LoadError::EmptySlot { .. }
            | LoadError::ForeignSlot { .. }
            | LoadError::NoCloneInterface
            | LoadError::CloneHandle(_) => true,
        }
    }
}

impl From<Unsupported> for LoadError {
    fn from(reason: Unsupported) -> Self {
        LoadError::Unsupported(reason)
    }
}
