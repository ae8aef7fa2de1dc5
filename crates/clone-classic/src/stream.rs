// SPDX-License-Identifier: GPL-2.0-only

//! The bytes of a connection, encrypted or not.

use std::io::{ErrorKind, Read, Write};

use zeroize::Zeroize;

use crate::error::Error;
use crate::socket::{Interrupted, Socket};

/// Bytes that are read from the socket at once, before they are decrypted.
const INPUT: usize = 256 << 10;

/// Plain text that is encrypted and sent at once.
const OUTPUT: usize = 64 << 10;

/// A connection's bytes.
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream>),
}

impl Stream {
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.socket,
        }
    }

    pub(crate) fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
        }
    }

    /// Reads some bytes, at least one.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        match self {
            Self::Plain(socket) => socket.read_some(buffer).map_err(lost),
            Self::Tls(stream) => stream.read_some(buffer),
        }
    }

    /// Fills `buffer`.
    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        fill(buffer, |rest| self.read_some(rest))
    }

    /// Sends all of `data`. With `more`, more follows at once.
    pub(crate) fn write_all(&mut self, data: &[u8], more: bool) -> Result<(), Error> {
        match self {
            Self::Plain(socket) => socket.write_all(data, more).map_err(lost),
            Self::Tls(stream) => stream.write_all(data, more),
        }
    }

    /// Tells the peer that the connection ends, and ends it.
    pub(crate) fn close(&mut self) {
        if let Self::Tls(stream) = self {
            stream.tls.send_close_notify();
            // The peer may be gone.
            let _ = stream.flush();
        }
        self.socket().shut_down();
    }
}

/// Fills `buffer` by `read`, which reads at least one byte each time.
pub(crate) fn fill(
    buffer: &mut [u8],
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Error>,
) -> Result<(), Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        filled += read(&mut buffer[filled..])?;
    }
    Ok(())
}

fn lost(cause: Interrupted) -> Error {
    cause.into_error("during query")
}

/// An encrypted connection, of either end.
pub(crate) struct TlsStream {
    socket: Socket,
    tls: rustls::Connection,
    /// Encrypted bytes.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Encrypted bytes to send.
    output: Vec<u8>,
}

impl TlsStream {
    /// Makes the TLS handshake. `first` are bytes of the peer that were read already.
    pub(crate) fn start(
        socket: Socket,
        tls: rustls::Connection,
        first: &[u8],
    ) -> Result<Self, Error> {
        let mut input = vec![0; INPUT.max(first.len())];
        input[..first.len()].copy_from_slice(first);
        let end = first.len();
        let mut stream = Self { socket, tls, input, start: 0, end, output: Vec::new() };
        stream.flush()?;
        while stream.tls.is_handshaking() {
            stream.feed()?;
        }
        Ok(stream)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.tls.reader().read(buffer) {
                Ok(0) => return Err(lost(ErrorKind::UnexpectedEof.into())),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.feed()?,
                Err(error) => return Err(Error::Tls(error.to_string())),
            }
        }
    }

    fn write_all(&mut self, data: &[u8], more: bool) -> Result<(), Error> {
        for part in data.chunks(OUTPUT) {
            let mut part = part;
            while !part.is_empty() {
                let taken =
                    self.tls.writer().write(part).map_err(|error| Error::Tls(error.to_string()))?;
                part = &part[taken..];
                // rustls keeps a part until there is room for no more.
                if !part.is_empty() {
                    self.flush()?;
                }
            }
        }
        if more { Ok(()) } else { self.flush() }
    }

    /// Gives bytes of the socket to rustls.
    fn feed(&mut self) -> Result<(), Error> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = self.socket.read_some(&mut self.input).map_err(lost)?;
        }
        let mut rest = &self.input[self.start..self.end];
        let before = rest.len();
        self.tls.read_tls(&mut rest).map_err(|error| Error::Tls(error.to_string()))?;
        self.start += before - rest.len();
        match self.tls.process_new_packets() {
            Ok(_) => self.flush(),
            Err(error) => {
                // The alert says to the peer what is wrong. The peer may be gone.
                let _ = self.flush();
                Err(Error::Tls(error.to_string()))
            }
        }
    }

    /// Sends what rustls has to send.
    fn flush(&mut self) -> Result<(), Error> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.output).map_err(|error| Error::Tls(error.to_string()))?;
        }
        let sent = self.socket.write_all(&self.output, false).map_err(lost);
        self.output.clear();
        sent
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.output.zeroize();
    }
}
