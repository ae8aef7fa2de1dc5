// SPDX-License-Identifier: GPL-2.0-only

//! Servers whose InnoDB changes nothing. They neither give nor take a clone. As a donor with
//! `innodb_force_recovery=6`, InnoDB aborts its server.

use std::fmt;

use crate::error::{Error, Result};
use crate::session::Variables;

/// The variables that decide, in the order that [`ReadOnly::of`] wants their values.
pub const VARIABLES: [&str; 2] = ["innodb_force_recovery", "innodb_read_only"];

/// InnoDB is read-only from this value of `innodb_force_recovery` on
/// (`SRV_FORCE_NO_IBUF_MERGE`).
const FIRST_RECOVERY: u32 = 4;

/// The setting for which InnoDB changes nothing. Displayed, it is as in an option file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOnly {
    /// `innodb_force_recovery` has this value.
    ForceRecovery(u32),
    /// `innodb_read_only` is ON.
    Variable,
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadOnly::ForceRecovery(level) => write!(f, "innodb_force_recovery={level}"),
            ReadOnly::Variable => f.write_str("innodb_read_only=ON"),
        }
    }
}

impl ReadOnly {
    /// `values` are those of [`VARIABLES`]. None if InnoDB can change its data.
    pub fn of(values: &[String]) -> Option<Self> {
        let [recovery, read_only] = values else { return None };
        // InnoDB turns `innodb_read_only` on, too, if `innodb_force_recovery` decides.
        match recovery.parse() {
            Ok(level) if level >= FIRST_RECOVERY => Some(ReadOnly::ForceRecovery(level)),
            _ if read_only == "ON" || read_only == "1" => Some(ReadOnly::Variable),
            _ => None,
        }
    }
}

/// Refuses a clone on a server whose InnoDB changes nothing.
///
/// # Errors
/// 3869 with the setting; a variable could not be read.
pub fn check(server: &impl Variables) -> Result<()> {
    match ReadOnly::of(&server.variables(&VARIABLES)?) {
        None => Ok(()),
        Some(setting) => Err(Error::SystemConfig(format!(
            "with {setting} InnoDB changes nothing. Restart this server without this setting to \
             clone"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server([&'static str; 2]);

    impl Variables for Server {
        fn variables(&self, names: &[&str]) -> Result<Vec<String>> {
            assert_eq!(names, ["innodb_force_recovery", "innodb_read_only"]);
            Ok(self.0.map(str::to_owned).to_vec())
        }
    }

    #[test]
    fn only_servers_whose_innodb_changes_nothing_are_refused() {
        for (values, setting) in [
            (["0", "OFF"], None),
            (["3", "OFF"], None),
            (["4", "ON"], Some("innodb_force_recovery=4")),
            (["6", "OFF"], Some("innodb_force_recovery=6")),
            (["0", "ON"], Some("innodb_read_only=ON")),
            (["1", "1"], Some("innodb_read_only=ON")),
            (["", ""], None),
        ] {
            let outcome = check(&Server(values));
            assert_eq!(outcome.is_err(), setting.is_some(), "{values:?}");
            if let (Err(error), Some(setting)) = (outcome, setting) {
                assert_eq!(error.number(), 3869);
                assert!(error.to_string().contains(setting), "{error}");
            }
        }
    }
}
