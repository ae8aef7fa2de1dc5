// SPDX-License-Identifier: GPL-2.0-only

//! Which server a data directory is of.

use std::path::Path;

use super::files::read_text;

/// What a server writes at its start since 8.3: a JSON object, and in it each version that the
/// directory had, the newest last.
const HISTORY: &str = "mysql_upgrade_history";

/// The longest history, in bytes. An entry has some hundred.
const MAX_HISTORY: u64 = 1 << 20;

/// The server that had the directory last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// The variable `version`, as far as the directory says it: `9.7.4-2`. Before 8.3 without what
    /// follows the number.
    pub text: String,
    /// "LTS" or "INNOVATION", since 8.3.
    pub maturity: Option<String>,
    /// Whether the directory says the whole text. Otherwise it says the number only.
    pub is_complete: bool,
}

impl ServerVersion {
    /// Of a directory whose dictionary was written by the server `number` (90704 for 9.7.4).
    pub(super) fn of(directory: &Path, number: u32) -> Self {
        let plain = format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100);
        let history = read_text(&directory.join(HISTORY), MAX_HISTORY);
        let newest = history.as_deref().and_then(newest);
        // The history is of older servers if one that does not write it came later.
        let fits = |text: &str| {
            text.strip_prefix(&plain).is_some_and(|rest| !rest.starts_with(|c: char| c.is_numeric()))
        };
        match newest {
            Some((text, maturity)) if fits(&text) => {
                Self { text, maturity: Some(maturity), is_complete: true }
            }
            _ => Self { text: plain, maturity: None, is_complete: false },
        }
    }
}

/// The last version and maturity of a history. The file is of the server's own making, so that its
/// members are looked for by name.
fn newest(history: &str) -> Option<(String, String)> {
    let member = |name: &str| {
        let (_, rest) = history.rsplit_once(&format!("\"{name}\":"))?;
        let (_, rest) = rest.split_once('"')?;
        let (value, _) = rest.split_once('"')?;
        let is_plain = value.len() <= 64
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+_~".contains(&byte));
        is_plain.then(|| value.to_owned())
    };
    Some((member("version")?, member("maturity")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const OLD: &str = r#"{"date":"d","version":"8.4.4-0ubuntu2","maturity":"LTS"}"#;
    const NEW: &str = r#"{"date": "d", "version": "9.7.4-2", "maturity": "LTS", "initialize":true,
        "update_history":[{"date":"d","version_with_update":"9.7.4.0-2"}]}"#;

    fn of(history: &str, number: u32) -> (String, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(HISTORY), history).unwrap();
        let version = ServerVersion::of(directory.path(), number);
        assert_eq!(version.is_complete, version.maturity.is_some());
        (version.text, version.maturity)
    }

    #[test]
    fn the_newest_version_of_the_history() {
        let lts = Some("LTS".to_owned());
        assert_eq!(of(&format!("[{OLD},{NEW}]"), 90_704), ("9.7.4-2".to_owned(), lts.clone()));
        assert_eq!(of(&format!("[{OLD}]"), 80_404), ("8.4.4-0ubuntu2".to_owned(), lts));
    }

    #[test]
    fn a_history_of_another_server_says_nothing() {
        assert_eq!(of(&format!("[{OLD}]"), 80_040), ("8.0.40".to_owned(), None));
        assert_eq!(of("", 80_019), ("8.0.19".to_owned(), None));
        assert_eq!(of(&NEW.replace("9.7.4-2", "9.7.4\\n"), 90_704), ("9.7.4".to_owned(), None));
    }

    proptest! {
        #[test]
        fn any_history_is_read(text in ".{0,300}") {
            let _ = newest(&text);
        }
    }
}
