// SPDX-License-Identifier: GPL-2.0-only

//! mysqld as the clone logic sees it: the traits of [`clone_core::session`] over [`crate::server`].

mod commit_block;
mod connector;
mod debug_hooks;
mod engine;
pub(crate) mod errors;
mod facts;
pub(crate) mod host;
mod interrupter;
mod library;
pub(crate) mod links;
pub(crate) mod replacement;
pub(crate) mod session;
mod tcp;
pub(crate) mod unfinished;
