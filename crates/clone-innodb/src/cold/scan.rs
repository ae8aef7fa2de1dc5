// SPDX-License-Identifier: GPL-2.0-only

//! Finds the files that a donor sends: `ib_buffer_pool`, the system tablespace, undo tablespaces,
//! and all files `*.ibd` (`fil0fil.cc:Tablespace_dirs::scan`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clone_protocol::innodb::{Compression, PageSize, SPACE_ID_BUFFER_POOL};

use super::Options;
use super::files::{FileFacts, open, read_exact};
use super::outside::OutsideNames;
use crate::encryption::{DataKey, Keyring};
use crate::error::{Error, FileOperation, Result};
use crate::format::bytes::{u16_at, u32_at};
use crate::format::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, COMPRESSION_ALGORITHM, TYPE, is_encrypted,
};
use crate::format::space_header::{self, SpaceHeader};
use crate::source::SourceFile;

/// The most files of a directory. A server has some ten thousand, seldom more than a million.
const MAX_FILES: usize = 4 << 20;
/// How deep directories are searched. Schemas are one deep.
const MAX_DEPTH: usize = 8;
/// The most files of the system tablespace.
const MAX_SYSTEM_FILES: u32 = 1000;

/// `mysql.ibd` (`dict_sys_t::s_dict_space_id`).
const DICTIONARY: u32 = 0xFFFF_FFFE;

/// `ib_buffer_pool`, of `innodb_buffer_pool_filename`.
const BUFFER_POOL: &str = "ib_buffer_pool";

/// What an undo tablespace that was truncated completely begins with (`undo::s_magic`).
const TRUNCATED: u32 = 76_845_412;

/// Bytes of the dictionary that are searched at once: whole pages.
const SEARCH: usize = 1 << 20;

/// Pages of a file with holes that are looked at for their compression.
const SAMPLE: u64 = 64;

/// Page 0 of a tablespace's first file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstPage {
    pub(super) header: SpaceHeader,
    pub(super) size: PageSize,
}

impl FirstPage {
    /// None if the bytes are no page 0.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let header = SpaceHeader::parse(bytes);
        header.page_size().map(|size| Self { header, size })
    }
}

/// A file that is sent.
#[derive(Debug)]
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    /// As a donor names it, and what else the recipient is told.
    pub(super) source: SourceFile,
    /// None if the file has no pages.
    pub(super) size: Option<PageSize>,
    /// The number of the file's first page.
    pub(super) first_page: u32,
    /// The key of an encrypted tablespace.
    pub(super) key: Option<DataKey>,
    /// The file of the system tablespace is kept open: closing it would give back the lock.
    pub(super) opened: Option<File>,
}

impl DataFile {
    /// Reads `bytes` whole.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        match &self.opened {
            Some(file) => read_exact(file, &self.path, bytes, offset),
            None => read_exact(&open(&self.path)?.0, &self.path, bytes, offset),
        }
    }
}

/// All files that are sent.
#[derive(Debug)]
pub(super) struct DataFiles {
    /// In the order in which they are sent.
    pub(super) files: Vec<DataFile>,
    /// Page 0 of the system tablespace.
    pub(super) system: FirstPage,
    /// Page 0 of `mysql.ibd`.
    pub(super) dictionary: FirstPage,
}

