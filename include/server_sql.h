/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  SQL statements inside mysqld: sessions without a connection, and what a statement calls while it
  runs.

  Learned from include/mysql/service_srv_session.h, service_command.h and com_data.h of MySQL 9.7.4;
  equal in 8.0.19 and 8.0.27. Later releases added members at the ends.
*/

#ifndef CLONE_SERVER_SQL_H
#define CLONE_SERVER_SQL_H

#include "server_plugin.h"

/** A session without a connection. Only ever handled by address. */
typedef struct Srv_session Srv_session;
/** The account and privileges of a session. Only ever handled by address. */
typedef struct Security_context Security_context;

/** Called for errors outside of statements. */
typedef void srv_session_error_cb(void *ctx, unsigned int sql_errno, const char *err_msg);
/** Gives NULL if there is none to be had, and calls error_cb then, which may be NULL. */
typedef Srv_session *srv_session_open_fn(srv_session_error_cb *error_cb, void *ctx);
/** Ends a transaction and gives all locks back. */
typedef int srv_session_close_fn(Srv_session *session);
typedef THD *srv_session_info_get_thd_fn(Srv_session *session);

/** Non-zero on failure. */
typedef bool thd_get_security_context_fn(THD *thd, Security_context **out_ctx);
/** Security_context::skip_grants: may do everything. */
typedef void skip_grants_fn(Security_context *ctx, const char *user, const char *host);

/** union COM_DATA for COM_QUERY, with room for all of its other members. */
struct COM_DATA {
  const char *query;
  unsigned int length;
  void *rest[14];
};
#define COM_QUERY 3
#define CS_TEXT_REPRESENTATION 1

/**
  What a statement calls; any but field_metadata may be NULL. With CS_TEXT_REPRESENTATION all values
  come as strings, or as NULL.
*/
struct st_command_service_cbs {
  int (*start_result_metadata)(void *ctx, unsigned int num_cols, unsigned int flags, const void *resultcs);
  int (*field_metadata)(void *ctx, void *field, const void *charset);
  int (*end_result_metadata)(void *ctx, unsigned int server_status, unsigned int warn_count);
  int (*start_row)(void *ctx);
  int (*end_row)(void *ctx);
  void (*abort_row)(void *ctx);
  unsigned long (*get_client_capabilities)(void *ctx);
  int (*get_null)(void *ctx);
  int (*get_integer)(void *ctx, long long value);
  int (*get_longlong)(void *ctx, long long value, unsigned int is_unsigned);
  int (*get_decimal)(void *ctx, const void *value);
  int (*get_double)(void *ctx, double value, uint32_t decimals);
  int (*get_date)(void *ctx, const void *value);
  int (*get_time)(void *ctx, const void *value, unsigned int decimals);
  int (*get_datetime)(void *ctx, const void *value, unsigned int decimals);
  int (*get_string)(void *ctx, const char *value, size_t length, const void *valuecs);
  void (*handle_ok)(void *ctx, unsigned int server_status, unsigned int warn_count, unsigned long long affected_rows,
                    unsigned long long last_insert_id, const char *message);
  void (*handle_error)(void *ctx, unsigned int sql_errno, const char *err_msg, const char *sqlstate);
  void (*shutdown)(void *ctx, int server_shutdown);
  bool (*connection_alive)(void *ctx);
};

/**
  0 when the statement was run, even if it failed: that is what handle_error says. NULL keeps the
  session's charset, utf8mb3.
*/
typedef int command_service_run_command_fn(Srv_session *session, int command, const struct COM_DATA *data,
                                           const void *client_cs, const struct st_command_service_cbs *callbacks,
                                           int text_or_binary, void *ctx);

/*
  The client library inside mysqld (include/mysql.h): statements on a connection that has left clone
  mode.
*/
typedef struct MYSQL MYSQL;
typedef struct MYSQL_RES MYSQL_RES;
/** Non-zero on failure. */
typedef int mysql_real_query_fn(MYSQL *mysql, const char *statement, unsigned long length);
/** The result, row by row; NULL if there is none. */
typedef MYSQL_RES *mysql_use_result_fn(MYSQL *mysql);
/** The texts of a row, NULL for NULL; NULL after the last row, and after an error. */
typedef char **mysql_fetch_row_fn(MYSQL_RES *result);
typedef unsigned long *mysql_fetch_lengths_fn(MYSQL_RES *result);
typedef unsigned int mysql_num_fields_fn(MYSQL_RES *result);
/** Reads the rows that are left. */
typedef void mysql_free_result_fn(MYSQL_RES *result);
typedef unsigned int mysql_errno_fn(MYSQL *mysql);
typedef const char *mysql_error_fn(MYSQL *mysql);
/** NULL without TLS. */
typedef const char *mysql_get_ssl_cipher_fn(MYSQL *mysql);

/** sql/sql_error.h. SL_WARNING is a severity. */
typedef void push_warning_fn(THD *thd, int severity, unsigned int code, const char *text);
#define SL_WARNING 1
/** sql/sql_restart_server.h: whether a supervisor starts mysqld again. */
typedef bool is_mysqld_managed_fn(void);

#endif
