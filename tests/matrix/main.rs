// SPDX-License-Identifier: GPL-2.0-only

//! Every fault, at every moment of a clone of every form. After each, the recipient starts and has
//! exactly its old data or exactly the donor's, `clone_status` tells which, and the next clone
//! works.
//!
//! The whole matrix takes more than half an hour, so `make test` runs some cells of it.
//! `MATRIX_CELLS` is their number (`all` for all), or a part of their names, as in `Swap: Kill`.
//! `MATRIX_SEED` chooses them, and the moments within a stage.

use std::collections::BTreeMap;
use std::env;

use clone_testkit::anyhow::Context;
use clone_testkit::fastrand::Rng;
use clone_testkit::{check, skip};

use cell::Cell;
use peers::Peers;

mod cell;
mod peers;

/// How many cells `make test` runs.
const CELLS: usize = 12;

#[test]
fn a_fault_costs_nothing() {
    let variable = |name: &str| env::var(name).ok();
    let seed = variable("MATRIX_SEED").and_then(|text| text.parse().ok()).unwrap_or(1);
    let cells = variable("MATRIX_CELLS");
    let (count, name) = match cells.as_deref() {
        None => (CELLS, ""),
        Some("all") => (usize::MAX, ""),
        Some(text) => text.parse().map_or((usize::MAX, text), |count| (count, "")),
    };
    check(|| {
        let mut random = Rng::with_seed(seed);
        let cells = some(count, name, &mut random);
        let Some(mut peers) = Peers::start(random)? else {
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