impl DataFiles {
    /// Finds all files. `system_file` is `ibdata1`, locked. `names` are those of the redo.
    pub(super) fn find(
        options: &Options,
        keyring: Option<&Keyring>,
        system_file: (File, FileFacts),
        mut names: OutsideNames,
    ) -> Result<Self> {
        let mut files = Vec::new();
        files.extend(buffer_pool(&options.directory)?);
        let system = system_tablespace(options.home(), system_file, &mut files)?;

        let mut found = Vec::new();
        let mut walk = Walk { root: &options.directory, found: &mut found };
        walk.directory(&options.directory, 0)?;
        if let Some(undo) = options.undo.as_deref().filter(|undo| *undo != options.directory) {
            walk.undo_directory(undo)?;
        }
        let mut spaces = BTreeMap::new();
        let mut dictionary = None;
        let mut undo = BTreeMap::new();
        let first_own = files.len();
        for (path, name) in found {
            let Some((file, first)) = tablespace(path, name, &system, keyring)? else { continue };
            if let Some(other) = spaces.insert(file.source.space_id, file.path.clone()) {
                return Err(Error::Refused(format!(
                    "{} and {} are the same tablespace, {}: a server would not start. Move one away",
                    other.display(),
                    file.path.display(),
                    file.source.space_id
                )));
            }
            if first.header.is_undo()
                && let Some(other) = undo.insert(file.source.name.clone(), file.path.clone())
            {
                return Err(Error::Refused(format!(
                    "{} and {} are undo tablespaces with one file name, and a clone has all in one \
                     directory. Start a server, and drop one of them",
                    other.display(),
                    file.path.display()
                )));
            }
            if first.header.space_id == DICTIONARY {
                search(&file, &mut names)?;
                dictionary = Some(first);
            }
            files.push(file);
        }
        let (outside, missing) = names.resolve(&options.directory);
        for (path, name) in outside {
            let Some((file, first)) = tablespace(path, name, &system, keyring)? else { continue };
            if let Entry::Vacant(entry) = spaces.entry(first.header.space_id) {
                entry.insert(file.path.clone());
                files.push(file);
            }
        }
        for name in missing {
            log::warn!(
                "the dictionary names {name}, outside of the directory, and there is no such file. \
                 If the table was not dropped, its data is missing in clones"
            );
        }
        // A donor sends them in this order.
        files[first_own..].sort_by_key(|file| file.source.space_id);
        let dictionary = dictionary.ok_or_else(|| {
            Error::Refused(format!(
                "{} has no mysql.ibd: it is no data directory of MySQL 8.0 or newer",
                options.directory.display()
            ))
        })?;
        if undo.len() < 2 {
            return Err(Error::Refused(format!(
                "{} undo tablespaces were found, and a server has two at least. Name their \
                 directory if innodb_undo_directory was set",
                undo.len()
            )));
        }
        Ok(Self { files, system, dictionary })
    }
}

/// Searches directories.
struct Walk<'a> {
    root: &'a Path,
    /// Paths, and names as a donor sends them.
    found: &'a mut Vec<(PathBuf, Vec<u8>)>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            log::warn!("{} is too deep: it is not searched for tablespaces", directory.display());
            return Ok(());
        }
        for (path, name) in entries(directory)? {
            let bytes = name.as_bytes();
            // At the top, these are directories and files of InnoDB's own, or not of MySQL.
            if depth == 0 && matches!(bytes.first(), Some(b'#' | b'.')) {
                continue;
            }
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // A link to nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(FileOperation::Open, &path, error)),
            };
            if metadata.is_dir() && name != "lost+found" {
                self.directory(&path, depth + 1)?;
            } else if metadata.is_file()
                && (is_tablespace(bytes) || (depth == 0 && is_undo_file(bytes)))
            {
                refuse_truncation(&path)?;
                self.add(path)?;
            }
        }
        Ok(())
    }

    /// `innodb_undo_directory`.
    fn undo_directory(&mut self, directory: &Path) -> Result<()> {
        for (path, name) in entries(directory)? {
            if name.as_bytes().ends_with(b".ibu") || is_undo_file(name.as_bytes()) {
                refuse_truncation(&path)?;
                let name = name.as_bytes().to_vec();
                self.push(path, name)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let below = path.strip_prefix(self.root).unwrap_or(&path).as_os_str().as_bytes();
        let name = [b"./", below].concat();
        self.push(path, name)
    }

    fn push(&mut self, path: PathBuf, name: Vec<u8>) -> Result<()> {
        if is_truncation_log(&name) {
            return Ok(());
        }
        if self.found.len() == MAX_FILES {
            return Err(Error::Refused(format!("more than {MAX_FILES} tablespaces")));
        }
        self.found.push((path, name));
        Ok(())
    }
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, OsString)>> {
    let failed = |error| Error::io(FileOperation::Open, directory, error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    let names = entries.map(|entry| entry.map(|entry| (entry.path(), entry.file_name())));
    names.collect::<io::Result<_>>().map_err(failed)
}

/// `Fil_path::has_suffix`: a tablespace of any kind, where all may be.
fn is_tablespace(name: &[u8]) -> bool {
    name.ends_with(b".ibd") || name.ends_with(b".ibu")
}

/// What stands in an undo directory only: `undo_001`, and the log of a truncation.
fn is_undo_file(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"undo_").unwrap_or_default();
    let is_numbered = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    is_numbered || (name.starts_with(b"undo_") && is_truncation_log(name))
}

fn is_truncation_log(name: &[u8]) -> bool {
    name.ends_with(b"_trunc.log")
}

/// A server finishes the truncation of an undo tablespace when it starts, by this file.
fn refuse_truncation(path: &Path) -> Result<()> {
    if !is_truncation_log(path.as_os_str().as_bytes()) {
        return Ok(());
    }
    let (file, facts) = open(path)?;
    let mut start = [0; 4];
    if facts.size >= 4 {
        read_exact(&file, path, &mut start, 0)?;
    }
    if u32_at(&start, 0) == TRUNCATED {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{}: the server ended while an undo tablespace was truncated. Start a server on the \
         directory once, and shut it down",
        path.display()
    )))
}

