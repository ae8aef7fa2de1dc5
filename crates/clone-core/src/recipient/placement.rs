// SPDX-License-Identifier: GPL-2.0-only

//! What a clone in a staging directory remembers of its files: where the server will look for them.
//!
//! InnoDB writes a tablespace of an absolute path to that very path, where the server may have a
//! file of its own. So the engine is told another name, below the staging directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clone_protocol::innodb::{Descriptor, FileKind, FileMetadata};

use zeroize::Zeroizing;

use crate::session::{OutsideFile, StagedClone};

/// The directory in the staging directory for files outside of the donor's data directory. A donor
/// cannot name a directory that begins with `#`.
const OUTSIDE: &str = "#outside";

/// Bytes, more than any descriptor with a name of ours has.
const PLACED_LEN: usize = 256;

/// The files of a clone in a staging directory.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// Index and name of each file of the system tablespace.
    system: Vec<(u32, Vec<u8>)>,
    undo: Vec<Vec<u8>>,
    /// The donor's names of the files that lie outside of its data directory. The first is
    /// `#outside/0.ibd` in the staging directory.
    outside: Vec<Vec<u8>>,
}

/// What follows from a descriptor.
#[derive(Default)]
pub(super) struct Noted<'d> {
    /// The descriptor for the engine, if it differs from the donor's.
    pub(super) descriptor: Option<Zeroizing<Vec<u8>>>,
    /// The file, if it was described for the first time.
    pub(super) new_file: Option<NewFile<'d>>,
}

/// A file that was described for the first time, and that the server has to accept.
pub(super) enum NewFile<'d> {
    /// Of the system tablespace: its place in `innodb_data_file_path`, and its size in bytes.
    System { index: usize, size: u64 },
    /// Outside of the donor's data directory: its path at the donor.
    Outside(&'d Path),
}

impl Placement {
    /// Notes the file that a checked descriptor describes.
    ///
    /// The caller asks the server about a new file without the lock. So the file is noted before
    /// the server accepts it, and no other task asks once more. If the server refuses the file, the
    /// clone fails, and nobody uses what was noted.
    pub(super) fn note<'d>(&mut self, descriptor: &'d [u8]) -> Noted<'d> {
        let Ok(Descriptor::FileMetadata(file)) = Descriptor::parse(descriptor) else {
            return Noted::default();
        };
        match FileKind::of(file.space_id) {
            FileKind::System => Noted { descriptor: None, new_file: self.system_file(&file) },
            FileKind::Undo => {
                if !self.undo.iter().any(|name| name == file.name) {
                    self.undo.push(file.name.to_vec());
                }
                Noted::default()
            }
            FileKind::Tablespace if is_outside(file.name) => {
                let (index, new_file) = self.outside_file(file.name);
                let name = staged_name(index);
                // The descriptor may have a key.
                let mut placed = Zeroizing::new(Vec::with_capacity(PLACED_LEN));
                let file = FileMetadata { name: name.as_bytes(), ..file };
                Descriptor::FileMetadata(file).encode(&mut placed);
                Noted { descriptor: Some(placed), new_file }
            }
            FileKind::Tablespace | FileKind::Redo | FileKind::BufferPool => Noted::default(),
        }
    }

    /// Notes a file of the system tablespace. None if the file is known.
    fn system_file(&mut self, file: &FileMetadata<'_>) -> Option<NewFile<'static>> {
        if self.system.iter().any(|(index, _)| *index == file.file_index) {
            return None;
        }
        self.system.push((file.file_index, file.name.to_vec()));
        self.system.sort_unstable();
        let index = self.system.iter().position(|(index, _)| *index == file.file_index);
        Some(NewFile::System { index: index.unwrap_or(0), size: file.file_size })
    }

    /// Notes a file outside, and returns its number; without the file if the file is known.
    fn outside_file<'d>(&mut self, name: &'d [u8]) -> (usize, Option<NewFile<'d>>) {
        if let Some(known) = self.outside.iter().position(|known| known == name) {
            return (known, None);
        }
        self.outside.push(name.to_vec());
        let file = NewFile::Outside(Path::new(OsStr::from_bytes(name)));
        (self.outside.len() - 1, Some(file))
    }

    /// What the server has to know to take the clone.
    pub(super) fn staged(&self, directory: &Path) -> StagedClone {
        let path = |name: &[u8]| PathBuf::from(OsStr::from_bytes(name));
        let outside = self.outside.iter().enumerate().map(|(index, name)| OutsideFile {
            staged: PathBuf::from(staged_name(index)),
            path: path(name),
        });
        StagedClone {
            directory: directory.to_owned(),
            system_files: self.system.iter().map(|(_, name)| path(name).into()).collect(),
            undo_files: self.undo.iter().map(|name| path(name).into()).collect(),
            outside_files: outside.collect(),
        }
    }
}

