/* SPDX-License-Identifier: GPL-2.0-only */

/**
  @file
  A storage engine that clones through libmysql_clone.so, and a program that clones it: see docs/engines.md.

  The engine is called NOTES. Its tables are files that never change, its log one file that grows, CURRENT names the log.
  The program clones a live database to a second directory with two tasks, puts the clone in place, and checks the log.

  cc engine_example.c -I include -L target/release -lmysql_clone -pthread && ./a.out DIRECTORY
*/

#define _DEFAULT_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clone_engine.h"

/* Below 42, where MySQL begins to hand them out; the peers of a clone have to agree. */
#define DB_TYPE_NOTES 41

#define TABLES 20
#define ER_ERROR_ON_WRITE 1026

/** Stops the program where an engine would have something better to do. */
static void check(int error, const char *what) {
  if (error == 0) return;
  unsigned int number;
  const char *text = clone_engine_error(&number);
  fprintf(stderr, "%s: error %d (last error of the library: %u %s)\n", what, error, number, text);
  exit(1);
}

/* ---------------------------------------------------------------------------------------------------------------------
   The engine. Only this part is what an author writes; the calls below are those of a server's clone plugin.
   --------------------------------------------------------------------------------------------------------------------- */

struct notes {
  char directory[512];
  /** Guards the log: a cut must not fall into a record. */
  pthread_mutex_t lock;
  /** Clones that have forbidden to remove files. */
  int deletions_disabled;
};

static void path_of(char *path, size_t size, const char *directory, const char *name) {
  if (snprintf(path, size, "%s/%s", directory, name) >= (int)size) check(ENAMETOOLONG, name);
}

static void write_file(const char *directory, const char *name, const char *mode, const char *text) {
  char path[600];
  path_of(path, sizeof path, directory, name);
  FILE *file = fopen(path, mode);
  if (file == NULL || fputs(text, file) == EOF || fclose(file) != 0) check(errno, path);
}

static void notes_create(struct notes *notes, const char *directory) {
  snprintf(notes->directory, sizeof notes->directory, "%s", directory);
  pthread_mutex_init(&notes->lock, NULL);
  notes->deletions_disabled = 0;
  check(mkdir(directory, 0700), directory);
  for (int table = 0; table < TABLES; table++) {
    char name[32], text[4096];
    snprintf(name, sizeof name, "%06d.sst", table);
    memset(text, 'a' + table, sizeof text - 1);
    /* One table is empty. */
    text[table == 0 ? 0 : sizeof text - 1] = '\0';
    write_file(directory, name, "w", text);
  }
  write_file(directory, "CURRENT", "w", "000100.log\n");
}

static void notes_write(struct notes *notes, const char *note) {
  pthread_mutex_lock(&notes->lock);
  write_file(notes->directory, "000100.log", "a", note);
  pthread_mutex_unlock(&notes->lock);
}

static int notes_connect(void *context, void **connection) {
  *connection = context;
  return 0;
}

static void notes_disconnect(void *connection) { (void)connection; }

/** Tables never change, so links to them do; CURRENT would have to be copied if it did. */
static int notes_create_checkpoint(void *connection, const char *directory) {
  struct notes *notes = connection;
  if (mkdir(directory, 0700) != 0) return ER_ERROR_ON_WRITE;
  DIR *list = opendir(notes->directory);
  if (list == NULL) return ER_ERROR_ON_WRITE;
  int error = 0;
  for (struct dirent *entry = readdir(list); entry != NULL && error == 0; entry = readdir(list)) {
    if (strstr(entry->d_name, ".sst") == NULL && strcmp(entry->d_name, "CURRENT") != 0) continue;
    char from[1024], to[1024];
    path_of(from, sizeof from, notes->directory, entry->d_name);
    path_of(to, sizeof to, directory, entry->d_name);
    if (link(from, to) != 0) error = ER_ERROR_ON_WRITE;
  }
  closedir(list);
  return error;
}

static int notes_remove_checkpoint(void *connection, const char *directory) {
  (void)connection;
  DIR *list = opendir(directory);
  if (list == NULL) return ER_ERROR_ON_WRITE;
  for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
    if (entry->d_name[0] == '.') continue;
    char path[1024];
    path_of(path, sizeof path, directory, entry->d_name);
    unlink(path);
  }
  closedir(list);
  return rmdir(directory) == 0 ? 0 : ER_ERROR_ON_WRITE;
}

static int notes_disable_file_deletions(void *connection) {
  struct notes *notes = connection;
  pthread_mutex_lock(&notes->lock);
  notes->deletions_disabled++;
  pthread_mutex_unlock(&notes->lock);
  return 0;
}

