// SPDX-License-Identifier: GPL-2.0-only

//! The donor's plugins that a recipient may lack.

/// Plugins that cannot be excluded, as in Percona's plugin: the server needs them for the donor's
/// data.
const NEEDED: [&str; 7] = [
    "binlog",
    "daemon_keyring_proxy_plugin",
    "innodb",
    "keyring_file",
    "keyring_vault",
    "memory",
    "performance_schema",
];

/// The value of `clone_exclude_plugins_list`: `name,name,...`. Upper and lower case are the same,
/// blanks around a name do not count, and a name may be empty. The variable is Percona's.
///
/// NULL, the variable's default, is the empty text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExcludedPlugins<'a>(&'a str);

impl<'a> ExcludedPlugins<'a> {
    /// Reads the variable's value.
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// Whether the recipient may lack the donor's plugin `name`. A needed plugin is never excluded:
    /// mysqld does not check a value from the command line or from an option file.
    pub fn contains(&self, name: &str) -> bool {
        !is_needed(name) && self.names().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The names in the list that cannot be excluded.
    pub fn needed(&self) -> Vec<&'a str> {
        self.names().filter(|name| is_needed(name)).collect()
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.0.split(',').map(str::trim).filter(|name| !name.is_empty())
    }
}

fn is_needed(name: &str) -> bool {
    NEEDED.iter().any(|needed| needed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_blanks() {
        let list = ExcludedPlugins::new(" audit_log ,Validate_Password,,x");
        for (name, is_excluded) in [
            ("audit_log", true),
            ("AUDIT_LOG", true),
            ("validate_password", true),
            ("x", true),
            ("audit", false),
            ("audit_log2", false),
            ("", false),
        ] {
            assert_eq!(list.contains(name), is_excluded, "{name}");
        }
        for empty in ["", " ", ",", " , "] {
            assert!(!ExcludedPlugins::new(empty).contains(""), "{empty:?}");
            assert!(!ExcludedPlugins::new(empty).contains("x"), "{empty:?}");
        }
    }

    #[test]
    fn needed_plugins_are_not_excluded() {
        let list = ExcludedPlugins::new("InnoDB,x, keyring_file,mysqlx");
        assert_eq!(list.needed(), ["InnoDB", "keyring_file"]);
        assert!(!list.contains("InnoDB") && !list.contains("innodb"));
        assert!(!list.contains("keyring_file"));
        assert!(list.contains("x") && list.contains("mysqlx"));
        assert!(ExcludedPlugins::new("x,mysqlx").needed().is_empty());
    }
}
