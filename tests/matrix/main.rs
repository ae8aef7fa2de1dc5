// SPDX-License-Identifier: GPL-2.0-only

//! Every fault, at every moment of a clone of every form. After each, the recipient starts and has
//! exactly its old data or exactly the donor's, `clone_status` tells which, and the next clone
//! works.
//!
//! The whole matrix takes more than half an hour, so `make test` runs some cells of it.
//! `MATRIX_CELLS` is their number (`all` for all), or a part of their names, as in `Swap: Kill`.
//! `MATRIX_SEED` chooses them, and the moments within a stage.
//!
//! The soak draws cells by chance, against servers that stay up: see `soak.rs`.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use clone_testkit::anyhow::Context;
use clone_testkit::fastrand::Rng;
use clone_testkit::{check, skip};

use cell::Cell;
use peers::Peers;

mod cell;
mod peers;
mod soak;

/// How many cells `make test` runs.
const CELLS: usize = 12;

#[test]
fn a_fault_costs_nothing() {
    let seed = number("MATRIX_SEED").unwrap_or(1);
    let cells = env::var("MATRIX_CELLS").ok();
    let (count, name) = match cells.as_deref() {
        None => (CELLS, ""),
        Some("all") => (usize::MAX, ""),
        Some(text) => text.parse().map_or((usize::MAX, text), |count| (count, "")),
    };
    check(|| {
        let mut random = Rng::with_seed(seed);
        let cells = some(count, name, &mut random);
        let Some(mut peers) = Peers::start(random, 1)? else {
            skip!("not allowed to mount a tmpfs");
        };
        let mut outcomes = BTreeMap::new();
        for cell in &cells {
            let whose = peers.run(*cell).with_context(|| format!("{cell}; seed {seed}"))?;
            println!("{cell}: the data is {whose:?}");
            *outcomes.entry(format!("{:?}, {whose:?}", cell.form)).or_insert(0) += 1;
        }
        println!("{} cells: {outcomes:#?}", cells.len());
        Ok(())
    });
}

/// `SOAK_MINUTES` is how long, `SOAK_SEED` chooses the cells.
#[test]
#[ignore = "takes 20 minutes, or SOAK_MINUTES"]
fn memory_descriptors_and_threads_stay_flat() {
    let minutes = number("SOAK_MINUTES").unwrap_or(20);
    let seed = number("SOAK_SEED").unwrap_or(1);
    check(|| soak::run(Duration::from_secs(60 * minutes), seed));
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// So many cells with `name` in their names, in an order by chance, but so that all forms, faults
/// and moments come early.
fn some(count: usize, name: &str, random: &mut Rng) -> Vec<Cell> {
    let mut left = Cell::all();
    left.retain(|cell| cell.to_string().contains(name));
    random.shuffle(&mut left);
    let mut chosen: Vec<Cell> = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        let seen = |cell: &Cell| {
            let common = |other: &Cell| {
                usize::from(other.form == cell.form)
                    + usize::from(other.end == cell.end)
                    + usize::from(other.fault == cell.fault)
                    + usize::from(other.moment == cell.moment)
            };
            chosen.iter().map(common).sum::<usize>()
        };
        let next = (0..left.len()).min_by_key(|&at| seen(&left[at])).unwrap_or_default();
        chosen.push(left.remove(next));
    }
    chosen
}
