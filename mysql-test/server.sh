#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Gets a real MySQL server for the tests and prints where it is.
#
#   mysql-test/server.sh                    MySQL 9.7: make it if it is not there yet, print its places
#   mysql-test/server.sh 8.0.36             another release; --list prints those there are
#   mysql-test/server.sh --suites 8.4.8     with mysql-test-run.pl and MySQL's suites, 380 MB more (9.7 always has them)
#   mysql-test/server.sh --remake [...]     throw the cached one away first
#
# MySQL 9.7 is Debian sid's, all others are Ubuntu's (table RELEASES), unpacked into a root directory of its own for each
# release. The packages are downloaded by the host's own apt-get, which is told to look at a package database of ours: it
# resolves dependencies and checks Debian's and Ubuntu's signatures, and never touches the packages of the host. The packages
# are unpacked, not installed: none of their scripts runs, so neither root nor a chroot is needed here, and mysql-server's
# postinst, which starts a server, cannot fail.
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
#   MYSQL_BASEDIR              an installed server to use instead of 9.7; nothing is downloaded
#   MYSQL_CLONE_CACHE          where the roots are kept; default ${XDG_CACHE_HOME:-$HOME/.cache}/mysql-clone
#   MYSQL_CLONE_MIRROR         a Debian mirror's address; default: the one that the host's apt uses, or else debootstrap's
#   MYSQL_CLONE_UBUNTU_MIRROR  an Ubuntu mirror's address; default: archive.ubuntu.com, for what it has no longer
#                              old-releases.ubuntu.com

set -euo pipefail
shopt -s inherit_errexit

# Counts up when what this script puts into the root changes: a root of another number is made anew.
readonly FORMAT=1
readonly DEFAULT_RELEASE=9.7
# Which archive has a release, and in which of its suites to look for it and for the libraries that it needs.
#
# A suite as it was released never changes, and neither does the -updates of a suite whose support has ended: those releases
# are named by their patch. 8.0, 8.4 and 9.7 are the newest of their series, whichever that is today. Focal's libc, 2.31, is
# too old for a plugin that was built on most hosts of today; its servers run on jammy's, 2.35.
readonly RELEASES='
8.0.19  ubuntu  focal jammy
8.0.28  ubuntu  jammy
8.0.36  ubuntu  noble
8.0.42  ubuntu  focal focal-updates jammy
8.0     ubuntu  noble noble-updates
8.4.4   ubuntu  plucky
8.4.6   ubuntu  questing
8.4.7   ubuntu  plucky plucky-updates
8.4.8   ubuntu  resolute
8.4.10  ubuntu  questing questing-updates
8.4     ubuntu  resolute resolute-updates
9.7     debian  sid
'
# What mysql-test-run.pl calls, and the essential packages that apt takes for granted.
readonly SUITES_PACKAGES=(
  openssl lz4 unzip zip libjson-perl libio-socket-ssl-perl perl iproute2 psmisc lsof procps
  base-files base-passwd bash coreutils dash debianutils diffutils findutils grep gzip hostname libc-bin mawk
  perl-base sed tar util-linux
)
readonly SUITES_MIB=2500 SERVER_MIB=500

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

# Prints the cached root's places; fails where there is no complete one, or one without suites where they are wanted.
cached_server() {
  local root=$1 suites=$2 format version loader libraries
  { read -r format && read -r version; } 2>/dev/null <"$root/.mysql-clone" || return 1
  [ "$format" = "$FORMAT" ] || return 1
  if [ -n "$suites" ] && ! [ -e "$root/usr/lib/mysql-test/mysql-test-run.pl" ]; then return 1; fi
  # Said outright, since a caller's `if` suspends set -e.
  loader=$(loader_of "$root") || return 1
  libraries=$(libraries_of "$root") || return 1
  print_server "$root" "$root/usr/sbin/mysqld" "$loader" "$libraries" \
    "$root/usr/lib/mysql/plugin" "$root/usr/share/mysql" "$version"
}

