// SPDX-License-Identifier: GPL-2.0-only

//! What a donor says about its version, and which versions can be cloned into which.

use std::fmt;

use serde_json::Value;

/// The most bytes of a JSON packet. A longer one is refused, because parsing takes many times its
/// size in memory.
const MAX_JSON_BYTES: usize = 1 << 20;

/// First patch of MySQL 8.0 that clones from, and to, any later patch.
const FIRST_FREE_8_0_PATCH: u64 = 37;

/// First version that takes part in clones from one LTS series to the next.
const FIRST_FREE_LTS: (u64, u64, u64) = (9, 7, 0);

/// What a donor says of itself in the JSON packet of protocol V4
/// (`clone_server.cc:Server::send_upgrade_configs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DonorFacts {
    /// The donor's variable `version`.
    pub version: String,
    /// `MYSQL_VERSION_MATURITY` of the donor: "LTS" or "INNOVATION".
    pub maturity: Option<String>,
}

/// Why a JSON packet cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum FactsError {
    /// It is no JSON object, or a member has the wrong type.
    Malformed,
    /// The member `version` is missing. The stock plugin aborts the server on such a packet.
    NoVersion,
    /// It is longer than 1 MiB.
    TooLong,
}

impl fmt::Display for FactsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FactsError::Malformed => "Failed to parse JSON configuration",
            FactsError::NoVersion => "JSON configuration without version",
            FactsError::TooLong => "JSON configuration is too long",
        })
    }
}

impl std::error::Error for FactsError {}

impl DonorFacts {
    /// Reads the packet's text. Members that we do not know are ignored.
    ///
    /// # Errors
    /// The text comes from the network and may be anything.
    pub fn from_json(text: &str) -> Result<DonorFacts, FactsError> {
        if text.len() > MAX_JSON_BYTES {
            return Err(FactsError::TooLong);
        }
        let Ok(Value::Object(mut members)) = serde_json::from_str(text) else {
            return Err(FactsError::Malformed);
        };
        let mut take = |name| match members.remove(name) {
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(FactsError::Malformed),
            None => Ok(None),
        };
        let version = take("version")?.ok_or(FactsError::NoVersion)?;
        Ok(DonorFacts { version, maturity: take("maturity")? })
    }
}

/// The packet's text for a donor of this version and maturity, byte for byte as stock writes it.
pub fn to_json(version: &str, maturity: &str) -> String {
    let [version, maturity] = [version, maturity].map(|text| Value::from(text).to_string());
    format!("{{\"version\":{version},\"maturity\":{maturity}}}")
}

/// Whether a server of version `recipient` can clone from one of version `donor`
/// (`mysys/my_version.cc:are_versions_clone_compatible`).
///
/// Within a series, any patch can clone from any other; in 8.0 only from 8.0.37 on, at both sides.
/// Build suffixes do not count. From 9.7.0 on, a server of an LTS series can also clone from the
/// LTS series before its own, which it then upgrades when it starts.
pub fn versions_compatible(
    recipient: &str,
    donor: &str,
    recipient_lts: bool,
    donor_lts: bool,
) -> bool {
    if recipient == donor {
        return true;
    }
    let (Some(recipient), Some(donor)) = (Number::parse(recipient), Number::parse(donor)) else {
        return false;
    };
    if recipient.major != donor.major {
        return recipient_lts
            && donor_lts
            && donor.major.checked_add(1) == Some(recipient.major)
            && recipient.as_tuple().min(donor.as_tuple()) >= FIRST_FREE_LTS;
    }
    recipient.minor == donor.minor
        && ((recipient.major, recipient.minor) != (8, 0)
            || recipient.patch == donor.patch
            || recipient.patch.min(donor.patch) >= FIRST_FREE_8_0_PATCH)
}

/// `major.minor.patch[-build]`, without the build.
struct Number {
    major: u64,
    minor: u64,
    patch: u64,
}

impl Number {
    fn parse(text: &str) -> Option<Number> {
        let (major, rest) = text.split_once('.')?;
        let (minor, rest) = rest.split_once('.')?;
        let patch = rest.split_once('-').map_or(rest, |(patch, _)| patch);
        Some(Number {
            major: leading_number(major)?,
            minor: leading_number(minor)?,
            patch: leading_number(patch)?,
        })
    }

    fn as_tuple(&self) -> (u64, u64, u64) {
        (self.major, self.minor, self.patch)
    }
}

