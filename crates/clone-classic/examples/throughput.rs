// SPDX-License-Identifier: GPL-2.0-only

//! How fast data cross a connection on this machine, without TLS and with TLS:
//! `cargo run --release -p clone-classic --example throughput [GiB]`.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clone_classic::server::{Account, Certificate, Command, Listener, ServerOptions};
use clone_classic::{Address, ConnectOptions, Connection, SslMode, TlsOptions};

const LIMIT: Duration = Duration::from_secs(20);

/// Bytes of a block, as a donor sends it.
const BLOCK: usize = 2 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let gib: usize = std::env::args().nth(1).map_or(Ok(8), |gib| gib.parse())?;
    let blocks = (gib << 30) / BLOCK;
    plain(blocks)?;
    encrypted(blocks)
}

fn plain(blocks: usize) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let donor = thread::spawn(move || donate_plain(listener.accept()?.0, blocks));
    receive("without TLS", port, SslMode::Disabled, blocks)?;
    donor.join().map_err(|_| "the donor panicked")??;
    Ok(())
}

/// A donor that sends whole packets from one buffer.
fn donate_plain(mut stream: TcpStream, blocks: usize) -> std::io::Result<()> {
    let greeting =
        b"\x0a9.9.9\0\x07\0\0\0abcdefgh\0\x00\x82\xff\x02\x00\x08\x01\x15\0\0\0\0\0\0\0\0\0\0\
        ijklmnopqrst\0mysql_native_password\0";
    stream.write_all(&[&[greeting.len() as u8, 0, 0, 0][..], greeting].concat())?;
    skip_packet(&mut stream)?;
    stream.write_all(&[7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0])?;
    skip_packet(&mut stream)?;
    stream.write_all(&[7, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])?;
    let mut packet = vec![7; 4 + 1 + BLOCK];
    packet[..4].copy_from_slice(&(BLOCK as u32 + 1).to_le_bytes());
    packet[4] = 3;
    for _ in 0..blocks {
        stream.write_all(&packet)?;
    }
    Ok(())
}

fn skip_packet(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    stream.read_exact(&mut vec![0; usize::from(header[0])])
}

fn encrypted(blocks: usize) -> Result<(), Box<dyn Error>> {
    let account = Account::new("user", "secret".to_owned().into()).ok_or("an account")?;
    let certificate = Certificate::generate(&["localhost".into()])?;
    let options = ServerOptions::new("9.7.4", account, certificate)?;
    let listener = Listener::bind("127.0.0.1:0".parse()?)?;
    let port = listener.local_addr()?.port();
    let donor = thread::spawn(move || {
        let mut session = listener.accept(&options.cancel)?.handshake(&options, 1)?;
        if session.next_command(LIMIT)? == Command::Clone {
            session.accept_clone()?;
        }
        let block = vec![7; BLOCK];
        (0..blocks).try_for_each(|_| session.send(&[&[3], &block]))
    });
    receive("with TLS", port, SslMode::Required, blocks)?;
    donor.join().map_err(|_| "the donor panicked")??;
    Ok(())
}

fn receive(what: &str, port: u16, mode: SslMode, blocks: usize) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions {
        address: Address::Tcp { host: "127.0.0.1".into(), port },
        user: "user".into(),
        password: "secret".to_owned().into(),
        tls: TlsOptions { mode, ..TlsOptions::default() },
        zstd_level: None,
        connect_timeout: LIMIT,
        read_timeout: LIMIT,
        cancel: Arc::new(|| false),
    };
    let mut connection = Connection::connect(&options)?;
    connection.start_clone()?;
    let started = Instant::now();
    let mut bytes = 0;
    for _ in 0..blocks {
        bytes += connection.receive(LIMIT)?.data.len();
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {:.2} GiB/s", bytes as f64 / seconds / f64::from(1 << 30));
    Ok(())
}
