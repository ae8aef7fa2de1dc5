// SPDX-License-Identifier: GPL-2.0-only

//! The system variables: those of the stock plugin with its names, types, defaults, ranges and
//! texts, in its order, or as many as the stock plugin of the server's release has; then our own.
//!
//! A variable is one row of `sysvars!` below.
//!
//! mysqld owns the values: it writes them when SET is executed, through the pointers given here.
//! Numbers and booleans are read as atomics. Strings are mysqld's memory and are only ever read
//! through its services, which take the lock that SET holds.

use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use clone_core::settings::Settings;

use super::writable::Writable;
use crate::server::thd::Thd;
use crate::server::{abi, releases, symbols};
use checks::{check_donor_list, check_excluded_plugins};
use choices::{COMPRESSION, KEEP_DATA};
use kinds::{Boolean, Choice, Kind, Number, SessionBoolean, Setting, Text, c_str};

mod checks;
mod choices;
mod kinds;

/// Makes of each row `name: Kind = kind, text, in Settings;` the value, mysqld's description of
/// the variable, its place in [`VARIABLES`] and, if the row says so, the field `name` of
/// [`Settings`]. `name` is what follows `clone_`.
macro_rules! sysvars {
    ($($name:ident: $kind:ident = $of:expr, $text:literal $(, in $settings:ident)?;)*) => {
        struct Values {
            $($name: <$kind as Kind>::Value,)*
        }

        /// The values, as they are now. Before mysqld has set them they are the defaults.
        static VALUES: Values = Values { $($name: <$kind>::value(&$of),)* };

        struct Descriptions {
            $($name: Writable<<$kind as Kind>::Description>,)*
        }

        static DESCRIPTIONS: Descriptions = Descriptions {
            $($name: <$kind>::description(
                $of,
                c_str(concat!(stringify!($name), "\0")),
                $text,
                &VALUES.$name,
            ),)*
        };

        const COUNT: usize = [$(stringify!($name)),*].len();

        /// All variables, for the plugin's declaration; ends with a null pointer.
        pub(super) static VARIABLES: Writable<[*mut abi::SYS_VAR; COUNT + 1]> =
            Writable::new([$(DESCRIPTIONS.$name.as_ptr().cast(),)* null_mut()]);

        /// The values as they are now.
        pub(crate) fn settings() -> Settings {
            sysvars!(@settings $($($settings $name)?)*)
        }
    };
    (@settings $($settings:ident $name:ident)*) => {
        Settings { $($name: Setting::of(&VALUES.$name)),* }
    };
}

const MIB: u32 = 1024 * 1024;

sysvars! {
    buffer_size: Number = Number { default: 4 * MIB, min: MIB, max: 256 * MIB, step: MIB },
        c"buffer size used by clone for data transfer", in Settings;
    block_ddl: Boolean = Boolean { default: false },
        c"If clone should block concurrent DDL", in Settings;
    ddl_timeout: Number = Number { default: 300, min: 0, max: 30 * 24 * 60 * 60, step: 1 },
        c"Time in seconds to wait for DDL lock", in Settings;
    max_concurrency: Number = Number { default: 16, min: 1, max: 128, step: 1 },
        c"Maximum number of concurrent threads for clone", in Settings;
    max_network_bandwidth: Number = Number { default: 0, min: 0, max: MIB, step: 1 },
        c"Maximum network bandwidth for clone in MiB/sec", in Settings;
    max_data_bandwidth: Number = Number { default: 0, min: 0, max: MIB, step: 1 },
        c"Maximum File data bandwidth for clone in MiB/sec", in Settings;
    enable_compression: Boolean = Boolean { default: false },
        c"If compression is done at network", in Settings;
    autotune_concurrency: Boolean = Boolean { default: true },
        c"If concurrency is automatically tuned", in Settings;
    valid_donor_list: Text = Text { check: Some(check_donor_list) },
        c"List of valid donor addresses allowed to clone from HOST1:PORT1,HOST2:PORT2,...";
    ssl_key: Text = Text { check: None },
        c"SSL path name of the SSL private key file";
    ssl_cert: Text = Text { check: None },
        c"SSL path name of the public key certificate file";
    ssl_ca: Text = Text { check: None },
        c"SSL path name for Certificate Authority (CA) file";
    donor_timeout_after_network_failure: Number = Number { default: 5, min: 0, max: 30, step: 1 },
        c"Time in minutes up to which donor allows recipient to re-connect and restart cloning after network failure.";
    delay_after_data_drop: Number = Number { default: 0, min: 0, max: 60 * 60, step: 1 },
        c"Time in seconds to wait after removing data.", in Settings;
    // Variables that only this plugin has. With a stock donor `clone_enable_compression` (zlib)
    // decides, not `clone_compression`.
    compression: Choice = Choice { names: &COMPRESSION },
        c"How a donor with this plugin compresses what it sends to this recipient: AUTO as it measures what is fastest, OFF not at all, LZ4, or Zstandard at a level from 1 to 19", in Settings;
    compression_max_cpu: Number = Number { default: 50, min: 0, max: 100, step: 1 },
        c"Percent of this machine's processors that compression may use at the donor, for all clones together; 0 for no compression", in Settings;
    keep_data: Choice = Choice { names: &KEEP_DATA },
        c"What becomes of this server's data when a clone replaces it: AUTO keeps the data until the clone is complete if the disk has room for both, ON keeps the data or refuses the clone, OFF drops the data before the clone is copied", in Settings;
    keep_failed_directory: Boolean = Boolean { default: false },
        c"If the directory of a clone that failed stays, instead of being removed", in Settings;
    file_handover: Boolean = Boolean { default: true },
        c"If a donor hands its open files over to a recipient on the same machine, which copies them, instead of sending what is in them", in Settings;
    strict_checks: SessionBoolean = SessionBoolean { default: false },
        c"If what would only hurt after a clone, such as accounts that could not log in, refuses the clone";
    dry_run: SessionBoolean = SessionBoolean { default: false },
        c"If CLONE INSTANCE ends after all checks, without a change to any data. performance_schema.clone_checks has the results";
    peer_timeout: Number = Number { default: 60, min: 0, max: 24 * 60 * 60, step: 1 },
        c"Time in seconds after which a donor or recipient that shows no sign of life is given up; 0: as the server's own time-outs have it", in Settings;
    // Percona Server's plugin has this variable, with this text.
    exclude_plugins_list: Text = Text { check: Some(check_excluded_plugins) },
        c"Comma separated plugin names that are not installed on recipient. Clone will not error out if these are active on donor but not installed on recipient";
}

