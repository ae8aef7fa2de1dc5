// SPDX-License-Identifier: GPL-2.0-only

//! The axes of the matrix, and which of its cells there are.

use std::fmt::{self, Display, Formatter};

/// Where a clone writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// Over the recipient's data, which stays until the clone has succeeded.
    Keep,
    /// Over the recipient's data, which is dropped first.
    Drop,
    /// Into a directory, over the network.
    Directory,
    /// Into a directory, `CLONE LOCAL`.
    Local,
}

impl Form {
    const ALL: [Self; 4] = [Self::Keep, Self::Drop, Self::Directory, Self::Local];

    pub(crate) fn is_in_place(self) -> bool {
        matches!(self, Self::Keep | Self::Drop)
    }
}

/// The server that the fault meets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Donor,
    Recipient,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// `KILL QUERY` of the statement, or of the donor's sessions.
    KillQuery,
    /// SIGTERM, as a service manager sends it.
    Terminate,
    /// SIGKILL, as a crash.
    Kill,
    /// The network resets all connections, and lets none in again.
    Cut,
    /// The server stands still, and its connections stay open.
    Silence,
    /// The disk of the server is full.
    FullDisk,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::KillQuery, Self::Terminate, Self::Kill, Self::Cut, Self::Silence, Self::FullDisk];
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Moment {
    /// The recipient has sent INIT.
    Init,
    /// The recipient begins: drops its data, or makes the directory.
    Begin,
    FileCopy,
    PageCopy,
    RedoCopy,
    /// All has arrived, and the recipient brings it to the disk.
    FileSync,
    /// The clone takes the place of the data.
    Swap,
    /// The server that has cloned starts.
    Restart,
    /// The server that has cloned recovers the clone.
    Recovery,
}

impl Moment {
    pub(crate) const ALL: [Self; 9] = [
        Self::Init,
        Self::Begin,
        Self::FileCopy,
        Self::PageCopy,
        Self::RedoCopy,
        Self::FileSync,
        Self::Swap,
        Self::Restart,
        Self::Recovery,
    ];

    /// The statement has ended.
    pub(crate) fn is_start(self) -> bool {
        matches!(self, Self::Restart | Self::Recovery)
    }
}

/// One clone with one fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Cell {
    pub(crate) form: Form,
    pub(crate) end: End,
    pub(crate) fault: Fault,
    pub(crate) moment: Moment,
}

impl Cell {
    /// All cells that there are.
    pub(crate) fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for form in Form::ALL {
            for moment in Moment::ALL {
                for fault in Fault::ALL {
                    for end in [End::Donor, End::Recipient] {
                        let cell = Self { form, end, fault, moment };
                        if cell.exists() {
                            cells.push(cell);
                        }
                    }
                }
            }
        }
        cells
    }

    fn exists(self) -> bool {
        let moment_exists = match (self.form, self.moment) {
            // These stages are done by one server, and too short to be met. The recipient's side of
            // a local clone is that of a clone into a directory.
            (Form::Local, moment) => moment == Moment::FileCopy,
            (Form::Keep, _) => true,
            (_, Moment::Swap) => false,
            (form, Moment::Restart | Moment::Recovery) => form.is_in_place(),
            _ => true,
        };
        let has_network = self.form != Form::Local && self.moment < Moment::Swap;
        let fault_exists = match (self.fault, self.end) {
            // A network has no end.
            (Fault::Cut, End::Recipient) => false,
            // Only the server of a local clone and the one that swaps or starts is left.
            (Fault::Cut | Fault::Silence, _) | (_, End::Donor) => has_network,
            (Fault::KillQuery, End::Recipient) => !self.moment.is_start(),
            _ => true,
        };
        moment_exists && fault_exists
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { form, end, fault, moment } = self;
        write!(f, "{form:?}, {moment:?}: {fault:?} of {end:?}")
    }
}
