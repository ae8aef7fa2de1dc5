// SPDX-License-Identifier: GPL-2.0-only

//! Finds the files that a donor sends: `ib_buffer_pool`, the system tablespace, undo tablespaces,
//! and all files `*.ibd` (`fil0fil.cc:Tablespace_dirs::scan`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clone_protocol::innodb::{Compression, PageSize, SPACE_ID_BUFFER_POOL};

use super::Options;
use super::files::{FileFacts, open, read_exact};
use super::outside::OutsideNames;
use super::walk::Walk;
use crate::encryption::{DataKey, Keyring};
use crate::error::{Error, Result};
use crate::format::bytes::u16_at;
use crate::format::layout::{
    COMPRESSED, COMPRESSED_AND_ENCRYPTED, COMPRESSION_ALGORITHM, TYPE, is_encrypted,
};
use crate::format::space_header::{self, SpaceHeader};
use crate::source::SourceFile;

/// The most files of the system tablespace.
const MAX_SYSTEM_FILES: u32 = 1000;

/// `mysql.ibd` (`dict_sys_t::s_dict_space_id`).
const DICTIONARY: u32 = 0xFFFF_FFFE;

/// `ib_buffer_pool`, of `innodb_buffer_pool_filename`.
const BUFFER_POOL: &str = "ib_buffer_pool";

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

        let found = Walk::tablespaces(&options.directory, options.undo.as_deref())?;
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
    let refused = |why: &str| Error::Refused(format!("{} is encrypted: {why}", path.display()));
    let keyring = keyring.ok_or_else(|| {
        refused("its key is in the keyring of its server. Name the keyring file of its server")
    })?;
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
