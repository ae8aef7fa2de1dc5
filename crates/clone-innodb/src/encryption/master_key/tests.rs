// SPDX-License-Identifier: GPL-2.0-only

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::encryption::DataKey;
use crate::format::checksum::check;
use crate::format::page::initial_page;

/// The information as a donor sends it: number 0, and the pair in clear.
fn clear_info() -> [u8; LEN] {
    let mut pair = [5; 64];
    pair[32..].fill(6);
    let mut info = [0; LEN];
    info[..3].copy_from_slice(MAGIC);
    info[UUID].copy_from_slice(b"12345678-1234-1234-1234-123456789012");
    info[PAIR].copy_from_slice(&pair);
    info[SUM].copy_from_slice(&checksum(&pair).to_be_bytes());
    info
}

fn keyring(master: &MasterKey) -> Keyring {
    Keyring::parse(master.keyring_file().as_bytes()).unwrap()
}

/// What `verify` reads from a page is the key that came in clear, for all sizes of pages.
#[test]
fn a_page_is_read_with_the_keyring_file() {
    let master = MasterKey::generate().unwrap();
    // 16 KiB, compressed to 8 KiB, 4 KiB, 64 KiB; all with the bit for encryption.
    for flags in [0x4021, 0x4029, 3 << 6, 7 << 6].map(|flags: u32| flags | 1 << 13) {
        let size = PageSize::of(flags).unwrap();
        let mut page = initial_page(size, 7, flags, 90_704, None);
        assert_eq!(master.wrap_page(&mut page, size), Err(NoKey), "{flags:#x}: no key yet");
        page[16..24].copy_from_slice(&0x1122_3344_5566_7788_u64.to_be_bytes());
        let at = encryption_info::in_page_0(size);
        page[at..at + LEN].copy_from_slice(&clear_info());
        master.wrap_page(&mut page, size).unwrap();
        assert_eq!(check(&page, size.is_compressed), Ok(()), "{flags:#x}");
        DataKey::of_page_0(&page, size, &keyring(&master)).unwrap();
        let other = MasterKey::generate().unwrap();
        assert!(DataKey::of_page_0(&page, size, &keyring(&other)).is_err());
        assert!(!page.windows(32).any(|bytes| bytes == [5; 32]), "{flags:#x}: in clear");
        // What is wrapped is not in clear, and is not wrapped once more.
        assert_eq!(master.wrap_page(&mut page, size), Err(NoKey));

        // A file of DDL gets the same information from its descriptor.
        let info = master.info(&EncryptionKey::new(&[5; 32], &[6; 32]));
        assert_eq!(page[at..at + LEN], info);
        let page = initial_page(size, 7, flags, 90_704, Some(&info));
        assert_eq!(check(&page, size.is_compressed), Ok(()), "{flags:#x}");
        DataKey::of_page_0(&page, size, &keyring(&master)).unwrap();
    }
    assert!(master.is_used());
}

#[test]
fn a_redo_header_keeps_a_checksum_if_it_has_one() {
    let master = MasterKey::generate().unwrap();
    for has_sum in [false, true] {
        let mut header = vec![0; 2048];
        header[at::KEY..at::KEY + LEN].copy_from_slice(&clear_info());
        assert!(encryption_info::is_in_redo(&header, 0));
        assert!(encryption_info::is_in_redo(&header[1000..], 1000));
        assert!(!encryption_info::is_in_redo(&header, 2048));
        if has_sum {
            let sum = checksum(&header[1024..1532]).to_be_bytes();
            header[1532..1536].copy_from_slice(&sum);
        }
        master.wrap_redo_header(&mut header).unwrap();
        let info = master.info(&EncryptionKey::new(&[5; 32], &[6; 32]));
        assert_eq!(header[at::KEY..at::KEY + LEN], info);
        let sum = checksum(&header[1024..1532]).to_be_bytes();
        assert_eq!(header[1532..1536] == sum, has_sum);
        assert_eq!(master.wrap_redo_header(&mut header[..1500]), Err(NoKey));
    }
}

#[test]
fn a_keyring_file_is_written_once_and_removed_by_its_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keyring");
    let (master, other) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
    assert_ne!(master, other);
    master.write_new(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(other.write_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something is left");
    let read = MasterKey::read(&path, master.uuid()).unwrap().unwrap();
    assert_eq!(read.key.0, master.key.0);
    assert!(MasterKey::read(&path, other.uuid()).unwrap().is_none());

    // A process was killed while it wrote.
    fs::write(unfinished(&path), "{").unwrap();
    MasterKey::remove_from(&path, other.uuid()).unwrap();
    assert!(path.exists() && !unfinished(&path).exists());
    MasterKey::remove_from(&path, master.uuid()).unwrap();
    MasterKey::remove_from(&path, master.uuid()).unwrap();
    assert!(!path.exists());
    assert!(!format!("{master:?}").contains(&format!("{:02X}", master.key.0[0]).repeat(2)));
}

#[test]
fn a_name_is_that_of_a_uuid() {
    assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(MasterKey::generate().unwrap().uuid().len(), 36);
}

proptest! {
    #[test]
    fn any_bytes_are_judged(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), magic: bool) {
        let master = MasterKey::generate().unwrap();
        if magic && bytes.len() > 3 {
            bytes[..3].copy_from_slice(MAGIC);
        }
        let _ = master.wrap(&mut bytes);
        let _ = encryption_info::is_in_redo(&bytes, 1024);
        let _ = master.wrap_redo_header(&mut bytes);
        let _ = master.wrap_page(&mut bytes, PageSize::of(0x4021).unwrap());
    }
}
