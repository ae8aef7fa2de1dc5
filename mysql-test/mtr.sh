#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs MySQL's own test runner, mysql-test-run.pl, with our clone plugin in place of the stock one.
#
#   mysql-test/mtr.sh --plugin target/release/libmysql_clone.so --list core
#   mysql-test/mtr.sh --stock clone.local_basic clone.remote_basic
#   mysql-test/mtr.sh --plugin FILE --list clone -- --mysqld=--log-error-verbosity=3
#   mysql-test/mtr.sh --plugin FILE --mysql 8.0.36 --list clone
#   mysql-test/mtr.sh --plugin FILE --build DIR --list clone-debug
#
#   --plugin FILE   the plugin to test; it goes by the stock file name, mysql_clone.so
#   --stock         test the stock plugin instead, to compare
#   --list LIST     run the tests named in mysql-test/lists/LIST.list or in the file LIST, one a line; `all` is
#                   clone, rpl and group_replication. May be given more than once, and beside test names
#   --mysql RELEASE run them on this release of MySQL, of those that server.sh --list names, with its own suites. A test of
#                   a list that the release does not have is left out, and named; default: 9.7
#   --build DIR     run them on the mysqld that was built in DIR, with the plugins built there, --stock among them. Made from
#                   the sources of the same release, with -DWITH_DEBUG=1: Debian has no debug server. Libraries of this host
#                   that the root lacks are lent to it. Only the lists *-debug need this
#   --parallel N    that many tests at a time; default: one for each core
#   --keep          keep the logs of tests that passed, too
#   -- ARGUMENTS    handed to mysql-test-run.pl as they are
#
# Our own suites in mysql-test/suite/ (NAME/t/*.test, NAME/r/*.result) are there beside MySQL's: name their tests.
#
# The server is the one of server.sh. mysql-test-run.pl runs in its root, in mount, process and network namespaces of
# its own (mtr-root.sh): that takes root, or sudo. Several runs at a time do not meet.
#
# A test passes at the first attempt, or it fails. The tests in lists/flaky.list, each with its reason, get a second attempt.
#
# The last line is `N passed, N failed`. Each test asked for counts once, however many combinations of settings
# mysql-test-run.pl runs it in. A test that was skipped, disabled or not run at all counts as failed, and
# mysql-test-run.pl itself counts as a failed test where it fails without one. The status is 0 only if nothing failed.
#
# Environment: server.sh's, and
#   MYSQL_CLONE_VARDIR   where test servers have their data, up to 2.5 GB; default /dev/shm if that much is free, else TMPDIR

set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly VARDIR_MIB=3000

say() { printf 'mtr.sh: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 2
}
usage() { sed -n '/^# Runs/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# Adds the tests of a list to $tests. In a list, blank lines and what follows a # mean nothing.
add_list() {
  local list=$1 file name
  if [ "$list" = all ]; then
    for name in clone rpl group_replication; do add_list "$name"; done
    return
  fi
  file=$here/lists/$list.list
  if ! [ -f "$file" ]; then file=$list; fi
  [ -f "$file" ] || die "no list $list: neither a file nor one of $(cd "$here/lists" && echo *.list | sed 's/\.list//g')"
  while read -r name; do
    name=${name%%#*}
    name=${name//[[:space:]]/}
    if [ -n "$name" ]; then tests+=("$name"); fi
  done <"$file"
}

plugin='' stock='' release='' build='' parallel=$(nproc) keep='' tests=() arguments=()
while [ $# -gt 0 ]; do
  case $1 in
  --plugin | --list | --mysql | --build | --parallel)
    [ $# -ge 2 ] || die "$1 wants a value"
    case $1 in
    --plugin) plugin=$2 ;;
    --list) add_list "$2" ;;
    --mysql) release=$2 ;;
    --build) build=$2 ;;
    --parallel) parallel=$2 ;;
    esac
    shift
    ;;
  --stock) stock=yes ;;
  --keep) keep=yes ;;
  --help | -h)
    usage
    exit 0
    ;;
  --)
    shift
    arguments=("$@")
    break
    ;;
  -*) die "unknown option $1; see --help" ;;
  *.*) tests+=("$1") ;;
  *) die "$1 is not SUITE.TEST" ;;
  esac
  shift
done

if [ -n "$stock" ]; then
  [ -z "$plugin" ] || die "--stock and --plugin exclude each other"
else
  [ -n "$plugin" ] || die "which plugin? --plugin FILE or --stock"
  [ -f "$plugin" ] || die "no plugin $plugin; build it with: cargo build --release"
  plugin=$(realpath "$plugin")
fi
if [ -n "$build" ]; then
  [ -x "$build/runtime_output_directory/mysqld" ] || die "$build has no runtime_output_directory/mysqld: is it where MySQL was built?"
  build=$(realpath "$build")
fi
[ "${#tests[@]}" -gt 0 ] || die "which tests? --list LIST or names"
[[ $parallel =~ ^[1-9][0-9]*$ ]] || die "--parallel wants a number above 0, not '$parallel'"
[ -z "${MYSQL_BASEDIR:-}" ] || die "mysql-test-run.pl runs in server.sh's own root only; unset MYSQL_BASEDIR"
readarray -t tests < <(printf '%s\n' "${tests[@]}" | awk '!seen[$0]++')

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || die "this takes root, or sudo, for mount and network namespaces"
  as_root=(sudo)
  sudo -v || die "sudo gives no root rights"
fi

