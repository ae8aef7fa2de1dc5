// SPDX-License-Identifier: GPL-2.0-only

//! What a server holds, in a form that two servers can be compared by.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::mysqld::Mysqld;
use crate::sql::{Session, identifier, literal};
use crate::wait::go_on;

/// Schemas that each server has for itself.
const OWN_SCHEMAS: &str = "('mysql', 'sys', 'performance_schema', 'information_schema')";

/// Tables of the schema `mysql` that make up accounts.
const GRANT_TABLES: [&str; 11] = [
    "user",
    "db",
    "tables_priv",
    "columns_priv",
    "procs_priv",
    "proxies_priv",
    "global_grants",
    "role_edges",
    "default_roles",
    "password_history",
    "func",
];

/// Kinds of objects besides tables: what to call them, and a query for (name, content).
const OBJECTS: [(&str, &str); 8] = [
    (
        "schema",
        "SELECT SCHEMA_NAME, CONCAT_WS('|', DEFAULT_COLLATION_NAME, DEFAULT_ENCRYPTION) \
         FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ",
    ),
    (
        "view",
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME), \
         CONCAT_WS('|', VIEW_DEFINITION, CHECK_OPTION, DEFINER, SECURITY_TYPE) \
         FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN ",
    ),
    (
        "routine",
        "SELECT CONCAT(ROUTINE_TYPE, ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME), \
         CONCAT_WS('|', DTD_IDENTIFIER, ROUTINE_DEFINITION, SQL_MODE, ROUTINE_COMMENT, DEFINER) \
         FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN ",
    ),
    (
        "trigger",
        "SELECT CONCAT(TRIGGER_SCHEMA, '.', TRIGGER_NAME), CONCAT_WS('|', EVENT_OBJECT_TABLE, \
         EVENT_MANIPULATION, ACTION_TIMING, ACTION_STATEMENT, SQL_MODE, DEFINER) \
         FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN ",
    ),
    (
        // Not the status: on a replica, events are disabled.
        "event",
        "SELECT CONCAT(EVENT_SCHEMA, '.', EVENT_NAME), CONCAT_WS('|', EVENT_DEFINITION, \
         INTERVAL_VALUE, INTERVAL_FIELD, STARTS, ENDS, ON_COMPLETION, DEFINER) \
         FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN ",
    ),
    (
        "foreign key",
        "SELECT CONCAT(CONSTRAINT_SCHEMA, '.', CONSTRAINT_NAME), CONCAT_WS('|', TABLE_NAME, \
         REFERENCED_TABLE_NAME, UPDATE_RULE, DELETE_RULE) \
         FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA NOT IN ",
    ),
    (
        "histogram",
        "SELECT CONCAT(SCHEMA_NAME, '.', TABLE_NAME, '.', COLUMN_NAME), HISTOGRAM \
         FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME NOT IN ",
    ),
    (
        "tablespace",
        "SELECT NAME, CONCAT_WS('|', SPACE_TYPE, ROW_FORMAT, PAGE_SIZE, ZIP_PAGE_SIZE, ENCRYPTION) \
         FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE <> 'System' AND NAME NOT IN ",
    ),
];

/// What a server holds: for each thing by name, its definition or the checksum of its rows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fingerprint {
    things: BTreeMap<String, String>,
    rows: u64,
}

impl Fingerprint {
    /// Reads everything. Each table is read once in full, in one transaction.
    pub fn read(session: &mut Session) -> Result<Self> {
        let mut fingerprint = Self { things: BTreeMap::new(), rows: 0 };
        session.run("SET SESSION group_concat_max_len = 1000000, time_zone = '+00:00'")?;
        session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
        for (kind, query) in OBJECTS {
            for (name, content) in
                session.rows::<(String, String)>(format!("{query}{OWN_SCHEMAS}"))?
            {
                fingerprint.add(kind, &name, content);
            }
        }
        for (schema, table) in user_tables(session)? {
            go_on()?;
            let name = format!("{}.{}", identifier(&schema), identifier(&table));
            let (_, definition): (String, String) =
                session.one(format!("SHOW CREATE TABLE {name}"))?;
            fingerprint.add("definition of", &name, without_auto_increment(&definition));
            fingerprint.add_rows(session, &schema, &table)?;
        }
        for table in GRANT_TABLES {
            fingerprint.add_rows(session, "mysql", table)?;
        }
        session.run("COMMIT")?;
        Ok(fingerprint)
    }

    /// Rows in all tables together.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Tables and other things together.
    pub fn things(&self) -> usize {
        self.things.len()
    }

