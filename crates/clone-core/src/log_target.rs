// SPDX-License-Identifier: GPL-2.0-only

//! The `log` targets of a clone.

/// The `log` target of the recipient and of a local clone: MySQL's code 13272.
pub const CLIENT: &str = "clone::client";

/// The `log` target of the donor: MySQL's code 13273.
pub const SERVER: &str = "clone::server";