# Prints the reason for which a test may need a second attempt; fails if it may not.
reason_of() {
  awk -v name="$1" '$1 == name { sub(/^[^#]*# */, ""); print; found = 1 } END { exit !found }' "$here/lists/flaky.list"
}
# mysql-test-run.pl tries all tests again or none, so it does where one of the list is among them.
retry=0
for name in "${tests[@]}"; do
  if reason_of "$name" >/dev/null; then retry=1; fi
done

server=$("$here/server.sh" --suites ${release:+"$release"})
eval "$server"
if [ -n "$release" ]; then
  there=()
  for name in "${tests[@]}"; do
    if [ -e "$MYSQL_CLONE_ROOT/usr/lib/mysql-test/suite/${name%%.*}/t/${name#*.}.test" ]; then
      there+=("$name")
    else
      say "MySQL $MYSQL_CLONE_VERSION has no test $name"
    fi
  done
  tests=("${there[@]}")
  [ "${#tests[@]}" -gt 0 ] || die "MySQL $MYSQL_CLONE_VERSION has none of these tests"
fi

vardir_parent=${MYSQL_CLONE_VARDIR:-}
if [ -z "$vardir_parent" ]; then
  vardir_parent=/dev/shm
  free=$(df -Pm /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
  if [ "${free:-0}" -lt "$VARDIR_MIB" ]; then
    vardir_parent=${TMPDIR:-/tmp}
    say "/dev/shm has ${free:-0} MiB free, which is too little: the test servers' data is in $vardir_parent, which is slower"
  fi
fi
vardir=$(mktemp -d "$vardir_parent/mysql-clone-mtr.XXXXXX")
# The test user becomes its owner, and under sudo that is a third one.
chmod 755 "$vardir"
log=$vardir/mtr.log
runner=''

stop() {
  # unshare ignores softer signals; its death ends all processes of its namespace.
  if [ -z "$runner" ]; then
    :
  elif [ "${#as_root[@]}" = 0 ]; then
    kill -KILL "$runner" 2>/dev/null || true
  else
    sudo pkill -KILL -P "$runner" || true
  fi
  "${as_root[@]}" rm -rf "$vardir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

began=$SECONDS
: >"$log"
"${as_root[@]}" unshare --mount --pid --net --fork --kill-child -- \
  bash "$here/mtr-root.sh" "$MYSQL_CLONE_ROOT" "$vardir" "$plugin" "$build" "$here/suite" \
  --parallel="$parallel" --retry="$retry" "${arguments[@]}" "${tests[@]}" >"$log" 2>&1 &
runner=$!
tail -q -n +1 -f --pid="$runner" "$log" &
follower=$!
status=0
wait "$runner" || status=$?
runner=''
wait "$follower" || true

# Each test has a line like "[ 50%] clone.local_basic 'row'  w1  [ pass ]  12345": one test, one setting, one result.
# Prints, for each test asked for, its name and the worst of its results; `pass` only where every one of them passed.
results() {
  awk '
    function worse(a, b) { return rank[a] > rank[b] ? a : b }
    BEGIN { rank["pass"] = 1; rank["skipped"] = 2; rank["disabled"] = 3; rank["fail"] = 4 }
    NR == FNR { asked[++count] = $0; next }
    {
      sub(/^\[ *[0-9]+%\] +/, "")
      if (!match($0, /\[ [a-z-]+ \]/)) next
      result = substr($0, RSTART + 2, RLENGTH - 4)
      if (result == "retry-pass") { got[$1] = result; next }
      if (!(result in rank)) result = "fail"
      # One combination of settings may be skipped where another one ran.
      if (result == "skipped" && got[$1] == "pass") next
      got[$1] = (result == "pass" && got[$1] == "skipped") ? result : worse(got[$1], result)
    }
    END { for (i = 1; i <= count; i++) print asked[i], (asked[i] in got) ? got[asked[i]] : "not-run" }
  ' <(printf '%s\n' "${tests[@]}") "$log"
}

# Not read from a process substitution: its failure would go unseen.
outcome=$(results)
passed=0 failed=0 retried=''
while read -r name result; do
  if [ "$result" = pass ]; then
    passed=$((passed + 1))
  elif [ "$result" = retry-pass ] && reason=$(reason_of "$name"); then
    passed=$((passed + 1)) retried=yes
    printf 'mtr.sh: %s: passed at the second attempt, which it may: %s\n' "$name" "$reason"
  else
    failed=$((failed + 1))
    result=${result/retry-pass/passed at the second attempt only}
    printf 'mtr.sh: %s: %s\n' "$name" "${result/not-run/not run}"
  fi
done <<<"$outcome"
[ "$((passed + failed))" = "${#tests[@]}" ] || die "lost count of the tests"
# A test that needed a further attempt fails mysql-test-run.pl as a whole.
if [ "$status" != 0 ] && [ "$failed" = 0 ] && [ -z "$retried" ]; then
  failed=1
  printf 'mtr.sh: mysql-test-run.pl ended with status %s, though no test failed\n' "$status"
fi

if [ "$failed" != 0 ] || [ -n "$keep" ]; then
  # The servers' data is large; what a failed test left is saved among the logs by then.
  "${as_root[@]}" find "$vardir" -mindepth 1 -maxdepth 1 ! -name var ! -name mtr.log -exec rm -rf {} +
  "${as_root[@]}" find "$vardir/var" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} + 2>/dev/null || true
  "${as_root[@]}" chmod -R a+rX "$vardir"
  trap - EXIT
  printf 'mtr.sh: the logs are in %s; remove them when done\n' "$vardir"
fi
printf 'mtr.sh: %s tests took %s s with the %s plugin on MySQL %s%s\n' \
  "${#tests[@]}" "$((SECONDS - began))" "${stock:+stock}${plugin##*/}" "$MYSQL_CLONE_VERSION" "${build:+ from $build}"
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
