// SPDX-License-Identifier: GPL-2.0-only

//! A load balancer: connections to one address reach different servers.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use anyhow::Result;

/// Forwards connections to ports of this machine in turn. Its threads end with the process.
#[derive(Debug)]
pub struct Balancer {
    port: u16,
}

impl Balancer {
    /// Listens, and forwards to these ports again and again.
    pub fn in_turn(ports: Vec<u16>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for (client, port) in listener.incoming().zip(ports.into_iter().cycle()) {
                let server = TcpStream::connect(("127.0.0.1", port));
                if let (Ok(client), Ok(server)) = (client, server) {
                    // A connection that cannot be forwarded is closed.
                    let _ = forward(&client, &server);
                }
            }
        });
        Ok(Self { port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn forward(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