fn buffer_pool(directory: &Path) -> Result<Option<DataFile>> {
    let path = directory.join(BUFFER_POOL);
    if !path.exists() {
        return Ok(None);
    }
    let (_, facts) = open(&path)?;
    Ok(Some(DataFile {
        path,
        source: SourceFile {
            name: BUFFER_POOL.as_bytes().to_vec(),
            space_id: SPACE_ID_BUFFER_POOL,
            size: facts.size,
            // InnoDB does not ask for these of this file.
            allocated: facts.size,
            fsp_flags: u32::MAX,
            block_size: 0,
            compression: Compression::None,
            encrypted: false,
        },
        size: None,
        first_page: 0,
        key: None,
        opened: None,
    }))
}

/// `ibdata1`, `ibdata2` and so on.
fn system_tablespace(
    home: &Path,
    (first, facts): (File, FileFacts),
    files: &mut Vec<DataFile>,
) -> Result<FirstPage> {
    let path = home.join("ibdata1");
    let page =
        first_page(&first, &path)?.filter(|page| page.header.space_id == 0).ok_or_else(|| {
            Error::Refused(format!("{} is damaged: its first page says nothing", path.display()))
        })?;
    if page.size.is_compressed || page.header.is_encrypted() {
        return Err(Error::Refused(format!(
            "{} is damaged: it has flags of compressed or encrypted tables",
            path.display()
        )));
    }
    let page_size = u64::from(page.size.physical);
    let mut pages = 0;
    let mut next = Some((path, first, facts));
    for number in 2..=MAX_SYSTEM_FILES {
        let Some((path, file, facts)) = next.take() else { break };
        let name = path.file_name().unwrap_or_default();
        let source = source(name.as_bytes().to_vec(), page, facts, Compression::None);
        let first_page = u32::try_from(pages).unwrap_or(u32::MAX);
        let size = Some(page.size);
        files.push(DataFile { path, source, size, first_page, key: None, opened: Some(file) });
        pages += facts.size / page_size;
        let another = home.join(format!("ibdata{number}"));
        if another.exists() {
            let (file, facts) = open(&another)?;
            next = Some((another, file, facts));
        }
    }
    if pages < u64::from(page.header.size) {
        return Err(Error::Refused(format!(
            "the system tablespace has {} pages, of which {pages} are in the files ibdata1 and so on. \
             Files with other names (innodb_data_file_path) cannot be served",
            page.header.size
        )));
    }
    Ok(page)
}

