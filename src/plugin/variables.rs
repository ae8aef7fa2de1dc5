// SPDX-License-Identifier: GPL-2.0-only

//! The 14 system variables, or as many as the stock plugin of the server's release has: names, types, defaults, ranges and texts of the stock plugin, in its order.
//!
//! mysqld owns the values: it writes them when SET is executed, through the pointers given here. Numbers and booleans are read as
//! atomics; strings are mysqld's memory and are only ever read through its services, which take the lock that SET holds.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use clone_core::donor_list::{DonorList, FormatError};
use clone_core::error::Error;
use clone_core::settings::Settings;

use crate::guard::guard;
use crate::mysqld::errors::raise;
use crate::server::value::value_text;
use crate::server::{abi, releases, symbols};

/// The values as they are now.
pub(crate) fn settings() -> Settings {
    Settings {
        buffer_size: BUFFER_SIZE.load(Ordering::Relaxed),
        block_ddl: BLOCK_DDL.load(Ordering::Relaxed),
        ddl_timeout: DDL_TIMEOUT.load(Ordering::Relaxed),
        max_concurrency: MAX_CONCURRENCY.load(Ordering::Relaxed),
        max_network_bandwidth: MAX_NETWORK_BANDWIDTH.load(Ordering::Relaxed),
        max_data_bandwidth: MAX_DATA_BANDWIDTH.load(Ordering::Relaxed),
        autotune_concurrency: AUTOTUNE_CONCURRENCY.load(Ordering::Relaxed),
        delay_after_data_drop: DELAY_AFTER_DATA_DROP.load(Ordering::Relaxed),
        enable_compression: ENABLE_COMPRESSION.load(Ordering::Relaxed),
        compression_level: u8::try_from(COMPRESSION_LEVEL.load(Ordering::Relaxed))
            .unwrap_or(u8::MAX),
        file_handover: FILE_HANDOVER.load(Ordering::Relaxed),
    }
}

/// Sets `clone_ddl_timeout` to `seconds` and gives the value that it had.
pub(crate) fn swap_ddl_timeout(seconds: u32) -> u32 {
    DDL_TIMEOUT.swap(seconds, Ordering::Relaxed)
}

/// Takes back [`swap_ddl_timeout`], unless somebody has SET the variable since.
pub(crate) fn restore_ddl_timeout(lent: u32, own: u32) {
    let _ = DDL_TIMEOUT.compare_exchange(lent, own, Ordering::Relaxed, Ordering::Relaxed);
}

static BUFFER_SIZE: AtomicU32 = AtomicU32::new(0);
static BLOCK_DDL: AtomicBool = AtomicBool::new(false);
static DDL_TIMEOUT: AtomicU32 = AtomicU32::new(0);
static MAX_CONCURRENCY: AtomicU32 = AtomicU32::new(1);
static MAX_NETWORK_BANDWIDTH: AtomicU32 = AtomicU32::new(0);
static MAX_DATA_BANDWIDTH: AtomicU32 = AtomicU32::new(0);
static ENABLE_COMPRESSION: AtomicBool = AtomicBool::new(false);
static AUTOTUNE_CONCURRENCY: AtomicBool = AtomicBool::new(true);
static VALID_DONOR_LIST: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
static SSL_KEY: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
static SSL_CERT: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
static SSL_CA: AtomicPtr<c_char> = AtomicPtr::new(null_mut());
static DONOR_TIMEOUT: AtomicU32 = AtomicU32::new(0);
static DELAY_AFTER_DATA_DROP: AtomicU32 = AtomicU32::new(0);
static COMPRESSION_LEVEL: AtomicU32 = AtomicU32::new(1);
static FILE_HANDOVER: AtomicBool = AtomicBool::new(true);

/// A static that mysqld writes to.
#[repr(transparent)]
pub(crate) struct Writable<T>(UnsafeCell<T>);

// SAFETY: only mysqld writes to it, with its plugin lock held; this side only takes the address.
unsafe impl<T> Sync for Writable<T> {}

impl<T> Writable<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}

const MIB: u32 = 1024 * 1024;

/// Range and step of a numeric variable.
struct Range {
    default: u32,
    min: u32,
    max: u32,
    step: u32,
}

static BUFFER_SIZE_VAR: Writable<abi::sysvar_uint> = number(
    c"buffer_size",
    c"buffer size used by clone for data transfer",
    &BUFFER_SIZE,
    Range { default: 4 * MIB, min: MIB, max: 256 * MIB, step: MIB },
);
static BLOCK_DDL_VAR: Writable<abi::sysvar_bool> =
    boolean(c"block_ddl", c"If clone should block concurrent DDL", &BLOCK_DDL, false);