static int notes_enable_file_deletions(void *connection) {
  struct notes *notes = connection;
  pthread_mutex_lock(&notes->lock);
  notes->deletions_disabled--;
  pthread_mutex_unlock(&notes->lock);
  return 0;
}

/** The point of the clone: what the log holds now. */
static int notes_cut(void *connection, clone_add_log_fn *add, void *logs, uint64_t *sequence) {
  struct notes *notes = connection;
  char path[600];
  struct stat status;
  (void)sequence;
  path_of(path, sizeof path, notes->directory, "000100.log");
  pthread_mutex_lock(&notes->lock);
  int failed = stat(path, &status);
  pthread_mutex_unlock(&notes->lock);
  if (failed) return ER_ERROR_ON_WRITE;
  add(logs, "000100.log", (uint64_t)status.st_size);
  return 0;
}

static void notes_register(struct notes *notes) {
  struct clone_engine engine = {
      .version = CLONE_ENGINE_VERSION,
      .db_type = DB_TYPE_NOTES,
      .root = ".",
      .prefix = ".notes",
      .required_file = "CURRENT",
      .checkpoint_max_age = 600,
      .checkpoint_max_count = 90,
      .database =
          {
              .directory = notes->directory,
              .wal_directory = NULL,
              .context = notes,
              .connect = notes_connect,
              .disconnect = notes_disconnect,
              .create_checkpoint = notes_create_checkpoint,
              .remove_checkpoint = notes_remove_checkpoint,
              .disable_file_deletions = notes_disable_file_deletions,
              .enable_file_deletions = notes_enable_file_deletions,
              .cut = notes_cut,
          },
  };
  check(clone_engine_register(&engine), "clone_engine_register");
}

/* ---------------------------------------------------------------------------------------------------------------------
   A local clone, as a clone plugin does it. In a server these calls go through hton->clone_interface.
   --------------------------------------------------------------------------------------------------------------------- */

static struct handlerton notes_hton = {.db_type = DB_TYPE_NOTES};

/** One task of a clone. */
struct task {
  const unsigned char *from, *to;
  unsigned int from_len, to_len;
  unsigned int from_task, to_task;
  unsigned long long estimate;
};

/** The object that clone_copy() calls. MySQL's part comes first. */
struct copier {
  struct Ha_clone_cbk cbk;
  struct task *task;
};

/** The object that clone_apply() calls, with the data that the copier was given. */
struct applier {
  struct Ha_clone_cbk cbk;
  struct task *task;
  int from_file;
  const unsigned char *from_buffer;
  unsigned int len;
};

static int unexpected_file(struct Ha_clone_cbk *self, struct Ha_clone_file file, unsigned int len) {
  return (void)self, (void)file, (void)len, 1815;
}

static int unexpected_apply_file(struct Ha_clone_cbk *self, struct Ha_clone_file file) {
  return (void)self, (void)file, 1815;
}

static int unexpected_buffer(struct Ha_clone_cbk *self, unsigned char **buffer, unsigned int *len) {
  return (void)self, (void)buffer, (void)len, 1815;
}

static void destroy(struct Ha_clone_cbk *self) { (void)self; }

/** Puts the data of the descriptor at hand into a file, at its offset. */
static int apply_file(struct Ha_clone_cbk *self, struct Ha_clone_file to) {
  struct applier *applier = (struct applier *)self;
  unsigned int left = applier->len;
  while (left > 0) {
    char buffer[65536];
    const void *data = buffer;
    ssize_t len = left < sizeof buffer ? left : sizeof buffer;
    if (applier->from_buffer != NULL) {
      data = applier->from_buffer + (applier->len - left);
    } else {
      len = read(applier->from_file, buffer, (size_t)len);
    }
    if (len <= 0 || write(to.u.file_desc, data, (size_t)len) != len) return ER_ERROR_ON_WRITE;
    left -= (unsigned int)len;
  }
  return 0;
}

/** The applying engine says how much is to come: this program asked for it. */
static int take_estimate(struct Ha_clone_cbk *self, unsigned char *buffer, unsigned int len) {
  struct applier *applier = (struct applier *)self;
  if (buffer != NULL || len != 0 || self->m_flag != CLONE_CBK_ESTIMATE) return 1815;
  applier->task->estimate += self->m_state_estimate;
  return 0;
}

static int apply(struct copier *copier, struct applier *applier) {
  static const struct Ha_clone_cbk_vtable functions = {
      unexpected_file, take_estimate, apply_file, unexpected_buffer, destroy, destroy,
  };
  struct task *task = copier->task;
  applier->task = task;
  applier->cbk.vptr = &functions;
  applier->cbk.m_flag = CLONE_CBK_ESTIMATE;
  applier->cbk.m_data_desc = copier->cbk.m_data_desc;
  applier->cbk.m_desc_len = copier->cbk.m_desc_len;
  return clone_apply(&notes_hton, NULL, task->to, task->to_len, task->to_task, 0, &applier->cbk);
}

