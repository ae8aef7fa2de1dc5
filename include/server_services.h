/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  The services of mysqld that the plugin calls. A service is a table of functions; which slot holds
  what differs by version where a comment says so, and is then decided by src/server/releases.rs.

  Learned from include/mysql/service_*.h, include/mysql/components/services and include/mysql/psi of
  MySQL 9.7.4.
*/

#ifndef CLONE_SERVER_SERVICES_H
#define CLONE_SERVER_SERVICES_H

#include "server_plugin.h"

/** An acquired service: the address of its table. */
typedef void *my_h_service;

/** The registry of component services. All return non-zero on failure. */
struct s_mysql_registry {
  int (*acquire)(const char *service_name, my_h_service *out_service);
  int (*acquire_related)(const char *service_name, my_h_service service, my_h_service *out_service);
  int (*release)(my_h_service service);
};

/**
  The version that the exported pointers of both plugin services hold until mysqld overwrites them.
*/
#define PLUGIN_SERVICE_VERSION 0x0100

/** include/mysql/service_plugin_registry.h. */
struct plugin_registry_service_st {
  struct s_mysql_registry *(*acquire)(void);
  int (*release)(struct s_mysql_registry *registry);
};

/**
  include/mysql/service_my_plugin_log.h. plugin points to the st_plugin_int's address; level is
  MY_ERROR_LEVEL and so on.
*/
struct my_plugin_log_service {
  int (*my_plugin_log_message)(void **plugin, int level, const char *format, ...);
};
#define MY_ERROR_LEVEL 0
#define MY_WARNING_LEVEL 1
#define MY_INFORMATION_LEVEL 2

/**
  include/mysql/service_thd_alloc.h; its beginning. What it gives lives until the statement of thd
  ends.
*/
struct thd_alloc_service_st {
  void *(*thd_alloc_func)(THD *thd, size_t size);
  void *(*thd_calloc_func)(THD *thd, size_t size);
  char *(*thd_strdup_func)(THD *thd, const char *text);
  char *(*thd_strmake_func)(THD *thd, const char *text, size_t size);
};
_Static_assert(offsetof(struct thd_alloc_service_st, thd_strmake_func) == 24, "thd_strmake_func");

/**
  The method message of log_builtins; its slot depends on the version. Pairs of item type and value
  follow log_type.
*/
typedef int log_builtins_message_fn(int log_type, ...);
/* include/mysql/components/services/log_shared.h */
#define LOG_TYPE_ERROR 1
#define LOG_ITEM_SQL_ERRCODE 0x00002
#define LOG_ITEM_SRV_SUBSYS 0x00200
#define LOG_ITEM_SRV_COMPONENT 0x00400
#define LOG_ITEM_LOG_PRIO 0x10000
/** The message as it is; ends the list of items. */
#define LOG_ITEM_LOG_VERBATIM 0x40000
/* include/mysql/my_loglevel.h */
#define ERROR_LEVEL 1
#define WARNING_LEVEL 2
#define INFORMATION_LEVEL 3

/** mysql_backup_lock. Both return non-zero on failure. */
struct s_mysql_backup_lock {
  int (*acquire)(THD *thd, int lock_kind, unsigned long lock_timeout);
  int (*release)(THD *thd);
};
#define BACKUP_LOCK_SERVICE_DEFAULT 0

/** A connection of the client library inside mysqld. Only ever handled by address. */
typedef struct MYSQL MYSQL;

/** enum_compression_algorithm. */
#define MYSQL_UNCOMPRESSED 1

/**
  include/mysql_com_server.h. When compression is on it must live as long as the connection, and
  mysqld keeps the state of the compression in it. The tail is reserve: vendors have members after
  compress_ctx.
*/
struct NET_SERVER {
  void *m_before_header;
  void *m_after_header;
  void *m_user_data;
  char compress_algorithm[32];
  unsigned int compress_level;
  bool compression_optional;
  unsigned int compress_ctx_algorithm;
  unsigned char rest[444];
};
static_assert(offsetof(struct NET_SERVER, m_user_data) == 16, "NET_SERVER::m_user_data");
static_assert(offsetof(struct NET_SERVER, compress_ctx_algorithm) == 64, "NET_SERVER::compress_ctx");
static_assert(sizeof(struct NET_SERVER) == 512, "NET_SERVER with its reserve");

/** How to reach the donor. */
struct mysql_clone_ssl_context {
  int m_ssl_mode;
  const char *m_ssl_key;
  const char *m_ssl_cert;
  const char *m_ssl_ca;
  bool m_enable_compression;
  struct NET_SERVER *m_server_extn;
};
static_assert(offsetof(struct mysql_clone_ssl_context, m_ssl_key) == 8, "mysql_clone_ssl_context::m_ssl_key");
static_assert(offsetof(struct mysql_clone_ssl_context, m_enable_compression) == 32,
               "mysql_clone_ssl_context::m_enable_compression");
static_assert(offsetof(struct mysql_clone_ssl_context, m_server_extn) == 40,
               "mysql_clone_ssl_context::m_server_extn");
