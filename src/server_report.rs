// SPDX-License-Identifier: GPL-2.0-only

//! A report about a mysqld, made without loading the plugin into it. For users of a release that we
//! do not know.
//!
//! `cargo run --example server_report -- /usr/sbin/mysqld` prints it; a plugin that refuses to load
//! writes it to the error log.

use std::ffi::CStr;
use std::fmt::Write;

use crate::server::releases::{Layout, Probes};
use crate::server::symbols::{self, names};
use crate::server::version::ServerVersion;

/// One line about a server that says it is `version`; `exports` tells whether it exports a function
/// or variable.
pub fn describe(version: &str, exports: &dyn Fn(&CStr) -> bool) -> String {
    let probes = Probes::ask(exports);
    let mut line = format!("mysql-clone {} and MySQL {version}: ", env!("CARGO_PKG_VERSION"));
    let missing: Vec<_> = names::required()
        .filter(|name| !exports(name))
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    line += &match version.parse::<ServerVersion>() {
        Err(_) => "this is not a version".to_owned(),
        Ok(version) => match Layout::for_version(&version, probes) {
            Err(refused) => refused.to_string(),
            Ok(_) if !missing.is_empty() => "not supported, for want of functions".to_owned(),
            Ok(layout) => format!(
                "supported, with log_builtins.message in slot {}, clone_protocol.connect in slot {}",
                layout.log_message, layout.clone_protocol.connect
            ),
        },
    };
    let said = |there: bool| if there { "yes" } else { "no" };
    // Writing to a string does not fail.
    let _ = write!(
        line,
        "; log_line_get_output_buffer: {}, log_line_set_flag: {}, are_versions_clone_compatible with 4 arguments: {}, \
         clone_handle_check_drop: {}, debug server: {}, missing: {}",
        said(probes.log_line_get_output_buffer),
        said(probes.log_line_set_flag),
        said(probes.are_versions_clone_compatible),
        said(exports(names::CLONE_HANDLE_CHECK_DROP)),
        said(exports(names::FOREACH_DEBUG)),
        if missing.is_empty() { "nothing".to_owned() } else { missing.join(" ") },
    );
    line
}

/// What there is to say of the server that this library was loaded into. `None` outside mysqld.
pub(crate) fn of_this_server() -> Option<String> {
    let text = symbols::version_text()?.to_string_lossy();
    Some(describe(&text, &|name| !symbols::look_up(name).is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_we_know() {
        let line = describe("8.0.36-2ubuntu3", &|name| {
            name == Probes::LOG_LINE_GET_OUTPUT_BUFFER || names::required().any(|one| one == name)
        });
        assert!(
            line.contains(
                "supported, with log_builtins.message in slot 27, clone_protocol.connect in slot 6"
            ),
            "{line}"
        );
        assert!(line.ends_with("debug server: no, missing: nothing"), "{line}");
    }

    #[test]
    fn servers_that_we_do_not_know() {
        let line = describe("9.8.0", &|name| name != names::MY_ERROR);
        assert!(line.contains("9.8.0: server version 9.8.0 is not supported ("), "{line}");
        assert!(line.ends_with("debug server: yes, missing: _Z8my_erroriiz"), "{line}");
        assert!(describe("8.0", &|_| true).contains("this is not a version"));
        let line = describe("8.0.36", &|name| {
            name != names::MY_ERROR && name == Probes::LOG_LINE_GET_OUTPUT_BUFFER
        });
        assert!(line.contains("not supported, for want of functions"), "{line}");
    }
}
