// SPDX-License-Identifier: GPL-2.0-only

//! A long way to a server: what goes through a [`Relay`] arrives half a round trip later.
//!
//! A kernel with netem delays packets. This works without it, but on bytes: the kernels at both
//! ends see a near peer, so that their windows need not grow.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::hosts::Host;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Bytes, and when they may leave.
type Piece = (Instant, Vec<u8>);

/// Passes connections on to a server at the same host, until the process ends.
#[derive(Clone, Copy, Debug)]
pub struct Relay {
    address: SocketAddr,
}

impl Relay {
    /// Starts a relay at `host` for the server at `port` there. No more than `capacity` bytes are
    /// on the way in each direction of a connection: a link has its rate times the round trip.
    ///
    /// # Errors
    /// The thread cannot enter the host's network; no port is free.
    pub fn start(host: &Host, port: u16, round_trip: Duration, capacity: usize) -> Result<Self> {
        let address = host.address();
        let way = Way { delay: round_trip / 2, pieces: (capacity / PIECE).max(1) };
        let host = host.clone();
        Self::accept(address, port, way, move || host.enter())
    }

    fn accept(
        address: Ipv4Addr,
        port: u16,
        way: Way,
        enter: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (told, listens) = mpsc::channel();
        thread::spawn(move || {
            let listener = enter().and_then(|()| Ok(TcpListener::bind((address, 0))?));
            let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
            let listener = match bound {
                Ok((address, listener)) => {
                    let _ = told.send(Ok(address));
                    listener
                }
                Err(error) => {
                    let _ = told.send(Err(error));
                    return;
                }
            };
            for client in listener.incoming() {
                let server = TcpStream::connect((address, port));
                if let Err(error) = client.and_then(|client| way.join(client, server?)) {
                    log::warn!("a relay lost a connection: {error}");
                }
            }
        });
        let address = listens.recv().context("the relay's thread")??;
        Ok(Self { address })
    }

    /// Where it takes connections.
    pub fn address(self) -> SocketAddr {
        self.address
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug)]
struct Way {
    delay: Duration,
    /// The most pieces on the way.
    pieces: usize,
}

impl Way {
    fn join(self, client: TcpStream, server: TcpStream) -> io::Result<()> {
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        self.pass(client.try_clone()?, server.try_clone()?);
        self.pass(server, client);
        Ok(())
    }

    fn pass(self, from: TcpStream, to: TcpStream) {
        let (entrance, exit) = mpsc::sync_channel(self.pieces);
        thread::spawn(move || take(from, &entrance, self.delay));
        thread::spawn(move || give(to, &exit));
    }
}

/// Reads until the end of the connection, and sends the end after the rest.
fn take(mut from: TcpStream, entrance: &SyncSender<Piece>, delay: Duration) {
    let mut buffer = vec![0; PIECE];
    loop {
        let len = from.read(&mut buffer).unwrap_or(0);
        let piece = (Instant::now() + delay, buffer[..len].to_vec());
        if entrance.send(piece).is_err() || len == 0 {
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
    }
}

fn give(mut to: TcpStream, exit: &Receiver<Piece>) {
    for (due, piece) in exit {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(50);

    /// A connection through a relay to a server that sends back what it gets.
    fn echo(way: Way) -> (Relay, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            let (stream, _) = server.accept().unwrap();
            let _ = io::copy(&mut &stream, &mut &stream);
            let _ = stream.shutdown(Shutdown::Write);
        });
        let relay = Relay::accept(Ipv4Addr::LOCALHOST, port, way, || Ok(())).unwrap();
        let client = TcpStream::connect(relay.address()).unwrap();
        (relay, client)
    }

    #[test]
    fn an_answer_takes_a_round_trip() {
        let (_relay, mut client) = echo(Way { delay: DELAY, pieces: 8 });
        let begin = Instant::now();
        client.write_all(b"question").unwrap();
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"question");
        assert!(begin.elapsed() >= 2 * DELAY);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut answer).unwrap(), 0, "the end arrives, too");
    }

    #[test]
    fn many_pieces_are_on_the_way_at_once() {
        const LEN: usize = 32 * PIECE;
        let (_relay, client) = echo(Way { delay: DELAY, pieces: 1024 });
        let begin = Instant::now();
        let mut sender = client.try_clone().unwrap();
        let sends = thread::spawn(move || {
            let data: Vec<u8> = (0..LEN).map(|at| (at / 1000) as u8).collect();
            sender.write_all(&data).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let mut data = Vec::new();
        (&client).read_to_end(&mut data).unwrap();
        sends.join().unwrap();
        assert_eq!(data.len(), LEN);
        assert!(data.iter().enumerate().all(|(at, byte)| *byte == (at / 1000) as u8));
        // One piece at a time would take 32 round trips.
        assert!(begin.elapsed() < 20 * DELAY, "{:?}", begin.elapsed());
    }
}
