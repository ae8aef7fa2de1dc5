/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  The engine of docs/engine_example.c in a mysqld: a storage engine plugin that stands in for MyRocks, which Oracle's server
  does not have. Its database is the directory "notes" in the data directory. It has no tables.
*/

#define main engine_example_main
#include "../../docs/engine_example.c"
#undef main

/* mysqld's own, by their C++ names. */
extern char server_version[];
extern struct handlerton *find_engine(THD *thd, int db_type) __asm__("_Z25ha_resolve_by_legacy_typeP3THD14legacy_db_type");
extern void innodb_capability(uint64_t *flags) __asm__("_Z27innodb_clone_get_capabilityRSt6bitsetILm6EE");

static struct notes server_notes;

/** Offset of clone_interface in a handlerton: where InnoDB has its functions. */
static size_t find_clone_interface(void) {
  const char *innodb = (const char *)find_engine(NULL, DB_TYPE_INNODB);
  for (size_t offset = 0; innodb != NULL && offset < 0x300; offset += sizeof(void *)) {
    clone_capability_fn *function;
    memcpy(&function, innodb + offset, sizeof function);
    if (function == innodb_capability) return offset;
  }
  return 0;
}

static unsigned int standing(void) {
  if (access("#clone/#status_error", F_OK) == 0) return CLONE_STANDING_ROLLED_BACK;
  if (access("#clone/#status_fix", F_OK) == 0) return CLONE_STANDING_PENDING;
  return CLONE_STANDING_SETTLED;
}

static int init(void *argument) {
  struct handlerton *hton = argument;
  size_t offset = find_clone_interface();
  if (offset == 0) return 1;
  if (clone_engine_swap(".", ".notes", "notes", NULL, standing(), NULL) != 0) return 1;
  if (access("notes", F_OK) == 0) {
    snprintf(server_notes.directory, sizeof server_notes.directory, "notes");
    pthread_mutex_init(&server_notes.lock, NULL);
  } else {
    notes_create(&server_notes, "notes");
  }
  notes_register(&server_notes);
  const struct Clone_interface_t interface = {
      clone_capability, clone_begin, clone_copy, clone_ack, clone_end, clone_apply_begin, clone_apply, clone_apply_end,
  };
  memcpy((char *)hton + offset, &interface, sizeof interface);
  hton->state = 0; /* SHOW_OPTION_YES */
  hton->db_type = DB_TYPE_NOTES;
  return 0;
}

static int deinit(void *argument) {
  (void)argument;
  return clone_engine_unregister(DB_TYPE_NOTES);
}

/** Engines have to be of the server's very version. */
static struct st_mysql_daemon engine = {0};

__attribute__((constructor)) static void follow_server(void) {
  int major = 0, minor = 0, patch = 0;
  sscanf(server_version, "%d.%d.%d", &major, &minor, &patch);
  engine.interface_version = (major * 10000 + minor * 100 + patch) << 8;
}

int _mysql_plugin_interface_version_ = MYSQL_PLUGIN_INTERFACE_VERSION;
int _mysql_sizeof_struct_st_plugin_ = sizeof(struct st_mysql_plugin);
struct st_mysql_plugin _mysql_plugin_declarations_[] = {
    {
        .type = MYSQL_STORAGE_ENGINE_PLUGIN,
        .info = &engine,
        .name = "notes",
        .author = "mysql-clone",
        .descr = "Stands in for an engine without a clone of its own",
        .license = PLUGIN_LICENSE_GPL,
        .init = init,
        .deinit = deinit,
        .version = 0x0100,
    },
    {0},
};
