/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  Cloning for storage engines that have no clone of their own: what libmysql_clone.so exports.

  An engine whose database is a directory of files that never change, plus write-ahead logs that
  only grow, says with clone_engine_register() how a snapshot of it is made. The eight functions
  clone_capability() to clone_apply_end() then do for it what InnoDB's do for InnoDB: they have the
  form of Clone_interface_t in MySQL's handlerton, so their addresses may be put there. Snapshots
  that are renewed while they age, tasks, locators, restart after a network failure and durable,
  checked apply are behind them. docs/engines.md tells the story, docs/engine_example.c is a
  program.

  All functions may be called from any thread, and by many at once. Strings are zero-terminated;
  paths are bytes.
*/

#ifndef CLONE_ENGINE_H
#define CLONE_ENGINE_H

/*
  A source of MySQL that has included sql/handler.h knows these types, as C++ classes of the same
  layout.
*/
#ifndef HANDLER_INCLUDED
#include "server_handler.h"
#else
#include <stdint.h>
class THD;
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** The version of struct clone_engine and struct clone_database below. */
#define CLONE_ENGINE_VERSION 1

/**
  A bit of Ha_clone_cbk::m_flag that is not MySQL's. Who calls clone_apply() sets it to say: tell me
  how much is to be expected. The engine then calls buffer_cbk with this bit alone, the bytes in
  m_state_estimate, and no data.
*/
#define CLONE_CBK_ESTIMATE 0x20

/** What clone_engine_swap() has done. */
#define CLONE_SWAP_NOTHING 0
#define CLONE_SWAP_SWAPPED 1
#define CLONE_SWAP_KEPT 2
#define CLONE_SWAP_COMMITTED 3
#define CLONE_SWAP_DISCARDED 4
#define CLONE_SWAP_ROLLED_BACK 5

/** How the rest of the server stands to the last clone when it starts. */
#define CLONE_STANDING_SETTLED 0
#define CLONE_STANDING_PENDING 1
#define CLONE_STANDING_ROLLED_BACK 2

/** Takes one write-ahead log: its base name and how many of its bytes belong to the clone. */
typedef void clone_add_log_fn(void *logs, const char *name, uint64_t size);

/**
  A live database. All functions return 0 or the number of a MySQL error that they have raised (in a
  server) or simply mean (elsewhere).
*/
struct clone_database {
  /** The directory of the data files. Snapshots are made in it. */
  const char *directory;
  /**
    The directory of the live write-ahead logs; NULL for the same. Logs are the files whose names
    end with ".log".
  */
  const char *wal_directory;
  /** Not 0: old logs are written over instead of removed. */
  int recycles_logs;
  /** Handed to connect. */
  void *context;

  /** Begins a clone. The connection is used by one thread at a time, of all tasks. */
  int (*connect)(void *context, void **connection);
  /** Ends it. File deletions that it disabled are to be enabled again. */
  void (*disconnect)(void *connection);
  /**
    Makes a consistent snapshot in `directory`, which does not exist: hard links, or copies of what
    may change.
  */
  int (*create_checkpoint)(void *connection, const char *directory);
  /** Removes it. Files of it may be open still. */
  int (*remove_checkpoint)(void *connection, const char *directory);
  /** Until the next call of the second no file of the database may be removed. */
  int (*disable_file_deletions)(void *connection);
  int (*enable_file_deletions)(void *connection);
  /**
    Names the live logs, all at one moment: with the last snapshot they make the database at that
    moment, which is what the clone will be. Each is to end with a whole record, flushed to the
    file. *sequence may be set to the number of the last write before that moment.
  */
  int (*cut)(void *connection, clone_add_log_fn *add, void *logs, uint64_t *sequence);
};

/** An engine. Everything is copied by clone_engine_register(), but for `database->context`. */
struct clone_engine {
  /** CLONE_ENGINE_VERSION. */
  unsigned int version;
  /**
    legacy_db_type of the engine, 1 to 254 and not InnoDB's; what handlerton::db_type says, and the
    same at the peers.
  */
  unsigned int db_type;
  /**
    The server's data directory, in which clones are put that replace the server's data; "." in a
    server.
  */
  const char *root;
  /**
    How the directories of an incoming clone begin, below root or the directory of the clone: with
    ".rocksdb" these are ".rocksdb.cloned" and ".rocksdb.wal.cloned". Begins with a dot.
  */
  const char *prefix;
  /** A file without which no clone is complete ("CURRENT"), or NULL. */
  const char *required_file;
  /** A snapshot that is older is renewed, in seconds; 0: never. */
  unsigned int checkpoint_max_age;
  /** The most snapshots in one clone; 0: no limit. */
  unsigned int checkpoint_max_count;
  struct clone_database database;
};

/**
  Makes an engine known.
  @return 0; an error number if a field is wrong or there is an engine of this db_type.
*/
int clone_engine_register(const struct clone_engine *engine);

/**
  Forgets an engine. Functions of it may be called until the clones that run have ended.
  @return 0; an error number if there is none.
*/
int clone_engine_unregister(unsigned int db_type);

/**
  Puts a complete clone in the place of a database, before the engine opens it. To be called at each
  start; see docs/engines.md.
  @param root, prefix  as in struct clone_engine
  @param directory     where the engine will look for its files; below root if it is relative
  @param wal_directory where it will look for its logs, or NULL for the same
  @param standing      CLONE_STANDING_...
  @param outcome       where CLONE_SWAP_... is put, or NULL
  @return 0; an error number if the database must not be opened
*/
int clone_engine_swap(const char *root, const char *prefix, const char *directory, const char *wal_directory,
                      unsigned int standing, unsigned int *outcome);

/**
  Outside of a server, where errors are not raised: the text of the last error that a function of
  this header returned on this thread. It stays until the next error.
  @param number  where the error's number is put, or NULL
*/
const char *clone_engine_error(unsigned int *number);

/**
  Outside of a server: what says whether the session of a call was killed. NULL, the default: none
  is.
*/
void clone_engine_set_killed(int (*killed)(const THD *thd));

#ifndef HANDLER_INCLUDED
/*
  The functions of Clone_interface_t. `hton` is that of the engine; of it only db_type is read.
  `thd` is the session of the thread, NULL outside of a server. Locators that clone_begin() and
  clone_apply_begin() give stay until the last task of this side has ended.
*/
clone_capability_fn clone_capability;
clone_begin_fn clone_begin;
clone_copy_fn clone_copy;
clone_apply_fn clone_ack;
clone_end_fn clone_end;
clone_apply_begin_fn clone_apply_begin;
clone_apply_fn clone_apply;
clone_end_fn clone_apply_end;
#endif

#ifdef __cplusplus
}
#endif

#endif /* CLONE_ENGINE_H */