/// A file of its own tablespace. None if the server had not begun to use it.
fn tablespace(
    path: PathBuf,
    name: Vec<u8>,
    system: &FirstPage,
    keyring: Option<&Keyring>,
) -> Result<Option<(DataFile, FirstPage)>> {
    let (file, facts) = open(&path)?;
    let Some(first) = first_page(&file, &path)? else {
        log::warn!(
            "{} is left out: its first page says nothing. A server that ends while a table is \
             created leaves such a file",
            path.display()
        );
        return Ok(None);
    };
    if first.header.is_temporary() {
        return Ok(None);
    }
    if first.size.logical != system.size.logical {
        return Err(Error::Refused(format!(
            "{} has pages of {} bytes, but the system tablespace has {}",
            path.display(),
            first.size.logical,
            system.size.logical
        )));
    }
    let is_encrypted = first.header.is_encrypted();
    let key = is_encrypted.then(|| key(&file, &path, first.size, keyring)).transpose()?;
    let compression = if facts.allocated < facts.size && !first.size.is_compressed {
        compression(&file, &path, first.size, facts.size)?
    } else {
        Compression::None
    };
    if first.header.space_id == 0 {
        return Err(Error::Refused(format!(
            "{} says that it is the system tablespace",
            path.display()
        )));
    }
    // A donor sends these by their name alone.
    let name = if first.header.is_undo() || first.header.space_id == DICTIONARY {
        path.file_name().map_or(name, |name| name.as_bytes().to_vec())
    } else {
        name
    };
    let source = source(name, first, facts, compression);
    let size = Some(first.size);
    Ok(Some((DataFile { path, source, size, first_page: 0, key, opened: None }, first)))
}

/// Searches the dictionary for names of tablespaces outside of the directory.
fn search(dictionary: &DataFile, names: &mut OutsideNames) -> Result<()> {
    let (file, facts) = open(&dictionary.path)?;
    // A row is within a page, and so is a name. Pages have 64 KiB at most.
    let page_size = dictionary.size.map_or(SEARCH, |size| size.physical as usize);
    let mut plain = Vec::new();
    let mut part = vec![0; SEARCH];
    let mut offset = 0;
    while offset < facts.size {
        let len = (SEARCH as u64).min(facts.size - offset);
        let part = &mut part[..usize::try_from(len).unwrap_or(SEARCH)];
        read_exact(&file, &dictionary.path, part, offset)?;
        for page in part.chunks(page_size) {
            match dictionary.key.as_ref().filter(|_| is_encrypted(u16_at(page, TYPE))) {
                Some(key) => {
                    key.decrypt_page(page, &mut plain);
                    names.search(&plain);
                }
                None => names.search(page),
            }
        }
        offset += len;
    }
    Ok(())
}

fn source(
    name: Vec<u8>,
    first: FirstPage,
    facts: FileFacts,
    compression: Compression,
) -> SourceFile {
    SourceFile {
        name,
        space_id: first.header.space_id,
        // A server that ends while a file grows may leave a part of a page, which says nothing.
        size: facts.size - facts.size % u64::from(first.size.physical),
        allocated: facts.allocated,
        fsp_flags: first.header.flags,
        block_size: facts.block_size,
        compression,
        encrypted: first.header.is_encrypted(),
    }
}

fn first_page(file: &File, path: &Path) -> Result<Option<FirstPage>> {
    let mut bytes = [0; space_header::BYTES];
    match read_exact(file, path, &mut bytes, 0) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| FirstPage::parse(&bytes)),
    }
}

/// The key of an encrypted tablespace, from its page 0.
fn key(file: &File, path: &Path, size: PageSize, keyring: Option<&Keyring>) -> Result<DataKey> {
    let refused = |why: &str| {
        let name = path.display();
        Error::Refused(format!("{name} is encrypted: {why}. Name the keyring file of its server"))
    };
    let keyring = keyring.ok_or_else(|| refused("its key is in the keyring of its server"))?;
    let mut page = vec![0; size.physical as usize];
    read_exact(file, path, &mut page, 0)?;
    DataKey::of_page_0(&page, size, keyring).map_err(|why| refused(&why))
}

/// The transparent compression of a file with holes. The dictionary says which one a table has;
/// here the first compressed page says it.
fn compression(file: &File, path: &Path, size: PageSize, bytes: u64) -> Result<Compression> {
    let page_size = u64::from(size.physical);
    for page in 0..SAMPLE.min(bytes / page_size) {
        let mut start = [0; COMPRESSION_ALGORITHM + 1];
        read_exact(file, path, &mut start, page * page_size)?;
        if matches!(u16_at(&start, TYPE), COMPRESSED | COMPRESSED_AND_ENCRYPTED) {
            return Ok(match start[COMPRESSION_ALGORITHM] {
                1 => Compression::Zlib,
                2 => Compression::Lz4,
                _ => Compression::None,
            });
        }
    }
    Ok(Compression::None)
}
