// SPDX-License-Identifier: GPL-2.0-only

//! Storage engines that clone through this project instead of a clone interface of their own.
//!
//! * [`StorageEngine`] is what an engine does in a clone, the eight functions of MySQL's handlerton in Rust.
//! * [`Registry`] holds the engines of a process by `legacy_db_type`; the functions that the plugin's library exports
//!   (`include/clone_engine.h`) look there.
//! * [`Tasks`] is the bookkeeping that every engine needs: who takes part in a clone, and when all have left.
//!
//! The types of a clone itself are those of [`clone_core::session`]: [`Callbacks`], [`View`], [`Mode`], [`Begun`].

#![forbid(unsafe_code)]

pub use clone_core::error::{Error, Result, number};
pub use clone_core::session::{Begun, Callbacks, Mode, View};

pub use engine::{Session, StorageEngine};
pub use registry::Registry;
pub use tasks::Tasks;

mod engine;
mod registry;
mod tasks;
