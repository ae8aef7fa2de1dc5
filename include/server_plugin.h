/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  What a plugin and mysqld exchange while the plugin is loaded: the declaration, system variables,
  the clone descriptor, and the records mysqld keeps about plugins.

  Layouts of x86-64 Linux. Learned from include/mysql/plugin.h, include/mysql/plugin_clone.h and
  sql/sql_plugin_ref.h of MySQL 9.7.4; equal in 8.0.21 and later.
*/

#ifndef CLONE_SERVER_PLUGIN_H
#define CLONE_SERVER_PLUGIN_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A session of mysqld. Only ever handled by address. */
typedef struct THD THD;

/** Newest plugin interface; servers accept any that has the same high byte. */
#define MYSQL_PLUGIN_INTERFACE_VERSION 0x010B
/** st_mysql_plugin::type of the clone plugin. */
#define MYSQL_CLONE_PLUGIN 11
/**
  st_mysql_plugin::type of plugins that only run, and the structure that st_mysql_plugin::info
  points to then.
*/
#define MYSQL_DAEMON_PLUGIN 3
struct st_mysql_daemon {
  /** MYSQL_VERSION_ID << 8, that of the very server: 9.7.4 is 90704. */
  int interface_version;
};
/* Bits of st_mysql_plugin::flags. A library is loaded early only if all of its plugins allow it. */
#define PLUGIN_OPT_ALLOW_EARLY 4
#define PLUGIN_OPT_DEFAULT_OFF 8
/** st_mysql_plugin::license. */
#define PLUGIN_LICENSE_GPL 1
/** Mysql_clone::interface_version. */
#define MYSQL_CLONE_INTERFACE_VERSION 0x0100

/** Type argument of plugin_foreach_with_mask and plugin_lock_by_name. */
#define MYSQL_ANY_PLUGIN -1
#define MYSQL_STORAGE_ENGINE_PLUGIN 1
/** State mask of plugin_foreach_with_mask: plugins in use. */
#define PLUGIN_IS_READY 8

/* Low nibble of SYS_VAR::flags: the type of the variable. */
#define PLUGIN_VAR_BOOL 0x0001
#define PLUGIN_VAR_INT 0x0002
#define PLUGIN_VAR_STR 0x0005
#define PLUGIN_VAR_ENUM 0x0006
/* The other bits of SYS_VAR::flags. */
#define PLUGIN_VAR_THDLOCAL 0x0100
#define PLUGIN_VAR_READONLY 0x0200
#define PLUGIN_VAR_UNSIGNED 0x0080
#define PLUGIN_VAR_RQCMDARG 0x0000
#define PLUGIN_VAR_NOCMDARG 0x1000
#define PLUGIN_VAR_OPCMDARG 0x2000
#define PLUGIN_VAR_MEMALLOC 0x8000

struct SYS_VAR;
struct SHOW_VAR;

/** A value that SET assigns, read through its own functions. */
struct st_mysql_value {
  int (*value_type)(struct st_mysql_value *value);
  /**
    *length is the size of buffer on entry and the length on return; the result may or may not be
    buffer.
  */
  const char *(*val_str)(struct st_mysql_value *value, char *buffer, int *length);
  int (*val_real)(struct st_mysql_value *value, double *out);
  int (*val_int)(struct st_mysql_value *value, long long *out);
  int (*is_unsigned)(struct st_mysql_value *value);
};
static_assert(sizeof(struct st_mysql_value) == 40, "st_mysql_value");

/**
  Decides about a value before it is assigned; what it stores at save goes to the update function.
*/
typedef int (*mysql_var_check_func)(THD *thd, struct SYS_VAR *var, void *save, struct st_mysql_value *value);
/** Assigns a checked value. */
typedef void (*mysql_var_update_func)(THD *thd, struct SYS_VAR *var, void *var_ptr, const void *save);

/** What all kinds of system variable begin with. mysqld writes to name, check and update. */
struct SYS_VAR {
  int flags;
  const char *name;
  const char *comment;
  mysql_var_check_func check;
  mysql_var_update_func update;
};
static_assert(sizeof(struct SYS_VAR) == 40, "SYS_VAR");

/** A boolean variable. */
struct sysvar_bool {
  struct SYS_VAR header;
  bool *value;
  bool def_val;
};
static_assert(offsetof(struct sysvar_bool, value) == 40, "sysvar_bool::value");
static_assert(offsetof(struct sysvar_bool, def_val) == 48, "sysvar_bool::def_val");
static_assert(sizeof(struct sysvar_bool) == 56, "sysvar_bool");

/** A variable with PLUGIN_VAR_THDLOCAL, which each session has. mysqld sets offset and resolve. */
struct thdvar_bool {
  struct SYS_VAR header;
  int offset;
  bool def_val;
  bool *(*resolve)(THD *thd, int offset);
};
static_assert(offsetof(struct thdvar_bool, offset) == 40, "thdvar_bool::offset");
static_assert(offsetof(struct thdvar_bool, def_val) == 44, "thdvar_bool::def_val");
static_assert(offsetof(struct thdvar_bool, resolve) == 48, "thdvar_bool::resolve");
static_assert(sizeof(struct thdvar_bool) == 56, "thdvar_bool");

/** A string variable. With PLUGIN_VAR_MEMALLOC mysqld owns *value. */
struct sysvar_str {
  struct SYS_VAR header;
  char **value;
  char *def_val;
};
static_assert(offsetof(struct sysvar_str, value) == 40, "sysvar_str::value");
static_assert(offsetof(struct sysvar_str, def_val) == 48, "sysvar_str::def_val");
static_assert(sizeof(struct sysvar_str) == 56, "sysvar_str");

