// SPDX-License-Identifier: GPL-2.0-only

//! What a donor tells of itself beyond the parameters of stock: facts that a recipient checks
//! before it replaces its own data.
//!
//! A fact is the result of one SQL statement. A donor of this project runs the statements itself,
//! and answers an EXIT that [asks](clone_protocol::Offer::asks) with them. A stock donor is asked
//! by SQL, as far as the clone's account may read the answer there.

/// Rows of a result; NULL is None.
pub type Rows = Vec<Vec<Option<String>>>;

/// The most entries of a fact. Each statement has this as its LIMIT.
pub const MAX_ENTRIES: usize = 50;

/// The most bytes of an entry's text that are kept.
pub(crate) const MAX_TEXT: usize = 256;

/// A fact: what is asked. Each statement gives rows of a text and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `lower_case_table_names`.
    LowerCaseTableNames,
    /// `server_uuid`.
    ServerUuid,
    /// `innodb_redo_log_encrypt`, 0 or 1.
    RedoEncryption,
    /// `innodb_undo_log_encrypt`, 0 or 1.
    UndoEncryption,
    /// The encrypted tablespaces; the number is that of all.
    EncryptedTablespaces,
    /// Authentication plugins of accounts that are not locked, each with its number of accounts.
    AccountPlugins,
    /// Tables of engines that keep rows on the disk and are not cloned.
    OtherTables,
    /// Tables with full-text indexes.
    FulltextTables,
    /// Components that the server loads at its start, as URNs.
    Components,
    /// Libraries of loadable functions.
    FunctionLibraries,
    /// Events that are enabled.
    Events,
    /// The number is the size of all tablespaces in bytes.
    Size,
    /// Directories of tablespaces outside of the data directory, without undo tablespaces, each
    /// with the number of its files.
    OutsideDirectories,
    /// File names that several undo tablespaces have, each with the number of these tablespaces.
    UndoFileNames,
}

/// Schemas of MySQL itself.
macro_rules! of_users {
    ($schema:literal) => {
        concat!($schema, " NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') ")
    };
}

impl Question {
    /// All questions. A donor answers with at most one packet for each.
    pub const ALL: [Self; 14] = [
        Self::LowerCaseTableNames,
        Self::ServerUuid,
        Self::RedoEncryption,
        Self::UndoEncryption,
        Self::EncryptedTablespaces,
        Self::AccountPlugins,
        Self::OtherTables,
        Self::FulltextTables,
        Self::Components,
        Self::FunctionLibraries,
        Self::Events,
        Self::Size,
        Self::OutsideDirectories,
        Self::UndoFileNames,
    ];

