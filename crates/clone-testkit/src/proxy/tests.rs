// SPDX-License-Identifier: GPL-2.0-only
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::Proxy;

fn packet(payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&[low, middle, high, 0], payload].concat()
}

/// A small packet behind one that fills the proxy is forwarded although nothing comes after it.
#[test]
fn nothing_stays_in_a_proxy_that_was_full() {
    let greeting = packet(b"\x0a9.7.4");
    let login = packet(&[0; 80]);
    let packets = [packet(b"\x00\0\0"), packet(&vec![7; 300 << 10]), packet(b"end")].concat();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap().port()).unwrap();
    let donor = thread::spawn({
        let (greeting, packets, mut sent) = (greeting.clone(), packets.clone(), login.clone());
        move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(&greeting).unwrap();
            stream.read_exact(&mut sent).unwrap();
            stream.write_all(&packets).unwrap();
            // Until the recipient ends.
            stream.read(&mut [0]).unwrap()
        }
    });
    let mut recipient = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    recipient.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    recipient.read_exact(&mut vec![0; greeting.len()]).unwrap();
    recipient.write_all(&login).unwrap();
    let mut received = vec![0; packets.len()];
    recipient.read_exact(&mut received).unwrap();
    assert!(received == packets);
    drop(recipient);
    assert_eq!(donor.join().unwrap(), 0);
}
