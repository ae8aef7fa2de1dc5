// SPDX-License-Identifier: GPL-2.0-only

//! What this server tells of itself as a donor.

use clone_core::facts::{Facts, LIMIT_TIME, Question};

use crate::server::error_log::SERVER;
use crate::server::sql::run_all_apart;

/// The answers to all questions. One that cannot be answered is a Note in the log, and absent: the
/// recipient then does not check it.
pub(super) fn of_this_server() -> Facts {
    let mut facts = Facts::default();
    let questions = Question::ALL.into_iter().map(Question::statement);
    let statements = [LIMIT_TIME].into_iter().chain(questions).collect();
    let outcomes = match run_all_apart(statements) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            log::info!(target: SERVER, "No question of the recipient was answered: {error}");
            return facts;
        }
    };
    for (question, outcome) in Question::ALL.into_iter().zip(outcomes.into_iter().skip(1)) {
        match outcome {
            Ok(rows) => facts.note(question, rows),
            Err(error) => {
                log::info!(target: SERVER, "A question of the recipient was not answered: {error}");
            }
        }
    }
    facts
}
