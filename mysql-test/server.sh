#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Gets a real MySQL server for the tests and prints where it is.
#
#   mysql-test/server.sh            make the server if it is not there yet, print its places
#   mysql-test/server.sh --remake   throw the cached one away first
#
# The server is Debian sid's MySQL, unpacked into a root directory of its own. Debian's packages are downloaded by the
# host's own apt-get, which is told to look at a package database of ours: it resolves dependencies and checks Debian's
# signatures, and never touches the packages of the host. The packages are unpacked, not installed: none of their
# scripts runs, so neither root nor a chroot is needed here, and mysql-server's postinst, which starts a server, cannot fail.
# The root brings its own libc, newer than that of many hosts. Its programs therefore run through its own loader:
#
#   eval "$(mysql-test/server.sh)"
#   "$MYSQL_CLONE_LOADER" --library-path "$MYSQL_CLONE_LIBRARY_PATH" "$MYSQL_CLONE_MYSQLD" --no-defaults \
#     --lc-messages-dir="$MYSQL_CLONE_SHARE_DIR" --character-sets-dir="$MYSQL_CLONE_SHARE_DIR/charsets" \
#     --plugin-dir="$MYSQL_CLONE_PLUGIN_DIR" --secure-file-priv= --datadir=DIR --initialize-insecure
#
# --secure-file-priv= is for the start: Debian's default is a directory that only an installed server has. So are --socket
# and --pid-file. mysqld run as root wants --user=root besides.
#
# Standard output is one assignment a line, quoted for a shell where a path demands it:
#   MYSQL_CLONE_ROOT          the root directory; empty for a server named by MYSQL_BASEDIR
#   MYSQL_CLONE_MYSQLD        mysqld
#   MYSQL_CLONE_LOADER        the loader to run it with; empty where the host runs it directly
#   MYSQL_CLONE_LIBRARY_PATH  the loader's library path; empty likewise
#   MYSQL_CLONE_PLUGIN_DIR    the server's plugins, the stock mysql_clone.so among them
#   MYSQL_CLONE_SHARE_DIR     holds english/errmsg.sys and charsets/
#   MYSQL_CLONE_VERSION       as SELECT VERSION() says it, such as 9.7.4-2
#
# Environment:
#   MYSQL_BASEDIR       an installed server to use instead; nothing is downloaded
#   MYSQL_CLONE_CACHE   where the root is kept; default ${XDG_CACHE_HOME:-$HOME/.cache}/mysql-clone
#   MYSQL_CLONE_MIRROR  a Debian mirror's address; default: the one that the host's apt uses, or else debootstrap's default

set -euo pipefail
shopt -s inherit_errexit

# Counts up when what this script puts into the root changes: a root of another number is made anew.
readonly FORMAT=1
# mysql-server holds the plugins. The rest of the first line is what every test needs, the second what mysql-test-run.pl
# calls, the last two the essential packages that apt takes for granted.
readonly PACKAGES=(
  mysql-server-core mysql-client-core mysql-server mysql-testsuite
  openssl lz4 unzip zip libjson-perl libio-socket-ssl-perl perl iproute2 psmisc lsof procps
  base-files base-passwd bash coreutils dash debianutils diffutils findutils grep gzip hostname libc-bin mawk
  perl-base sed tar util-linux
)
readonly NEEDED_MIB=2500

