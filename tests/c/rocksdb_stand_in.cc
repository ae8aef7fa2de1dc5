/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  Stands in for MyRocks in a mysqld that has none: an engine ROCKSDB without a clone interface, with the variables, the files and the
  line in performance_schema.log_status that libmysql_clone.so uses. Its database is `.rocksdb` in the data directory. It has no
  tables; tests write to its log, `000100.log`.
*/

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server_plugin.h"

/* mysqld's own. */
class Json_dom {
 public:
  virtual ~Json_dom();
  static std::unique_ptr<Json_dom> parse(const char *text, size_t length,
                                         const std::function<void(const char *, size_t)> &error,
                                         const std::function<void()> &too_deep);
};
class Json_object : public Json_dom {
 public:
  bool add_alias(std::string_view key, std::unique_ptr<Json_dom> value);
};
struct handlerton {
  unsigned int state;
  unsigned int db_type;
};
extern char server_version[];
extern handlerton *find_engine(THD *thd, int db_type) __asm__("_Z25ha_resolve_by_legacy_typeP3THD14legacy_db_type");
extern void innodb_capability(uint64_t *flags) __asm__("_Z27innodb_clone_get_capabilityRSt6bitsetILm6EE");

static const std::string DIRECTORY = ".rocksdb";
static const std::string LOG = "000100.log";

static std::atomic<int> deletions_disabled;

/** Offset of clone_interface in a handlerton: where InnoDB has its functions. */
static size_t find_clone_interface() {
  const char *innodb = reinterpret_cast<const char *>(find_engine(nullptr, 12));
  for (size_t offset = 0; innodb != nullptr && offset < 0x300; offset += sizeof(void *)) {
    void (*function)(uint64_t *);
    memcpy(&function, innodb + offset, sizeof function);
    if (function == innodb_capability) return offset;
  }
  return 0;
}

static void write_file(const std::string &name, const std::string &text) {
  std::ofstream(DIRECTORY + "/" + name) << text;
}

/** As a checkpoint does: links to what never changes, copies of the rest. */
static int create_checkpoint(THD *, SYS_VAR *, void *, st_mysql_value *value) {
  char buffer[1024];
  int length = sizeof buffer;
  const char *text = value->val_str(value, buffer, &length);
  if (text == nullptr) return 1;
  const std::string to(text, length);
  if (mkdir(to.c_str(), 0700) != 0) return 1;
  DIR *list = opendir(DIRECTORY.c_str());
  if (list == nullptr) return 1;
  while (const dirent *entry = readdir(list)) {
    const std::string name = entry->d_name;
    const std::string from = DIRECTORY + "/" + name;
    if (name.find(".sst") != std::string::npos) {
      if (link(from.c_str(), (to + "/" + name).c_str()) != 0) return 1;
    } else if (name == "CURRENT" || name.rfind("MANIFEST", 0) == 0) {
      std::ofstream(to + "/" + name) << std::ifstream(from).rdbuf();
    }
  }
  closedir(list);
  return 0;
}

static void nothing(THD *, SYS_VAR *, void *, const void *) {}

static void disable_file_deletions(THD *, SYS_VAR *, void *place, const void *save) {
  const bool now = *static_cast<const bool *>(save);
  bool &before = *static_cast<bool *>(place);
  deletions_disabled += now - before;
  before = now;
}

static bool lock_log(handlerton *) { return false; }

/** The cut is only taken while no file may be removed. */
static bool collect_log_info(handlerton *, Json_dom *json) {
  if (deletions_disabled == 0) return false;
  struct stat status;
  if (stat((DIRECTORY + "/" + LOG).c_str(), &status) != 0) return true;
  const std::string text = "{\"wal_files\": [{\"path_name\": \"/archive/000099.log\", \"log_number\": 99, \"size_file_bytes\": 7}, "
                           "{\"path_name\": \"/" + LOG + "\", \"log_number\": 100, \"size_file_bytes\": " +
                           std::to_string(status.st_size) + "}]}";
  auto logs = Json_dom::parse(text.data(), text.size(), [](const char *, size_t) {}, [] {});
  return logs == nullptr || static_cast<Json_object *>(json)->add_alias("RocksDB", std::move(logs));
}

static char *datadir;
static char *wal_dir;
static char *checkpoint;
static char default_datadir[] = "./.rocksdb";
static char empty[] = "";

static sysvar_str datadir_variable = {
    {PLUGIN_VAR_STR | PLUGIN_VAR_READONLY, "datadir", "Files", nullptr, nullptr}, &datadir, default_datadir};
static sysvar_str wal_dir_variable = {
    {PLUGIN_VAR_STR | PLUGIN_VAR_READONLY, "wal_dir", "Logs", nullptr, nullptr}, &wal_dir, empty};
static sysvar_str checkpoint_variable = {
    {PLUGIN_VAR_STR, "create_checkpoint", "Makes one", create_checkpoint, nothing}, &checkpoint, empty};

/** include/mysql/plugin.h:DECLARE_MYSQL_THDVAR_SIMPLE. mysqld writes to offset and resolve. */
static struct {
  SYS_VAR header;
  int offset;
  bool def_val;
  bool *(*resolve)(THD *thd, int offset);
} deletions_variable = {
    {PLUGIN_VAR_BOOL | 0x0100 /* PLUGIN_VAR_THDLOCAL */, "disable_file_deletions", "Keeps files", nullptr,
     disable_file_deletions},
    -1, false, nullptr};

static SYS_VAR *variables[] = {&datadir_variable.header, &wal_dir_variable.header, &checkpoint_variable.header,
                               &deletions_variable.header, nullptr};

static int init(void *argument) {
  auto *hton = static_cast<handlerton *>(argument);
  const size_t offset = find_clone_interface();
  if (offset == 0) return 1;
  if (mkdir(DIRECTORY.c_str(), 0700) == 0) {
    write_file("CURRENT", "MANIFEST-000001\n");
    write_file("MANIFEST-000001", "all files are live");
    write_file("000001.sst", std::string(100000, 'x'));
    write_file(LOG, "");
  }
  hton->db_type = 42;
  /* lock_hton_log, unlock_hton_log and collect_hton_log_info are two members behind clone_interface. */
  bool (*const lock)(handlerton *) = lock_log;
  bool (*const collect)(handlerton *, Json_dom *) = collect_log_info;
  char *functions = static_cast<char *>(argument) + offset + 0x50;
  memcpy(functions, &lock, sizeof lock);
  memcpy(functions + 8, &lock, sizeof lock);
  memcpy(functions + 16, &collect, sizeof collect);
  return 0;
}

static st_mysql_daemon engine = {0};

/** Engines have to be of the server's very version. */
__attribute__((constructor)) static void follow_server() {
  int major = 0, minor = 0, patch = 0;
  sscanf(server_version, "%d.%d.%d", &major, &minor, &patch);
  engine.interface_version = (major * 10000 + minor * 100 + patch) << 8;
}

extern "C" {
int _mysql_plugin_interface_version_ = MYSQL_PLUGIN_INTERFACE_VERSION;
int _mysql_sizeof_struct_st_plugin_ = sizeof(st_mysql_plugin);
extern st_mysql_plugin _mysql_plugin_declarations_[];
st_mysql_plugin _mysql_plugin_declarations_[] = {
    {MYSQL_STORAGE_ENGINE_PLUGIN, &engine, "ROCKSDB", "mysql-clone", "Stands in for MyRocks", PLUGIN_LICENSE_GPL, init, nullptr,
     nullptr, 0x0100, nullptr, variables, nullptr, 0},
    {},
};
}
