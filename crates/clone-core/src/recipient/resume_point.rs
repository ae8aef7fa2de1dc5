// SPDX-License-Identifier: GPL-2.0-only

//! Where a clone goes on whose process ended before the clone did.

use crate::parameters::Parameters;

/// Where a clone into a directory goes on whose process ended before the clone did, as that process
/// noted it.
pub struct ResumePoint {
    /// What the donor said of itself in the answer to INIT.
    pub parameters: Parameters,
    /// InnoDB's locator from the answer to INIT. [`Engine::apply_begin`](crate::engine::Engine) is
    /// called with it once more.
    pub locator: Vec<u8>,
    /// InnoDB's descriptors that took effect, in this order, as
    /// [`StreamCheck::replay`](clone_protocol::innodb::StreamCheck::replay) takes them.
    pub descriptors: Box<dyn Iterator<Item = Vec<u8>>>,
}
