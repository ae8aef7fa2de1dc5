// SPDX-License-Identifier: GPL-2.0-only

//! One connection: two sockets, and one thread that forwards between them without ever blocking on
//! one.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clone_protocol::{Block, BlockForm, Command, Response, ResponseCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{
    set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::dialogue::{Dialogue, Event};
use super::network::{Network, Verdict};
use super::record::Line;
use super::script::How;
use super::wire::{self, Framer, Framing, HEADER_LEN, Piece};

/// Bytes for one side that wait to be written before reading from the other side stops.
const BACKLOG: usize = 256 << 10;
/// Bytes to read at once.
const READ: usize = 64 << 10;
/// Bytes that wait to be looked at before reading stops: more than the longest packet, 16 MiB.
const INPUT: usize = 17 << 20;
/// Bytes that the kernel keeps for us. What it keeps beyond that is out of our sight: a donor could
/// be many MiB ahead of what we count, and would notice late that a connection is cut.
const SOCKET_BUFFER: usize = 128 << 10;
/// How long a connection that is closed in order may take to get rid of what has been forwarded.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// First byte of a DATA packet.
const DATA: u8 = ResponseCode::Data as u8;
/// Offset of the version in a packet with INIT, ATTACH or REINIT: behind header and code.
const VERSION_AT: usize = HEADER_LEN + 1;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Recipient,
    Donor,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    network: Arc<Network>,
    wake: UnixStream,
    recipient: End,
    donor: End,
    dialogue: Dialogue,
    held: Option<Held>,
    /// Parameters that are to follow the locators.
    parameters: Vec<u8>,
    /// Bytes of the DATA packet at hand that have passed.
    data_passed: usize,
}

/// One side of it.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    /// What came from it.
    input: Framer,
    /// What goes to it.
    output: Vec<u8>,
    is_at_end: bool,
}

/// A packet that waits.
#[derive(Debug)]
struct Held {
    from: Side,
    bytes: Vec<u8>,
    until: Option<Instant>,
}

impl Connection {
    /// Connects to the donor.
    pub(super) fn open(recipient: TcpStream, network: Arc<Network>) -> io::Result<Self> {
        set_socket_send_buffer_size(&recipient, SOCKET_BUFFER)?;
        let donor = connect(network.donor_port())?;
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let (recipient, donor) = (End::new(recipient)?, End::new(donor)?);
        let id = network.lock().enter(waker)?;
        let dialogue = Dialogue::new();
        Ok(Self {
            id,
            network,
            wake,
            recipient,
            donor,
            dialogue,
            held: None,
            parameters: Vec::new(),
            data_passed: 0,
        })
    }

    /// Forwards until either side ends or the connection is cut.
    pub(super) fn run(mut self) {
        let cut = loop {
            // An error of a socket is the end of the connection to both sides.
            match self.turn() {
                Ok(Some(how)) => break how,
                Ok(None) if self.network.lock().is_silent(self.id) => {}
                Ok(None) if self.is_over() => break How::Close,
                Ok(None) => {}
                Err(_) => break How::Close,
            }
        };
        let network = Arc::clone(&self.network);
        let id = self.id;
        match cut {
            How::Reset => {
                // What can be written at once is; errors no longer matter.
                let _ = self.recipient.write();
                let _ = self.donor.write();
                reset(self.recipient.stream);
                reset(self.donor.stream);
            }
            How::Close => {
                self.recipient.close();
                self.donor.close();
            }
        }
        // Last, so that whoever cuts and then sees no connection can rely on it.
        network.lock().leave(id);
    }

    /// Forwards what there is and waits for more.
    fn turn(&mut self) -> io::Result<Option<How>> {
        if let Some(how) = self.network.lock().order(self.id) {
            return Ok(Some(how));
        }
        if self.network.lock().is_silent(self.id) {
            return self.wait_for_orders().map(|()| None);
        }
        self.let_go();
        let mut was_full = false;
        for from in [Side::Recipient, Side::Donor] {
            if let Some(how) = self.forward(from) {
                return Ok(Some(how));
            }
            was_full |= self.opposite(from).output.len() >= BACKLOG;
        }
        self.recipient.write()?;
        self.donor.write()?;
        // What has been read may be forwarded now, and no more may come.
        let has_room =
            was_full && [&self.recipient, &self.donor].iter().all(|end| end.output.len() < BACKLOG);
        if !self.is_over() && !has_room {
            self.wait()?;
        }
        Ok(None)
    }

    /// One side has ended, and all it sent is written.
    fn is_over(&self) -> bool {
        let done =
            |from: &End, to: &End| from.is_at_end && from.input.is_empty() && to.output.is_empty();
        done(&self.recipient, &self.donor) || done(&self.donor, &self.recipient)
    }