/** A 32-bit unsigned variable. */
struct sysvar_uint {
  struct SYS_VAR header;
  unsigned int *value;
  unsigned int def_val;
  unsigned int min_val;
  unsigned int max_val;
  unsigned int blk_sz;
};
static_assert(offsetof(struct sysvar_uint, value) == 40, "sysvar_uint::value");
static_assert(offsetof(struct sysvar_uint, def_val) == 48, "sysvar_uint::def_val");
static_assert(offsetof(struct sysvar_uint, blk_sz) == 60, "sysvar_uint::blk_sz");
static_assert(sizeof(struct sysvar_uint) == 64, "sysvar_uint");

/** The names that the value of an enumeration may have; the value is an index. */
struct TYPELIB {
  size_t count;
  const char *name;
  /** count names, and NULL. */
  const char **type_names;
  /** NULL. */
  unsigned int *type_lengths;
};
static_assert(sizeof(struct TYPELIB) == 32, "TYPELIB");

/** An enumeration. */
struct sysvar_enum {
  struct SYS_VAR header;
  unsigned long *value;
  unsigned long def_val;
  struct TYPELIB *typelib;
};
static_assert(offsetof(struct sysvar_enum, value) == 40, "sysvar_enum::value");
static_assert(offsetof(struct sysvar_enum, typelib) == 56, "sysvar_enum::typelib");
static_assert(sizeof(struct sysvar_enum) == 64, "sysvar_enum");

/** The declaration of a plugin. init, check_uninstall and deinit receive the st_plugin_int. */
struct st_mysql_plugin {
  int type;
  void *info;
  const char *name;
  const char *author;
  const char *descr;
  int license;
  int (*init)(void *plugin_int);
  int (*check_uninstall)(void *plugin_int);
  int (*deinit)(void *plugin_int);
  unsigned int version;
  struct SHOW_VAR *status_vars;
  struct SYS_VAR **system_vars;
  void *reserved1;
  unsigned long flags;
};
static_assert(offsetof(struct st_mysql_plugin, info) == 8, "st_mysql_plugin::info");
static_assert(offsetof(struct st_mysql_plugin, license) == 40, "st_mysql_plugin::license");
static_assert(offsetof(struct st_mysql_plugin, init) == 48, "st_mysql_plugin::init");
static_assert(offsetof(struct st_mysql_plugin, version) == 72, "st_mysql_plugin::version");
static_assert(offsetof(struct st_mysql_plugin, system_vars) == 88, "st_mysql_plugin::system_vars");
static_assert(offsetof(struct st_mysql_plugin, flags) == 104, "st_mysql_plugin::flags");
static_assert(sizeof(struct st_mysql_plugin) == 112, "st_mysql_plugin");

/** A socket and its instrumentation. Passed by value in two registers. */
struct MYSQL_SOCKET {
  int fd;
  void *m_psi;
};
static_assert(offsetof(struct MYSQL_SOCKET, m_psi) == 8, "MYSQL_SOCKET::m_psi");
static_assert(sizeof(struct MYSQL_SOCKET) == 16, "MYSQL_SOCKET");

/**
  st_mysql_plugin::info of a clone plugin. All three return 0 or the number of an error that is
  already raised.
*/
struct Mysql_clone {
  int interface_version;
  int (*clone_local)(THD *thd, const char *data_dir);
  /** data_dir is NULL when the running server's data is to be replaced. */
  int (*clone_client)(THD *thd, const char *host, unsigned int port, const char *user, const char *passwd,
                      const char *data_dir, int ssl_mode);
  int (*clone_server)(THD *thd, struct MYSQL_SOCKET socket);
};
static_assert(offsetof(struct Mysql_clone, clone_local) == 8, "Mysql_clone::clone_local");
static_assert(offsetof(struct Mysql_clone, clone_server) == 24, "Mysql_clone::clone_server");
static_assert(sizeof(struct Mysql_clone) == 32, "Mysql_clone");

/** A counted string. */
struct MYSQL_LEX_CSTRING {
  const char *str;
  size_t length;
};
static_assert(sizeof(struct MYSQL_LEX_CSTRING) == 16, "MYSQL_LEX_CSTRING");

/** The library that a plugin came from; only its beginning. */
struct st_plugin_dl {
  struct MYSQL_LEX_CSTRING dl;
  void *handle;
};
static_assert(offsetof(struct st_plugin_dl, handle) == 16, "st_plugin_dl::handle");

/** What mysqld knows of a plugin; only its beginning, which release and debug servers share. */
struct st_plugin_int {
  struct MYSQL_LEX_CSTRING name;
  struct st_mysql_plugin *plugin;
  /** NULL for a built-in plugin. */
  struct st_plugin_dl *plugin_dl;
  unsigned int state;
  unsigned int ref_count;
  /** The handlerton of a storage engine. */
  void *data;
};
static_assert(offsetof(struct st_plugin_int, plugin) == 16, "st_plugin_int::plugin");
static_assert(offsetof(struct st_plugin_int, plugin_dl) == 24, "st_plugin_int::plugin_dl");
static_assert(offsetof(struct st_plugin_int, state) == 32, "st_plugin_int::state");
static_assert(offsetof(struct st_plugin_int, data) == 40, "st_plugin_int::data");

/**
  Called for each plugin; true ends the iteration. In a debug server plugin_ref is a pointer to the
  st_plugin_int's address.
*/
typedef bool (*plugin_foreach_func)(THD *thd, void *plugin_ref, void *arg);

#endif /* CLONE_SERVER_PLUGIN_H */
