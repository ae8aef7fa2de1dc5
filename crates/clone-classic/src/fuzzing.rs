// SPDX-License-Identifier: GPL-2.0-only

//! The parsers of foreign bytes, for property tests and fuzz targets.

use rustls::pki_types::{CertificateDer, ServerName};

use crate::answer::{AuthenticationAnswer, expect_ok, parse_err, take_integer, take_string};
use crate::greeting::Greeting;
use crate::server::login::{self, Response};
use crate::server::session;
use crate::{certificate, login_path, option_file, password_key, query};

/// Gives `bytes` to each parser of the client's end. None may panic, whatever the bytes are.
pub fn server_packets(bytes: &[u8]) {
    let _ = Greeting::parse(bytes);
    let _ = AuthenticationAnswer::parse(bytes);
    let _ = parse_err(bytes);
    let _ = expect_ok(bytes);
    let mut rest = bytes;
    while take_integer(&mut rest).is_some() {}
    let mut rest = bytes;
    while take_string(&mut rest).is_some() {}
    for columns in [1, 3] {
        let _ = query::parse_row(bytes, columns);
    }
    let _ = password_key::encrypt(&b"password\0".to_vec().into(), bytes);
    let _ = password_key::of_der(bytes);
    if let Ok(host) = ServerName::try_from("localhost") {
        let _ = certificate::names(&CertificateDer::from(bytes), &host);
    }
}

/// Gives `bytes` to each parser of the server's end. None may panic.
pub fn client_packets(bytes: &[u8]) {
    let _ = login::parse_flags(bytes);
    if let Ok(response) = Response::parse(bytes) {
        assert!(!response.user.contains('\0'));
    }
    let sql = String::from_utf8_lossy(bytes);
    let _ = (session::kill(&sql), session::is_set(&sql));
}

/// Gives `bytes` to the parsers of option files, of a login file too. None may panic.
pub fn option_files(bytes: &[u8]) {
    option_file::parse_bytes(bytes);
    let _ = login_path::decrypt(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    /// A greeting of MySQL 8.0.19.
    fn greeting() -> Vec<u8> {
        let mut packet = b"\x0a8.0.19\0\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xc7\x15".to_vec();
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
        packet
    }

    #[test]
    fn a_greeting_is_read() {
        let greeting = Greeting::parse(&greeting()).unwrap();
        assert_eq!((&*greeting.version, greeting.id), ("8.0.19", 8));
        assert_eq!(&greeting.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(greeting.plugin, "caching_sha2_password");
        assert!(greeting.offers_tls());
    }

    #[test]
    fn integers_and_strings_have_a_length_in_front() {
        for (bytes, value, left) in [
            (&[250, 1][..], Some(250), 1),
            (&[0xfc, 1, 2], Some(0x201), 0),
            (&[0xfd, 1, 2, 3, 4], Some(0x3_0201), 1),
            (&[0xfe, 1, 0, 0, 0, 0, 0, 0, 1], Some(0x100_0000_0000_0001), 0),
            (&[0xfe, 1], None, 2),
            (&[0xfb], None, 1),
            (&[0xff], None, 1),
            (&[], None, 0),
        ] {
            let mut rest = bytes;
            assert_eq!((take_integer(&mut rest), rest.len()), (value, left), "{bytes:?}");
        }
        assert_eq!(take_string(&mut &b"\x03abcd"[..]), Some(&b"abc"[..]));
        assert_eq!(take_string(&mut &b"\x05abcd"[..]), None);
        assert_eq!(take_string(&mut &b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff"[..]), None);
    }

    #[test]
    fn kill_is_told_from_other_statements() {
        assert_eq!(session::kill("KILL CONNECTION 17"), Some(17));
        assert_eq!(session::kill("kill 17;"), Some(17));
        assert_eq!(session::kill("KILL QUERY 17"), Some(17));
        for other in ["KILL", "KILL x", "KILL 17 18", "SELECT 17", "KILL -1", ""] {
            assert_eq!(session::kill(other), None, "{other}");
        }
        assert!(session::is_set("SET NAMES utf8mb4") && !session::is_set("settle 1"));
    }

    /// What `greeting::response` makes is what the server's end reads.
    #[test]
    fn a_response_is_read() {
        let flags = Greeting::parse(&greeting()).unwrap().common(true, false);
        let packet =
            crate::greeting::response(flags, "user", "caching_sha2_password", b"data", None);
        let response = Response::parse(&packet).unwrap();
        assert_eq!((&*response.user, response.has_data), ("user", true));
        assert_eq!(response.plugin.as_deref(), Some("caching_sha2_password"));
        let request = crate::greeting::tls_request(flags);
        assert_eq!(login::parse_flags(&request).unwrap(), flags);
        for len in 0..packet.len() {
            client_packets(&packet[..len]);
        }
    }

    #[test]
    fn a_row_has_values_and_nulls() {
        let row = query::parse_row(b"\x01a\xfb\0", 3).unwrap();
        assert_eq!(row, [Some("a".into()), None, Some(String::new())]);
        assert!(matches!(query::parse_row(b"\x01a", 2), Err(Error::BadPacket { .. })));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            server_packets(&bytes);
            option_files(&bytes);
            client_packets(&bytes);
        }

        #[test]
        fn no_changed_greeting_panics(at in 0..80_usize, byte: u8, len in 0..90_usize) {
            let mut packet = greeting();
            if let Some(changed) = packet.get_mut(at) {
                *changed = byte;
            }
            packet.truncate(len);
            server_packets(&packet);
        }
    }
}