static_assert(sizeof(struct mysql_clone_ssl_context) == 48, "mysql_clone_ssl_context");

/*
  Methods of clone_protocol without C++ types; their slots depend on the version. The others are in
  clone_shim.h. Return values are 0 or an error number.
*/
typedef void clone_start_statement_fn(THD **thd, unsigned int thread_key, unsigned int statement_key);
typedef void clone_finish_statement_fn(THD *thd);
typedef MYSQL *clone_connect_fn(THD *thd, const char *host, uint32_t port, const char *user, const char *passwd,
                                   struct mysql_clone_ssl_context *ssl_ctx, struct MYSQL_SOCKET *socket);
typedef int clone_send_command_fn(THD *thd, MYSQL *connection, bool set_active, unsigned char command,
                                     unsigned char *com_buffer, size_t buffer_length);
typedef int clone_get_response_fn(THD *thd, MYSQL *connection, bool set_active, uint32_t timeout,
                                     unsigned char **packet, size_t *length, size_t *net_length);
typedef int clone_kill_fn(MYSQL *connection, MYSQL *kill_connection);
typedef void clone_disconnect_fn(THD *thd, MYSQL *connection, bool is_fatal, bool clear_error);
typedef void clone_get_error_fn(THD *thd, uint32_t *err_num, const char **err_mesg);
typedef int clone_get_command_fn(THD *thd, unsigned char *command, unsigned char **com_buffer,
                                    size_t *buffer_length);
typedef int clone_send_response_fn(THD *thd, bool secure, unsigned char *packet, size_t length);
typedef int clone_send_error_fn(THD *thd, unsigned char err_cmd, bool is_fatal);

/* Functions of mysqld whose C++ names are in src/server/symbols.rs. */
typedef void my_error_fn(int nr, int flags, ...);
typedef int thd_killed_fn(const THD *thd);
typedef unsigned long thd_get_thread_id_fn(const THD *thd);
typedef THD *thd_get_current_thd_fn(void);
typedef bool plugin_foreach_with_mask_fn(THD *thd, plugin_foreach_func func, int type, unsigned int state_mask,
                                            void *arg);
typedef void *plugin_lock_by_name_fn(THD *thd, const struct MYSQL_LEX_CSTRING *name, int type);
typedef void plugin_unlock_fn(THD *thd, void *plugin_ref);
typedef int clone_handle_create_fn(const char *plugin_name);
typedef int clone_handle_drop_fn(void);
typedef int clone_handle_check_drop_fn(void *plugin_int);
/** sql/mysqld.h: an enum_server_state. */
typedef int get_server_state_fn(void);
#define SERVER_BOOTING 0
/** mysys/dbug.cc; code_state NULL means that of this thread. Debug servers only. */
typedef int db_keyword_fn(void *code_state, const char *keyword, int strict);

/* Instrumentation: each table's first slot registers instruments. */

struct PSI_memory_info_v1 {
  unsigned int *m_key;
  const char *m_name;
  unsigned int m_flags;
  int m_volatility;
  const char *m_documentation;
};
static_assert(offsetof(struct PSI_memory_info_v1, m_documentation) == 24, "PSI_memory_info_v1::m_documentation");
static_assert(sizeof(struct PSI_memory_info_v1) == 32, "PSI_memory_info_v1");

/** Before 8.0.27. */
struct PSI_thread_info_v1 {
  unsigned int *m_key;
  const char *m_name;
  unsigned int m_flags;
  int m_volatility;
  const char *m_documentation;
};
static_assert(offsetof(struct PSI_thread_info_v1, m_documentation) == 24, "PSI_thread_info_v1::m_documentation");
static_assert(sizeof(struct PSI_thread_info_v1) == 32, "PSI_thread_info_v1");

/** From 8.0.27. */
struct PSI_thread_info_v5 {
  unsigned int *m_key;
  const char *m_name;
  const char *m_os_name;
  unsigned int m_flags;
  int m_volatility;
  const char *m_documentation;
};
static_assert(offsetof(struct PSI_thread_info_v5, m_documentation) == 32, "PSI_thread_info_v5::m_documentation");
static_assert(sizeof(struct PSI_thread_info_v5) == 40, "PSI_thread_info_v5");

struct PSI_statement_info_v1 {
  unsigned int m_key;
  const char *m_name;
  unsigned int m_flags;
  const char *m_documentation;
};
static_assert(offsetof(struct PSI_statement_info_v1, m_documentation) == 24,
               "PSI_statement_info_v1::m_documentation");
static_assert(sizeof(struct PSI_statement_info_v1) == 32, "PSI_statement_info_v1");

struct PSI_memory_service {
  void (*register_memory)(const char *category, struct PSI_memory_info_v1 *info, int count);
};
struct PSI_thread_service {
  /** info: PSI_thread_info_v1 or PSI_thread_info_v5. */
  void (*register_thread)(const char *category, void *info, int count);
};
struct PSI_statement_service {
  void (*register_statement)(const char *category, struct PSI_statement_info_v1 *info, int count);
};

#endif /* CLONE_SERVER_SERVICES_H */
