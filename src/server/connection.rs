// SPDX-License-Identifier: GPL-2.0-only

//! A recipient's connection to a donor, in clone mode.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::ptr;
use std::ptr::NonNull;

use zeroize::{Zeroize, Zeroizing};

use super::abi;
use super::client;
use super::raise::check;
use super::services::services;
use super::sql::Rows;
use super::text::{bytes_mut, whole};
use super::thd::{self, Thd};

const ER_CLONE_DONOR: u32 = 3862;

/// What `share/messages_to_clients.txt` puts around the text of error 3862. The message has no
/// translations.
const DONOR_ERROR: (&str, &str) = ("Clone Donor Error: ", ".");

/// Where the donor is and how to reach it.
pub(crate) struct Donor {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
    pub(crate) ssl: SslContext,
    /// Compress as the classic protocol does (`clone_enable_compression`).
    pub(crate) compress: bool,
}

/// TLS of the connection. The rest of its configuration is mysqld's own.
#[derive(Default)]
pub(crate) struct SslContext {
    /// `enum mysql_ssl_mode`: 1 disabled, 2 preferred, 3 required. Becomes "verify CA" when `ca` is
    /// given.
    pub(crate) mode: i32,
    /// File names.
    pub(crate) key: Option<String>,
    pub(crate) cert: Option<String>,
    pub(crate) ca: Option<String>,
}

/// A connection on which the donor has answered COM_CLONE with OK. Dropping it closes the socket,
/// as after an error.
pub(crate) struct Connection {
    mysql: NonNull<abi::MYSQL>,
    /// The session that has been told of the connection, NULL for none. It may have ended.
    told: *mut abi::THD,
    /// The socket's number, as mysqld said when it connected.
    socket: c_int,
    /// mysqld keeps the state of the compression here as long as the connection lives.
    _compression: Option<Box<abi::NET_SERVER>>,
    closed: bool,
}

// SAFETY: the client library ties a connection to no thread, and calls need `&mut self` or only
// read. The session is used only on its own thread.
unsafe impl Send for Connection {}

/// A packet of the donor.
pub(crate) struct Packet<'a> {
    /// The payload, in the connection's buffer.
    pub(crate) data: &'a mut [u8],
    /// Bytes on the network, which are fewer than the payload's when the connection is compressed.
    pub(crate) network_len: usize,
}

impl Connection {
    /// Connects and sends COM_CLONE. The thread needs a session, in which mysqld raises the error.
    ///
    /// If `told` is this session, KILL shuts the connection down. InnoDB, while it drops data, asks
    /// mysqld whether KILL has done so (`THD::check_clone_vio`). Without `told`, KILL does not know
    /// the connection.
    ///
    /// Give `told` only where InnoDB needs it. KILL holds the session's lock and waits in a loop
    /// for the thread that reads from the connection. That thread may close the connection at this
    /// moment, for example because the answer to COM_CLONE does not come. Then the loop reads freed
    /// memory and may never end (`vio/viosocket.cc:vio_wait_until_woken`, seen with MySQL 9.7.4).
    ///
    /// # Errors
    /// The text of error 3862: "Connect failed: `<number>` : `<text>`", or "`<number>` : `<text>`"
    /// of the donor.
    pub(crate) fn connect(told: Option<Thd<'_>>, donor: &Donor) -> Result<Self, String> {
        let mut compression = donor.compress.then(no_compression_yet);
        let ssl = &donor.ssl;
        let file = |name: &Option<String>| name.as_deref().map(whole);
        let (key, cert, ca) = (file(&ssl.key), file(&ssl.cert), file(&ssl.ca));
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let mut context = abi::mysql_clone_ssl_context {
            m_ssl_mode: ssl.mode,
            m_ssl_key: pointer(&key),
            m_ssl_cert: pointer(&cert),
            m_ssl_ca: pointer(&ca),
            m_enable_compression: donor.compress,
            m_server_extn: compression.as_deref_mut().map_or(ptr::null_mut(), ptr::from_mut),
        };
        let (host, user) = (whole(&donor.host), whole(&donor.user));
        let mut password = whole(&donor.password);
        let mut socket = abi::MYSQL_SOCKET { fd: -1, m_psi: ptr::null_mut() };
        // SAFETY: terminated texts that live until the call returns (the client library copies
        // them), a living session or NULL, and the context, whose extension lives as long as the
        // connection.
        let mysql = unsafe {
            (services().clone_protocol.connect)(
                thd::as_ptr(told),
                host.as_ptr(),
                u32::from(donor.port),
                user.as_ptr(),
                password.as_ptr(),
                &raw mut context,
                &raw mut socket,
            )
        };
        password.zeroize();
        match NonNull::new(mysql) {
            Some(mysql) => Ok(Self {
                mysql,
                told: thd::as_ptr(told),
                socket: socket.fd,
                _compression: compression,
                closed: false,
            }),
            None => {
                let raised = Thd::with_current(|thd| services().clone_protocol.error(thd));
                Err(match raised.flatten() {
                    Some((ER_CLONE_DONOR, text)) => donor_error(&text).to_owned(),
                    Some((number, text)) => format!("Connect failed: {number} : {text}"),
                    None => "Connect failed".to_owned(),
                })
            }
        }
    }

