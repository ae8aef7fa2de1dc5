// SPDX-License-Identifier: GPL-2.0-only

//! The donors that `clone_valid_donor_list` allows.

use std::fmt;
use std::net::Ipv6Addr;

/// The value of `clone_valid_donor_list`: `host:port,host:port,...`.
///
/// The rules of the stock plugin (`clone_plugin.cc:scan_donor_list`): no blank anywhere, no empty
/// entry, and a port of digits only, behind the first colon. Two things differ. An IPv6 address can
/// be given, in brackets or without: `[::1]:3306` and `::1:3306` are the same entry. If an IPv6
/// address precedes the last colon, this colon is the port's. The stock plugin takes the first
/// colon of the address for the port's, and refuses the entry. And a port above 65535 is refused,
/// where the stock plugin accepts an entry that no donor can match.
///
/// NULL, the variable's default, is the empty list: [`DonorList::default`]. An empty string is an
/// error, as in the stock plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DonorList {
    entries: Vec<(String, u16)>,
}

/// A value that is no donor list. Displayed, it is the argument of MySQL's error 3869, stray quote
/// and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatError;

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invalid Format. Please enter \"<hostname1>:<port1>,...\"' with no extra space")
    }
}

impl std::error::Error for FormatError {}

impl DonorList {
    /// Reads a value that somebody wants to set.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(text: &str) -> Result<DonorList, FormatError> {
        let (list, outcome) = DonorList::scan(text);
        outcome.map(|()| list)
    }

    /// Reads the variable's value as it is: the entries before the first that is malformed.
    ///
    /// A value from the command line, or from an option file, was checked by nobody. Like the stock
    /// plugin, this uses what can be used of it. An empty string counts as NULL: the service
    /// `clone_protocol` gives an empty string for both.
    pub fn from_variable(text: &str) -> DonorList {
        DonorList::scan(text).0
    }

    /// Whether a donor is in the list. `host` is an IPv6 address, with or without brackets, or a
    /// name in any case; all ways to write an IPv6 address are the same.
    pub fn contains(&self, host: &str, port: u16) -> bool {
        let host = canonical(host);
        self.entries.iter().any(|entry| entry.0 == host && entry.1 == port)
    }

    fn scan(text: &str) -> (DonorList, Result<(), FormatError>) {
        let mut list = DonorList::default();
        if text.contains(' ') {
            return (list, Err(FormatError));
        }
        for entry in text.split(',') {
            match parse_entry(entry) {
                Ok(entry) => list.entries.push(entry),
                Err(error) => return (list, Err(error)),
            }
        }
        (list, Ok(()))
    }
}

/// The host of a CLONE statement, as the client library wants it: an IPv6 address in its shortest
/// form and without brackets, anything else unchanged.
pub fn host(text: &str) -> String {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    ipv6(bare.unwrap_or(text)).unwrap_or_else(|| text.to_owned())
}

/// The one spelling of a donor's address, in `clone_status` and in errors: `host:port`, and
/// `[address]:port` for an IPv6 address.
pub fn address(text: &str, port: u16) -> String {
    let host = host(text);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The argument of MySQL's error 3869 for a donor that is not in the list; `list` is the variable's
/// value.
pub fn not_listed(host: &str, port: u16, list: &str) -> String {
    format!("{} is not found in clone_valid_donor_list: {list}", address(host, port))
}

fn parse_entry(entry: &str) -> Result<(String, u16), FormatError> {
    let bracketed = entry.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    let plain = entry.rsplit_once(':').filter(|(address, _)| ipv6(address).is_some());
    let (host, port) = match bracketed.filter(|(address, _)| address.contains(':')) {
        Some((address, port)) => (ipv6(address).ok_or(FormatError)?, port),
        None => plain
            .or_else(|| entry.split_once(':'))
            .map(|(host, port)| (host.to_owned(), port))
            .ok_or(FormatError)?,
    };
    if host.is_empty() || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FormatError);
    }
    Ok((canonical(&host), port.parse().map_err(|_| FormatError)?))
}

/// One spelling for each host. MySQL's host names have no case.
fn canonical(text: &str) -> String {
    host(text).to_ascii_lowercase()
}

