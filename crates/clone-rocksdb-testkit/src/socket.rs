// SPDX-License-Identifier: GPL-2.0-only

//! A clone over TCP: the commands and responses of COM_CLONE (`clone_protocol`), each in a frame of
//! a little-endian `u32` with its length and its bytes. What is not here are MySQL's handshake, its
//! parameters and its tuner: those are `clone-core`'s.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use clone_engine::BlockInput;
use clone_engine::BlockOutput;
use clone_engine::DynEngine;
use clone_engine::Error;
use clone_engine::Mode;
use clone_engine::Result;
use clone_engine::TaskId;
use clone_engine::Tasks;
use clone_engine::View;
use clone_engine::number;
use clone_protocol::Ack;
use clone_protocol::Command;
use clone_protocol::EngineLocator;
use clone_protocol::Init;
use clone_protocol::Response;
use clone_protocol::Version;
use clone_protocol::rocksdb::DB_TYPE_PERCONA;

use crate::local::Alive;
use crate::local::task_of;

/// The longest frame: a chunk of 1 MiB, or a restart locator of as many files.
const MAX_FRAME: u32 = 32 << 20;

/// A donor that listens. It stops listening when this is dropped; connections go on.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of this host.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(engine: Arc<DynEngine>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let listening = thread::spawn(move || {
            for stream in listener.incoming().map_while(io::Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let engine = Arc::clone(&engine);
                thread::spawn(move || {
                    Serving { wire: Wire::new(stream, None), engine: &*engine, begun: None }.run();
                });
            }
        });
        Ok(Self { address, stop, listening: Some(listening) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

/// One end of a connection.
struct Wire {
    stream: TcpStream,
    /// The connection breaks when so many bytes have been read through all that share this.
    budget: Option<Arc<AtomicI64>>,
    frame: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream, budget: Option<Arc<AtomicI64>>) -> Self {
        // Small packets are not to wait for others.
        let _ = stream.set_nodelay(true);
        Self { stream, budget, frame: Vec::new() }
    }

    fn connect(address: SocketAddr, budget: Option<Arc<AtomicI64>>) -> Result<Self> {
        let stream = TcpStream::connect(address).map_err(|_| lost_reading())?;
        Ok(Self::new(stream, budget))
    }

    fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let sent = self.stream.write_all(&len.to_le_bytes());
        sent.and_then(|()| self.stream.write_all(frame))
            .map_err(|_| Error::Raised(number::ER_NET_ERROR_ON_WRITE))
    }

    fn send(&mut self, response: &Response<'_>) -> Result<()> {
        let mut frame = Vec::new();
        response.encode(&mut frame);
        self.send_frame(&frame)
    }

    fn send_command(&mut self, command: &Command<'_>) -> Result<()> {
        let mut payload = Vec::new();
        command.encode_payload(&mut payload);
        payload.insert(0, command.code() as u8);
        self.send_frame(&payload)
    }

    fn receive(&mut self) -> Result<&[u8]> {
        let mut len = [0; 4];
        self.read(&mut len)?;
        let len = u32::from_le_bytes(len);
        if len > MAX_FRAME {
            return Err(Error::Protocol(format!("Wrong Clone RPC: frame of {len} bytes")));
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(len as usize, 0);
        let outcome = self.read(&mut frame);
        self.frame = frame;
        outcome?;
        Ok(&self.frame)
    }

    /// A connection that breaks here has to be closed, not only shut down: a kernel that is not to
    /// receive any more but has no room either never says so, and a donor that waits for room waits
    /// for a minute.
    fn read(&mut self, into: &mut [u8]) -> Result<()> {
        if let Some(budget) = &self.budget {
            let len = i64::try_from(into.len()).unwrap_or(i64::MAX);
            if budget.fetch_sub(len, Ordering::Relaxed) < len {
                return Err(lost_reading());
            }
        }
        self.stream.read_exact(into).map_err(|_| lost_reading())
    }
}

fn lost_reading() -> Error {
    Error::Raised(number::ER_NET_READ_ERROR)
}

/// A donor's connection.
struct Serving<'a> {
    wire: Wire,
    engine: &'a DynEngine,
    /// The clone that this connection is a task of.
    begun: Option<clone_engine::Begun>,
}

