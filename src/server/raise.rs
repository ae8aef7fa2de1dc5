// SPDX-License-Identifier: GPL-2.0-only

//! Errors that are raised in a session, each with the arguments that its format wants.

use std::ffi::c_char;
use std::ffi::c_int;
use std::io;

use super::abi;
use super::symbols::symbols;
use super::text::cut;
use super::thd::{Thd, has_session};

/// `ER_INTERNAL_ERROR`, which also stands for what should not happen.
pub(crate) const ER_INTERNAL_ERROR: u32 = 1815;

/// An error of `share/messages_to_clients.txt` that the plugin raises. Formats are the English
/// ones; the types of their arguments are the same in all languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Raise<'a> {
    /// 1024 "Error reading file '%-.200s' (errno: %d - %s)"
    ErrorOnRead { file: &'a str, errno: i32 },
    /// 1026 "Error writing file '%-.200s' (errno: %d - %s)"
    ErrorOnWrite { file: &'a str, errno: i32 },
    /// 1037 "Out of memory; restart server and try again (needed %d bytes)"
    OutOfMemory { bytes: usize },
    /// 1086 "File '%-.200s' already exists"
    FileExists(&'a str),
    /// 1153 "Got a packet bigger than 'max_allowed_packet' bytes"
    NetPacketTooLarge,
    /// 1156 "Got packets out of order"
    NetPacketsOutOfOrder,
    /// 1157 "Couldn't uncompress communication packet"
    NetUncompress,
    /// 1158 "Got an error reading communication packets"
    NetRead,
    /// 1159 "Got timeout reading communication packets"
    NetReadInterrupted,
    /// 1160 "Got an error writing communication packets"
    NetErrorOnWrite,
    /// 1161 "Got timeout writing communication packets"
    NetWriteInterrupted,
    /// 1205 "Lock wait timeout exceeded; try restarting transaction"
    LockWaitTimeout,
    /// 1210 "Incorrect arguments to %s"
    WrongArguments(&'a str),
    /// 1235 "This version of MySQL doesn't yet support '%s'"
    NotSupportedYet(&'a str),
    /// 1290 "The MySQL server is running with the %s option so it cannot execute this statement"
    OptionPreventsStatement(&'a str),
    /// 1317 "Query execution was interrupted"
    QueryInterrupted,
    /// 1525 "Incorrect %-.32s value: '%-.128s'"
    WrongValue { what: &'a str, value: &'a str },
    /// 1815 "Internal error: %s"
    InternalError(&'a str),
    /// 3634 "Too many concurrent clone operations. Maximum allowed - %d."
    TooManyConcurrentClones { allowed: i32 },
    /// 3707 "Restart server failed (%s)."
    RestartFailed(&'a str),
    /// 3862 "Clone Donor Error: %.512s."
    CloneDonor(&'a str),
    /// 3863 "Clone received unexpected response from Donor : %.512s."
    CloneProtocol(&'a str),
    /// 3864 "Clone Donor MySQL version: %.64s is different from Recipient MySQL version %.64s."
    CloneDonorVersion { donor: &'a str, recipient: &'a str },
    /// 3869 "Clone system configuration: %.512s"
    CloneSysConfig(&'a str),
    /// 3870 "Clone Donor plugin %.128s is not active in Recipient."
    ClonePluginMatch(&'a str),
    /// 3872 "Clone needs SSL connection for encrypted table."
    CloneEncryption,
    /// 3873 "Clone estimated database size is %.64s. Available space %.64s is not enough."
    CloneDiskSpace { needed: &'a str, free: &'a str },
    /// 3989 "Schema '%-.256s' is in read only mode."
    SchemaReadOnly(&'a str),
    /// 3957 "Clone needs max_allowed_packet value to be %u or more. Current value is %u"
    CloneNetworkPacket { needed: u32, current: u32 },
}

impl Raise<'_> {
    /// The error's number.
    pub(crate) const fn number(&self) -> u32 {
        match self {
            Raise::ErrorOnRead { .. } => 1024,
            Raise::ErrorOnWrite { .. } => 1026,
            Raise::OutOfMemory { .. } => 1037,
            Raise::FileExists(_) => 1086,
            Raise::NetPacketTooLarge => 1153,
            Raise::NetPacketsOutOfOrder => 1156,
            Raise::NetUncompress => 1157,
            Raise::NetRead => 1158,
            Raise::NetReadInterrupted => 1159,
            Raise::NetErrorOnWrite => 1160,
            Raise::NetWriteInterrupted => 1161,
            Raise::LockWaitTimeout => 1205,
            Raise::WrongArguments(_) => 1210,
            Raise::NotSupportedYet(_) => 1235,
            Raise::OptionPreventsStatement(_) => 1290,
            Raise::QueryInterrupted => 1317,
            Raise::WrongValue { .. } => 1525,
            Raise::InternalError(_) => ER_INTERNAL_ERROR,
            Raise::TooManyConcurrentClones { .. } => 3634,
            Raise::RestartFailed(_) => 3707,
            Raise::CloneDonor(_) => 3862,
            Raise::CloneProtocol(_) => 3863,
            Raise::CloneDonorVersion { .. } => 3864,
            Raise::CloneSysConfig(_) => 3869,
            Raise::ClonePluginMatch(_) => 3870,
            Raise::CloneEncryption => 3872,
            Raise::CloneDiskSpace { .. } => 3873,
            Raise::CloneNetworkPacket { .. } => 3957,
            Raise::SchemaReadOnly(_) => 3989,
        }
    }

    fn arguments(&self) -> Arguments<'_> {
        match *self {
            Raise::ErrorOnRead { file, errno } | Raise::ErrorOnWrite { file, errno } => {
                Arguments::File(file, errno)
            }
            Raise::OutOfMemory { bytes } => {
                Arguments::Int(c_int::try_from(bytes).unwrap_or(c_int::MAX))
            }
            Raise::NetPacketTooLarge
            | Raise::NetPacketsOutOfOrder
            | Raise::NetUncompress
            | Raise::NetRead
            | Raise::NetReadInterrupted
            | Raise::NetErrorOnWrite
            | Raise::NetWriteInterrupted
            | Raise::LockWaitTimeout
            | Raise::CloneEncryption
            | Raise::QueryInterrupted => Arguments::None,
            Raise::FileExists(text)
            | Raise::NotSupportedYet(text)
            | Raise::InternalError(text)
            | Raise::OptionPreventsStatement(text)
            | Raise::RestartFailed(text)
            | Raise::CloneDonor(text)
            | Raise::CloneProtocol(text)
            | Raise::CloneSysConfig(text)
            | Raise::ClonePluginMatch(text)
            | Raise::SchemaReadOnly(text)
            | Raise::WrongArguments(text) => Arguments::Text(text),
            Raise::TooManyConcurrentClones { allowed } => Arguments::Int(allowed),
            Raise::CloneDonorVersion { donor, recipient } => Arguments::Texts(donor, recipient),
            Raise::WrongValue { what, value } => Arguments::Texts(what, value),
            Raise::CloneDiskSpace { needed, free } => Arguments::Texts(needed, free),
            Raise::CloneNetworkPacket { needed, current } => Arguments::Unsigned(needed, current),
        }
    }
}

/// The result of a function of mysqld that returns 0 or an error number.
///
/// A negative number, which no such function returns on purpose, becomes `ER_INTERNAL_ERROR`.
pub(super) fn check(code: c_int) -> Result<(), u32> {
    match u32::try_from(code) {
        Ok(0) => Ok(()),
        Ok(number) => Err(number),
        Err(_) => Err(ER_INTERNAL_ERROR),
    }
}

/// The forms that argument lists have.
enum Arguments<'a> {
    None,
    Int(c_int),
    Unsigned(u32, u32),
    Text(&'a str),
    Texts(&'a str, &'a str),
    File(&'a str, c_int),
}

/// mysqld's buffer for a message is this long (`ERRMSGSIZE`), so no argument can show more.
const LONGEST_TEXT: usize = 512;

/// Raises `error` in the session of this thread and returns its number. Without a session only the
/// number is returned.
pub(crate) fn raise(error: Raise<'_>) -> u32 {
    let number = error.number();
    let Some(symbols) = symbols().filter(|_| has_session()) else { return number };
    let my_error = symbols.my_error;
    let code = c_int::try_from(number).unwrap_or(c_int::MAX);
    let text = |text: &str| cut(text, LONGEST_TEXT);

    // SAFETY, for all of these calls: the types after the flags are those of the error's format,
    // see `Raise`; texts are terminated and live until the call returns.
    match error.arguments() {
        // SAFETY: see above.
        Arguments::None => unsafe { my_error(code, 0) },
        // SAFETY: see above.
        Arguments::Int(value) => unsafe { my_error(code, 0, value) },
        // SAFETY: see above.
        Arguments::Unsigned(a, b) => unsafe { my_error(code, 0, a, b) },
        Arguments::Text(a) => {
            let a = text(a);
            // SAFETY: see above.
            unsafe { my_error(code, 0, a.as_ptr()) }
        }
        Arguments::Texts(a, b) => {
            let (a, b) = (text(a), text(b));
            // SAFETY: see above.
            unsafe { my_error(code, 0, a.as_ptr(), b.as_ptr()) }
        }
        Arguments::File(file, errno) => {
            let (file, reason) = (text(file), strerror(errno));
            // SAFETY: see above.
            unsafe { my_error(code, 0, file.as_ptr(), errno, reason.as_ptr()) }
        }
    }
    number
}

/// Puts a warning into the diagnostics area of a session. A server that lacks the function shows
/// none.
pub(crate) fn warn(thd: Thd<'_>, number: u32, text: &str) {
    let Some(push_warning) = symbols().and_then(|symbols| symbols.push_warning) else { return };
    let text = cut(text, LONGEST_TEXT);
    // SAFETY: the session of this thread; a terminated text, which is copied. The severity is not
    // that of an error.
    unsafe { push_warning(thd.as_ptr(), abi::SL_WARNING as c_int, number, text.as_ptr()) };
}

/// The C library's text for `errno`, as mysqld's `my_strerror` gives.
fn strerror(errno: c_int) -> std::ffi::CString {
    let mut buffer: [c_char; 256] = [0; 256];
    // SAFETY: a buffer and its size. This is the XSI function, which leaves the text in the buffer.
    let failed = unsafe { libc::strerror_r(errno, buffer.as_mut_ptr(), buffer.len()) } != 0;
    if failed {
        return cut(&io::Error::from_raw_os_error(errno).to_string(), LONGEST_TEXT);
    }
    // SAFETY: the function terminates what it writes, and the buffer began as zeros.
    unsafe { std::ffi::CStr::from_ptr(buffer.as_ptr()) }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_mysqld_only_the_number_is_returned() {
        assert_eq!(raise(Raise::CloneDonor("3862 : text")), 3862);
        assert_eq!(raise(Raise::ErrorOnWrite { file: "f", errno: 28 }), 1026);
    }

    #[test]
    fn codes_become_results() {
        assert_eq!(check(0), Ok(()));
        assert_eq!(check(3862), Err(3862));
        assert_eq!(check(-1), Err(ER_INTERNAL_ERROR));
    }

    #[test]
    fn errno_has_a_text() {
        assert_eq!(strerror(libc::ENOSPC).as_c_str(), c"No space left on device");
    }
}
