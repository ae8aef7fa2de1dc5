// SPDX-License-Identifier: GPL-2.0-only

//! Texts and numbers in the status files.
//!
//! The files are lines of numbers and texts that MySQL's stock plugin writes and reads with C++
//! streams. They lie in the data directory, but they may be cut short by a full disk, edited, or
//! put there by whoever prepared the directory. So a malformed file is no error: a malformed number
//! counts as 0, and a missing line leaves a field empty.

use std::fmt;
use std::ops::Deref;

/// Longest text of a `VARCHAR(512)` column, bytes (`clone_status.h:Status_pfs::Data`).
const MAX_BYTES: usize = 511;

/// The text of a `VARCHAR(512)` column of `performance_schema.clone_status`: at most 511 bytes,
/// without a NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as one line of a file.
    pub(crate) fn line(&self) -> String {
        self.0.replace('\n', " ")
    }
}

/// Cuts the text at its first NUL, as a C string ends there, and at the last whole character that
/// fits.
impl From<&str> for Text {
    fn from(text: &str) -> Text {
        let text = text.split('\0').next().unwrap_or_default();
        let mut end = text.len().min(MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Text(text[..end].to_owned())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The lines of a file. A line feed ends a line, so no line follows the last line feed.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_terminator('\n')
}

/// The numbers of a line. A missing number counts as 0.
pub(crate) struct Numbers<'a>(std::str::SplitAsciiWhitespace<'a>);

impl<'a> Numbers<'a> {
    pub(crate) fn of(line: Option<&'a str>) -> Self {
        Numbers(line.unwrap_or_default().split_ascii_whitespace())
    }

    /// The next number, for a `BIGINT` column: these are signed.
    pub(crate) fn bigint(&mut self) -> u64 {
        self.0.next().map_or(0, leading_number).min(i64::MAX.unsigned_abs())
    }

    /// The next number, for an `INT` column: these are signed.
    pub(crate) fn int(&mut self) -> u32 {
        int(self.bigint())
    }
}

/// `value`, or the greatest value of an `INT` column if `value` is greater.
pub(crate) fn int(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs())
}

/// The digits in front of `word`.
fn leading_number(word: &str) -> u64 {
    word.bytes().take_while(u8::is_ascii_digit).fold(0, |number: u64, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_cut_at_whole_characters() {
        assert_eq!(Text::from("a".repeat(511).as_str()).len(), 511);
        assert_eq!(Text::from("a".repeat(600).as_str()).len(), 511);
        assert_eq!(Text::from(("a".repeat(509) + "äb").as_str()).len(), 511);
        assert_eq!(Text::from(("a".repeat(510) + "äb").as_str()).len(), 510);
        assert_eq!(Text::from("one\0two").as_str(), "one");
    }

    #[test]
    fn numbers_are_taken_as_far_as_they_go() {
        let mut numbers = Numbers::of(Some(" 7\t12x -5 99999999999999999999999 4294967296 "));
        let taken: Vec<u64> = (0..7).map(|_| numbers.bigint()).collect();
        assert_eq!(taken, [7, 12, 0, i64::MAX.unsigned_abs(), 4_294_967_296, 0, 0]);
        assert_eq!(Numbers::of(Some("4294967296")).int(), i32::MAX.unsigned_abs());
        assert_eq!(Numbers::of(None).int(), 0);
    }

    #[test]
    fn lines_end_with_a_line_feed() {
        for (text, expected) in
            [("", vec![]), ("a", vec!["a"]), ("a\n", vec!["a"]), ("\n\r\n", vec!["", "\r"])]
        {
            assert_eq!(lines(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_fits(text: String) {
            let cut = Text::from(text.as_str());
            prop_assert!(cut.len() <= MAX_BYTES);
            prop_assert!(text.starts_with(cut.as_str()));
            prop_assert!(!cut.line().contains('\n'));
        }
    }
}