    /// The name of the CONFIG_V3 with the answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::LowerCaseTableNames => "mysql_clone_lower_case_table_names",
            Self::ServerUuid => "mysql_clone_server_uuid",
            Self::RedoEncryption => "mysql_clone_redo_encryption",
            Self::UndoEncryption => "mysql_clone_undo_encryption",
            Self::EncryptedTablespaces => "mysql_clone_encrypted_tablespaces",
            Self::AccountPlugins => "mysql_clone_account_plugins",
            Self::OtherTables => "mysql_clone_other_tables",
            Self::FulltextTables => "mysql_clone_fulltext_tables",
            Self::Components => "mysql_clone_components",
            Self::FunctionLibraries => "mysql_clone_function_libraries",
            Self::Events => "mysql_clone_events",
            Self::Size => "mysql_clone_size",
            Self::OutsideDirectories => "mysql_clone_outside_directories",
            Self::UndoFileNames => "mysql_clone_undo_file_names",
        }
    }

    /// The statement that a donor, or an account at a donor, runs.
    pub fn statement(self) -> &'static str {
        match self {
            Self::LowerCaseTableNames => "SELECT @@GLOBAL.lower_case_table_names, 1",
            Self::ServerUuid => "SELECT @@GLOBAL.server_uuid, 1",
            Self::RedoEncryption => "SELECT 'redo log', @@GLOBAL.innodb_redo_log_encrypt",
            Self::UndoEncryption => "SELECT 'undo log', @@GLOBAL.innodb_undo_log_encrypt",
            Self::EncryptedTablespaces => {
                "SELECT NAME, COUNT(*) OVER () FROM information_schema.INNODB_TABLESPACES \
                 WHERE ENCRYPTION = 'Y' ORDER BY 1 LIMIT 50"
            }
            Self::AccountPlugins => {
                "SELECT plugin, COUNT(*) FROM mysql.user WHERE account_locked = 'N' \
                 GROUP BY plugin ORDER BY 1 LIMIT 50"
            }
            Self::OtherTables => concat!(
                "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME), COUNT(*) OVER () \
                 FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND ",
                of_users!("TABLE_SCHEMA"),
                "AND ENGINE IN ('MyISAM', 'CSV', 'ARCHIVE', 'TokuDB') ORDER BY 1 LIMIT 50"
            ),
            Self::FulltextTables => concat!(
                "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME), COUNT(*) OVER () \
                 FROM information_schema.STATISTICS WHERE INDEX_TYPE = 'FULLTEXT' AND ",
                of_users!("TABLE_SCHEMA"),
                "GROUP BY TABLE_SCHEMA, TABLE_NAME ORDER BY 1 LIMIT 50"
            ),
            Self::Components => {
                "SELECT component_urn, COUNT(*) OVER () FROM mysql.component ORDER BY 1 LIMIT 50"
            }
            Self::FunctionLibraries => {
                "SELECT dl, COUNT(*) OVER () FROM mysql.func GROUP BY dl ORDER BY 1 LIMIT 50"
            }
            Self::Events => {
                "SELECT CONCAT(EVENT_SCHEMA, '.', EVENT_NAME), COUNT(*) OVER () \
                 FROM information_schema.EVENTS WHERE STATUS = 'ENABLED' ORDER BY 1 LIMIT 50"
            }
            Self::Size => {
                "SELECT 'bytes', CAST(SUM(ALLOCATED_SIZE) AS UNSIGNED) \
                 FROM information_schema.INNODB_TABLESPACES"
            }
            Self::OutsideDirectories => {
                "SELECT LEFT(FILE_NAME, CHAR_LENGTH(FILE_NAME) \
                 - CHAR_LENGTH(SUBSTRING_INDEX(FILE_NAME, '/', -1))), COUNT(*) \
                 FROM information_schema.FILES \
                 WHERE ENGINE = 'InnoDB' AND FILE_NAME LIKE '%.ibd' \
                 AND (FILE_NAME LIKE '/%' OR FILE_NAME LIKE '../%') \
                 GROUP BY 1 ORDER BY 1 LIMIT 50"
            }
            Self::UndoFileNames => {
                "SELECT SUBSTRING_INDEX(FILE_NAME, '/', -1), COUNT(*) \
                 FROM information_schema.FILES WHERE ENGINE = 'InnoDB' \
                 AND FILE_NAME NOT LIKE '%.ibd' AND FILE_TYPE = 'UNDO LOG' \
                 GROUP BY 1 HAVING COUNT(*) > 1 ORDER BY 1 LIMIT 50"
            }
        }
    }

    /// The global privilege without which the statement shows only a part, and no error.
    pub(crate) fn privilege(self) -> Option<&'static str> {
        match self {
            Self::OtherTables | Self::FulltextTables => Some("SELECT"),
            Self::Events => Some("EVENT"),
            _ => None,
        }
    }
}

/// The global privileges that the account has by itself, and not by a role.
pub(crate) const PRIVILEGES: &str = "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES \
     WHERE GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";

/// Ends a statement after 5 seconds: with very many tables some facts take long, and the clone does
/// not wait for them.
pub const LIMIT_TIME: &str = "SET SESSION max_execution_time = 5000";

/// An entry of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A name or a value.
    pub text: String,
    /// How many there are: of this, or of all.
    pub number: u64,
}

/// What one donor has told of itself. A question that it did not answer is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    answers: Vec<(Question, Vec<Entry>)>,
    is_asked: bool,
    has_tls: Option<bool>,
}

impl Facts {
    /// No answers yet, of a donor that is asked over a connection with or without TLS.
    pub(crate) fn asked(has_tls: Option<bool>) -> Self {
        Self { answers: Vec::new(), is_asked: true, has_tls }
    }

    /// Whether the donor was asked.
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Whether the connections of the clone have TLS. None if that is not known.
    pub fn has_tls(&self) -> Option<bool> {
        self.has_tls
    }

    /// Keeps the rows of a question's statement. Rows of another form are passed over.
    pub fn note(&mut self, question: Question, rows: Rows) {
        let entries = rows.into_iter().filter_map(|row| match <[_; 2]>::try_from(row) {
            Ok([Some(text), Some(number)]) => {
                Some(Entry { text: clean(&text), number: number.parse().ok()? })
            }
            _ => None,
        });
        self.put(question, entries.take(MAX_ENTRIES).collect());
    }

