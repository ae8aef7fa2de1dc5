// SPDX-License-Identifier: GPL-2.0-only

//! The error logs of the servers: what a thread logs goes to the server whose session it runs.

use std::cell::RefCell;
use std::sync::{Arc, Once};

use super::server::SimHost;

struct ErrorLogs;

thread_local! {
    /// The servers of the sessions on this thread, the last one running.
    static SERVERS: RefCell<Vec<Arc<SimHost>>> = const { RefCell::new(Vec::new()) };
}

/// A session of `host` begins on this thread.
pub(super) fn session_begins(host: &Arc<SimHost>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&ErrorLogs).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
    SERVERS.with_borrow_mut(|servers| servers.push(Arc::clone(host)));
}

/// The session that began last on this thread ends.
pub(super) fn session_ends() {
    SERVERS.with_borrow_mut(|servers| drop(servers.pop()));
}

impl log::Log for ErrorLogs {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let server = SERVERS.with_borrow(|servers| servers.last().cloned());
        let server = server.expect("a thread without a session logs");
        server.log(record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}
