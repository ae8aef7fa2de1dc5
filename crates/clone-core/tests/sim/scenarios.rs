// SPDX-License-Identifier: GPL-2.0-only

//! The tests.

mod clean;
mod failures;
mod follower_faults;
mod followers;
mod hostile;
mod local;
mod random;
mod resume;
mod versions;
