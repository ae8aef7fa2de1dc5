/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  The clone interface of a storage engine, and the object through which the engine calls back.

  Learned from sql/handler.h of MySQL 9.7.4; Clone_interface_t and Ha_clone_cbk are the same in
  8.0.27, 8.0.40 and 8.4.
*/

#ifndef CLONE_SERVER_HANDLER_H
#define CLONE_SERVER_HANDLER_H

#include "server_plugin.h"

struct Ha_clone_cbk;

/**
  A storage engine; only its beginning. Where clone_interface lies differs by version, see
  src/server/handlerton.rs.
*/
struct handlerton {
  unsigned int state;
  unsigned int db_type;
};
static_assert(offsetof(struct handlerton, db_type) == 4, "handlerton::db_type");

/** legacy_db_type of InnoDB, and of what has none. */
#define DB_TYPE_UNKNOWN 0
#define DB_TYPE_INNODB 12

/* Ha_clone_type: how data is copied. InnoDB knows this one only: files, then pages, then redo. */
#define HA_CLONE_HYBRID 3

/* Ha_clone_mode: why clone_begin or clone_apply_begin is called. */
#define HA_CLONE_MODE_START 0
#define HA_CLONE_MODE_RESTART 1
#define HA_CLONE_MODE_ADD_TASK 2
#define HA_CLONE_MODE_VERSION 3

/*
  The functions of a clone interface. All but the first return 0 or the number of an error that is
  already raised.
*/

/** flags is a std::bitset<6>, which is one word. */
typedef void clone_capability_fn(uint64_t *flags);
typedef int clone_begin_fn(struct handlerton *hton, THD *thd, const unsigned char **loc, unsigned int *loc_len,
                           unsigned int *task_id, size_t type, unsigned int mode);
typedef int clone_copy_fn(struct handlerton *hton, THD *thd, const unsigned char *loc, unsigned int loc_len,
                          unsigned int task_id, struct Ha_clone_cbk *cbk);
/** clone_ack and clone_apply. */
typedef int clone_apply_fn(struct handlerton *hton, THD *thd, const unsigned char *loc, unsigned int loc_len,
                           unsigned int task_id, int in_err, struct Ha_clone_cbk *cbk);
/** clone_end and clone_apply_end. */
typedef int clone_end_fn(struct handlerton *hton, THD *thd, const unsigned char *loc, unsigned int loc_len,
                         unsigned int task_id, int in_err);
typedef int clone_apply_begin_fn(struct handlerton *hton, THD *thd, const unsigned char **loc, unsigned int *loc_len,
                                 unsigned int *task_id, unsigned int mode, const char *data_dir);

/** handlerton::clone_interface. */
struct Clone_interface_t {
  clone_capability_fn *clone_capability;
  clone_begin_fn *clone_begin;
  clone_copy_fn *clone_copy;
  clone_apply_fn *clone_ack;
  clone_end_fn *clone_end;
  clone_apply_begin_fn *clone_apply_begin;
  clone_apply_fn *clone_apply;
  clone_end_fn *clone_apply_end;
};
static_assert(offsetof(struct Clone_interface_t, clone_apply_end) == 56, "Clone_interface_t::clone_apply_end");
static_assert(sizeof(struct Clone_interface_t) == 64, "Clone_interface_t");

/** Ha_clone_file::type: the union holds a file descriptor (the other, 0, is a Windows handle). */
#define HA_CLONE_FILE_DESC 1

/** An open file. Passed by value in two registers. */
struct Ha_clone_file {
  unsigned int type;
  union {
    int file_desc;
    void *file_handle;
  } u;
};
static_assert(offsetof(struct Ha_clone_file, u) == 8, "Ha_clone_file::u");
static_assert(sizeof(struct Ha_clone_file) == 16, "Ha_clone_file");

/** The virtual functions of Ha_clone_cbk, in the order of the Itanium C++ ABI. */
struct Ha_clone_cbk_vtable {
  int (*file_cbk)(struct Ha_clone_cbk *self, struct Ha_clone_file from_file, unsigned int len);
  int (*buffer_cbk)(struct Ha_clone_cbk *self, unsigned char *from_buffer, unsigned int len);
  int (*apply_file_cbk)(struct Ha_clone_cbk *self, struct Ha_clone_file to_file);
  int (*apply_buffer_cbk)(struct Ha_clone_cbk *self, unsigned char **to_buffer, unsigned int *len);
  void (*complete_destructor)(struct Ha_clone_cbk *self);
  void (*deleting_destructor)(struct Ha_clone_cbk *self);
};

/**
  The callback object. The engine reads and writes the fields by inlined code, so their places are
  part of the interface.
*/
struct Ha_clone_cbk {
  const struct Ha_clone_cbk_vtable *vptr;
  /** Written by the engine when a call begins. */
  struct handlerton *m_hton;
  unsigned int m_loc_idx;
  unsigned int m_client_buff_size;
  const unsigned char *m_data_desc;
  unsigned int m_desc_len;
  const char *m_src_name;
  const char *m_dest_name;
  uint64_t m_state_estimate;
  int m_flag;
  /*
    Members with an initialiser in C++: the engine's code reads the bits of m_flag from the object
    itself.
  */
  int ha_clone_ack;
  int ha_clone_file_cache;
  int ha_clone_zero_copy;
  int ha_clone_secure;
  int ha_clone_state_change;
};
static_assert(offsetof(struct Ha_clone_cbk, m_hton) == 8, "Ha_clone_cbk::m_hton");
static_assert(offsetof(struct Ha_clone_cbk, m_loc_idx) == 16, "Ha_clone_cbk::m_loc_idx");
static_assert(offsetof(struct Ha_clone_cbk, m_client_buff_size) == 20, "Ha_clone_cbk::m_client_buff_size");
static_assert(offsetof(struct Ha_clone_cbk, m_data_desc) == 24, "Ha_clone_cbk::m_data_desc");
static_assert(offsetof(struct Ha_clone_cbk, m_desc_len) == 32, "Ha_clone_cbk::m_desc_len");
static_assert(offsetof(struct Ha_clone_cbk, m_src_name) == 40, "Ha_clone_cbk::m_src_name");
static_assert(offsetof(struct Ha_clone_cbk, m_dest_name) == 48, "Ha_clone_cbk::m_dest_name");
static_assert(offsetof(struct Ha_clone_cbk, m_state_estimate) == 56, "Ha_clone_cbk::m_state_estimate");
static_assert(offsetof(struct Ha_clone_cbk, m_flag) == 64, "Ha_clone_cbk::m_flag");
static_assert(offsetof(struct Ha_clone_cbk, ha_clone_state_change) == 84, "Ha_clone_cbk::ha_clone_state_change");
static_assert(sizeof(struct Ha_clone_cbk) == 88, "Ha_clone_cbk");

/* Bits of Ha_clone_cbk::m_flag. */
#define HA_CLONE_ACK 0x01
#define HA_CLONE_FILE_CACHE 0x02
#define HA_CLONE_ZERO_COPY 0x04
#define HA_CLONE_SECURE 0x08
#define HA_CLONE_STATE_CHANGE 0x10

#endif /* CLONE_SERVER_HANDLER_H */