static int copy_file(struct Ha_clone_cbk *self, struct Ha_clone_file file, unsigned int len) {
  struct applier applier = {.from_file = file.u.file_desc, .len = len};
  return apply((struct copier *)self, &applier);
}

static int copy_buffer(struct Ha_clone_cbk *self, unsigned char *buffer, unsigned int len) {
  struct applier applier = {.from_file = -1, .from_buffer = buffer, .len = len};
  return apply((struct copier *)self, &applier);
}

static void run(struct task *task) {
  static const struct Ha_clone_cbk_vtable functions = {
      copy_file, copy_buffer, unexpected_apply_file, unexpected_buffer, destroy, destroy,
  };
  struct copier copier = {.cbk = {.vptr = &functions, .m_client_buff_size = 1 << 20}, .task = task};
  check(clone_copy(&notes_hton, NULL, task->from, task->from_len, task->from_task, &copier.cbk), "clone_copy");
}

/** A worker: joins both sides of the main task's clone, copies its part, leaves. */
static void *work(void *argument) {
  struct task *task = argument;
  check(clone_begin(&notes_hton, NULL, &task->from, &task->from_len, &task->from_task, HA_CLONE_HYBRID,
                    HA_CLONE_MODE_ADD_TASK),
        "clone_begin for a worker");
  check(clone_apply_begin(&notes_hton, NULL, &task->to, &task->to_len, &task->to_task, HA_CLONE_MODE_ADD_TASK, NULL),
        "clone_apply_begin for a worker");
  run(task);
  check(clone_apply_end(&notes_hton, NULL, task->to, task->to_len, task->to_task, 0), "clone_apply_end for a worker");
  check(clone_end(&notes_hton, NULL, task->from, task->from_len, task->from_task, 0), "clone_end for a worker");
  return NULL;
}

static unsigned long long clone_notes(const char *directory) {
  struct task task = {.from = NULL}, workers;
  pthread_t worker;
  check(clone_begin(&notes_hton, NULL, &task.from, &task.from_len, &task.from_task, HA_CLONE_HYBRID,
                    HA_CLONE_MODE_START),
        "clone_begin");
  /* The donor's locator names the clone on both sides. */
  task.to = task.from;
  task.to_len = task.from_len;
  check(clone_apply_begin(&notes_hton, NULL, &task.to, &task.to_len, &task.to_task, HA_CLONE_MODE_START, directory),
        "clone_apply_begin");
  workers = task;
  check(pthread_create(&worker, NULL, work, &workers), "pthread_create");
  run(&task);
  pthread_join(worker, NULL);
  check(clone_apply_end(&notes_hton, NULL, task.to, task.to_len, task.to_task, 0), "clone_apply_end");
  check(clone_end(&notes_hton, NULL, task.from, task.from_len, task.from_task, 0), "clone_end");
  return task.estimate + workers.estimate;
}

int main(int count, char **arguments) {
  if (count != 2) return 2;
  char live[600], target[600];
  path_of(live, sizeof live, arguments[1], "live");
  path_of(target, sizeof target, arguments[1], "target");

  struct notes notes;
  uint64_t capability = 0;
  unsigned int outcome;
  notes_create(&notes, live);
  notes_write(&notes, "before the clone\n");
  notes_register(&notes);
  clone_capability(&capability);
  if ((capability >> HA_CLONE_HYBRID & 1) == 0) return 3;

  unsigned long long estimate = clone_notes(target);
  notes_write(&notes, "after the clone\n");
  if (notes.deletions_disabled != 0) return 4;

  /* The server that runs on the target starts. Its engine looks for its files in the directory "notes". */
  check(clone_engine_swap(target, ".notes", "notes", NULL, CLONE_STANDING_SETTLED, &outcome), "clone_engine_swap");
  if (outcome != CLONE_SWAP_SWAPPED) return 5;
  /* It starts once more: now it is sure that what was there before is not needed. */
  check(clone_engine_swap(target, ".notes", "notes", NULL, CLONE_STANDING_SETTLED, &outcome), "clone_engine_swap");
  if (outcome != CLONE_SWAP_COMMITTED) return 6;

  check(clone_engine_unregister(DB_TYPE_NOTES), "clone_engine_unregister");
  if (clone_copy(&notes_hton, NULL, NULL, 0, 0, NULL) == 0) return 7;
  printf("cloned, estimate %llu bytes\n", estimate);
  return 0;
}
