// SPDX-License-Identifier: GPL-2.0-only

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::slice;

use super::*;

/// An engine as this module sees it: somebody who calls through the vtable.
struct FakeEngine {
    hton: abi::handlerton,
}

impl FakeEngine {
    fn new() -> Self {
        Self { hton: abi::handlerton { state: 0, db_type: 12 } }
    }

    fn object(&mut self, callback: &mut CloneCallback<'_>) -> *mut abi::Ha_clone_cbk {
        callback.for_engine(&raw mut self.hton)
    }
}

fn functions(object: *mut abi::Ha_clone_cbk) -> abi::Ha_clone_cbk_vtable {
    // SAFETY: an object of these tests.
    let vptr = unsafe { (*object).vptr };
    // SAFETY: its table.
    unsafe { *vptr }
}

fn file_of(file: &File) -> abi::Ha_clone_file {
    abi::Ha_clone_file {
        type_: abi::HA_CLONE_FILE_DESC.unsigned_abs(),
        u: abi::Ha_clone_file__bindgen_ty_1 { file_desc: file.as_raw_fd() },
    }
}

fn call_buffer(object: *mut abi::Ha_clone_cbk, data: &[u8]) -> c_int {
    let buffer_cbk = functions(object).buffer_cbk.expect("a function");
    let pointer = if data.is_empty() { ptr::null_mut() } else { data.as_ptr().cast_mut() };
    // SAFETY: as an engine calls it.
    unsafe { buffer_cbk(object, pointer, u32::try_from(data.len()).expect("short")) }
}

fn call_apply_buffer(object: *mut abi::Ha_clone_cbk) -> (c_int, Vec<u8>) {
    let apply_buffer_cbk = functions(object).apply_buffer_cbk.expect("a function");
    let (mut data, mut len) = (ptr::null_mut(), 0);
    // SAFETY: as an engine calls it.
    let code = unsafe { apply_buffer_cbk(object, &raw mut data, &raw mut len) };
    let Some(data) = NonNull::new(data) else { return (code, Vec::new()) };
    // SAFETY: what the callback returned.
    (code, unsafe { slice::from_raw_parts(data.as_ptr(), len as usize) }.to_vec())
}

/// Writes down what it is called with.
#[derive(Default)]
struct Recorder {
    calls: Vec<String>,
    data: Vec<u8>,
    error: u32,
}

impl Recorder {
    fn done(&self) -> Result<(), u32> {
        if self.error == 0 { Ok(()) } else { Err(self.error) }
    }
}

impl Callbacks for Recorder {
    fn file(&mut self, view: &CallbackView<'_>, file: BorrowedFd<'_>, len: u32) -> Result<(), u32> {
        let mut file = File::from(file.try_clone_to_owned().expect("dup"));
        let mut bytes = vec![0; len as usize];
        file.read_exact(&mut bytes).expect("read");
        self.calls.push(format!("file {} {:?} {}", view.source_name(), bytes, view.is_zero_copy()));
        self.done()
    }

    fn buffer(&mut self, view: &CallbackView<'_>, data: &[u8]) -> Result<(), u32> {
        self.calls.push(format!(
            "buffer {:?} {data:?} {:?}",
            view.descriptor(),
            view.state_change()
        ));
        self.done()
    }

    fn apply_file(&mut self, view: &CallbackView<'_>, _: BorrowedFd<'_>) -> Result<(), u32> {
        self.calls.push(format!("apply_file {} {}", view.dest_name(), view.is_os_buffer_cached()));
        self.done()
    }

    fn apply_buffer(&mut self, view: &CallbackView<'_>) -> Result<&mut [u8], u32> {
        self.calls.push(format!("apply_buffer {}", view.is_secure()));
        self.done()?;
        Ok(&mut self.data)
    }
}