fn staged_name(index: usize) -> String {
    format!("{OUTSIDE}/{index}.ibd")
}

/// Whether the donor's name of a tablespace leads out of its data directory.
fn is_outside(name: &[u8]) -> bool {
    name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use clone_protocol::innodb::{Compression, SPACE_ID_REDO, SnapshotState};

    use super::*;

    fn file(space_id: u32, index: u32, name: &str) -> Vec<u8> {
        let file = FileMetadata {
            state: SnapshotState::FileCopy,
            file_size: 7 << 20,
            allocated_size: 7 << 20,
            fsp_flags: 0,
            block_size: 4096,
            compression: Compression::None,
            encrypted: false,
            renamed: false,
            deleted: false,
            space_id,
            file_index: index,
            first_chunk: 1,
            last_chunk: 1,
            name: name.as_bytes(),
            key: None,
        };
        let mut bytes = Vec::new();
        Descriptor::FileMetadata(file).encode(&mut bytes);
        bytes
    }

    fn name(descriptor: &[u8]) -> String {
        match Descriptor::parse(descriptor) {
            Ok(Descriptor::FileMetadata(file)) => String::from_utf8_lossy(file.name).into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_outside_get_names_below_the_staging_directory() {
        let mut placement = Placement::default();
        let mut note = |name: &str| {
            let descriptor = file(9, 3, name);
            let noted = placement.note(&descriptor);
            let is_new = match noted.new_file {
                Some(NewFile::Outside(path)) => path == Path::new(name),
                Some(NewFile::System { .. }) => panic!("{name} is no system file"),
                None => false,
            };
            (noted.descriptor.map(|placed| self::name(&placed)), is_new)
        };
        let outside = |index: u32| Some(format!("#outside/{index}.ibd"));
        assert_eq!(note("./test/t.ibd"), (None, false));
        assert_eq!(note("/srv/test/t.ibd"), (outside(0), true));
        assert_eq!(note("../ts.ibd"), (outside(1), true));
        assert_eq!(note("/srv/test/t.ibd"), (outside(0), false));
        let staged = placement.staged(Path::new("/data/.clone_staging"));
        let paths: Vec<_> = staged.outside_files.iter().map(|file| file.path.as_path()).collect();
        assert_eq!(paths, [Path::new("/srv/test/t.ibd"), Path::new("../ts.ibd")]);
        assert_eq!(staged.outside_files[1].staged, Path::new("#outside/1.ibd"));
    }

    #[test]
    fn system_files_are_told_once_and_in_order() {
        let mut placement = Placement::default();
        let mut told = Vec::new();
        for (index, name) in [(1, "ibdata1"), (2, "ibdata2"), (1, "ibdata1")] {
            let descriptor = file(0, index, name);
            let noted = placement.note(&descriptor);
            assert_eq!(noted.descriptor, None);
            if let Some(NewFile::System { index, size }) = noted.new_file {
                told.push((index, size));
            }
        }
        assert_eq!(told, [(0, 7 << 20), (1, 7 << 20)]);
        let undo = file(SPACE_ID_REDO - 1, 5, "undo_001");
        assert!(placement.note(&undo).new_file.is_none());
        let staged = placement.staged(Path::new("/d"));
        assert_eq!(staged.system_files, ["ibdata1", "ibdata2"]);
        assert_eq!(staged.undo_files, ["undo_001"]);
    }
}