impl Serving<'_> {
    fn run(&mut self) {
        loop {
            let outcome = match self.wire.receive() {
                Ok(frame) => {
                    let frame = frame.to_vec();
                    self.execute(&frame)
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(true) => {
                    if self.wire.send(&Response::Complete).is_err() {
                        return self.end(number::ER_NET_ERROR_ON_WRITE);
                    }
                }
                Ok(false) => return self.end(0),
                Err(error) if error.is_network() => return self.end(error.number()),
                Err(error) => {
                    let message = error.to_string();
                    let number = i32::try_from(error.number()).unwrap_or(i32::MAX);
                    let told =
                        self.wire.send(&Response::Error { number, message: message.as_bytes() });
                    self.end(error.number());
                    if told.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn end(&mut self, error: u32) {
        if error != 0 {
            let _ = self.wire.stream.shutdown(Shutdown::Both);
        }
        if let Some(begun) = self.begun.take() {
            let _ = self.engine.end(&Alive, task_of(&begun), error);
        }
    }

    /// Gives whether the connection goes on.
    fn execute(&mut self, frame: &[u8]) -> Result<bool> {
        let (code, payload) = frame.split_first().ok_or_else(lost_reading)?;
        match Command::parse(*code, payload)? {
            Command::Init(init) => self.begin(&init, Mode::Start)?,
            Command::Attach(init) => self.begin(&init, Mode::AddTask)?,
            Command::Reinit(init) => self.begin(&init, Mode::Restart)?,
            Command::Execute => {
                let begun = self.begun.as_ref().ok_or_else(|| {
                    Error::Protocol("Wrong Clone RPC: Execute request before Init".to_owned())
                })?;
                let (engine, wire) = (self.engine, &mut self.wire);
                let mut sender = Sender { wire, data: Vec::new() };
                engine.copy(&Alive, task_of(begun), 0, &mut sender)?;
            }
            Command::Ack(ack) => {
                let error = ack.error.unsigned_abs();
                self.engine.ack(&Alive, &ack.locator.bytes, error, ack.descriptor)?;
            }
            // Asked for by nobody here.
            Command::Heartbeat(_) | Command::Base(_) => {}
            Command::Exit => return Ok(false),
        }
        Ok(true)
    }

    fn begin(&mut self, init: &Init, mode: Mode) -> Result<()> {
        let [locator] = &init.locators[..] else {
            return Err(Error::Protocol("Wrong Clone RPC: Init buffer length".to_owned()));
        };
        let begun = self.engine.begin(&Alive, Some(&locator.bytes), mode, init.ddl_timeout)?;
        let locators = vec![wire_locator(&begun.locator)];
        self.begun = Some(begun);
        self.wire.send(&Response::Locators { version: Version::V1, locators })
    }
}

fn wire_locator(bytes: &[u8]) -> EngineLocator {
    EngineLocator { db_type: DB_TYPE_PERCONA, bytes: bytes.to_vec() }
}

/// Sends what the donor copies: a descriptor, and its data behind it.
struct Sender<'a> {
    wire: &'a mut Wire,
    /// A frame of data.
    data: Vec<u8>,
}

impl Sender<'_> {
    fn descriptor(&mut self, view: &View<'_>) -> Result<()> {
        let descriptor = view.descriptor;
        self.wire.send(&Response::DataDescriptor {
            db_type: DB_TYPE_PERCONA,
            locator_index: 0,
            descriptor,
        })
    }
}

impl BlockOutput for Sender<'_> {
    fn file(&mut self, view: &View<'_>, file: BorrowedFd<'_>, len: u32) -> Result<()> {
        // The code of data, and room behind it. What cannot be read is not announced.
        Response::Data(&[]).encode(&mut self.data);
        let head = self.data.len();
        self.data.resize(head + len as usize, 0);
        clone_io::read_exact(file, &mut self.data[head..])
            .map_err(|error| Error::file(false, view.source_name, &error))?;
        self.descriptor(view)?;
        self.wire.send_frame(&self.data)
    }

    fn buffer(&mut self, view: &View<'_>, data: &[u8]) -> Result<()> {
        self.descriptor(view)?;
        if data.is_empty() { Ok(()) } else { self.wire.send(&Response::Data(data)) }
    }
}

/// A recipient's wishes.
#[derive(Clone, Debug)]
pub struct Pull {
    /// The donor.
    pub address: SocketAddr,
    /// Where to; none replaces the server's own data.
    pub directory: Option<PathBuf>,
    /// Connections that carry data.
    pub tasks: u32,
    /// The network breaks after so many bytes; then, in the next connection, after the next number;
    /// and so on.
    pub breaks: Vec<u64>,
}

/// What a recipient has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// How often it had to connect again.
    pub restarts: u32,
    /// What the donor estimated, in bytes.
    pub estimate: u64,
}

