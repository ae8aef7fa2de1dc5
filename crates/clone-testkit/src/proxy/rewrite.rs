// SPDX-License-Identifier: GPL-2.0-only

//! A donor whose packets are replaced on their way.

use std::fmt;

use clone_protocol::Response;

/// What the closure of [`Proxy::rewrite`](super::Proxy::rewrite) gets: a packet of the donor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent<'a> {
    /// Tells the connections of a proxy apart.
    pub connection: u64,
    /// The packet, whole.
    pub response: Response<'a>,
}

type Rewrite = dyn FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send;

/// The closure.
pub(super) struct Rewriter(Box<Rewrite>);

impl Rewriter {
    pub(super) fn new(rewrite: impl FnMut(&Sent<'_>) -> Option<Vec<u8>> + Send + 'static) -> Self {
        Self(Box::new(rewrite))
    }

    /// What the recipient gets in place of `payload`, if it gets anything else.
    pub(super) fn replacement(&mut self, connection: u64, payload: &[u8]) -> Option<Vec<u8>> {
        let response = Response::parse(payload).ok()?;
        (self.0)(&Sent { connection, response })
    }
}

impl fmt::Debug for Rewriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rewriter(..)")
    }
}
