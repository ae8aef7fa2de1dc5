// SPDX-License-Identifier: GPL-2.0-only

//! A clone whose process ended before the clone did.

use crate::parameters::Parameters;

/// A clone into a directory whose process ended before the clone did, as that process noted it.
pub struct Interrupted {
    /// What the donor said of itself in the answer to INIT.
    pub parameters: Parameters,
    /// InnoDB's locator from the answer to INIT. [`Engine::apply_begin`](crate::engine::Engine) is
    /// called with it once more.
    pub locator: Vec<u8>,
    /// InnoDB's descriptors that took effect, in this order, as
    /// [`StreamCheck::replay`](clone_protocol::innodb::StreamCheck::replay) takes them.
    pub descriptors: Box<dyn Iterator<Item = Vec<u8>>>,
}
