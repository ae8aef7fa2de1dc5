// SPDX-License-Identifier: GPL-2.0-only

//! Storage engines that clone through this project instead of a clone interface of their own.
//!
//! * [`Engine`] is what an engine does in a clone, the eight functions of MySQL's handlerton in
//!   Rust. An engine of this project is a [`DynEngine`].
//! * [`Registry`] holds the engines of a process by `legacy_db_type`. The functions that the
//!   plugin's library exports (`include/clone_engine.h`) look there.
//! * [`Tasks`] is the bookkeeping that every engine needs: who takes part in a clone, and when all
//!   have left.
//!
//! The types of a clone itself are those of [`clone_core::engine`].

#![forbid(unsafe_code)]

pub use clone_core::engine::{Begun, BlockInput, BlockOutput, Cancel, Engine, Mode, TaskId, View};
pub use clone_core::error::{Error, Result, number};

pub use registry::Registry;
pub use tasks::Tasks;

mod registry;
mod tasks;

/// An engine of this project. A call needs of its session only whether the call should end early.
///
/// Implemented as `impl<'s> Engine<dyn Cancel + 's> for X`: a session need not live longer than the
/// call.
pub type DynEngine = dyn for<'s> Engine<dyn Cancel + 's>;
