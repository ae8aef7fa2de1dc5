// SPDX-License-Identifier: GPL-2.0-only

//! The engines of a process.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::DynEngine;

/// Engines by `legacy_db_type`.
#[derive(Default)]
pub struct Registry {
    engines: RwLock<BTreeMap<u32, Arc<DynEngine>>>,
}

impl Registry {
    /// Without engines.
    pub const fn new() -> Self {
        Self { engines: RwLock::new(BTreeMap::new()) }
    }

    /// Adds an engine. False, and nothing changes, if there is one of this type already.
    pub fn register(&self, db_type: u32, engine: Arc<DynEngine>) -> bool {
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        if engines.contains_key(&db_type) {
            return false;
        }
        engines.insert(db_type, engine);
        true
    }

    /// Takes an engine out. A call that runs in it ends first or later: the engine lives as long.
    pub fn unregister(&self, db_type: u32) -> Option<Arc<DynEngine>> {
        self.engines.write().unwrap_or_else(PoisonError::into_inner).remove(&db_type)
    }

    /// The engine of a type.
    pub fn engine(&self, db_type: u32) -> Option<Arc<DynEngine>> {
        self.engines.read().unwrap_or_else(PoisonError::into_inner).get(&db_type).cloned()
    }
}