impl Pull {
    /// Runs the clone to its end.
    ///
    /// # Errors
    /// The engine's, the donor's, or the network's when nothing is left to be tried.
    pub fn run(&self, client: &DynEngine) -> Result<Pulled> {
        let directory = self.directory.as_deref();
        let version = client.apply_begin(&Alive, None, Mode::Version, directory)?;
        let mut breaks = self.breaks.iter();
        let mut budget = next_budget(&mut breaks);
        let mut wire = Wire::connect(self.address, budget.clone())?;
        let theirs = begin(&mut wire, &version.locator, Mode::Start)?;
        let locator = client.apply_begin(&Alive, Some(&theirs), Mode::Start, directory)?.locator;
        let estimate = AtomicU64::new(0);
        let mut restarts = 0;
        let outcome = loop {
            let round = Round { pull: self, client, locator: &locator, estimate: &estimate };
            match round.run(wire, budget) {
                // As many as there are breaks, and some for those that came when nothing was left
                // to break.
                Err(error) if error.is_network() && restarts <= self.breaks.len() as u32 => {}
                outcome => break outcome,
            }
            restarts += 1;
            budget = next_budget(&mut breaks);
            match self.reconnect(client, &locator, budget.clone()) {
                Ok(connected) => wire = connected,
                Err(error) => break Err(error),
            }
        };
        let outcome = outcome.map(|mut wire| drop(wire.send_command(&Command::Exit)));
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let main = TaskId { locator: &locator, number: Tasks::MAIN, index: 0 };
        let ended = client.apply_end(&Alive, main, error);
        let estimate = estimate.into_inner();
        outcome.and(ended).map(|()| Pulled { restarts, estimate })
    }

    fn reconnect(
        &self,
        client: &DynEngine,
        locator: &[u8],
        budget: Option<Arc<AtomicI64>>,
    ) -> Result<Wire> {
        let directory = self.directory.as_deref();
        let states = client.apply_begin(&Alive, Some(locator), Mode::Restart, directory)?;
        let mut attempts = 0;
        loop {
            let connected = Wire::connect(self.address, budget.clone()).and_then(|mut wire| {
                begin(&mut wire, &states.locator, Mode::Restart)?;
                Ok(wire)
            });
            attempts += 1;
            match connected {
                Err(error) if error.is_network() && attempts < 20 => {
                    thread::sleep(Duration::from_millis(50));
                }
                other => return other,
            }
        }
    }
}

fn next_budget<'a>(breaks: &mut impl Iterator<Item = &'a u64>) -> Option<Arc<AtomicI64>> {
    breaks.next().map(|bytes| Arc::new(AtomicI64::new(i64::try_from(*bytes).unwrap_or(i64::MAX))))
}

/// INIT, ATTACH or REINIT; gives the donor's locator.
fn begin(wire: &mut Wire, locator: &[u8], mode: Mode) -> Result<Vec<u8>> {
    let init = Init {
        version: Version::V1.number(),
        ddl_timeout: 0,
        block_ddl: false,
        sends_heartbeats: false,
        locators: vec![wire_locator(locator)],
    };
    wire.send_command(&match mode {
        Mode::AddTask => Command::Attach(init),
        Mode::Restart => Command::Reinit(init),
        Mode::Start | Mode::Version => Command::Init(init),
    })?;
    let mut ours = None;
    loop {
        match Response::parse(wire.receive()?)? {
            Response::Locators { locators, .. } => ours = locators.into_iter().next(),
            Response::Complete => break,
            other => return Err(refused(&other)),
        }
    }
    ours.map(|locator| locator.bytes)
        .ok_or_else(|| Error::Protocol("Wrong Clone RPC response".to_owned()))
}

fn refused(response: &Response<'_>) -> Error {
    match response {
        Response::Error { number, message } => {
            Error::Donor { number: *number, message: String::from_utf8_lossy(message).into_owned() }
        }
        _ => Error::Protocol("Wrong Clone RPC response".to_owned()),
    }
}

/// All tasks of a clone, from one connect to the end or the next break.
struct Round<'a> {
    pull: &'a Pull,
    client: &'a DynEngine,
    locator: &'a [u8],
    estimate: &'a AtomicU64,
}