    /// What is not the same in `other`; empty when both are equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, mine) in &self.things {
            match other.things.get(name) {
                None => differences.push(format!("{name}: missing")),
                Some(theirs) if theirs != mine => {
                    differences.push(format!("{name}: {theirs} instead of {mine}"));
                }
                Some(_) => {}
            }
        }
        let extra = other.things.keys().filter(|name| !self.things.contains_key(*name));
        differences.extend(extra.map(|name| format!("{name}: should not be there")));
        differences
    }

    fn add(&mut self, kind: &str, name: &str, content: String) {
        self.things.insert(format!("{kind} {name}"), content);
    }

    /// Adds the number of rows and two sums over the rows' CRCs, which do not depend on their
    /// order.
    fn add_rows(&mut self, session: &mut Session, schema: &str, table: &str) -> Result<()> {
        let columns: Vec<String> = session.rows(format!(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} \
             AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            literal(schema),
            literal(table)
        ))?;
        // CONCAT_WS leaves out NULL, so tell separately which columns are NULL.
        let columns: Vec<_> = columns.iter().map(|column| identifier(column)).collect();
        let nulls: Vec<_> = columns.iter().map(|column| format!("ISNULL({column})")).collect();
        let name = format!("{}.{}", identifier(schema), identifier(table));
        let (count, sum, xor): (u64, String, u64) = session.one(format!(
            "SELECT COUNT(*), CAST(IFNULL(SUM(crc), 0) AS CHAR), BIT_XOR(crc * (crc DIV 7 + 1)) \
             FROM (SELECT CRC32(CONCAT_WS('#', {}, {})) AS crc FROM {name}) AS row_",
            nulls.join(", "),
            columns.join(", ")
        ))?;
        self.rows += count;
        self.add("rows of", &name, format!("{count} rows, checksums {sum} and {xor}"));
        Ok(())
    }
}

/// The names of all InnoDB tables of users: schema and table.
pub fn user_tables(session: &mut Session) -> Result<Vec<(String, String)>> {
    session.rows(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE = 'InnoDB' AND TABLE_SCHEMA NOT IN {OWN_SCHEMAS} \
         ORDER BY 1, 2"
    ))
}

/// Runs `CHECK TABLE ... EXTENDED` on all tables of users and on those of accounts. Returns how
/// many were checked and what was found.
pub fn check_tables(session: &mut Session) -> Result<(usize, Vec<String>)> {
    let mut tables = user_tables(session)?;
    tables.extend(GRANT_TABLES.map(|table| ("mysql".into(), table.into())));
    let mut found = Vec::new();
    for (schema, table) in &tables {
        go_on()?;
        let name = format!("{}.{}", identifier(schema), identifier(table));
        let messages: Vec<(String, String, String, String)> =
            session.rows(format!("CHECK TABLE {name} EXTENDED"))?;
        let bad = messages.into_iter().filter(|(.., kind, text)| kind != "status" || text != "OK");
        found.extend(bad.map(|(.., kind, text)| format!("{name}: {kind}: {text}")));
    }
    Ok((tables.len(), found))
}

/// Fails unless all tables of a server are sound.
pub fn assert_sound(server: &Mysqld) -> Result<()> {
    let (_, found) = check_tables(&mut server.session()?)?;
    ensure!(found.is_empty(), "tables of {} are damaged:\n{}", server.name(), found.join("\n"));
    Ok(())
}

/// Fails unless both servers hold the same.
pub fn assert_equal(donor: &Mysqld, clone: &Mysqld) -> Result<()> {
    let expected = Fingerprint::read(&mut donor.session()?)?;
    let differences = expected.differences(&Fingerprint::read(&mut clone.session()?)?);
    ensure!(
        differences.is_empty(),
        "{} differs from {}:\n{}",
        clone.name(),
        donor.name(),
        differences.join("\n")
    );
    Ok(())
}

/// A rolled back insert moves the counter on the donor, not on a replica.
fn without_auto_increment(definition: &str) -> String {
    match definition.split_once(" AUTO_INCREMENT=") {
        Some((head, tail)) => {
            format!("{head}{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => definition.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(things: &[(&str, &str)]) -> Fingerprint {
        let things = things.iter().map(|&(name, content)| (name.into(), content.into())).collect();
        Fingerprint { things, rows: 0 }
    }

    #[test]
    fn every_difference_is_named() {
        let donor = fingerprint(&[("view a", "1"), ("view b", "2"), ("view c", "3")]);
        let clone = fingerprint(&[("view a", "1"), ("view b", "9"), ("view d", "4")]);
        assert_eq!(
            donor.differences(&clone),
            ["view b: 9 instead of 2", "view c: missing", "view d: should not be there"]
        );
        assert!(donor.differences(&donor.clone()).is_empty());
    }

    #[test]
    fn counter_is_left_out_of_definitions() {
        let definition = ") ENGINE=InnoDB AUTO_INCREMENT=42 DEFAULT CHARSET=latin1";
        assert_eq!(without_auto_increment(definition), ") ENGINE=InnoDB DEFAULT CHARSET=latin1");
        assert_eq!(without_auto_increment("x"), "x");
    }
}