static DDL_TIMEOUT_VAR: Writable<abi::sysvar_uint> = number(
    c"ddl_timeout",
    c"Time in seconds to wait for DDL lock",
    &DDL_TIMEOUT,
    Range { default: 300, min: 0, max: 30 * 24 * 60 * 60, step: 1 },
);
static MAX_CONCURRENCY_VAR: Writable<abi::sysvar_uint> = number(
    c"max_concurrency",
    c"Maximum number of concurrent threads for clone",
    &MAX_CONCURRENCY,
    Range { default: 16, min: 1, max: 128, step: 1 },
);
static MAX_NETWORK_BANDWIDTH_VAR: Writable<abi::sysvar_uint> = number(
    c"max_network_bandwidth",
    c"Maximum network bandwidth for clone in MiB/sec",
    &MAX_NETWORK_BANDWIDTH,
    Range { default: 0, min: 0, max: MIB, step: 1 },
);
static MAX_DATA_BANDWIDTH_VAR: Writable<abi::sysvar_uint> = number(
    c"max_data_bandwidth",
    c"Maximum File data bandwidth for clone in MiB/sec",
    &MAX_DATA_BANDWIDTH,
    Range { default: 0, min: 0, max: MIB, step: 1 },
);
static ENABLE_COMPRESSION_VAR: Writable<abi::sysvar_bool> = boolean(
    c"enable_compression",
    c"If compression is done at network",
    &ENABLE_COMPRESSION,
    false,
);
static AUTOTUNE_CONCURRENCY_VAR: Writable<abi::sysvar_bool> = boolean(
    c"autotune_concurrency",
    c"If concurrency is automatically tuned",
    &AUTOTUNE_CONCURRENCY,
    true,
);
static VALID_DONOR_LIST_VAR: Writable<abi::sysvar_str> = string(
    c"valid_donor_list",
    c"List of valid donor addresses allowed to clone from HOST1:PORT1,HOST2:PORT2,...",
    &VALID_DONOR_LIST,
    Some(check_donor_list),
);
static SSL_KEY_VAR: Writable<abi::sysvar_str> =
    string(c"ssl_key", c"SSL path name of the SSL private key file", &SSL_KEY, None);
static SSL_CERT_VAR: Writable<abi::sysvar_str> =
    string(c"ssl_cert", c"SSL path name of the public key certificate file", &SSL_CERT, None);
static SSL_CA_VAR: Writable<abi::sysvar_str> =
    string(c"ssl_ca", c"SSL path name for Certificate Authority (CA) file", &SSL_CA, None);
static DONOR_TIMEOUT_VAR: Writable<abi::sysvar_uint> = number(
    c"donor_timeout_after_network_failure",
    c"Time in minutes up to which donor allows recipient to re-connect and restart cloning after network failure.",
    &DONOR_TIMEOUT,
    Range { default: 5, min: 0, max: 30, step: 1 },
);
static DELAY_AFTER_DATA_DROP_VAR: Writable<abi::sysvar_uint> = number(
    c"delay_after_data_drop",
    c"Time in seconds to wait after removing data.",
    &DELAY_AFTER_DATA_DROP,
    Range { default: 0, min: 0, max: 60 * 60, step: 1 },
);

/// mysqld registers the variables of a plugin before it calls anything in it. This runs earlier: when the library is opened.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = follow_server;

/// Takes out of [`VARIABLES`] what the stock plugin of this server's release does not have. Their values stay at 0 or OFF.
extern "C" fn follow_server() {
    // Otherwise this is not mysqld, or one that `init` refuses.
    let Some(release) = symbols::release() else { return };
    // SAFETY: nobody else has seen the library yet.
    let variables = unsafe { &mut *VARIABLES.as_ptr() };
    let mut kept = 0;
    for at in 0..variables.len() {
        let Some(&variable) = variables.get(at).filter(|variable| !variable.is_null()) else {
            break;
        };
        // SAFETY: one of the variables above.
        let name = unsafe { (*variable).name };
        // SAFETY: a literal.
        if releases::has_variable(release, unsafe { CStr::from_ptr(name) }) {
            variables[kept] = variable;
            kept += 1;
        }
    }
    variables[kept..].fill(null_mut());
}

/// Ours alone. Between two plugins of this project; what stock peers compress is zlib's business.
static COMPRESSION_LEVEL_VAR: Writable<abi::sysvar_uint> = number(
    c"compression_level",
    c"How clone_enable_compression compresses between plugins that can: 0 LZ4, 1 to 19 Zstandard at this level",
    &COMPRESSION_LEVEL,
    Range { default: 1, min: 0, max: 19, step: 1 },
);