    /// Sends the command `code` with `payload`. `set_active` makes it fail with 1317 when `thd` is
    /// killed.
    ///
    /// After one network error all calls return it without raising it again.
    pub(crate) fn send_command(
        &mut self,
        thd: Thd<'_>,
        set_active: bool,
        code: u8,
        payload: &[u8],
    ) -> Result<(), u32> {
        // SAFETY: a living session and connection; the method only reads the payload
        // (net_write_command).
        check(unsafe {
            (services().clone_protocol.send_command)(
                thd.as_ptr(),
                self.mysql.as_ptr(),
                set_active,
                code,
                payload.as_ptr().cast_mut(),
                payload.len(),
            )
        })
    }

    /// Waits for a packet, for each read of the socket at most `timeout` seconds (at least 30; 0
    /// means as configured).
    pub(crate) fn receive(
        &mut self,
        thd: Thd<'_>,
        set_active: bool,
        timeout: u32,
    ) -> Result<Packet<'_>, u32> {
        let mut data = ptr::null_mut();
        let mut length = 0;
        let mut network_len = 0;
        // SAFETY: a living session and connection, and places for the results.
        check(unsafe {
            (services().clone_protocol.get_response)(
                thd.as_ptr(),
                self.mysql.as_ptr(),
                set_active,
                timeout,
                &raw mut data,
                &raw mut length,
                &raw mut network_len,
            )
        })?;
        // SAFETY: on success the packet lies in the connection's buffer and nobody else touches it
        // before the next call on this connection, which needs the borrow to have ended.
        let data = unsafe { bytes_mut(data, length) };
        Ok(Packet { data, network_len })
    }

    /// The socket, whatever is on it; not to be read from or written to.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: open as long as the connection, which the result borrows.
        (self.socket >= 0).then(|| unsafe { BorrowedFd::borrow_raw(self.socket) })
    }

    /// The socket, if it has neither TLS nor compression: then packets can be read from it past the
    /// client library. Nothing may be under way, in the library's buffer or on the network.
    ///
    /// Whether the connection has TLS is read from the client library's own structures, of which
    /// only the first fields are known. The answer is used only if these structures name the same
    /// socket as mysqld did.
    pub(crate) fn plain_socket(&self) -> Option<BorrowedFd<'_>> {
        if self._compression.is_some() || self.socket < 0 {
            return None;
        }
        // SAFETY: a `MYSQL` begins with its `NET`, in every release; it lives as long as the
        // connection.
        let net = unsafe { self.mysql.cast::<NetHead>().as_ref() };
        // SAFETY: a `NET` begins with the address of its `Vio`, NULL only when the connection is
        // closed.
        let vio = unsafe { net.vio.as_ref() }?;
        let is_known = net.fd == self.socket && vio.socket == self.socket;
        if !is_known || !matches!(vio.kind, VIO_TYPE_TCPIP | VIO_TYPE_SOCKET) {
            return None;
        }
        self.socket()
    }

    /// Kills the session of `other` at the donor, through this connection, which has left clone
    /// mode (COM_EXIT). The error is that of a query, which is not raised.
    pub(crate) fn kill(&mut self, other: &Connection) -> Result<(), u32> {
        // SAFETY: two living connections; of the other only its id is read.
        check(unsafe {
            (services().clone_protocol.kill)(self.mysql.as_ptr(), other.mysql.as_ptr())
        })
    }

    /// Whether the connection has TLS. None if this mysqld does not tell.
    pub(crate) fn has_tls(&self) -> Option<bool> {
        client::has_tls(self.mysql)
    }

    /// Runs a statement at the donor, over this connection, which has left clone mode (COM_EXIT).
    /// Nothing is raised.
    pub(crate) fn query(&mut self, statement: &str) -> Result<Rows, client::QueryError> {
        let socket = self.socket();
        client::query(self.mysql, statement, || {
            if let Some(socket) = socket {
                let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
            }
        })
    }

    /// Ends the connection. If `fatal`, the socket is closed at once; if not, the donor is asked to
    /// leave clone mode first. The errors of the session `clears` are cleared.
    pub(crate) fn disconnect(mut self, fatal: bool, clears: Option<Thd<'_>>) {
        self.close(fatal, clears);
    }

    fn close(&mut self, fatal: bool, clears: Option<Thd<'_>>) {
        if !std::mem::replace(&mut self.closed, true) {
            let told = thd::if_current(self.told);
            // SAFETY: the connection ends here, once. The session is NULL, or lives and forgets the
            // connection.
            unsafe {
                (services().clone_protocol.disconnect)(
                    clears.map_or(told, Thd::as_ptr),
                    self.mysql.as_ptr(),
                    fatal,
                    clears.is_some(),
                )
            };
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close(true, None);
    }
}

