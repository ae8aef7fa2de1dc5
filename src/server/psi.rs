// SPDX-License-Identifier: GPL-2.0-only

//! Instruments of the plugin in performance_schema, under the names of the stock plugin.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use super::abi;
use super::services::Services;

const CATEGORY: &CStr = c"clone";

/// The keys that performance_schema gave. 0 means "not instrumented", and is a valid key for every
/// function that takes one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// memory/clone/data
    pub(crate) memory: u32,
    /// thread/clone/local-task, to the operating system clone_local
    pub(crate) local_task: u32,
    /// thread/clone/client-task, to the operating system clone_client
    pub(crate) client_task: u32,
    /// statement/clone/local
    pub(crate) local_statement: u32,
    /// statement/clone/client
    pub(crate) client_statement: u32,
    /// statement/clone/server
    pub(crate) server_statement: u32,
}

/// Where performance_schema writes the keys of memory and threads. Statics, as in every other user
/// of the interface.
static MEMORY: AtomicU32 = AtomicU32::new(0);
static LOCAL_TASK: AtomicU32 = AtomicU32::new(0);
static CLIENT_TASK: AtomicU32 = AtomicU32::new(0);

/// Registers the instruments. Registering them again gives the same keys.
pub(crate) fn register(services: &Services) -> Keys {
    let symbols = services.symbols;
    register_memory(symbols.psi_memory_service);
    register_threads(symbols.psi_thread_service, services.layout.thread_info_v5);
    let [local_statement, client_statement, server_statement] =
        register_statements(symbols.psi_statement_service);
    Keys {
        memory: MEMORY.load(Ordering::Relaxed),
        local_task: LOCAL_TASK.load(Ordering::Relaxed),
        client_task: CLIENT_TASK.load(Ordering::Relaxed),
        local_statement,
        client_statement,
        server_statement,
    }
}

fn register_memory(service: &AtomicPtr<abi::PSI_memory_service>) {
    let mut data = abi::PSI_memory_info_v1 {
        m_key: MEMORY.as_ptr(),
        m_name: c"data".as_ptr(),
        m_flags: 0,
        m_volatility: 0,
        m_documentation: ptr::null(),
    };
    // SAFETY: mysqld's constant table.
    let table = unsafe { service.load(Ordering::Acquire).as_ref() };
    if let Some(register) = table.and_then(|table| table.register_memory) {
        // SAFETY: one record; performance_schema copies the names.
        unsafe { register(CATEGORY.as_ptr(), &raw mut data, 1) };
    }
}

/// Of each thread: where its key goes, its name, and its name to the operating system.
const THREADS: [(&AtomicU32, &CStr, &CStr); 2] =
    [(&LOCAL_TASK, c"local-task", c"clone_local"), (&CLIENT_TASK, c"client-task", c"clone_client")];

fn register_threads(service: &AtomicPtr<abi::PSI_thread_service>, is_v5: bool) {
    let mut v1 = THREADS.map(|(key, name, _)| abi::PSI_thread_info_v1 {
        m_key: key.as_ptr(),
        m_name: name.as_ptr(),
        m_flags: 0,
        m_volatility: 0,
        m_documentation: ptr::null(),
    });
    let mut v5 = THREADS.map(|(key, name, os_name)| abi::PSI_thread_info_v5 {
        m_key: key.as_ptr(),
        m_name: name.as_ptr(),
        m_os_name: os_name.as_ptr(),
        m_flags: 0,
        m_volatility: 0,
        m_documentation: ptr::null(),
    });
    let records = if is_v5 { v5.as_mut_ptr().cast() } else { v1.as_mut_ptr().cast() };
    // SAFETY: mysqld's constant table.
    let table = unsafe { service.load(Ordering::Acquire).as_ref() };
    if let Some(register) = table.and_then(|table| table.register_thread) {
        // SAFETY: two records of this server's form; performance_schema copies the names.
        unsafe { register(CATEGORY.as_ptr(), records, 2) };
    }
}

/// The keys of local, client and server.
fn register_statements(service: &AtomicPtr<abi::PSI_statement_service>) -> [u32; 3] {
    let mut statements = [c"local", c"client", c"server"].map(|name| abi::PSI_statement_info_v1 {
        m_key: 0,
        m_name: name.as_ptr(),
        m_flags: 0,
        m_documentation: ptr::null(),
    });
    // SAFETY: mysqld's constant table.
    let table = unsafe { service.load(Ordering::Acquire).as_ref() };
    if let Some(register) = table.and_then(|table| table.register_statement) {
        // SAFETY: three records, which receive the keys; performance_schema copies the names.
        unsafe { register(CATEGORY.as_ptr(), statements.as_mut_ptr(), 3) };
    }
    statements.map(|statement| statement.m_key)
}