/// The number at the beginning, as `std::stoul` reads it. Anything may follow, as in "4rc1".
fn leading_number(text: &str) -> Option<u64> {
    let digits = text.find(|next: char| !next.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn which_versions_are_compatible() {
        // (recipient, donor, both are LTS, compatible)
        for (recipient, donor, lts, compatible) in [
            // The same text, whatever it is.
            ("9.7.4-2", "9.7.4-2", false, true),
            ("", "", false, true),
            ("what", "what", false, true),
            // No versions.
            ("", "9.7.4", false, false),
            ("9.7", "9.7.4", false, false),
            ("9.7.4", "9.7.", false, false),
            ("9.7.4", "9.x.4", false, false),
            ("9.7.4", ".7.4", false, false),
            ("9.7.4", "9.7.-4", false, false),
            ("9.7.4", "-9.7.4", false, false),
            ("9.7.4", "9.7.18446744073709551616", false, false),
            ("9.7.4", "9.7 4", false, false),
            // One series: any patch, any build, both ways.
            ("9.7.4", "9.7.0", false, true),
            ("9.7.0", "9.7.4-debug", false, true),
            ("8.4.2", "8.4.1", false, true),
            ("8.4.1-1-x", "8.4.2rc1-y", false, true),
            ("5.7.1", "5.7.44", false, true),
            // Another minor.
            ("8.4.0", "8.3.2", false, false),
            ("8.4.0", "8.3.2", true, false),
            ("9.6.0", "9.7.0", true, false),
            // 8.0 is free from patch 37 on.
            ("8.0.25", "8.0.25-debug", false, true),
            ("8.0.25", "8.0.251", false, false),
            ("8.0.34", "8.0.35", false, false),
            ("8.0.38", "8.0.35", false, false),
            ("8.0.36", "8.0.37", false, false),
            ("8.0.38", "8.0.37", false, true),
            ("8.0.37", "8.0.42", false, true),
            // From one LTS to the next, but never back, and not before 9.7.
            ("10.7.0", "9.7.0", true, true),
            ("10.7.0", "9.7.0", false, false),
            ("10.0.0", "9.8.1", true, true),
            ("9.7.0", "10.7.0", true, false),
            ("9.7.2", "8.4.0", true, false),
            ("9.6.9", "8.4.0", true, false),
            ("10.7.0", "9.6.9", true, false),
            ("11.7.0", "9.7.0", true, false),
            ("18446744073709551615.7.0", "9.7.0", true, false),
            ("9.7.0", "18446744073709551615.7.0", true, false),
        ] {
            assert_eq!(
                versions_compatible(recipient, donor, lts, lts),
                compatible,
                "{recipient} from {donor}, LTS: {lts}"
            );
        }
    }

    #[test]
    fn both_sides_of_a_change_of_series_are_lts() {
        assert!(!versions_compatible("10.7.0", "9.7.0", true, false));
        assert!(!versions_compatible("10.7.0", "9.7.0", false, true));
        assert!(versions_compatible("9.7.4", "9.7.0", true, false));
    }

    #[test]
    fn writes_the_stock_packet() {
        assert_eq!(to_json("9.7.4-2", "LTS"), r#"{"version":"9.7.4-2","maturity":"LTS"}"#);
        assert_eq!(to_json("a\"\\\n", ""), r#"{"version":"a\"\\\n","maturity":""}"#);
    }

    fn facts(version: &str, maturity: Option<&str>) -> DonorFacts {
        DonorFacts { version: version.to_owned(), maturity: maturity.map(str::to_owned) }
    }

    #[test]
    fn reads_a_packet() {
        for (text, expected) in [
            (r#"{"version":"9.7.4-2","maturity":"LTS"}"#, facts("9.7.4-2", Some("LTS"))),
            (
                r#" { "maturity" : "INNOVATION", "version" : "9.6.0" } "#,
                facts("9.6.0", Some("INNOVATION")),
            ),
            (r#"{"version":"9.7.4","prev_lts":["8.4"],"n":1e9}"#, facts("9.7.4", None)),
            (r#"{"version":""}"#, facts("", None)),
        ] {
            assert_eq!(DonorFacts::from_json(text).ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_other_packets() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "\"9.7.4\"",
            r#"{"version":9}"#,
            r#"{"version":null}"#,
            r#"{"version":"9","maturity":1}"#,
            r#"{"version":"9"} x"#,
        ] {
            let error = DonorFacts::from_json(text);
            assert!(matches!(error, Err(FactsError::Malformed)), "{text}: {error:?}");
        }
        for text in ["{}", r#"{"maturity":"LTS"}"#, r#"{"Version":"9.7.4"}"#] {
            let error = DonorFacts::from_json(text);
            assert!(matches!(error, Err(FactsError::NoVersion)), "{text}: {error:?}");
        }
        let long = format!(r#"{{"version":"{}"}}"#, "9".repeat(MAX_JSON_BYTES));
        assert!(matches!(DonorFacts::from_json(&long), Err(FactsError::TooLong)));
        let deep = "[".repeat(100_000);
        assert!(matches!(DonorFacts::from_json(&deep), Err(FactsError::Malformed)));
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(version: String, maturity: String) {
            let read = DonorFacts::from_json(&to_json(&version, &maturity)).ok();
            prop_assert_eq!(read, Some(DonorFacts { version, maturity: Some(maturity) }));
        }

        #[test]
        fn reads_anything(text: String) {
            let _ = DonorFacts::from_json(&text);
        }

        #[test]
        fn compares_anything(recipient in ".{0,20}", donor in "[0-9.+-]{0,20}", lts: (bool, bool)) {
            versions_compatible(&recipient, &donor, lts.0, lts.1);
        }

        #[test]
        fn a_series_is_symmetric(
            minor in 0..3_u32, (one, two) in (30..45_u32, 30..45_u32), lts: bool,
        ) {
            let (one, two) = (format!("8.{minor}.{one}"), format!("8.{minor}.{two}"));
            prop_assert_eq!(
                versions_compatible(&one, &two, lts, lts),
                versions_compatible(&two, &one, lts, lts)
            );
        }
    }
}