    /// The answers as names and values of CONFIG_V3: lines of a number, a blank and a text.
    pub(crate) fn encode(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.answers.iter().map(|(question, entries)| {
            let lines = entries.iter().map(|entry| format!("{} {}", entry.number, entry.text));
            (question.name(), lines.collect::<Vec<_>>().join("\n"))
        })
    }

    /// Takes one CONFIG_V3. Returns false if it is no answer to a question that is known here.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> bool {
        let mut all = Question::ALL.into_iter();
        let Some(question) = all.find(|question| question.name() == name) else { return false };
        let entries = value.lines().filter_map(|line| {
            let (number, text) = line.split_once(' ')?;
            Some(Entry { text: clean(text), number: number.parse().ok()? })
        });
        self.put(question, entries.take(MAX_ENTRIES).collect());
        true
    }

    fn put(&mut self, question: Question, entries: Vec<Entry>) {
        self.answers.retain(|(other, _)| *other != question);
        self.answers.push((question, entries));
    }

    /// The answer to `question`; None if there is none.
    pub fn get(&self, question: Question) -> Option<&[Entry]> {
        let mut all = self.answers.iter();
        all.find(|(other, _)| *other == question).map(|(_, entries)| entries.as_slice())
    }

    /// The text of an answer with one entry.
    pub fn text(&self, question: Question) -> Option<&str> {
        self.get(question)?.first().map(|entry| entry.text.as_str())
    }

    /// How many things an answer counts. Each entry has the number of all.
    pub(crate) fn count(&self, question: Question) -> Option<u64> {
        self.get(question).map(|entries| entries.first().map_or(0, |entry| entry.number))
    }

    /// The number of all things, and the names of the first ones: `7 (a, b, c, ...)`.
    pub(crate) fn examples(&self, question: Question) -> String {
        let entries = self.get(question).unwrap_or_default();
        let texts: Vec<_> = entries.iter().map(|entry| entry.text.as_str()).collect();
        format!("{} ({})", self.count(question).unwrap_or(0), first_names(&texts))
    }
}

/// The first names of a list, with dots if there are more.
pub(crate) fn first_names(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let dots = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{}{dots}", names[..names.len().min(SHOWN)].join(", "))
}

/// A text from a peer, for messages: one line, and not longer than [`MAX_TEXT`] bytes.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for letter in text.chars() {
        if clean.len() + letter.len_utf8() > MAX_TEXT {
            break;
        }
        clean.push(if letter.is_control() { '?' } else { letter });
    }
    clean
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(entries: &[(&str, &str)]) -> Rows {
        let row =
            |(text, number): &(&str, &str)| vec![Some((*text).into()), Some((*number).into())];
        entries.iter().map(row).collect()
    }

    #[test]
    fn answers_cross_the_network() {
        let mut facts = Facts::default();
        facts.note(Question::Events, rows(&[("a.x", "4"), ("a.y\nz", "4"), ("b.x", "no")]));
        facts.note(Question::Components, Vec::new());
        let mut read = Facts::default();
        for (name, value) in facts.encode() {
            assert!(read.take(name, &value), "{name}");
        }
        assert_eq!(read, facts);
        assert_eq!(read.examples(Question::Events), "4 (a.x, a.y?z)");
        assert_eq!(read.count(Question::Components), Some(0));
        assert_eq!(read.count(Question::Size), None);
        assert!(!read.take("lower_case_table_names", "1 1"));
    }

    #[test]
    fn a_hostile_answer_is_bounded() {
        let mut facts = Facts::default();
        let value = format!("1 {}\n", "é".repeat(1000)).repeat(1000);
        assert!(facts.take(Question::Events.name(), &value));
        let entries = facts.get(Question::Events).unwrap();
        assert_eq!(entries.len(), MAX_ENTRIES);
        assert!(entries.iter().all(|entry| entry.text.len() <= MAX_TEXT));
    }

    #[test]
    fn each_statement_has_a_limit() {
        for question in Question::ALL {
            let statement = question.statement();
            let is_one_row = statement.contains("@@GLOBAL.") || statement.contains("SUM(");
            assert!(is_one_row || statement.ends_with("ORDER BY 1 LIMIT 50"), "{statement}");
            let unique = Question::ALL.iter().filter(|other| other.name() == question.name());
            assert_eq!(unique.count(), 1, "{question:?}");
        }
    }

    proptest! {
        #[test]
        fn takes_anything(value: String) {
            let mut facts = Facts::default();
            for question in Question::ALL {
                prop_assert!(facts.take(question.name(), &value));
                let _ = facts.examples(question);
            }
        }
    }
}
