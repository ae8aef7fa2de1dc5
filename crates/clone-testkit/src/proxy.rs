// SPDX-License-Identifier: GPL-2.0-only

//! A network between a recipient and a donor that breaks when it is told to.
//!
//! A [`Proxy`] listens on a loopback port and forwards each connection to the donor. It reads
//! MySQL's packets and, behind the authentication, COM_CLONE; so it knows which connection is the
//! master's, the auxiliary one or a worker's, counts the data that pass, and acts at a [`Point`] of
//! the dialogue: cuts connections, holds them, or lets them wait. Connections with TLS or
//! compression are forwarded as they are: of these it knows no more than that they are.
//!
//! ```no_run
//! # use clone_testkit::proxy::{Action, Point, Proxy, SnapshotState::FileCopy, Target};
//! # fn test() -> clone_testkit::anyhow::Result<()> {
//! # let donor_port = 3306;
//! let proxy = Proxy::to(donor_port)?;
//! proxy.at(Point::Data { state: FileCopy, bytes: 5 << 20 }, Action::reset(Target::Master));
//! // Clone from proxy.port() instead of the donor's ...
//! assert_eq!(proxy.pending(), []);
//! let (network, repeated) = proxy.traffic().network_and_repeated();
//! assert!(repeated < network / 10);
//! # Ok(())
//! # }
//! ```
//!
//! Each connection has one thread, and there are at most [`MAX_CONNECTIONS`]. All end when the
//! proxy is dropped.
//!
//! * [`script`]: points and actions. [`traffic`]: what has passed, counted. [`record`]: the packets
//!   that passed. [`rewrite`]: other packets than the donor's.
//! * `dialogue`: what a packet means on its connection. `wire`: bytes to packets.
//! * `listener`: takes connections. `connection`: forwards one. `network`: what they have in
//!   common.

mod connection;
mod dialogue;
mod listener;
mod network;
pub mod record;
pub mod rewrite;
pub mod script;
#[cfg(test)]
mod tests;
pub mod traffic;
mod wire;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clone_protocol::Version;

pub use clone_protocol::CommandCode;
pub use clone_protocol::innodb::SnapshotState;
pub use script::{Action, How, Point, Target};
pub use traffic::Traffic;

use listener::Listener;
use network::Network;
use record::Line;
use rewrite::{Rewriter, Sent};

/// More than a clone with the most workers, after a restart.
pub const MAX_CONNECTIONS: usize = 300;

/// How long the listening thread may take to do what it is told.
const LISTENER_LIMIT: Duration = Duration::from_secs(10);

/// A TCP port that forwards to a donor.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of the loopback address and forwards to `donor_port` on it.
    pub fn to(donor_port: u16) -> Result<Self> {
        let (listener, waker) = Listener::new().context("listen as a proxy")?;
        let port = listener.port();
        let network = Arc::new(Network::new(donor_port, waker));
        let listening = thread::spawn({
            let network = Arc::clone(&network);
            move || listener.run(&network)
        });
        Ok(Self { port, network, listening: Some(listening) })
    }

    /// The port to clone from.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Adds a step to the script: when a clone comes to `point`, `action` happens, once. Of several
    /// steps at one point each arrival takes the first that is left.
    pub fn at(&self, point: Point, action: Action) {
        self.network.lock().script.add(point, action);
    }

    /// Steps of the script that have not happened.
    pub fn pending(&self) -> Vec<(Point, Action)> {
        self.network.lock().script.pending()
    }

    /// Whether a connection is held ([`Action::Hold`]).
    pub fn is_holding(&self) -> bool {
        self.network.lock().is_holding()
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        self.network.lock().release();
    }

    /// Cuts connections now.
    pub fn cut(&self, target: Target, how: How) {
        self.network.lock().cut(target, how);
    }

    /// Makes connections silent now ([`Action::Silence`]).
    pub fn silence(&self, target: Target) {
        self.network.lock().silence(None, target);
    }

    /// Refuses connections from now on, or lets them pass again.
    pub fn refuse(&self, refuse: bool) -> Result<()> {
        self.set_refusal(refuse.then_some(None))
    }

    /// Refuses connections for some time.
    pub fn refuse_for(&self, time: Duration) -> Result<()> {
        self.set_refusal(Some(Some(Instant::now() + time)))
    }

    /// Makes either side believe that the other one speaks no later version of the protocol.
    pub fn limit_version(&self, version: Version) {
        self.network.lock().version_limit = Some(version);
    }

    /// Sends the donor's locators before its parameters, as donors before MySQL 8.0.22 do.
    pub fn locators_first(&self) {
        self.network.lock().locators_first = true;
    }

    /// Shows each packet that a donor in COM_CLONE sends to `rewrite`, from now on. The recipient
    /// gets the payload that the closure gives, or else the packet as it is. Packets are then
    /// forwarded whole, also those with data; script and traffic go by the donor's own packets.
    ///
    /// The closure runs while the proxy is locked: it must not call the proxy.
    pub fn rewrite(&self, rewrite: impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static) {
        self.network.lock().rewriter = Some(Rewriter::new(rewrite));
    }

    /// What has passed since the start or the last [`reset`](Self::reset).
    pub fn traffic(&self) -> Traffic {
        self.network.lock().traffic.clone()
    }

    /// Records the packets of COM_CLONE that pass from now on, of connections without TLS and
    /// compression. Data are not kept, only their length.
    pub fn record(&self) {
        self.network.lock().record = Some(Vec::new());
    }

    /// Ends the record and returns it. Empty without [`record`](Self::record).
    pub fn recorded(&self) -> Vec<Line> {
        self.network.lock().record.take().unwrap_or_default()
    }

    /// Forgets the script, the traffic, the rewriting and the limits, and refuses nothing;
    /// connections live on.
    pub fn reset(&self) -> Result<()> {
        self.network.lock().reset();
        self.set_refusal(None)
    }

    /// Connections that live at present.
    pub fn live(&self) -> usize {
        self.network.lock().live()
    }

    /// Returns when it is so.
    fn set_refusal(&self, refusal: Option<Option<Instant>>) -> Result<()> {
        self.network.lock().set_refusal(refusal);
        crate::until("the proxy to listen or not", LISTENER_LIMIT, || {
            Ok((self.network.lock().is_listening == refusal.is_none()).then_some(()))
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.lock().stop();
        if let Some(listening) = self.listening.take() {
            // The thread's panic has been printed.
            let _ = listening.join();
        }
    }
}
