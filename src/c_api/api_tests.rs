// SPDX-License-Identifier: GPL-2.0-only

//! What C may do wrong, and what comes through.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "these are calls from C, one after the other"
)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "pointers are NULL or of locals that live through the call"
)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Mutex;

use clone_core::engine::{Begun, BlockInput, BlockOutput, Cancel, Engine, TaskId, View};
use clone_core::error::Result;
use tempfile::TempDir;

use super::arguments::bytes;
use super::*;
use crate::server::text::text;

/// Writes down what comes, and does what the locator says.
#[derive(Default)]
struct TestEngine {
    calls: Mutex<Vec<String>>,
}

impl TestEngine {
    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn do_as_told(&self, locator: &[u8]) -> Result<()> {
        match locator {
            b"panic" => panic!("as a test"),
            b"fail" => Err(Error::Protocol("as a test".to_owned())),
            _ => Ok(()),
        }
    }
}

impl<'s> Engine<dyn Cancel + 's> for TestEngine {
    fn begin(
        &self,
        _: &(dyn Cancel + 's),
        locator: Option<&[u8]>,
        mode: Mode,
        ddl_timeout: u32,
    ) -> Result<Begun> {
        self.note(format!("begin {locator:?} {mode:?} {ddl_timeout}"));
        self.do_as_told(locator.unwrap_or_default())?;
        Ok(Begun { locator: b"given".to_vec(), task: 3 })
    }

    fn copy(
        &self,
        _: &(dyn Cancel + 's),
        task: TaskId<'_>,
        buffer_size: u32,
        output: &mut dyn BlockOutput,
    ) -> Result<()> {
        let TaskId { locator, number, index } = task;
        self.note(format!("copy {locator:?} {number} {index} {buffer_size}"));
        let view = View {
            descriptor: b"descriptor",
            source_name: "from",
            destination_name: "to",
            is_os_buffer_cached: true,
            is_secure: true,
            ..View::default()
        };
        output.buffer(&view, b"data")?;
        output.buffer(&View { state_change: Some(77), ..View::default() }, &[])?;
        output.file(&view, std::io::stdin().as_fd(), 9)
    }

    fn ack(
        &self,
        _: &(dyn Cancel + 's),
        locator: &[u8],
        error: u32,
        descriptor: &[u8],
    ) -> Result<()> {
        self.note(format!("ack {locator:?} {error} {descriptor:?}"));
        Ok(())
    }

    fn end(&self, _: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        let TaskId { locator, number, index } = task;
        self.note(format!("end {locator:?} {number} {index} {error}"));
        self.do_as_told(locator)
    }

    fn apply_begin(
        &self,
        _: &(dyn Cancel + 's),
        locator: Option<&[u8]>,
        mode: Mode,
        directory: Option<&Path>,
    ) -> Result<Begun> {
        self.note(format!("apply_begin {locator:?} {mode:?} {directory:?}"));
        Ok(Begun { locator: b"taken".to_vec(), task: 4 })
    }

    fn apply(
        &self,
        _: &(dyn Cancel + 's),
        task: TaskId<'_>,
        descriptor: &[u8],
        input: &mut dyn BlockInput,
    ) -> Result<()> {
        let TaskId { locator, number, index } = task;
        let data = input.apply_buffer(&View::default())?.to_vec();
        self.note(format!("apply {locator:?} {number} {index} {descriptor:?} {data:?}"));
        input.add_estimate(6);
        Ok(())
    }

    fn apply_error(&self, _: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        let TaskId { locator, number, index } = task;
        self.note(format!("apply_error {locator:?} {number} {index} {error}"));
        Ok(())
    }

    fn apply_end(&self, _: &(dyn Cancel + 's), task: TaskId<'_>, error: u32) -> Result<()> {
        let TaskId { locator, number, index } = task;
        self.note(format!("apply_end {locator:?} {number} {index} {error}"));
        Ok(())
    }
}

/// An engine under a type that no other test has.
fn registered(db_type: u32) -> (Arc<TestEngine>, abi::handlerton) {
    let engine = Arc::new(TestEngine::default());
    assert!(register(db_type, engine.clone()));
    (engine, abi::handlerton { state: 0, db_type })
}

fn last_error() -> String {
    unsafe { CStr::from_ptr(clone_engine_error(null_mut())) }.to_str().unwrap().to_owned()
}

/// A callback object in C, that fails when it is told so.
#[repr(C)]
struct Object {
    raw: abi::Ha_clone_cbk,
    seen: Vec<String>,
    outcome: c_int,
    data: [u8; 3],
}

impl Object {
    fn new() -> Self {
        let raw = abi::Ha_clone_cbk {
            vptr: &raw const VTABLE,
            // SAFETY: integers and pointers.
            ..unsafe { std::mem::zeroed() }
        };
        Self { raw, seen: Vec::new(), outcome: 0, data: *b"xyz" }
    }

    fn as_ptr(&mut self) -> *mut abi::Ha_clone_cbk {
        (&raw mut *self).cast()
    }

    unsafe fn note(this: *mut abi::Ha_clone_cbk, what: &str) -> c_int {
        let object = unsafe { &mut *this.cast::<Object>() };
        let raw = &object.raw;
        let text = |at| unsafe { text(at) }.map(|text| text.to_str().unwrap());
        object.seen.push(format!(
            "{what} {:?} {:?} {:?} {} {}",
            unsafe { bytes(raw.m_data_desc, raw.m_desc_len) }.unwrap(),
            text(raw.m_src_name),
            text(raw.m_dest_name),
            raw.m_flag,
            raw.m_state_estimate,
        ));
        object.outcome
    }
}

unsafe extern "C" fn file(
    this: *mut abi::Ha_clone_cbk,
    file: abi::Ha_clone_file,
    len: c_uint,
) -> c_int {
    let what = format!("file {} {len}", unsafe { file.u.file_desc });
    unsafe { Object::note(this, &what) }
}

unsafe extern "C" fn buffer(this: *mut abi::Ha_clone_cbk, data: *mut u8, len: c_uint) -> c_int {
    let what = format!("buffer {:?}", unsafe { bytes(data, len) }.unwrap());
    unsafe { Object::note(this, &what) }
}

unsafe extern "C" fn apply_buffer(
    this: *mut abi::Ha_clone_cbk,
    data: *mut *mut u8,
    len: *mut c_uint,
) -> c_int {
    unsafe {
        let object = &mut *this.cast::<Object>();
        data.write(object.data.as_mut_ptr());
        len.write(3);
        Object::note(this, "apply_buffer")
    }
}

static VTABLE: abi::Ha_clone_cbk_vtable = abi::Ha_clone_cbk_vtable {
    file_cbk: Some(file),
    buffer_cbk: Some(buffer),
    apply_file_cbk: None,
    apply_buffer_cbk: Some(apply_buffer),
    complete_destructor: None,
    deleting_destructor: None,
};

#[test]
fn a_donor_from_begin_to_end() {
    let (engine, mut hton) = registered(201);
    let (mut loc, mut len, mut task) = (b"version".as_ptr(), 7, 0);
    let begun = unsafe {
        clone_begin(&raw mut hton, null_mut(), &raw mut loc, &raw mut len, &raw mut task, 3, 0)
    };
    assert_eq!((begun, task), (0, 3));
    assert_eq!(unsafe { bytes(loc, len) }.unwrap().unwrap(), b"given");

    let mut object = Object::new();
    object.raw.m_client_buff_size = 4096;
    assert_eq!(
        unsafe { clone_copy(&raw mut hton, null_mut(), loc, len, task, object.as_ptr()) },
        0
    );
    let descriptor = Some(b"descriptor".as_slice());
    let named = r#"Some("from") Some("to") 10 0"#;
    assert_eq!(
        object.seen,
        [
            format!("buffer {:?} {descriptor:?} {named}", Some(b"data")),
            format!("buffer None {:?} Some(\"\") Some(\"\") 16 77", Some(b"")),
            format!("file 0 9 {descriptor:?} {named}"),
        ]
    );
    assert_eq!(object.raw.m_hton, &raw mut hton);

    object.raw.m_data_desc = b"ack".as_ptr();
    object.raw.m_desc_len = 3;
    unsafe {
        assert_eq!(clone_ack(&raw mut hton, null_mut(), loc, len, 0, 0, object.as_ptr()), 0);
        assert_eq!(clone_ack(&raw mut hton, null_mut(), loc, len, 0, -5, null_mut()), 0);
        assert_eq!(clone_end(&raw mut hton, null_mut(), loc, len, task, 1317), 0);
    }
    let given = b"given";
    assert_eq!(
        *engine.calls.lock().unwrap(),
        [
            format!("begin {:?} Start 0", Some(b"version")),
            format!("copy {given:?} 3 0 4096"),
            format!("ack {given:?} 0 {:?}", b"ack"),
            format!("ack {given:?} 1815 []"),
            format!("end {given:?} 3 0 1317"),
        ]
    );
    assert!(unregister(201));
}

#[test]
fn a_recipient_from_begin_to_end() {
    let (engine, mut hton) = registered(202);
    let (mut loc, mut len, mut task) = (null(), 0, 0);
    let directory = c"/clone/to".as_ptr();
    let begun = unsafe {
        clone_apply_begin(
            &raw mut hton,
            null_mut(),
            &raw mut loc,
            &raw mut len,
            &raw mut task,
            3,
            directory,
        )
    };
    assert_eq!((begun, task), (0, 4));

    let mut object = Object::new();
    object.raw.m_data_desc = b"chunk".as_ptr();
    object.raw.m_desc_len = 5;
    object.raw.m_flag = abi::CLONE_CBK_ESTIMATE;
    unsafe {
        assert_eq!(clone_apply(&raw mut hton, null_mut(), loc, len, task, 0, object.as_ptr()), 0);
        assert_eq!(clone_apply(&raw mut hton, null_mut(), loc, len, task, 1158, null_mut()), 0);
        assert_eq!(clone_apply_end(&raw mut hton, null_mut(), loc, len, task, 0), 0);
    }
    assert_eq!(object.seen.len(), 2);
    assert!(object.seen[1].starts_with("buffer None"), "{:?}", object.seen);
    assert!(
        object.seen[1].ends_with(" 32 6"),
        "the estimate that was asked for: {:?}",
        object.seen
    );
    let taken = b"taken";
    assert_eq!(
        *engine.calls.lock().unwrap(),
        [
            "apply_begin None Version Some(\"/clone/to\")".to_owned(),
            format!("apply {taken:?} 4 0 {:?} {:?}", b"chunk", b"xyz"),
            format!("apply_error {taken:?} 4 0 1158"),
            format!("apply_end {taken:?} 4 0 0"),
        ]
    );
    assert!(unregister(202));
}

#[test]
fn errors_of_callbacks_are_passed_on() {
    let (_, mut hton) = registered(203);
    let mut object = Object::new();
    for (outcome, number) in [(1160, 1160), (-1, 1815)] {
        object.outcome = outcome;
        let copied =
            unsafe { clone_copy(&raw mut hton, null_mut(), null(), 0, 0, object.as_ptr()) };
        assert_eq!(copied, number);
    }
    assert!(unregister(203));
}

#[test]
fn panics_and_errors_are_numbers() {
    let (_, mut hton) = registered(204);
    let end = |hton: &mut abi::handlerton, locator: &[u8]| {
        let len = c_uint::try_from(locator.len()).unwrap();
        unsafe { clone_end(&raw mut *hton, null_mut(), locator.as_ptr(), len, 0, 0) }
    };
    assert_eq!(end(&mut hton, b"panic"), 1815);
    assert_eq!(end(&mut hton, b"fail"), 3863);
    assert_eq!(last_error(), "as a test");
    assert_eq!(end(&mut hton, b""), 0);
    assert!(unregister(204));
}

#[test]
fn what_c_may_forget() {
    let (engine, mut hton) = registered(205);
    let mut unknown = abi::handlerton { state: 0, db_type: 206 };
    let (mut loc, mut len, mut task) = (null(), 0, 0);
    let begin = |hton: *mut abi::handlerton, loc, len, task, clone_type, mode| {
        (unsafe { clone_begin(hton, null_mut(), loc, len, task, clone_type, mode) }, last_error())
    };
    let good = &raw mut hton;
    let (loc, len, task) = (&raw mut loc, &raw mut len, &raw mut task);
    let wrong = |what: &str| (1815, format!("Clone engine: wrong {what}"));
    assert_eq!(begin(null_mut(), loc, len, task, 3, 0), wrong("hton"));
    assert_eq!(begin(&raw mut unknown, loc, len, task, 3, 0), wrong("db_type of no engine"));
    assert_eq!(begin(good, null_mut(), len, task, 3, 0), wrong("loc"));
    assert_eq!(begin(good, loc, null_mut(), task, 3, 0), wrong("loc_len"));
    assert_eq!(begin(good, loc, len, null_mut(), 3, 0), wrong("task_id"));
    assert_eq!(begin(good, loc, len, task, 3, 4), wrong("mode"));
    assert_eq!(begin(good, loc, len, task, 3, u32::MAX), wrong("mode"));
    assert_eq!(begin(good, loc, len, task, 1, 0).0, 1235);
    let copy = |loc: *const u8, len, cbk| {
        (unsafe { clone_copy(good, null_mut(), loc, len, 0, cbk) }, last_error())
    };
    assert_eq!(copy(null(), 0, null_mut()), wrong("cbk"));
    assert_eq!(copy(b"x".as_ptr(), u32::MAX, null_mut()), wrong("length"));
    let mut object = Object::new();
    object.raw.vptr = null();
    assert_eq!(copy(null(), 0, object.as_ptr()), wrong("cbk"));
    assert_eq!(unsafe { clone_apply(good, null_mut(), null(), 0, 0, 0, null_mut()) }, 1815);
    unsafe { clone_capability(null_mut()) };
    assert!(engine.calls.lock().unwrap().is_empty());
    assert!(unregister(205));
    assert!(!unregister(205));
    assert_eq!(clone_engine_unregister(205), 1815);
}

#[test]
fn a_capability_is_innodbs() {
    let mut flags = 0;
    unsafe { clone_capability(&raw mut flags) };
    assert_eq!(flags, 0b11_1000);
}

unsafe extern "C" fn connect(_: *mut std::ffi::c_void, _: *mut *mut std::ffi::c_void) -> c_int {
    1815
}
unsafe extern "C" fn disconnect(_: *mut std::ffi::c_void) {}
unsafe extern "C" fn on_directory(_: *mut std::ffi::c_void, _: *const c_char) -> c_int {
    1815
}
unsafe extern "C" fn on_connection(_: *mut std::ffi::c_void) -> c_int {
    1815
}
unsafe extern "C" fn cut(
    _: *mut std::ffi::c_void,
    _: abi::clone_add_log_fn,
    _: *mut std::ffi::c_void,
    _: *mut u64,
) -> c_int {
    1815
}

#[test]
fn registering_is_checked() {
    let directory = TempDir::new().unwrap();
    let path = CString::new(directory.path().to_str().unwrap()).unwrap();
    let engine = || abi::clone_engine {
        version: 1,
        db_type: 207,
        root: path.as_ptr(),
        prefix: c".test".as_ptr(),
        required_file: null(),
        checkpoint_max_age: 0,
        checkpoint_max_count: 0,
        database: abi::clone_database {
            directory: path.as_ptr(),
            wal_directory: null(),
            recycles_logs: 0,
            context: null_mut(),
            connect: Some(connect),
            disconnect: Some(disconnect),
            create_checkpoint: Some(on_directory),
            remove_checkpoint: Some(on_directory),
            disable_file_deletions: Some(on_connection),
            enable_file_deletions: Some(on_connection),
            cut: Some(cut),
        },
    };
    type Change = fn(&mut abi::clone_engine);
    let changes: [(&str, Change); 13] = [
        ("version", |engine| engine.version = 2),
        ("db_type", |engine| engine.db_type = 0),
        ("db_type", |engine| engine.db_type = 12),
        ("db_type", |engine| engine.db_type = 255),
        ("root", |engine| engine.root = null()),
        ("prefix", |engine| engine.prefix = null()),
        ("prefix", |engine| engine.prefix = c"test".as_ptr()),
        ("prefix", |engine| engine.prefix = c".a/b".as_ptr()),
        ("prefix", |engine| engine.prefix = c".".as_ptr()),
        ("required_file", |engine| engine.required_file = c"\xff".as_ptr()),
        ("directory", |engine| engine.database.directory = null()),
        ("connect", |engine| engine.database.connect = None),
        ("cut", |engine| engine.database.cut = None),
    ];
    for (what, change) in changes {
        let mut engine = engine();
        change(&mut engine);
        assert_eq!(unsafe { clone_engine_register(&raw const engine) }, 1815);
        assert_eq!(last_error(), format!("Clone engine: wrong {what}"));
    }
    assert_eq!(unsafe { clone_engine_register(null()) }, 1815);
    assert_eq!(unsafe { clone_engine_register(&engine()) }, 0);
    assert_eq!(unsafe { clone_engine_register(&engine()) }, 1815);

    // The database's errors come out.
    let mut hton = abi::handlerton { state: 0, db_type: 207 };
    let (mut loc, mut len, mut task) = (null(), 0, 0);
    let begun = unsafe {
        clone_begin(&raw mut hton, null_mut(), &raw mut loc, &raw mut len, &raw mut task, 3, 0)
    };
    assert_eq!(begun, 1815);
    assert_eq!(clone_engine_unregister(207), 0);
}

#[test]
fn a_swap_is_checked() {
    let directory = TempDir::new().unwrap();
    let root = CString::new(directory.path().to_str().unwrap()).unwrap();
    let swap = |root, directory, standing| {
        let mut outcome = 99;
        let prefix = c".test".as_ptr();
        let number = unsafe {
            clone_engine_swap(root, prefix, directory, null(), standing, &raw mut outcome)
        };
        (number, outcome)
    };
    let live = c"live".as_ptr();
    assert_eq!(swap(root.as_ptr(), live, 0), (0, 0));
    assert_eq!(swap(null(), live, 0), (1815, 99));
    assert_eq!(swap(root.as_ptr(), null(), 0), (1815, 99));
    assert_eq!(swap(root.as_ptr(), live, 3), (1815, 99));
}

#[test]
fn a_change_of_state_is_a_buffer_without_data() {
    let mut object = Object::new();
    let mut hton = abi::handlerton { state: 0, db_type: 209 };
    let mut callbacks = unsafe { EngineCallbacks::new(object.as_ptr(), &raw mut hton) }.unwrap();
    let view = View { descriptor: b"state", state_change: Some(77), ..View::default() };
    callbacks.change_state(&view).unwrap();
    let descriptor = Some(b"state".as_slice());
    assert_eq!(object.seen, [format!("buffer None {descriptor:?} Some(\"\") Some(\"\") 16 77")]);
}

#[test]
fn a_file_is_not_taken_by_an_object_without_the_function() {
    let mut object = Object::new();
    let mut hton = abi::handlerton { state: 0, db_type: 208 };
    let mut callbacks = unsafe { EngineCallbacks::new(object.as_ptr(), &raw mut hton) }.unwrap();
    let stdin = std::io::stdin();
    let file: BorrowedFd<'_> = stdin.as_fd();
    assert!(callbacks.apply_file(&View::default(), file).is_err());
    // And nobody who did not ask is told an estimate.
    callbacks.add_estimate(5);
    assert!(object.seen.is_empty());
}