/// The donor's part of the message of error 3862.
fn donor_error(message: &str) -> &str {
    let (before, after) = DONOR_ERROR;
    let text = message.strip_prefix(before).unwrap_or(message);
    text.strip_suffix(after).unwrap_or(text)
}

/// The first fields of `include/mysql_com.h:NET`, which is part of the client library's public
/// interface.
#[repr(C)]
struct NetHead {
    vio: *const VioHead,
    buffers: [*mut c_void; 4],
    fd: c_int,
}

/// The first fields of `include/violite.h:Vio`.
#[repr(C)]
struct VioHead {
    socket: c_int,
    _instrumentation: *mut c_void,
    _is_local: bool,
    /// `enum_vio_type`.
    kind: c_int,
}

const _: () = {
    assert!(std::mem::offset_of!(NetHead, fd) == 40);
    assert!(std::mem::offset_of!(VioHead, kind) == 20);
};

/// `enum_vio_type`: without TLS.
const VIO_TYPE_TCPIP: c_int = 1;
const VIO_TYPE_SOCKET: c_int = 2;

/// `include/mysql_com_server.h:net_server_ext_init`.
fn no_compression_yet() -> Box<abi::NET_SERVER> {
    Box::new(abi::NET_SERVER {
        m_before_header: ptr::null_mut(),
        m_after_header: ptr::null_mut(),
        m_user_data: ptr::null_mut(),
        compress_algorithm: [0; 32],
        compress_level: 0,
        compression_optional: false,
        compress_ctx_algorithm: abi::MYSQL_UNCOMPRESSED as u32,
        rest: [0; 444],
    })
}
