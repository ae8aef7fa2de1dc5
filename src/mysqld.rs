// SPDX-License-Identifier: GPL-2.0-only

//! mysqld as the clone logic sees it: the traits of [`clone_core::session`] over [`crate::server`].

mod commit_block;
mod engine;
mod errors;
mod host;
mod library;
mod links;
mod session;

pub(crate) use errors::raise;
pub(crate) use host::MysqldHost;
pub(crate) use links::DonorLinkOf;
pub(crate) use session::MysqldSession;
