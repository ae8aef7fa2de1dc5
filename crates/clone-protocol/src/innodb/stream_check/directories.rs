// SPDX-License-Identifier: GPL-2.0-only

//! Where names lead that leave the data directory.

/// The directories in which a donor's files may lie. All are absolute, in the file system's bytes.
///
/// InnoDB has the same rule since 9.7 (`innodb_directories`, `innodb_data_home_dir`,
/// `innodb_undo_directory`). Before it takes any absolute name.
///
/// Paths are compared as they are written. A donor that opened a file through another symbolic link
/// than the recipient's settings name is refused, and a link inside a known directory is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Where relative names begin: the directory that the clone goes to, or the data directory.
    pub base: Vec<u8>,
    /// The other directories that the recipient knows.
    pub known: Vec<Vec<u8>>,
}

impl Directories {
    /// Whether a file of this name lies in one of the directories.
    pub fn contain(&self, name: &[u8]) -> bool {
        let name = match name.starts_with(b"/") {
            true => name.to_vec(),
            false => [&self.base, &b"/"[..], name].concat(),
        };
        let Some(file) = components(&name) else { return false };
        [&self.base].into_iter().chain(&self.known).any(|directory| {
            components(directory).is_some_and(|directory| {
                file.len() > directory.len() && file.starts_with(&directory)
            })
        })
    }
}

/// The components of an absolute path, without `.` and `..`. None if the path is not absolute, or
/// climbs above the root.
fn components(path: &[u8]) -> Option<Vec<&[u8]>> {
    let mut components = Vec::new();
    for component in path.strip_prefix(b"/")?.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop()?;
            }
            _ => components.push(component),
        }
    }
    Some(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_in_known_directories() {
        let directories = Directories {
            base: b"/srv/clone/data/".to_vec(),
            known: vec![b"/mnt/ts".to_vec(), b"relative".to_vec()],
        };
        for name in [
            "./test/t1.ibd",
            "t1.ibd",
            "/mnt/ts/t1.ibd",
            "/mnt//./ts/a/t1.ibd",
            "/srv/clone/data/x",
        ] {
            assert!(directories.contain(name.as_bytes()), "{name}");
        }
        for name in [
            "../t1.ibd",
            "a/../../t1.ibd",
            "/mnt/ts2/t1.ibd",
            "/mnt/ts/../t1.ibd",
            "/mnt/ts",
            "/relative/t1.ibd",
            "/../../t1.ibd",
            "../../../../../t1.ibd",
        ] {
            assert!(!directories.contain(name.as_bytes()), "{name}");
        }
        let up = Directories { known: vec![b"/srv/clone".to_vec()], ..directories };
        assert!(up.contain(b"../t1.ibd"));
    }
}
