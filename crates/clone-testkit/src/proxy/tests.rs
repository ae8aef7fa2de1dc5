// SPDX-License-Identifier: GPL-2.0-only
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