/// `clone_strict_checks` of a session that runs a clone.
pub(crate) fn is_strict(thd: Thd<'_>) -> bool {
    session_value(&DESCRIPTIONS.strict_checks, thd)
}

/// `clone_dry_run` of a session that runs a clone.
pub(crate) fn is_dry_run(thd: Thd<'_>) -> bool {
    session_value(&DESCRIPTIONS.dry_run, thd)
}

/// The value of a variable in a session that runs a clone.
fn session_value(description: &'static Writable<abi::thdvar_bool>, thd: Thd<'_>) -> bool {
    // SAFETY: the session runs a clone, and holds a reference to the plugin. mysqld does not write
    // then: see `Writable`.
    let description = unsafe { &*description.as_ptr() };
    let Some(resolve) = description.resolve else { return description.def_val };
    // SAFETY: mysqld's own function, with the offset that mysqld has set. The session is the one of
    // this thread.
    let value = unsafe { resolve(thd.as_ptr(), description.offset) };
    // SAFETY: NULL, or the session's value, which only the session's own thread changes.
    unsafe { value.as_ref() }.copied().unwrap_or(description.def_val)
}

/// Sets `clone_ddl_timeout` to `seconds` and gives the value that it had.
pub(crate) fn swap_ddl_timeout(seconds: u32) -> u32 {
    VALUES.ddl_timeout.swap(seconds, Ordering::Relaxed)
}

/// Takes back [`swap_ddl_timeout`], unless somebody has SET the variable since.
pub(crate) fn restore_ddl_timeout(lent: u32, own: u32) {
    let (relaxed, value) = (Ordering::Relaxed, &VALUES.ddl_timeout);
    let _ = value.compare_exchange(lent, own, relaxed, relaxed);
}

/// mysqld reads [`VARIABLES`] before it calls anything here. This runs earlier: when mysqld opens
/// the library.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = follow_server;

/// Takes out of [`VARIABLES`] what the stock plugin of this server's release does not have. What is
/// taken out keeps its default.
extern "C" fn follow_server() {
    // Without a release this is not mysqld, or `init` refuses this mysqld.
    let Some(release) = symbols::release() else { return };
    // SAFETY: `dlopen` runs this function. No other thread knows an address of this library yet.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What mysqld sees of a number, a boolean and a text, and the order.
    #[test]
    fn rows_become_variables() {
        // SAFETY: nobody writes to it in a test.
        let variables = unsafe { &*VARIABLES.as_ptr() };
        let (last, variables) = variables.split_last().expect("not empty");
        assert!(last.is_null());
        let names = variables.iter().map(|&variable| {
            // SAFETY: one of the descriptions.
            let name = unsafe { (*variable).name };
            // SAFETY: a literal.
            unsafe { CStr::from_ptr(name) }.to_str().expect("ASCII")
        });
        let names: Vec<_> = names.collect();
        assert_eq!(names[..3], ["buffer_size", "block_ddl", "ddl_timeout"]);
        assert_eq!(names[8], "valid_donor_list");
        // SAFETY: the first variable is a number.
        let number = unsafe { &*variables[0].cast::<abi::sysvar_uint>() };
        assert_eq!(number.value, VALUES.buffer_size.as_ptr());
        assert_eq!(
            (number.def_val, number.min_val, number.max_val, number.blk_sz),
            (4 * MIB, MIB, 256 * MIB, MIB)
        );
        // SAFETY: the ninth is a text.
        let text = unsafe { &*variables[8].cast::<abi::sysvar_str>() };
        assert!(text.header.check.is_some() && text.def_val.is_null());
    }

    /// The rows of `sysvars!` and `Settings` have the same defaults.
    #[test]
    fn settings_are_the_defaults() {
        assert_eq!(settings(), Settings::default());
    }
}