#[test]
fn the_engine_part_is_first_and_complete() {
    assert_eq!(std::mem::offset_of!(CloneCallback<'_>, raw), 0);
    assert_eq!(std::mem::offset_of!(CloneCallback<'_>, callbacks), 88);
    let mut recorder = Recorder::default();
    let descriptor = [1, 2, 3];
    let callback = CloneCallback::new(&mut recorder)
        .locator_index(7)
        .client_buffer_size(4096)
        .descriptor(&descriptor);
    let raw = &callback.raw;
    assert_eq!(
        (raw.m_loc_idx, raw.m_client_buff_size, raw.m_desc_len, raw.m_flag),
        (7, 4096, 3, 0)
    );
    assert_eq!(
        [
            raw.ha_clone_ack,
            raw.ha_clone_file_cache,
            raw.ha_clone_zero_copy,
            raw.ha_clone_secure,
            raw.ha_clone_state_change
        ],
        [1, 2, 4, 8, 16]
    );
}

#[test]
fn callbacks_arrive_with_what_the_engine_set() {
    let path = std::env::temp_dir().join(format!("clone-callback-{}", std::process::id()));
    std::fs::write(&path, b"xyz").expect("write");
    let file = File::open(&path).expect("open");
    std::fs::remove_file(&path).expect("remove");

    let mut engine = FakeEngine::new();
    let mut recorder = Recorder { data: vec![9, 8], ..Recorder::default() };
    let descriptor = [5];
    let mut callback = CloneCallback::new(&mut recorder).locator_index(3).descriptor(&descriptor);
    let object = engine.object(&mut callback);
    // SAFETY: what an engine does to the object before it calls back.
    unsafe { (*object).m_src_name = c"t1.ibd".as_ptr() };
    // SAFETY: as above.
    unsafe { (*object).m_dest_name = c"/to/t1.ibd".as_ptr() };
    // SAFETY: as above.
    unsafe { (*object).m_state_estimate = 1 << 40 };
    // SAFETY: as above.
    unsafe {
        (*object).m_flag =
            abi::HA_CLONE_ZERO_COPY | abi::HA_CLONE_FILE_CACHE | abi::HA_CLONE_STATE_CHANGE
    };

    // SAFETY: as an engine calls it.
    let code =
        unsafe { functions(object).file_cbk.expect("a function")(object, file_of(&file), 2) };
    assert_eq!(code, 0);
    assert_eq!(call_buffer(object, b"ab"), 0);
    assert_eq!(call_buffer(object, b""), 0);
    // SAFETY: as an engine calls it.
    let code =
        unsafe { functions(object).apply_file_cbk.expect("a function")(object, file_of(&file)) };
    assert_eq!(code, 0);
    assert_eq!(call_apply_buffer(object), (0, vec![9, 8]));
    // SAFETY: as C++ would call it.
    unsafe { functions(object).deleting_destructor.expect("a function")(object) };

    assert_eq!(
        recorder.calls,
        [
            "file t1.ibd [120, 121] true",
            "buffer [5] [97, 98] Some(1099511627776)",
            "buffer [5] [] Some(1099511627776)",
            "apply_file /to/t1.ibd true",
            "apply_buffer false",
        ]
    );
}

#[test]
fn errors_are_returned_and_panics_end_the_conversation() {
    let mut engine = FakeEngine::new();
    let mut recorder = Recorder { error: 1317, ..Recorder::default() };
    let mut callback = CloneCallback::new(&mut recorder);
    let object = engine.object(&mut callback);
    assert_eq!(call_buffer(object, b""), 1317);
    assert_eq!(call_apply_buffer(object), (1317, Vec::new()));
    let no_file =
        abi::Ha_clone_file { type_: 0, ..file_of(&File::open("/dev/null").expect("open")) };
    // SAFETY: as an engine calls it.
    let code = unsafe { functions(object).apply_file_cbk.expect("a function")(object, no_file) };
    assert_eq!(code, 1815);
    assert_eq!(recorder.calls.len(), 2);

    struct Panics(u32);
    impl Callbacks for Panics {
        fn file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>, _: u32) -> Result<(), u32> {
            Ok(())
        }
        fn buffer(&mut self, _: &CallbackView<'_>, _: &[u8]) -> Result<(), u32> {
            self.0 += 1;
            panic!("as a test")
        }
        fn apply_file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>) -> Result<(), u32> {
            Ok(())
        }
        fn apply_buffer(&mut self, _: &CallbackView<'_>) -> Result<&mut [u8], u32> {
            Err(0)
        }
    }
    let mut panics = Panics(0);
    let mut callback = CloneCallback::new(&mut panics);
    let object = engine.object(&mut callback);
    // An error number of 0 would be success to the engine.
    assert_eq!(call_apply_buffer(object), (1, Vec::new()));
    assert_eq!(call_buffer(object, b""), 1815);
    assert_eq!(call_buffer(object, b""), 1815);
    assert_eq!(panics.0, 1);
}

/// The two halves of a local clone, in the form that the module's documentation describes.
#[test]
fn a_nested_call_has_an_object_of_its_own() {
    struct Source {
        destination: Destination,
    }
    #[derive(Default)]
    struct Destination {
        data: Vec<u8>,
        log: Vec<String>,
    }
    impl Callbacks for Source {
        fn file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>, _: u32) -> Result<(), u32> {
            Err(1815)
        }
        fn buffer(&mut self, view: &CallbackView<'_>, data: &[u8]) -> Result<(), u32> {
            self.destination.data = data.to_vec();
            let mut nested =
                CloneCallback::new(&mut self.destination).descriptor(view.descriptor());
            let mut engine = FakeEngine::new();
            let object = engine.object(&mut nested);
            // What an applying engine does: flags and name of the destination, then the data, then
            // an acknowledgement with a descriptor of its own.
            // SAFETY: an object of this test.
            unsafe { (*object).m_flag |= abi::HA_CLONE_FILE_CACHE };
            // SAFETY: as above.
            unsafe { (*object).m_dest_name = c"to".as_ptr() };
            let (code, written) = call_apply_buffer(object);
            assert_eq!((code, written.as_slice()), (0, data));
            let acknowledgement = [6, 6];
            // SAFETY: as above.
            unsafe { (*object).m_data_desc = acknowledgement.as_ptr() };
            // SAFETY: as above.
            unsafe { (*object).m_desc_len = 2 };
            assert_eq!(call_buffer(object, b""), 0);
            // The view that this callback was given is still that of the source.
            assert_eq!(view.descriptor(), [5, 5, 5]);
            assert!(view.is_secure());
            assert_eq!(view.dest_name(), "");
            Ok(())
        }
        fn apply_file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>) -> Result<(), u32> {
            Err(1815)
        }
        fn apply_buffer(&mut self, _: &CallbackView<'_>) -> Result<&mut [u8], u32> {
            Err(1815)
        }
    }
    impl Callbacks for Destination {
        fn file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>, _: u32) -> Result<(), u32> {
            Err(1815)
        }
        fn buffer(&mut self, view: &CallbackView<'_>, _: &[u8]) -> Result<(), u32> {
            self.log.push(format!("ack {:?}", view.descriptor()));
            Ok(())
        }
        fn apply_file(&mut self, _: &CallbackView<'_>, _: BorrowedFd<'_>) -> Result<(), u32> {
            Err(1815)
        }
        fn apply_buffer(&mut self, view: &CallbackView<'_>) -> Result<&mut [u8], u32> {
            self.log.push(format!(
                "apply {:?} {} {} {}",
                view.descriptor(),
                view.dest_name(),
                view.is_os_buffer_cached(),
                view.is_secure()
            ));
            Ok(&mut self.data)
        }
    }

    let mut engine = FakeEngine::new();
    let mut source = Source { destination: Destination::default() };
    let descriptor = [5, 5, 5];
    let mut callback = CloneCallback::new(&mut source).locator_index(1).descriptor(&descriptor);
    let object = engine.object(&mut callback);
    // SAFETY: what a copying engine does before it calls back.
    unsafe { (*object).m_flag = abi::HA_CLONE_SECURE };
    assert_eq!(call_buffer(object, b"page"), 0);
    assert_eq!(source.destination.log, ["apply [5, 5, 5] to true false", "ack [6, 6]"]);
}
