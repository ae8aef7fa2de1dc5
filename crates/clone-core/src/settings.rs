// SPDX-License-Identifier: GPL-2.0-only

//! The plugin's variables, and what differs by the server's release.

use std::time::Duration;

use clone_protocol::{Packing, Version};

/// Facts that depend on a server's MySQL release. They are the same at donor and recipient, because
/// only releases clone from each other that have the same facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// The highest version of the protocol that is spoken.
    pub protocol: Version,
    /// Whether InnoDB copes with DDL while it is cloned: since 8.0.27. Where it does not, donors
    /// keep DDL out whatever the recipient asks for.
    pub allows_ddl: bool,
    /// Whether InnoDB's redo log always has two files, of which a clone may leave out the second:
    /// before 8.0.30.
    pub has_spare_redo_file: bool,
}

impl ReleaseFacts {
    /// The facts of the newest release.
    pub const LATEST: Self =
        Self { protocol: Version::LATEST, allows_ddl: true, has_spare_redo_file: false };
}

/// What becomes of the data that a clone replaces: `clone_keep_data`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepData {
    /// The data stays until the clone is complete, if the disk has room for both.
    #[default]
    Auto,
    /// The data stays until the clone is complete, or there is no clone.
    On,
    /// The data is dropped before the clone is copied, as with the stock plugin.
    Off,
}

/// The plugin's variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `clone_buffer_size`, bytes.
    pub buffer_size: u32,
    /// `clone_block_ddl`. Always true if [`ReleaseFacts::allows_ddl`] is false.
    pub block_ddl: bool,
    /// `clone_ddl_timeout`, seconds.
    pub ddl_timeout: u32,
    /// `clone_max_concurrency`, threads including the master.
    pub max_concurrency: u32,
    /// `clone_max_network_bandwidth`, MiB/s, 0 without limit.
    pub max_network_bandwidth: u32,
    /// `clone_max_data_bandwidth`, MiB/s, 0 without limit.
    pub max_data_bandwidth: u32,
    /// `clone_autotune_concurrency`.
    pub autotune_concurrency: bool,
    /// `clone_delay_after_data_drop`, seconds.
    pub delay_after_data_drop: u32,
    /// `clone_enable_compression`: the compression of the classic protocol with a stock donor.
    pub enable_compression: bool,
    /// `clone_file_handover`.
    pub file_handover: bool,
    /// `clone_keep_data`.
    pub keep_data: KeepData,
    /// `clone_keep_failed_directory`.
    pub keep_failed_directory: bool,
    /// `clone_peer_timeout`, seconds, 0 without limit. See [`Settings::patience`].
    pub peer_timeout: u32,
    /// `clone_compression`: how a donor of this project packs blocks.
    pub compression: Packing,
    /// `clone_compression_max_cpu`: percent of this machine's processors that a donor packs with.
    pub compression_max_cpu: u8,
}

/// The variables as a server has them if nobody sets them.
impl Default for Settings {
    fn default() -> Self {
        Self {
            buffer_size: 4 << 20,
            block_ddl: false,
            ddl_timeout: 300,
            max_concurrency: 16,
            max_network_bandwidth: 0,
            max_data_bandwidth: 0,
            autotune_concurrency: true,
            delay_after_data_drop: 0,
            enable_compression: false,
            file_handover: true,
            keep_data: KeepData::Auto,
            keep_failed_directory: false,
            peer_timeout: 60,
            compression: Packing::Auto,
            compression_max_cpu: 50,
        }
    }
}

impl Settings {
    /// How long a peer may be silent; none without limit. At least 3 seconds, because a heartbeat
    /// is sent each second.
    pub fn patience(&self) -> Option<Duration> {
        const LEAST: u32 = 3;
        let seconds = self.peer_timeout.max(LEAST);
        (self.peer_timeout != 0).then(|| Duration::from_secs(seconds.into()))
    }
}