impl Round<'_> {
    /// Gives the connection back if the clone is through.
    fn run(&self, mut wire: Wire, budget: Option<Arc<AtomicI64>>) -> Result<Wire> {
        thread::scope(|scope| {
            let workers: Vec<_> = (1..self.pull.tasks)
                .map(|_| {
                    let budget = budget.clone();
                    scope.spawn(move || self.worker(budget))
                })
                .collect();
            // After an error it is closed before anything is waited for: see [`Wire::read`].
            let mut outcome = self.execute(&mut wire, Tasks::MAIN).map(|()| wire);
            if let Err(error) = &outcome {
                self.fail(Tasks::MAIN, error);
            }
            for worker in workers {
                let worked = worker.join().unwrap_or_else(|_| Err(lost_reading()));
                // The main task's comes first, and a network failure of a worker is one of the
                // clone.
                outcome = outcome.and_then(|wire| worked.map(|()| wire));
            }
            outcome
        })
    }

    fn task(&self, number: u32) -> TaskId<'_> {
        TaskId { locator: self.locator, number, index: 0 }
    }

    fn worker(&self, budget: Option<Arc<AtomicI64>>) -> Result<()> {
        let directory = self.pull.directory.as_deref();
        let begun =
            self.client.apply_begin(&Alive, Some(self.locator), Mode::AddTask, directory)?;
        let outcome = Wire::connect(self.pull.address, budget).and_then(|mut wire| {
            match begin(&mut wire, self.locator, Mode::AddTask) {
                // The main task was through before this one had begun.
                Err(Error::Donor { .. }) => return Ok(()),
                other => other?,
            };
            let outcome = self.execute(&mut wire, begun.task);
            match &outcome {
                Ok(()) => drop(wire.send_command(&Command::Exit)),
                Err(error) => self.fail(begun.task, error),
            }
            outcome
        });
        let error = outcome.as_ref().err().map_or(0, Error::number);
        let ended = self.client.apply_end(&Alive, self.task(begun.task), error);
        outcome.and(ended)
    }

    /// Tells the other tasks, and the donor, unless it was the donor that told.
    fn fail(&self, task: u32, error: &Error) {
        let _ = self.client.apply_error(&Alive, self.task(task), error.number());
        if !error.is_network() && !matches!(error, Error::Donor { .. }) {
            let ack = Command::Ack(Ack {
                error: i32::try_from(error.number()).unwrap_or(i32::MAX),
                locator: wire_locator(self.locator),
                descriptor: &[],
            });
            if let Ok(mut auxiliary) = Wire::connect(self.pull.address, None) {
                let _ = auxiliary.send_command(&ack);
                let _ = auxiliary.receive();
                let _ = auxiliary.send_command(&Command::Exit);
            }
        }
    }

    fn execute(&self, wire: &mut Wire, task: u32) -> Result<()> {
        wire.send_command(&Command::Execute)?;
        loop {
            let descriptor = match Response::parse(wire.receive()?)? {
                Response::DataDescriptor { descriptor, .. } => descriptor.to_vec(),
                Response::Complete => return Ok(()),
                other => return Err(refused(&other)),
            };
            let mut receiver = Receiver { wire, estimate: self.estimate };
            self.client.apply(&Alive, self.task(task), &descriptor, &mut receiver)?;
        }
    }
}

/// Gives the client the data behind a descriptor.
struct Receiver<'a> {
    wire: &'a mut Wire,
    estimate: &'a AtomicU64,
}

impl BlockInput for Receiver<'_> {
    fn change_state(&mut self, _: &View<'_>) -> Result<()> {
        Err(Error::Internal("the RocksDB client has no states".to_owned()))
    }

    fn apply_file(&mut self, view: &View<'_>, file: BorrowedFd<'_>) -> Result<()> {
        match Response::parse(self.wire.receive()?)? {
            Response::Data(data) => clone_io::write_all(file.as_fd(), data)
                .map_err(|error| Error::file(true, view.destination_name, &error)),
            other => Err(refused(&other)),
        }
    }

    fn apply_buffer(&mut self, _: &View<'_>) -> Result<&mut [u8]> {
        Err(Error::Internal("the RocksDB client writes to files".to_owned()))
    }

    fn add_estimate(&mut self, bytes: u64) {
        self.estimate.fetch_add(bytes, Ordering::Relaxed);
    }
}