libraries_of() { first_directory "$1"/usr/lib/*-linux-gnu || die "no libraries in $1/usr/lib"; }

# The loader's name differs by processor: ld-linux-x86-64.so.2, ld-linux-aarch64.so.1. It lies beside libc; what programs name,
# in /lib64 or /lib, may be an absolute link to it.
loader_of() {
  local loader
  for loader in "$1"/usr/lib/*-linux-gnu/ld-linux-* "$1"/usr/lib64/ld-linux-* "$1"/usr/lib/ld-linux-*; do
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

debian_mirror() {
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
  The packages come from $3
  $4, or MYSQL_BASEDIR to a MySQL server that is installed already."
}

# Prints the keys that packages of an archive are signed with. Debian has Ubuntu's keys in a package of its own.
keyring_of() {
  local work=$1 archive=$2 keyring=/usr/share/keyrings/$2-archive-keyring.gpg
  if ! [ -r "$keyring" ]; then
    case $archive in
    debian) unpack_host_package debian-archive-keyring "$work/keyring" ;;
    ubuntu)
      mkdir "$work/keyring"
      use_debian "$work/keyring"
      (cd "$work/keyring" && private_apt "$work/keyring" download ubuntu-keyring) ||
        unreachable "$work/keyring" "Ubuntu's keys cannot be downloaded." "Debian's mirrors" "Set MYSQL_CLONE_MIRROR to one"
      dpkg-deb -x "$work/keyring"/ubuntu-keyring_*.deb "$work/keyring"
      ;;
    esac
    keyring=$work/keyring$keyring
  fi
  printf '%s' "$keyring"
}

# Makes a package database in $1 that knows the sources in the other arguments; fails where they cannot be read.
use_sources() {
  local work=$1 architecture
  shift
  architecture=$(dpkg --print-architecture)
  rm -rf "$work/state"
  mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
  : >"$work/state/status"
  printf '%s\n' "$@" >"$work/sources.list"
  # This file is read after the host's configuration: its proxies stay in force, its packages and hooks do not,
  # nor what it allows without a signature.
  cat >"$work/apt.conf" <<CONF
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
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
  private_apt "$work" update
}

use_debian() {
  local work=$1 source keyring
  source=$(debian_mirror "$work")
  keyring=$(keyring_of "$work" debian)
  use_sources "$work" "deb [signed-by=$keyring] $source sid main" ||
    unreachable "$work" "Debian's package lists cannot be downloaded." "the Debian mirror $source" \
      "Set MYSQL_CLONE_MIRROR to a mirror that this host reaches and that carries sid"
}

use_ubuntu() {
  local work=$1 suites=$2 components=main keyring source suite lines
  shift 2
  # The servers and their libraries are in main, MySQL's suites in universe, whose lists are ten times as long.
  if [ -n "$suites" ]; then components='main universe'; fi
  keyring=$(keyring_of "$work" ubuntu)
  for source in ${MYSQL_CLONE_UBUNTU_MIRROR:-http://archive.ubuntu.com/ubuntu http://old-releases.ubuntu.com/ubuntu}; do
    lines=()
    for suite; do lines+=("deb [signed-by=$keyring] $source $suite $components"); done
    if use_sources "$work" "${lines[@]}"; then return; fi
  done
  unreachable "$work" "Ubuntu's package lists cannot be downloaded." "the Ubuntu mirror $source" \
    "Set MYSQL_CLONE_UBUNTU_MIRROR to a mirror that this host reaches and that carries $*"
}

# Downloads a release with all that it needs to $work/cache/archives. The other arguments are its line of RELEASES.
download() {
  local work=$1 suites=$2 release=$3 archive=$4 series='' package packages=()
  shift 4
  # Ubuntu has the series in the name, as long as it had more than one.
  if [[ $release = 8.0* ]]; then series=-8.0; fi
  case $archive in
  debian)
    use_debian "$work"
    # Debian's mysql-server holds the plugins.
    packages=(mysql-server-core mysql-server)
    ;;
  ubuntu)
    use_ubuntu "$work" "$suites" "$@"
    packages=("mysql-server-core$series")
    ;;
  esac
  if [ -n "$suites" ]; then packages+=("mysql-client-core$series" "mysql-server$series" "mysql-testsuite$series"); fi
  # Of MySQL's own packages this release, of the libraries the newest.
  readarray -t packages < <(printf "%s=$release*\n" "${packages[@]}" | sort -u)
  if [ -n "$suites" ]; then packages+=("${SUITES_PACKAGES[@]}"); fi
  private_apt "$work" install --download-only "${packages[@]}" ||
    unreachable "$work" "MySQL $release cannot be downloaded." "$(cut -d ' ' -f 3- "$work/sources.list" | paste -sd ,)" \
      "If it is not there any more, RELEASES in this script names the wrong place; else set MYSQL_CLONE_MIRROR"
}

# Since Debian 12 and Ubuntu 24.04 these are links in a package; before, an installer made them.
merge_usr() {
  local root=$1 directory
  for directory in bin sbin lib lib64; do
    mkdir -p "$root/usr/$directory"
    ln -s "usr/$directory" "$root/$directory"
  done
}

# What the packages' scripts would have set up, as far as mysql-test-run.pl needs it.
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

# Makes the root of a release. The arguments from the fourth on are its line of RELEASES.
make_root() {
  local cache=$1 root=$2 suites=$3 release=$4 tool work needs size free deb said version needed began=$SECONDS
  shift 3
  for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" >/dev/null ||
      die "$tool is missing: this needs Debian or a relative of it. Elsewhere set MYSQL_BASEDIR to an installed server."
  done
  # What interrupted runs left behind; the lock is ours.
  rm -rf "$root".partial.*
  free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
  if [ -n "$suites" ]; then needs=$SUITES_MIB size=430; else needs=$SERVER_MIB size=60; fi
  [ "$free" -ge "$needs" ] || die "$cache has $free MiB free and $needs are needed; MYSQL_CLONE_CACHE can name another place"
  work=$(mktemp -d "$root.partial.XXXXXX")
  # The path is to be expanded now: $work is gone when the trap runs.
  # shellcheck disable=SC2064
  trap "rm -rf $(printf %q "$work")" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  say "downloading MySQL $release from ${2^}'s ${*:3}, about ${size} MB"
  download "$work" "$suites" "$@"
  say "unpacking"
  mkdir "$work/root"
  merge_usr "$work/root"
  for deb in "$work"/cache/archives/*.deb; do
    # Suites move on: this says which packages the tests ran with.
    basename "$deb" .deb >>"$work/root/.packages"
    # dpkg-deb -x would make a directory of a link that merge_usr made.
    dpkg-deb --fsys-tarfile "$deb" | tar -xp --keep-directory-symlink -C "$work/root" || die "cannot unpack $(basename "$deb")"
    rm "$deb"
  done
  # Old programs such as su would run as root for every user of this host.
  chmod -R ug-s "$work/root"
  if [ -n "$suites" ]; then furnish "$work/root"; fi
  said=$("$(loader_of "$work/root")" --library-path "$(libraries_of "$work/root")" "$work/root/usr/sbin/mysqld" --no-defaults --version 2>&1) ||
    die "the unpacked mysqld does not run on this host: $said"
  version=$(version_of "$said")
  [[ $version = "$release"[.-]* ]] || die "${2^} ${*:3} has MySQL $version, not $release"
  for needed in usr/lib/mysql/plugin/mysql_clone.so usr/share/mysql/english/errmsg.sys \
    ${suites:+usr/lib/mysql-test/mysql-test-run.pl}; do
    [ -e "$work/root/$needed" ] || die "${2^}'s packages have no $needed any more"
  done
  printf '%s\n' "$FORMAT" "$version" >"$work/root/.mysql-clone"
  rm -rf "$root"
  mv "$work/root" "$root"
  say "made $root in $((SECONDS - began)) s"
}

main() {
  local remake='' suites='' release='' cache root line
  while [ $# -gt 0 ]; do
    case $1 in
    --remake) remake=yes ;;
    --suites) suites=yes ;;
    --list)
      awk 'NF { print $1 }' <<<"$RELEASES"
      return
      ;;
    [0-9]*) release=$1 ;;
    *)
      sed -n '/^# Gets/,/^# MySQL 9.7 is/{/^# MySQL 9.7 is/d;s/^# \{0,1\}//p}' "$0" >&2
      [ "$1" = --help ] && exit 0
      exit 2
      ;;
    esac
    shift
  done
  if [ -z "$release" ] && [ -n "${MYSQL_BASEDIR:-}" ]; then
    named_server "${MYSQL_BASEDIR%/}"
    return
  fi
  release=${release:-$DEFAULT_RELEASE}
  line=$(awk -v release="$release" '$1 == release' <<<"$RELEASES")
  [ -n "$line" ] || die "MySQL $release is not among those that can be had: $(awk 'NF { print $1 }' <<<"$RELEASES" | paste -sd ' ')"
  cache=${MYSQL_CLONE_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither HOME nor MYSQL_CLONE_CACHE is set}/.cache}/mysql-clone}
  # Nobody else has any business with the programs there.
  (umask 077 && mkdir -p "$cache") || die "cannot write $cache; MYSQL_CLONE_CACHE can name another place"
  if [ -z "${MYSQL_CLONE_CACHE:-}" ]; then chmod 0700 "$cache"; fi
  cache=$(cd "$cache" && pwd)
  root=$cache/mysql-root-$release
  if [ "$release" = "$DEFAULT_RELEASE" ]; then
    root=$cache/mysql-root
    suites=yes
  fi
  if [ -z "$remake" ] && cached_server "$root" "$suites"; then return; fi
  exec {lock}>"$root.lock"
  if ! flock -n "$lock"; then
    say "waiting for another run that makes the server"
    flock "$lock"
  fi
  # The other run may have made it meanwhile.
  if [ -n "$remake" ] || ! cached_server "$root" "$suites" >/dev/null; then
    # The line's words are words.
    # shellcheck disable=SC2086
    make_root "$cache" "$root" "$suites" $line
  fi
  cached_server "$root" "$suites"
}

# packaging/portable.sh wants the functions only.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi
