#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of mtr.sh that needs root: furnishes the server's root directory and runs mysql-test-run.pl in it.
#
#   unshare --mount --pid --net --fork --kill-child -- \
#     bash mtr-root.sh ROOT VARDIR PLUGIN SUITES MYSQL-TEST-RUN-ARGUMENT...
#
# PLUGIN is empty for the stock one. Everything mounted here is seen in this mount namespace only and ends with it;
# nothing is written to ROOT. As the first process of its namespace this shell also reaps servers that lost their parent,
# so that a test which waits for a server's end does not wait for a zombie.

set -euo pipefail

readonly ROOT=$1 VARDIR=$2 PLUGIN=$3 SUITES=$4
shift 4
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

# The keyring tests write beside mysqld and into the plugin directory.
mount -t tmpfs -o mode=0755 tmpfs "$OVERLAYS"
for directory in usr/lib/mysql/plugin usr/sbin; do
  layer=$OVERLAYS/${directory//\//-}
  mkdir -p "$layer/upper" "$layer/work"
  chown "$USER_ID:$USER_ID" "$layer/upper"
  mount -t overlay overlay -o "lowerdir=$ROOT/$directory,upperdir=$layer/upper,workdir=$layer/work" "$ROOT/$directory"
done
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
# --big-test: some of the clone tests call themselves big. --testcase-timeout is in minutes: one test takes seven.
status=0
chroot --userspec="$USER_ID:$USER_ID" "$ROOT" /usr/bin/env -i \
  HOME=/mtrvar USER=mysqltest LOGNAME=mysqltest LC_ALL=C.UTF-8 RUST_BACKTRACE=1 \
  PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
  bash -c 'cd /usr/lib/mysql-test && exec perl ./mysql-test-run.pl "$@"' mtr \
  --vardir=/mtrvar/var --tmpdir=/mtrvar/tmp --client-bindir=/usr/lib/mysql-test/bin \
  --force --max-test-fail=0 --max-save-datadir=2 --nounit-tests --big-test \
  --testcase-timeout=30 --suite-timeout=180 "$@" || status=$?
exit "$status"
