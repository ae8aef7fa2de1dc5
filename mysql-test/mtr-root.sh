#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of mtr.sh that needs root: furnishes the server's root directory and runs mysql-test-run.pl in it.
#
#   unshare --mount --pid --net --fork --kill-child -- \
#     bash mtr-root.sh ROOT VARDIR PLUGIN BUILD SUITES MYSQL-TEST-RUN-ARGUMENT...
#
# PLUGIN is empty for the stock one, BUILD for the packaged server. Everything mounted here is seen in this mount namespace
# only and ends with it; nothing is written to ROOT. As the first process of its namespace this shell also reaps servers that
# lost their parent, so that a test which waits for a server's end does not wait for a zombie.

set -euo pipefail

readonly ROOT=$1 VARDIR=$2 PLUGIN=$3 BUILD=$4 SUITES=$5
shift 5
readonly USER_ID=2999 # server.sh's mysqltest
readonly OVERLAYS=/mnt

# Read-only, so that a test that writes where it should not is seen.
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$ROOT/dev"
for device in null zero full random urandom tty; do
  : >"$ROOT/dev/$device"
  mount --bind "/dev/$device" "$ROOT/dev/$device"
done
ln -s /proc/self/fd "$ROOT/dev/fd"
ln -s fd/0 "$ROOT/dev/stdin"
ln -s fd/1 "$ROOT/dev/stdout"
ln -s fd/2 "$ROOT/dev/stderr"
mkdir -m 1777 "$ROOT/dev/shm"
chown "$USER_ID:$USER_ID" "$VARDIR"
mount --bind "$VARDIR" "$ROOT/mtrvar"

# Lays a directory of BUILD, if there is a BUILD, and a writable one over a directory of ROOT.
overlay() {
  local directory=$1 built=$2 layer=$OVERLAYS/${1//\//-}
  mkdir -p "$layer/upper" "$layer/work"
  chown "$USER_ID:$USER_ID" "$layer/upper"
  mount -t overlay overlay "$ROOT/$directory" \
    -o "lowerdir=${BUILD:+$BUILD/$built:}$ROOT/$directory,upperdir=$layer/upper,workdir=$layer/work"
}

# Copies the libraries that the built server needs and ROOT lacks to a directory.
lend_libraries() {
  local into=$1 name file
  mkdir "$into"
  ldd "$BUILD/runtime_output_directory/mysqld" "$BUILD"/plugin_output_directory/*.so |
    awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u |
    while read -r name file; do
      if ! compgen -G "$ROOT/usr/lib/*-linux-gnu/$name" >/dev/null; then cp --dereference "$file" "$into/$name"; fi
    done
}

# The keyring tests write beside mysqld and into the plugin directory.
mount -t tmpfs -o mode=0755 tmpfs "$OVERLAYS"
overlay usr/lib/mysql/plugin plugin_output_directory
overlay usr/sbin runtime_output_directory
environment=()
if [ -n "$BUILD" ]; then
  lend_libraries "$ROOT/usr/sbin/dbglibs"
  environment=(LD_LIBRARY_PATH=/usr/sbin/dbglibs)
fi
if compgen -G "$SUITES/*/t" >/dev/null; then
  mount -t overlay overlay -o "lowerdir=$SUITES:$ROOT/usr/lib/mysql-test/suite" "$ROOT/usr/lib/mysql-test/suite"
fi

# All plugins must lie in one directory: have_clone_plugin.inc and check_plugin_dir.inc skip the test otherwise.
plugins=$ROOT/usr/lib/mysql/plugin
if [ -n "$PLUGIN" ]; then
  cp --remove-destination "$PLUGIN" "$plugins/mysql_clone.so"
  chmod 644 "$plugins/mysql_clone.so"
fi
# Debian's mysql-test-run.pl does not write these two, and error_features fails with any plugin where they are missing.
printf '{ "read_local_config": true }' >"$plugins/component_keyring_file.cnf"
printf '{ "read_local_manifest": true }' >"$ROOT/usr/sbin/mysqld.my"
chown "$USER_ID:$USER_ID" "$plugins/component_keyring_file.cnf" "$ROOT/usr/sbin/mysqld.my"

chroot "$ROOT" ip link set lo up

# --client-bindir: mysql_keyring_encryption_test is found nowhere else.
# --loose-clone-keep-failed-directory: clone.error_features and others remove the directory of a clone that failed, and
# fail if this directory is gone already.
# --big-test: some of the clone tests call themselves big. --testcase-timeout is in minutes: one test takes seven.
status=0
chroot --userspec="$USER_ID:$USER_ID" "$ROOT" /usr/bin/env -i \
  HOME=/mtrvar USER=mysqltest LOGNAME=mysqltest LC_ALL=C.UTF-8 RUST_BACKTRACE=1 \
  PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "${environment[@]}" \
  bash -c 'cd /usr/lib/mysql-test && exec perl ./mysql-test-run.pl "$@"' mtr \
  --vardir=/mtrvar/var --tmpdir=/mtrvar/tmp --client-bindir=/usr/lib/mysql-test/bin \
  --force --max-test-fail=0 --max-save-datadir=2 --nounit-tests --big-test \
  --testcase-timeout=30 --suite-timeout=180 --mysqld=--loose-clone-keep-failed-directory=ON "$@" || status=$?
exit "$status"
