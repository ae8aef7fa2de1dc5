/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  src/server/shim.cc: calls to those methods of clone_protocol that take std::string or std::vector.

  Each takes the method's address from the service table and returns what the method returned, or
  CLONE_SHIM_NO_MEMORY when C++ threw while the arguments were built or the results handed over.
*/

#ifndef CLONE_SHIM_H
#define CLONE_SHIM_H

#include "server_plugin.h"

#define CLONE_SHIM_NO_MEMORY -1

/** The address of a method whose C++ type only the shim knows. */
typedef void (*clone_shim_method)(void);

/** Bytes without a terminator. */
struct clone_shim_text {
  const char *data;
  size_t length;
};

/** A configuration variable and its value. */
struct clone_shim_pair {
  struct clone_shim_text name;
  struct clone_shim_text value;
};

/** Receives one result; the bytes are gone when it returns. */
typedef void (*clone_shim_sink)(void *context, struct clone_shim_text text);

#ifdef __cplusplus
extern "C" {
#endif

int clone_shim_get_charsets(clone_shim_method method, THD *thd, clone_shim_sink sink, void *context);
int clone_shim_validate_charsets(clone_shim_method method, THD *thd, const struct clone_shim_text *names,
                                 size_t count);
int clone_shim_get_configs(clone_shim_method method, THD *thd, const struct clone_shim_text *names, size_t count,
                           clone_shim_sink sink, void *context);
int clone_shim_validate_configs(clone_shim_method method, THD *thd, const struct clone_shim_pair *configs,
                                size_t count);
/** The form with four arguments, which 9.7 has. */
int clone_shim_validate_version(clone_shim_method method, struct clone_shim_text recipient,
                                struct clone_shim_text donor, bool recipient_lts, bool donor_lts);

#ifdef __cplusplus
}
#endif

#endif /* CLONE_SHIM_H */
