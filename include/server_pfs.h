/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  Tables of a plugin in performance_schema: the callbacks that the plugin gives, and the services
  that store columns.

  Learned from include/mysql/components/services/pfs_plugin_table_service.h of MySQL 9.7.4, 8.0.40
  and 8.0.27.
*/

#ifndef CLONE_SERVER_PFS_H
#define CLONE_SERVER_PFS_H

#include "server_plugin.h"

/** What open_table returned. */
typedef struct PSI_table_handle PSI_table_handle;
/** The position inside a handle: m_ref_length bytes that mysqld saves and restores. */
typedef struct PSI_pos PSI_pos;
/** A column of the row that is being read. */
typedef struct PSI_field PSI_field;

/** my_base.h: no more rows, and the row of a position is gone. */
#define HA_ERR_RECORD_DELETED 134
#define HA_ERR_END_OF_FILE 137

struct PFS_engine_table_proxy {
  int (*rnd_next)(PSI_table_handle *handle);
  int (*rnd_init)(PSI_table_handle *handle, bool scan);
  int (*rnd_pos)(PSI_table_handle *handle);
  void *index_init;
  void *index_read;
  void *index_next;
  int (*read_column_value)(PSI_table_handle *handle, PSI_field *field, unsigned int index);
  void (*reset_position)(PSI_table_handle *handle);
  void *write_column_value;
  void *write_row_values;
  void *update_column_value;
  void *update_row_values;
  void *delete_row_values;
  PSI_table_handle *(*open_table)(PSI_pos **pos);
  void (*close_table)(PSI_table_handle *handle);
};
static_assert(sizeof(struct PFS_engine_table_proxy) == 120, "PFS_engine_table_proxy");

/** Access_control. */
#define PFS_READONLY 0

struct PFS_engine_table_share_proxy {
  struct PFS_engine_table_proxy m_proxy_engine_table;
  const char *m_table_name;
  unsigned int m_table_name_length;
  const char *m_table_definition;
  unsigned int m_ref_length;
  unsigned int m_acl;
  int (*delete_all_rows)(void);
  unsigned long long (*get_row_count)(void);
};
static_assert(offsetof(struct PFS_engine_table_share_proxy, m_table_name) == 120, "m_table_name");
static_assert(offsetof(struct PFS_engine_table_share_proxy, m_table_name_length) == 128, "m_table_name_length");
static_assert(offsetof(struct PFS_engine_table_share_proxy, m_table_definition) == 136, "m_table_definition");
static_assert(offsetof(struct PFS_engine_table_share_proxy, m_ref_length) == 144, "m_ref_length");
static_assert(offsetof(struct PFS_engine_table_share_proxy, m_acl) == 148, "m_acl");
static_assert(offsetof(struct PFS_engine_table_share_proxy, get_row_count) == 160, "get_row_count");
static_assert(sizeof(struct PFS_engine_table_share_proxy) == 168, "PFS_engine_table_share_proxy");

/** pfs_plugin_table_v1; both return 0 on success. */
struct s_mysql_pfs_plugin_table_v1 {
  int (*add_tables)(struct PFS_engine_table_share_proxy **shares, unsigned int count);
  int (*delete_tables)(struct PFS_engine_table_share_proxy **shares, unsigned int count);
};

/** Passed by value in two registers. */
struct PSI_ulong {
  unsigned long val;
  bool is_null;
};
static_assert(sizeof(struct PSI_ulong) == 16, "PSI_ulong");
struct PSI_ulonglong {
  unsigned long long val;
  bool is_null;
};
static_assert(sizeof(struct PSI_ulonglong) == 16, "PSI_ulonglong");

/** pfs_plugin_column_integer_v1; its beginning. */
struct s_mysql_pfs_plugin_column_integer_v1 {
  void *set;
  void (*set_unsigned)(PSI_field *field, struct PSI_ulong value);
};

/** pfs_plugin_column_bigint_v1; its beginning. */
struct s_mysql_pfs_plugin_column_bigint_v1 {
  void *set;
  void (*set_unsigned)(PSI_field *field, struct PSI_ulonglong value);
};

/**
  pfs_plugin_column_string_v1, as in 8.0.19 to 8.0.28; its beginning. A text of length 0 becomes
  NULL.
*/
struct s_mysql_pfs_plugin_column_string_v1 {
  void (*set_char_utf8)(PSI_field *field, const char *value, unsigned int length);
  void *slots_1_to_6[6];
  void (*set_varchar_utf8mb4)(PSI_field *field, const char *value);
  void (*set_varchar_utf8mb4_len)(PSI_field *field, const char *value, unsigned int length);
};
static_assert(offsetof(struct s_mysql_pfs_plugin_column_string_v1, set_varchar_utf8mb4_len) == 8 * 8, "slot 8");

/** pfs_plugin_column_string_v2, as in 8.0.40 and later. A text of length 0 becomes NULL. */
struct s_mysql_pfs_plugin_column_string_v2 {
  void (*set_char_utf8mb4)(PSI_field *field, const char *value, unsigned int length);
  void *slots_1_to_4[4];
  void (*set_varchar_utf8mb4)(PSI_field *field, const char *value);
  void (*set_varchar_utf8mb4_len)(PSI_field *field, const char *value, unsigned int length);
};
static_assert(offsetof(struct s_mysql_pfs_plugin_column_string_v2, set_varchar_utf8mb4_len) == 6 * 8, "slot 6");

/** pfs_plugin_column_timestamp_v2. */
struct s_mysql_pfs_plugin_column_timestamp_v2 {
  void *set;
  /** value in microseconds since 1970; 0 becomes NULL. */
  void (*set2)(PSI_field *field, unsigned long long value);
};

/** pfs_plugin_column_text_v1, from 8.0.34. */
struct s_mysql_pfs_plugin_column_text_v1 {
  void (*set)(PSI_field *field, const char *value, unsigned int length);
};

#endif /* CLONE_SERVER_PFS_H */
