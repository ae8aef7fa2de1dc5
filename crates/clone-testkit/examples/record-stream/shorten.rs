// SPDX-License-Identifier: GPL-2.0-only

//! Leaves out what a record has too much of.

use std::collections::BTreeMap;

use clone_protocol::innodb::{Descriptor, SnapshotState};
use clone_protocol::{Response, ResponseCode};
use clone_testkit::proxy::record::Line;

/// Packets of one kind of parameter that stay, for each connection.
const PARAMETERS: u32 = 3;

/// What the blocks of a run have in common: state, chunk, file.
type Place = (SnapshotState, u32, u32);

/// The blocks that came on a connection without anything in between.
struct Run {
    place: Place,
    /// The lines of its last block, if that is not the first one.
    last: Option<Vec<usize>>,
}

/// Leaves out most PLUGIN, PLUGIN_V2 and COLLATION packets, and of each run of blocks of the same
/// chunk and file those between the first and the last.
pub(crate) fn shorten(lines: &[Line]) -> Vec<&Line> {
    let mut keep = vec![true; lines.len()];
    let mut parameters = BTreeMap::<(u64, u8), u32>::new();
    let mut runs = BTreeMap::<u64, Run>::new();
    for (at, line) in lines.iter().enumerate() {
        match line {
            Line::Response { connection, payload } => {
                if let Some(code) = is_plentiful(payload) {
                    let count = parameters.entry((*connection, code)).or_default();
                    *count += 1;
                    keep[at] = *count <= PARAMETERS;
                }
                match (place(payload), runs.get_mut(connection)) {
                    (Some(place), Some(run)) if run.place == place => {
                        let before = run.last.replace(vec![at]);
                        before.into_iter().flatten().for_each(|at| keep[at] = false);
                    }
                    (Some(place), _) => drop(runs.insert(*connection, Run { place, last: None })),
                    (None, _) => drop(runs.remove(connection)),
                }
            }
            Line::Data { connection, .. } => {
                if let Some(last) = runs.get_mut(connection).and_then(|run| run.last.as_mut()) {
                    last.push(at);
                }
            }
            Line::Command { connection, .. } => drop(runs.remove(connection)),
            Line::Cut => runs.clear(),
        }
    }
    lines.iter().zip(keep).filter_map(|(line, keep)| keep.then_some(line)).collect()
}

fn is_plentiful(payload: &[u8]) -> Option<u8> {
    let code = Response::parse(payload).ok()?.code();
    use ResponseCode::{Collation, Plugin, PluginV2};
    matches!(code, Plugin | PluginV2 | Collation).then_some(code as u8)
}

fn place(payload: &[u8]) -> Option<Place> {
    let Ok(Response::DataDescriptor { descriptor, .. }) = Response::parse(payload) else {
        return None;
    };
    match Descriptor::parse(descriptor) {
        Ok(Descriptor::Data(data)) => Some((data.state, data.chunk, data.file_index)),
        _ => None,
    }
}
