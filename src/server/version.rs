// SPDX-License-Identifier: GPL-2.0-only

//! The version of a server, as in `SELECT VERSION()`.

use std::fmt;
use std::str::FromStr;

/// `major.minor.patch`, and what follows the first dash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerVersion {
    pub(crate) release: Release,
    suffix: String,
}

/// The three numbers, ordered as releases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) patch: u16,
}

impl Release {
    pub(crate) const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }
}

/// The text is not `major.minor.patch[-suffix]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAVersion;

impl FromStr for ServerVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (numbers, suffix) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers = numbers.split('.').map(|number| {
            // u16 alone would also take "+8".
            match number.bytes().all(|byte| byte.is_ascii_digit()) {
                true => number.parse().map_err(|_| NotAVersion),
                false => Err(NotAVersion),
            }
        });
        let mut next = || numbers.next().unwrap_or(Err(NotAVersion));
        let release = Release::new(next()?, next()?, next()?);
        match numbers.next() {
            None => Ok(Self { release, suffix: suffix.to_owned() }),
            Some(_) => Err(NotAVersion),
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.release.fmt(f)?;
        if self.suffix.is_empty() { Ok(()) } else { write!(f, "-{}", self.suffix) }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ServerVersion, NotAVersion> {
        text.parse()
    }

    #[test]
    fn reads_what_servers_say() {
        for (text, release) in [
            ("9.7.4", Release::new(9, 7, 4)),
            ("9.7.4-2", Release::new(9, 7, 4)),
            ("9.7.4-2-debug", Release::new(9, 7, 4)),
            ("8.0.40-debug-asan", Release::new(8, 0, 40)),
            ("8.0.40-0ubuntu0.22.04.1", Release::new(8, 0, 40)),
            ("8.0.27-18", Release::new(8, 0, 27)),
        ] {
            let version = parse(text).expect(text);
            assert_eq!(version.release, release, "{text}");
            assert_eq!(version.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in [
            "",
            "9",
            "9.7",
            "9.7.",
            "9..4",
            "9.7.4.1",
            "a.b.c",
            "9.7.x",
            "+9.7.4",
            "9.7.70000",
            "-9.7.4",
            "9.7.4 ",
        ] {
            assert_eq!(parse(text), Err(NotAVersion), "{text}");
        }
    }

    #[test]
    fn orders_as_releases() {
        assert!(Release::new(8, 0, 99) < Release::new(8, 1, 0));
        assert!(Release::new(8, 4, 10) > Release::new(8, 4, 9));
        assert!(Release::new(9, 0, 0) > Release::new(8, 4, 10));
    }
}