say() { printf 'server.sh: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

assign() {
  if [ -n "$2" ]; then printf '%s=%q\n' "$1" "$2"; else printf '%s=\n' "$1"; fi
}

print_server() {
  local name
  for name in ROOT MYSQLD LOADER LIBRARY_PATH PLUGIN_DIR SHARE_DIR VERSION; do
    assign "MYSQL_CLONE_$name" "$1"
    shift
  done
}

# The version in what `mysqld --version` printed.
version_of() { sed -n 's/.* Ver \([^ ]*\) .*/\1/p' <<<"$1"; }

first_directory() {
  local dir
  for dir; do
    if [ -d "$dir" ]; then
      printf '%s' "$dir"
      return
    fi
  done
  return 1
}

named_server() {
  local base=$1 mysqld='' candidate said plugins share
  for candidate in "$base/bin/mysqld" "$base/sbin/mysqld"; do
    if [ -x "$candidate" ]; then mysqld=$candidate; fi
  done
  [ -n "$mysqld" ] || die "MYSQL_BASEDIR=$base has neither bin/mysqld nor sbin/mysqld"
  said=$("$mysqld" --no-defaults --version 2>&1) || die "$mysqld does not run on this host: $said"
  plugins=$(first_directory "$base/lib/plugin" "$base/lib/mysql/plugin" "$base/lib64/mysql/plugin") ||
    die "MYSQL_BASEDIR=$base has no plugin directory (lib/plugin, lib/mysql/plugin or lib64/mysql/plugin)"
  share=$(first_directory "$base/share/english" "$base/share/mysql/english") ||
    die "MYSQL_BASEDIR=$base has no error messages (share/english or share/mysql/english)"
  print_server '' "$mysqld" '' '' "$plugins" "${share%/english}" "$(version_of "$said")"
}

# Prints the cached root's places; fails where there is no complete one.
cached_server() {
  local root=$1 format version loader libraries
  { read -r format && read -r version; } 2>/dev/null <"$root/.mysql-clone" || return 1
  [ "$format" = "$FORMAT" ] || return 1
  # Said outright, since a caller's `if` suspends set -e.
  loader=$(loader_of "$root") || return 1
  libraries=$(libraries_of "$root") || return 1
  print_server "$root" "$root/usr/sbin/mysqld" "$loader" "$libraries" \
    "$root/usr/lib/mysql/plugin" "$root/usr/share/mysql" "$version"
}

libraries_of() { first_directory "$1"/usr/lib/*-linux-gnu || die "no libraries in $1/usr/lib"; }

# The loader's name differs by processor: /lib64/ld-linux-x86-64.so.2, /lib/ld-linux-aarch64.so.1.
loader_of() {
  local loader
  for loader in "$1"/usr/lib64/ld-linux-* "$1"/usr/lib/ld-linux-*; do
    if [ -x "$loader" ]; then
      printf '%s' "$loader"
      return
    fi
  done
  die "no program loader in $1"
}

# Unpacks a package of the host's own distribution into a directory, without installing it.
unpack_host_package() {
  local package=$1 into=$2
  mkdir -p "$into"
  if ! (cd "$into" && apt-get -qq -o APT::Sandbox::User=root download "$package" >&2); then
    die "this host's apt cannot download $package; run 'apt-get update' as root and try again"
  fi
  dpkg-deb -x "$into/$package"_*.deb "$into"
}

# The Debian mirror among the host's package sources. Says nothing on a host that has none.
host_mirror() {
  # The format is apt's, not the shell's.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "Debian" && $3 !~ /-/ && !uri { uri = $1 } END { print uri }'
}

# The mirror that debootstrap would take.
default_mirror() {
  local script=/usr/sbin/debootstrap
  if ! [ -r "$script" ]; then
    unpack_host_package debootstrap "$1"
    script=$1/usr/sbin/debootstrap
  fi
  sed -n 's/^DEF_MIRROR="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$script" | head -n 1
}

mirror() {
  local found=${MYSQL_CLONE_MIRROR:-} work=$1 lists
  if [ -z "$found" ]; then found=$(host_mirror); fi
  if [ -z "$found" ]; then
    # A new machine has not looked at its package sources yet, and apt does not know whose they are.
    lists=(/var/lib/apt/lists/*Release)
    if ! [ -e "${lists[0]}" ]; then
      as_root apt-get -qq update >&2 || say "warning: apt-get update failed"
      found=$(host_mirror)
    fi
  fi
  if [ -z "$found" ]; then found=$(default_mirror "$work/debootstrap"); fi
  [ -n "$found" ] || die "no Debian mirror known; set MYSQL_CLONE_MIRROR to the address of one"
  [[ $found != *[[:space:]]* ]] || die "a mirror's address has no blanks: $found"
  printf '%s' "$found"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -n "$@"
  else
    say "neither root nor sudo for: $*"
    return 1
  fi
}

# Runs apt-get on the package database in $1 with what it says in a log.
private_apt() {
  local work=$1
  shift
  apt-get -q -y -c "$work/apt.conf" "$@" >>"$work/apt.log" 2>&1
}

unreachable() {
  sed 's/^/  /' >&2 < <(tail -n 12 "$1/apt.log")
  die "$2
  The packages come from the Debian mirror $3
  Set MYSQL_CLONE_MIRROR to a mirror that this host reaches and that carries sid,
  or MYSQL_BASEDIR to a MySQL server that is installed already."
}

download() {
  local work=$1 source=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg architecture
  architecture=$(dpkg --print-architecture)
  if ! [ -r "$keyring" ]; then
    unpack_host_package debian-archive-keyring "$work/keyring"
    keyring=$work/keyring$keyring
  fi
  mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
  : >"$work/state/status"
  printf 'deb [signed-by=%s] %s sid main\n' "$keyring" "$source" >"$work/sources.list"
  # This file is read after the host's configuration: its proxies stay in force, its packages and hooks do not.
  cat >"$work/apt.conf" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::State "$work/state/";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache/";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
  private_apt "$work" update || unreachable "$work" "Debian's package lists cannot be downloaded." "$source"
  private_apt "$work" install --download-only "${PACKAGES[@]}" ||
    unreachable "$work" "Debian's MySQL packages cannot be downloaded." "$source"
}

# What the packages' scripts would have set up, as far as the tests need it.
furnish() {
  local root=$1
  ln -s mawk "$root/usr/bin/awk"
  ln -s which.debianutils "$root/usr/bin/which"
  mkdir -p "$root/mtrvar"
  # mysql-test-run.pl wants a user that is not root, because mysqld does.
  { cat "$root/usr/share/base-passwd/passwd.master" && echo 'mysqltest:*:2999:2999::/mtrvar:/bin/bash'; } >"$root/etc/passwd"
  { cat "$root/usr/share/base-passwd/group.master" && echo 'mysqltest:*:2999:'; } >"$root/etc/group"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
  printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
}

make_root() {
  local cache=$1 root=$2 tool work source free deb said needed began=$SECONDS
  for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" >/dev/null ||
      die "$tool is missing: this needs Debian or a relative of it. Elsewhere set MYSQL_BASEDIR to an installed server."
  done
  # What interrupted runs left behind; the lock is ours.
  rm -rf "$cache"/mysql-root.partial.*
  free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$NEEDED_MIB" ] || die "$cache has $free MiB free and $NEEDED_MIB are needed; MYSQL_CLONE_CACHE can name another place"
  work=$(mktemp -d "$cache/mysql-root.partial.XXXXXX")
  # The path is to be expanded now: $work is gone when the trap runs.
  # shellcheck disable=SC2064
  trap "rm -rf $(printf %q "$work")" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  source=$(mirror "$work")
  say "downloading Debian sid's MySQL (about 430 MB)"
  download "$work" "$source"
  say "unpacking"
  mkdir "$work/root"
  for deb in "$work"/cache/archives/*.deb; do
    # Sid moves on: this says which packages the tests ran with.
    basename "$deb" .deb >>"$work/root/.packages"
    dpkg-deb -x "$deb" "$work/root" || die "cannot unpack $(basename "$deb")"
    rm "$deb"
  done
  furnish "$work/root"
  said=$("$(loader_of "$work/root")" --library-path "$(libraries_of "$work/root")" "$work/root/usr/sbin/mysqld" --no-defaults --version 2>&1) ||
    die "the unpacked mysqld does not run on this host: $said"
  for needed in usr/lib/mysql/plugin/mysql_clone.so usr/lib/mysql-test/mysql-test-run.pl usr/share/mysql/english/errmsg.sys; do
    [ -e "$work/root/$needed" ] || die "Debian's packages have no $needed any more"
  done
  printf '%s\n' "$FORMAT" "$(version_of "$said")" >"$work/root/.mysql-clone"
  rm -rf "$root"
  mv "$work/root" "$root"
  say "made $root in $((SECONDS - began)) s"
}

main() {
  local remake='' cache root
  case ${1-} in
  '') ;;
  --remake) remake=yes ;;
  *)
    sed -n '/^# Gets/,/^$/s/^# \{0,1\}//p' "$0" >&2
    [ "$1" = --help ] && exit 0
    exit 2
    ;;
  esac
  if [ -n "${MYSQL_BASEDIR:-}" ]; then
    named_server "${MYSQL_BASEDIR%/}"
    return
  fi
  cache=${MYSQL_CLONE_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither HOME nor MYSQL_CLONE_CACHE is set}/.cache}/mysql-clone}
  mkdir -p "$cache" || die "cannot write $cache; MYSQL_CLONE_CACHE can name another place"
  cache=$(cd "$cache" && pwd)
  root=$cache/mysql-root
  if [ -z "$remake" ] && cached_server "$root"; then return; fi
  exec {lock}>"$cache/mysql-root.lock"
  if ! flock -n "$lock"; then
    say "waiting for another run that makes the server"
    flock "$lock"
  fi
  # The other run may have made it meanwhile.
  if [ -n "$remake" ] || ! cached_server "$root" >/dev/null; then make_root "$cache" "$root"; fi
  cached_server "$root"
}

main "$@"
