// SPDX-License-Identifier: GPL-2.0-only

//! MySQL's classic protocol, as far as a clone needs it.

#![forbid(unsafe_code)]
