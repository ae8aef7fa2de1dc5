/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  The part of mysqld's binary interface that the plugin relies on, in our own words. bindgen turns
  these headers into src/server/abi/bindings.rs (cargo build --features regenerate-bindings); the
  assertions beside each structure hold the sizes and offsets that were measured on real servers,
  and bindgen repeats them in Rust.
*/

#ifndef CLONE_SERVER_ABI_H
#define CLONE_SERVER_ABI_H

#include "clone_shim.h"
#include "server_handler.h"
#include "server_pfs.h"
#include "server_plugin.h"
#include "server_services.h"
#include "server_sql.h"
/* What we export ourselves. */
#include "clone_engine.h"

#endif /* CLONE_SERVER_ABI_H */
