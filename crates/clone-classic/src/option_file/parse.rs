// SPDX-License-Identifier: GPL-2.0-only

//! One line of an option file.
//!
//! | Line | |
//! |---|---|
//! | empty, `# ...`, `; ...` | nothing |
//! | `[group]` | what follows belongs to the group |
//! | `!include FILE`, `!includedir DIRECTORY` | other files |
//! | `name`, `name = value`, `name = "value"` | an option |
//!
//! Outside of quotes `#` begins a comment. In a value `\b`, `\t`, `\n`, `\r`, `\\`, `\s`, `\"` and
//! `\'` are escapes; other backslashes stand for themselves.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// What a line says.
pub(super) enum Line {
    Nothing,
    Group(String),
    Include(PathBuf),
    IncludeDirectory(PathBuf),
    Option { name: String, value: Option<Zeroizing<String>> },
}

/// The lines of a file, or what is wrong with them.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<Line, &'static str>> {
    bytes.split(|&byte| byte == b'\n').map(|line| parse(line.trim_ascii()))
}

fn parse(line: &[u8]) -> Result<Line, &'static str> {
    match line {
        [] | [b'#' | b';', ..] => Ok(Line::Nothing),
        [b'!', directive @ ..] => parse_directive(directive),
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|&byte| byte == b']').ok_or("Wrong group definition")?;
            let name = std::str::from_utf8(rest[..end].trim_ascii());
            Ok(Line::Group(name.map_err(|_| "Wrong group definition")?.to_owned()))
        }
        line => parse_option(&line[..end_of_text(line)]),
    }
}

fn parse_directive(directive: &[u8]) -> Result<Line, &'static str> {
    let path = |rest: &[u8]| match rest.trim_ascii() {
        [] => Err("Wrong '!' directive: the path is missing"),
        path => Ok(PathBuf::from(OsStr::from_bytes(path))),
    };
    let is_apart = |rest: &&[u8]| rest.first().is_none_or(u8::is_ascii_whitespace);
    if let Some(rest) = directive.strip_prefix(b"includedir").filter(is_apart) {
        return path(rest).map(Line::IncludeDirectory);
    }
    match directive.strip_prefix(b"include").filter(is_apart) {
        Some(rest) => path(rest).map(Line::Include),
        None => Err("Wrong '!' directive: neither !include nor !includedir"),
    }
}

/// Where the comment at the end of a line begins.
fn end_of_text(line: &[u8]) -> usize {
    let mut quote = None;
    let mut is_escaped = false;
    for (at, &byte) in line.iter().enumerate() {
        if matches!(byte, b'"' | b'\'') && !is_escaped {
            match quote {
                None => quote = Some(byte),
                Some(open) if open == byte => quote = None,
                Some(_) => {}
            }
        }
        if quote.is_none() && byte == b'#' {
            return at;
        }
        is_escaped = quote.is_some() && byte == b'\\' && !is_escaped;
    }
    line.len()
}

fn parse_option(text: &[u8]) -> Result<Line, &'static str> {
    let (name, value) = match text.iter().position(|&byte| byte == b'=') {
        Some(at) => (&text[..at], Some(text[at + 1..].trim_ascii())),
        None => (text, None),
    };
    let name = std::str::from_utf8(name.trim_ascii()).map_err(|_| "an option that is not UTF-8")?;
    let value = match value {
        None => None,
        Some([open @ (b'"' | b'\''), inner @ .., close]) if open == close => Some(unescape(inner)?),
        Some(value) => Some(unescape(value)?),
    };
    Ok(Line::Option { name: name.replace('_', "-"), value })
}

fn unescape(value: &[u8]) -> Result<Zeroizing<String>, &'static str> {
    let mut plain = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match bytes.peek().filter(|_| byte == b'\\') {
            Some(b'b') => 0x08,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b's') => b' ',
            Some(&quoted @ (b'\\' | b'"' | b'\'')) => quoted,
            _ => {
                plain.push(byte);
                continue;
            }
        };
        plain.push(escaped);
        bytes.next();
    }
    let text = std::str::from_utf8(&plain).map_err(|_| "a value that is not UTF-8")?;
    Ok(Zeroizing::new(text.to_owned()))
}
