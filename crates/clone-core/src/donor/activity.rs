// SPDX-License-Identifier: GPL-2.0-only

//! What a donor's InnoDB does or waits for, as answers to heartbeats tell the recipient.

use clone_protocol::innodb::{Descriptor, SnapshotState, State};

/// What InnoDB does or waits for after it has sent this descriptor; none if the descriptor does not
/// tell.
pub(super) fn activity(descriptor: &[u8]) -> Option<&'static str> {
    let Ok(Descriptor::State(State { state, start, ack: false, .. })) =
        Descriptor::parse(descriptor)
    else {
        return None;
    };
    Some(match (state, start) {
        (SnapshotState::FileCopy, true) => "is in FILE COPY",
        (SnapshotState::FileCopy, false) => "has ended FILE COPY and goes over to PAGE COPY",
        (SnapshotState::PageCopy, true) => "is in PAGE COPY",
        (SnapshotState::PageCopy, false) => {
            "has ended PAGE COPY and waits for commits, for example for one that waits for a \
             semi-synchronous replica"
        }
        (SnapshotState::RedoCopy, true) => "is in REDO COPY",
        (SnapshotState::RedoCopy, false) => "has ended REDO COPY",
        (SnapshotState::Init | SnapshotState::None, _) => "begins FILE COPY",
        (SnapshotState::Done, _) => "has sent everything",
    })
}