    /// Waits until there is something to do, and neither reads nor writes.
    fn wait_for_orders(&self) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let _ = (&self.wake).read(&mut [0; 16]);
        Ok(())
    }

    /// Waits for something to read, write or do, and reads.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.held.as_ref().and_then(|held| held.until).map(time_until);
        let reads_recipient = self.recipient.wants_more() && self.donor.output.len() < BACKLOG;
        let reads_donor = self.donor.wants_more() && self.recipient.output.len() < BACKLOG;
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        for (end, reads) in [(&self.recipient, reads_recipient), (&self.donor, reads_donor)] {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, reads);
            events.set(PollFlags::OUT, !end.output.is_empty());
            // A broken socket that nobody wants to use would be reported again and again.
            if !events.is_empty() {
                fds.push(PollFd::new(&end.stream, events));
            }
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Empties the pipe; nothing in it is an error.
        let _ = (&self.wake).read(&mut [0; 16]);
        if reads_recipient {
            self.recipient.read()?;
        }
        if reads_donor {
            self.donor.read()?;
        }
        Ok(())
    }

    /// Ends a wait that is over.
    fn let_go(&mut self) {
        let is_over = |held: &Held| match held.until {
            Some(until) => Instant::now() >= until,
            None => !self.network.lock().is_holding(),
        };
        if self.held.as_ref().is_some_and(is_over)
            && let Some(held) = self.held.take()
        {
            self.opposite(held.from).output.extend_from_slice(&held.bytes);
        }
    }

    fn forward(&mut self, from: Side) -> Option<How> {
        loop {
            let is_held = self.held.as_ref().is_some_and(|held| held.from == from)
                || self.network.lock().is_holding();
            if is_held || self.opposite(from).output.len() >= BACKLOG {
                return None;
            }
            let mut framing = match from {
                Side::Recipient => self.dialogue.recipient_framing(),
                Side::Donor => self.dialogue.donor_framing(),
            };
            // The donor is in COM_CLONE.
            let is_rewritten =
                framing == Framing::Responses && self.network.lock().rewriter.is_some();
            if is_rewritten {
                framing = Framing::Packets;
            }
            let end = self.end(from);
            let next = end.input.next(framing);
            // A packet whose end will not come is forwarded as far as it goes.
            let piece = next.or_else(|| end.is_at_end.then(|| end.input.rest()).flatten())?;
            let (bytes, verdict) = match piece {
                Piece::Packet(packet) => {
                    let replacement = is_rewritten.then(|| self.replacement(&packet)).flatten();
                    // The donor's own packet is judged and counted.
                    let (bytes, verdict) = match data_len(&packet).filter(|_| from == Side::Donor) {
                        Some(len) => self.whole_block(packet, len),
                        None => self.packet(from, packet),
                    };
                    match (replacement, verdict) {
                        (Some(replacement), Verdict::Pass | Verdict::Hold(_)) => {
                            (replacement, verdict)
                        }
                        _ => (bytes, verdict),
                    }
                }
                Piece::Data(data) => self.data(data),
                Piece::DataHead(bytes) => (bytes, Verdict::Pass),
                Piece::Raw(bytes) => {
                    if from == Side::Donor {
                        self.network.lock().traffic.opaque += bytes.len() as u64;
                    }
                    (bytes, Verdict::Pass)
                }
            };
            match verdict {
                Verdict::Pass => self.opposite(from).output.extend_from_slice(&bytes),
                Verdict::Cut(how) => {
                    // What comes before a cut within data.
                    self.opposite(from).output.extend_from_slice(&bytes);
                    return Some(how);
                }
                Verdict::Hold(until) => self.held = Some(Held { from, bytes, until }),
            }
        }
    }

    fn packet(&mut self, from: Side, mut packet: Vec<u8>) -> (Vec<u8>, Verdict) {
        // The OK before COM_CLONE is not part of it, the end of EXIT is.
        let is_cloning = self.dialogue.is_cloning();
        let event = match from {
            Side::Recipient => self.dialogue.recipient_sent(&packet),
            Side::Donor => self.dialogue.donor_sent(&packet),
        };
        let mut network = self.network.lock();
        let verdict = network.judge(self.id, &event);
        if let Verdict::Cut(_) = verdict {
            return (Vec::new(), verdict);
        }
        match event {
            Event::Command(Command::Init(init) | Command::Attach(init) | Command::Reinit(init)) => {
                if let Some(limit) = network.version_limit {
                    // Not what is above the version: a peer of that version sends nothing there.
                    let version = init.version.min(limit.number()).to_le_bytes();
                    packet.splice(VERSION_AT..VERSION_AT + version.len(), version);
                }
            }
            Event::Parameter(_) if network.locators_first => {
                self.parameters.append(&mut packet);
            }
            Event::Locators(_) => packet.append(&mut self.parameters),
            _ => {}
        }
        if is_cloning {
            network.note(|| line(self.id, from, &packet));
        }
        (packet, verdict)
    }

    fn data(&mut self, mut data: Vec<u8>) -> (Vec<u8>, Verdict) {
        let len = data.len();
        let is_last = !self.donor.input.has_data_left();
        let mut network = self.network.lock();
        let (may_pass, verdict) = match self.dialogue.data() {
            Some(descriptor) => {
                let network_len = descriptor.data_len.into();
                network.judge_data(self.id, &descriptor, network_len, len, is_last)
            }
            None => (len, Verdict::Pass),
        };
        let may_pass = may_pass.min(len);
        self.data_passed += may_pass;
        if is_last && may_pass == len && !matches!(verdict, Verdict::Cut(_)) {
            let len = mem::take(&mut self.data_passed);
            network.note(|| Line::Data { connection: number(self.id), len });
        }
        drop(network);
        let rest = data.split_off(may_pass);
        if let Verdict::Hold(_) = verdict {
            // What may pass does so, and the rest comes again.
            self.recipient.output.append(&mut data);
            self.donor.input.put_back(&rest);
        }
        (data, verdict)
    }

    /// What the recipient gets in place of this packet of the donor, if it gets anything else. The
    /// sequence number stays.
    fn replacement(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let payload = packet.get(HEADER_LEN..)?;
        let sequence = *packet.get(HEADER_LEN - 1)?;
        let mut network = self.network.lock();
        let payload = network.rewriter.as_mut()?.replacement(self.id, payload)?;
        Some(wire::packet(sequence, &payload))
    }

    /// A block that came as a whole counts as the data in it, `len` bytes, and a part of these is
    /// the same part of the packet.
    fn whole_block(&mut self, mut packet: Vec<u8>, len: usize) -> (Vec<u8>, Verdict) {
        let Some(descriptor) = self.dialogue.data() else { return (packet, Verdict::Pass) };
        let mut network = self.network.lock();
        let network_len = packet.len() as u64;
        let (may_pass, verdict) = network.judge_data(self.id, &descriptor, network_len, len, true);
        match verdict {
            Verdict::Cut(_) => packet.truncate(packet.len() * may_pass / len.max(1)),
            // It passes as a whole, later, and counts already.
            Verdict::Hold(_) if may_pass < len => {
                network.pass_data(self.id, &descriptor, network_len, len - may_pass);
            }
            Verdict::Hold(_) | Verdict::Pass => {}
        }
        (packet, verdict)
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Recipient => &mut self.recipient,
            Side::Donor => &mut self.donor,
        }
    }

    fn opposite(&mut self, side: Side) -> &mut End {
        self.end(match side {
            Side::Recipient => Side::Donor,
            Side::Donor => Side::Recipient,
        })
    }
}