/// An IPv6 address in its one shortest form; a zone (`fe80::1%eth0`) stays.
fn ipv6(host: &str) -> Option<String> {
    let (address, zone) = match host.split_once('%') {
        Some((_, "")) => return None,
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    Some(match zone {
        Some(zone) => format!("{address}%{zone}"),
        None => address.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_its_donors() {
        let list =
            DonorList::parse("Alpha:3306,10.0.0.1:3307,[::1]:3306,[FE80::1%eth0]:1").unwrap();
        for (host, port, found) in [
            ("alpha", 3306, true),
            ("ALPHA", 3306, true),
            ("alpha", 3307, false),
            ("alph", 3306, false),
            ("10.0.0.1", 3307, true),
            ("10.0.0.1", 3306, false),
            ("::1", 3306, true),
            ("0:0:0:0:0:0:0:1", 3306, true),
            ("::1", 1, false),
            ("fe80::1%eth0", 1, true),
            ("fe80::1", 1, false),
            ("[::1]", 3306, true),
            ("[0::1]", 3306, true),
            ("[::1]", 1, false),
            ("[alpha]", 3306, false),
            ("", 0, false),
        ] {
            assert_eq!(list.contains(host, port), found, "{host} {port}");
        }
        assert!(!DonorList::default().contains("alpha", 3306));
    }

    /// Group Replication, Vitess and scripts write an IPv6 address without brackets.
    #[test]
    fn the_last_colon_behind_an_ipv6_address_is_the_ports() {
        for (text, host, port) in [
            ("::1:3306", "::1", 3306),
            ("a:1,2001:DB8::7:3307,b:2", "2001:db8:0:0:0:0:0:7", 3307),
            ("fe80::1%eth0:33060", "fe80::1%eth0", 33060),
            ("::ffff:10.0.0.1:3306", "::ffff:10.0.0.1", 3306),
            ("1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8", 9),
            (":::1", "::", 1),
        ] {
            let list = DonorList::parse(text).unwrap();
            assert!(list.contains(host, port), "{text}");
            assert!(list.contains(&format!("[{host}]"), port), "{text}");
            assert!(!list.contains(host, port + 1), "{text}");
        }
        assert_eq!(DonorList::parse("::1:3306"), DonorList::parse("[::1]:3306"));
        // Nothing is left for the port.
        for text in ["::1", "fe80::1", "1:2:3:4:5:6:7:8", "::1:", "::1:x", "::1:65536", "::g:1"] {
            assert_eq!(DonorList::parse(text), Err(FormatError), "{text}");
        }
    }

    #[test]
    fn hosts_of_statements() {
        for (text, expected) in [
            ("donor.example", "donor.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[0:0::1]", "::1"),
            ("2001:DB8:0::7", "2001:db8::7"),
            ("[fe80::1%Eth0]", "fe80::1%Eth0"),
            ("[a]", "[a]"),
            ("[::1", "[::1"),
            ("[]", "[]"),
            ("", ""),
        ] {
            assert_eq!(host(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_have_one_spelling() {
        for text in ["::1", "[::1]", "0:0:0:0:0:0:0:1"] {
            assert_eq!(address(text, 3306), "[::1]:3306");
        }
        assert_eq!(address("10.0.0.1", 3306), "10.0.0.1:3306");
        assert_eq!(address("donor.example", 1), "donor.example:1");
    }

    #[test]
    fn accepts_what_the_stock_plugin_accepts() {
        for (text, host, port) in [
            ("a:0", "a", 0),
            ("a:65535", "a", 65535),
            ("a:0000000000000003306", "a", 3306),
            ("a-b.example:1", "a-b.example", 1),
            ("\u{e4}:1", "\u{e4}", 1),
            ("[a]:1", "[a]", 1),
            ("[:1", "[", 1),
            ("a\t:1", "a\t", 1),
            ("a:1,a:1", "a", 1),
        ] {
            assert!(DonorList::parse(text).unwrap().contains(host, port), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            ",",
            "a",
            "a:",
            ":1",
            "a:b",
            "a:-1",
            "a:+1",
            "a: 1",
            " a:1",
            "a:1 ",
            "a:1,",
            ",a:1",
            "a:1,,b:2",
            "a:1,b",
            "a:b:1",
            "[::1]",
            "[::1]:",
            "[::1]3306",
            "[::1]:x",
            "[::g]:1",
            "[::1%]:1",
            "[]:1:",
            "a:65536",
            "a:99999999999999999999",
            "a:\u{0661}",
        ] {
            assert_eq!(DonorList::parse(text), Err(FormatError), "{text:?}");
        }
    }

    #[test]
    fn a_malformed_variable_is_used_up_to_its_error() {
        let list = DonorList::from_variable("a:1,b:2,c,d:4");
        assert!(list.contains("a", 1) && list.contains("b", 2));
        assert!(!list.contains("d", 4));
        assert_eq!(DonorList::from_variable("a:1, b:2"), DonorList::default());
        assert_eq!(DonorList::from_variable(""), DonorList::default());
    }

    #[test]
    fn texts_are_those_of_the_stock_plugin() {
        assert_eq!(
            FormatError.to_string(),
            "Invalid Format. Please enter \"<hostname1>:<port1>,...\"' with no extra space"
        );
        assert_eq!(
            not_listed("host", 3306, "a:1"),
            "host:3306 is not found in clone_valid_donor_list: a:1"
        );
        assert_eq!(
            not_listed("::1", 3306, "[::1]:1"),
            "[::1]:3306 is not found in clone_valid_donor_list: [::1]:1"
        );
    }

    proptest! {
        #[test]
        fn reads_anything(text: String, host: String, port: u16) {
            let outcome = DonorList::parse(&text);
            let list = DonorList::from_variable(&text);
            if let Ok(parsed) = outcome {
                prop_assert_eq!(&parsed, &list);
            }
            list.contains(&host, port);
        }

        #[test]
        fn reads_likely_texts(text in "[a\\[\\]:%,0-9]{0,20}") {
            let _ = DonorList::parse(&text);
        }

        #[test]
        fn finds_what_was_listed(
            names in proptest::collection::vec(("[a-zA-Z0-9.-]{1,20}", any::<u16>()), 1..5),
            address: Ipv6Addr,
            port: u16,
        ) {
            let mut entries: Vec<_> =
                names.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            for ipv6 in [format!("[{address}]:{port}"), format!("{address}:{port}")] {
                entries.push(ipv6);
                let list = DonorList::parse(&entries.join(",")).unwrap();
                for (host, port) in &names {
                    prop_assert!(list.contains(host, *port));
                }
                prop_assert!(list.contains(&address.to_string(), port));
                let bracketed = format!("[{address}]");
                prop_assert!(list.contains(&bracketed, port));
                entries.pop();
            }
        }
    }
}
