// SPDX-License-Identifier: GPL-2.0-only

//! Whether a server can run with the data of a donor. All checks of a clone are here, and all of
//! them are made before anything is dropped or copied.
//!
//! Each check has a result ([`Finding`]): it passed, it refuses the clone, it warns, or it was not
//! made, because the donor did not say enough. The clone ends after all checks, so that the user
//! sees all reasons together: in SHOW WARNINGS, in the log, and in
//! `performance_schema.clone_checks`.

mod compatible;
mod encryption;
mod finding;
mod later;
mod replacement;
mod report;
mod server;

use crate::error::Result;
use crate::parameters::Parameters;
pub use compatible::check_packet_limit;
pub use finding::{Check, Finding, Outcome};
use report::Findings;
pub use server::ServerChecks;

/// Makes all checks of a clone, and reports them. With `replaces_data`, the server goes on with the
/// donor's data itself. The user sees the first reason against the clone as the statement's error,
/// and finds the others in SHOW WARNINGS.
///
/// # Errors
/// The last reason against the clone; the donor's answer is incomplete.
pub fn check(server: &impl ServerChecks, donor: &Parameters, replaces_data: bool) -> Result<()> {
    let mut findings = Findings::new(server);
    let outcome = run(&mut findings, donor, replaces_data);
    let refused = findings.report();
    outcome.and(refused)
}

fn run<S: ServerChecks>(
    findings: &mut Findings<'_, S>,
    donor: &Parameters,
    replaces_data: bool,
) -> Result<()> {
    compatible::check(findings, donor)?;
    if donor.facts.is_asked() {
        encryption::check(findings, donor);
        later::check(findings, donor);
    }
    if replaces_data {
        replacement::check(findings, donor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