/// The number of a connection in a record.
fn number(id: u64) -> u64 {
    id + 1
}

/// A packet with its header as a line of a record.
fn line(id: u64, from: Side, packet: &[u8]) -> Line {
    let connection = number(id);
    let payload = packet.get(HEADER_LEN..).unwrap_or_default();
    match (from, payload) {
        (Side::Recipient, _) => Line::Command { connection, payload: payload.to_vec() },
        // The framing makes data of those that are not empty.
        (Side::Donor, [DATA]) => Line::Data { connection, len: 0 },
        (Side::Donor, _) => Line::Response { connection, payload: payload.to_vec() },
    }
}

/// The bytes of data in a packet that is a block: packed, or whole because packets are rewritten.
fn data_len(packet: &[u8]) -> Option<usize> {
    match Response::parse(packet.get(HEADER_LEN..)?) {
        Ok(Response::Block(Block { form: BlockForm::File, .. })) => None,
        Ok(Response::Block(Block { len, .. })) => Some(len as usize),
        Ok(Response::Data(data)) => Some(data.len()),
        _ => None,
    }
    .filter(|len| *len > 0)
}

/// Connects with a small window, which must be set before.
fn connect(port: u16) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_recv_buffer_size(&socket, SOCKET_BUFFER)?;
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(socket.into())
}

impl End {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let input = Framer::default();
        Ok(Self { stream, input, output: Vec::new(), is_at_end: false })
    }

    fn wants_more(&self) -> bool {
        !self.is_at_end && self.input.len() < INPUT
    }

    fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.is_at_end = true,
            Ok(len) => self.input.extend(bytes.get(..len).unwrap_or_default()),
            Err(error) if is_nothing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if is_nothing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what is left, for some time, and closes.
    fn close(mut self) {
        let output = mem::take(&mut self.output);
        let set = self
            .stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(Some(FLUSH_LIMIT)));
        if set.is_ok() {
            // The other side may be gone.
            let _ = self.stream.write_all(&output);
        }
    }
}

/// Closes with a TCP reset.
pub(super) fn reset(stream: TcpStream) {
    // If it fails, the stream is only closed in order.
    let _ = set_socket_linger(&stream, Some(Duration::ZERO));
}

/// The time left, to poll with.
pub(super) fn time_until(moment: Instant) -> Timespec {
    let left = moment.saturating_duration_since(Instant::now());
    Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
