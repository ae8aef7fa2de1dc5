// SPDX-License-Identifier: GPL-2.0-only

//! The three symbols that mysqld looks up in a plugin's library
//! (`sql/sql_plugin.cc:plugin_dl_add`), and what they declare.

use std::ffi::{CStr, c_int, c_ulong};
use std::mem::size_of;
use std::ptr::null_mut;

use super::clone_swap;
use super::entry;
use super::variables::VARIABLES;
use super::writable::Writable;
use crate::server::abi;
use crate::server::clone_handle::PLUGIN_NAME;

/// The plugin interface that this library was written for; servers accept every one of their own
/// major number.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static _mysql_plugin_interface_version_: c_int = abi::MYSQL_PLUGIN_INTERFACE_VERSION;

/// The size of one declaration.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static _mysql_sizeof_struct_st_plugin_: c_int =
    size_of::<abi::st_mysql_plugin>() as c_int;

/// The declarations, and the end of the array: one without `info`. Both plugins allow to be loaded
/// early, since mysqld loads no library early in which one does not; `clone` refuses to be, because
/// InnoDB is not up then.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "mysqld's name")]
pub(crate) static _mysql_plugin_declarations_: Writable<[abi::st_mysql_plugin; 3]> =
    Writable::new([
        abi::st_mysql_plugin {
            type_: abi::MYSQL_CLONE_PLUGIN,
            info: CLONE.as_ptr().cast(),
            name: PLUGIN_NAME.as_ptr(),
            author: AUTHOR.as_ptr(),
            descr: c"CLONE PLUGIN".as_ptr(),
            license: abi::PLUGIN_LICENSE_GPL,
            init: Some(entry::init),
            check_uninstall: Some(entry::check_uninstall),
            deinit: Some(entry::deinit),
            version: 0x0100,
            status_vars: null_mut(),
            system_vars: VARIABLES.as_ptr().cast(),
            reserved1: null_mut(),
            flags: ALLOW_EARLY,
        },
        abi::st_mysql_plugin {
            type_: abi::MYSQL_DAEMON_PLUGIN,
            info: clone_swap::DAEMON.as_ptr().cast(),
            name: clone_swap::NAME.as_ptr(),
            author: AUTHOR.as_ptr(),
            descr: c"Puts a clone of MyRocks in place before the server opens it".as_ptr(),
            license: abi::PLUGIN_LICENSE_GPL,
            init: Some(clone_swap::init),
            check_uninstall: None,
            deinit: None,
            version: 0x0100,
            status_vars: null_mut(),
            system_vars: clone_swap::VARIABLES.as_ptr().cast(),
            reserved1: null_mut(),
            // If all plugins of the library are loaded, this one is loaded, too, but is off.
            flags: ALLOW_EARLY | abi::PLUGIN_OPT_DEFAULT_OFF as c_ulong,
        },
        END,
    ]);

const ALLOW_EARLY: c_ulong = abi::PLUGIN_OPT_ALLOW_EARLY as c_ulong;

const AUTHOR: &CStr = c"mysql-clone";

const END: abi::st_mysql_plugin = abi::st_mysql_plugin {
    type_: 0,
    info: null_mut(),
    name: std::ptr::null(),
    author: std::ptr::null(),
    descr: std::ptr::null(),
    license: 0,
    init: None,
    check_uninstall: None,
    deinit: None,
    version: 0,
    status_vars: null_mut(),
    system_vars: null_mut(),
    reserved1: null_mut(),
    flags: 0,
};

static CLONE: Writable<abi::Mysql_clone> = Writable::new(abi::Mysql_clone {
    interface_version: abi::MYSQL_CLONE_INTERFACE_VERSION,
    clone_local: Some(entry::clone_local),
    clone_client: Some(entry::clone_client),
    clone_server: Some(entry::clone_server),
});