/// Ours alone.
static FILE_HANDOVER_VAR: Writable<abi::sysvar_bool> = boolean(
    c"file_handover",
    c"If a donor hands its open files over to a recipient on the same machine, which copies them, instead of sending what is in them",
    &FILE_HANDOVER,
    true,
);

/// All variables, for the plugin's declaration; ends with a null pointer.
pub(crate) static VARIABLES: Writable<[*mut abi::SYS_VAR; 17]> = Writable::new([
    BUFFER_SIZE_VAR.as_ptr().cast(),
    BLOCK_DDL_VAR.as_ptr().cast(),
    DDL_TIMEOUT_VAR.as_ptr().cast(),
    MAX_CONCURRENCY_VAR.as_ptr().cast(),
    MAX_NETWORK_BANDWIDTH_VAR.as_ptr().cast(),
    MAX_DATA_BANDWIDTH_VAR.as_ptr().cast(),
    ENABLE_COMPRESSION_VAR.as_ptr().cast(),
    AUTOTUNE_CONCURRENCY_VAR.as_ptr().cast(),
    VALID_DONOR_LIST_VAR.as_ptr().cast(),
    SSL_KEY_VAR.as_ptr().cast(),
    SSL_CERT_VAR.as_ptr().cast(),
    SSL_CA_VAR.as_ptr().cast(),
    DONOR_TIMEOUT_VAR.as_ptr().cast(),
    DELAY_AFTER_DATA_DROP_VAR.as_ptr().cast(),
    COMPRESSION_LEVEL_VAR.as_ptr().cast(),
    FILE_HANDOVER_VAR.as_ptr().cast(),
    null_mut(),
]);

const fn header(
    flags: c_int,
    name: &'static CStr,
    comment: &'static CStr,
    check: abi::mysql_var_check_func,
) -> abi::SYS_VAR {
    abi::SYS_VAR { flags, name: name.as_ptr(), comment: comment.as_ptr(), check, update: None }
}

const fn number(
    name: &'static CStr,
    comment: &'static CStr,
    value: &'static AtomicU32,
    range: Range,
) -> Writable<abi::sysvar_uint> {
    Writable::new(abi::sysvar_uint {
        header: header(
            abi::PLUGIN_VAR_INT | abi::PLUGIN_VAR_UNSIGNED | abi::PLUGIN_VAR_RQCMDARG,
            name,
            comment,
            None,
        ),
        value: value.as_ptr(),
        def_val: range.default,
        min_val: range.min,
        max_val: range.max,
        blk_sz: range.step,
    })
}

const fn boolean(
    name: &'static CStr,
    comment: &'static CStr,
    value: &'static AtomicBool,
    default: bool,
) -> Writable<abi::sysvar_bool> {
    Writable::new(abi::sysvar_bool {
        header: header(abi::PLUGIN_VAR_BOOL | abi::PLUGIN_VAR_NOCMDARG, name, comment, None),
        value: value.as_ptr(),
        def_val: default,
    })
}

const fn string(
    name: &'static CStr,
    comment: &'static CStr,
    value: &'static AtomicPtr<c_char>,
    check: abi::mysql_var_check_func,
) -> Writable<abi::sysvar_str> {
    Writable::new(abi::sysvar_str {
        header: header(
            abi::PLUGIN_VAR_STR | abi::PLUGIN_VAR_OPCMDARG | abi::PLUGIN_VAR_MEMALLOC,
            name,
            comment,
            check,
        ),
        value: value.as_ptr(),
        def_val: null_mut(),
    })
}

/// Checks a value for `clone_valid_donor_list`; what is stored at `save` is what SET assigns.
unsafe extern "C" fn check_donor_list(
    thd: *mut abi::THD,
    _var: *mut abi::SYS_VAR,
    save: *mut c_void,
    value: *mut abi::st_mysql_value,
) -> c_int {
    let save: *mut *const c_char = save.cast();
    guard(|| {
        // SAFETY: for a string variable mysqld passes the address of a pointer (sql/sql_plugin_var.cc).
        unsafe { *save = null() };
        // SAFETY: mysqld gives a session and a value that live through this call.
        let text = unsafe { value_text(thd, value) };
        if text.is_null() {
            return 0;
        }
        // SAFETY: `value_text` gives a C string in the session's memory.
        let list = unsafe { CStr::from_ptr(text) };
        let is_good = list.to_str().is_ok_and(|list| DonorList::parse(list).is_ok());
        if !is_good {
            let error = Error::SystemConfig(FormatError.to_string());
            raise(&error);
            return error.number() as c_int;
        }
        // SAFETY: as above.
        unsafe { *save = text };
        0
    })
}
