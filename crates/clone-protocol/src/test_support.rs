// SPDX-License-Identifier: GPL-2.0-only

//! What several modules' tests share.

use proptest::prelude::*;

use crate::EngineLocator;

/// Any small locator.
pub(crate) fn engine_locator() -> impl Strategy<Value = EngineLocator> {
    (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(db_type, bytes)| EngineLocator { db_type, bytes })
}
