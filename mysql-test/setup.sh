#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Installs what building and testing need on a machine that has Rust and apt, and says nothing where all of it is there.
#
#   mysql-test/setup.sh          what `make test` needs
#   mysql-test/setup.sh --fuzz   cargo-fuzz besides, for `make fuzz-smoke`
#
# Debian's packages take root or sudo. cargo-nextest and cargo-deny go to cargo's own bin directory, and
# are compiled there: about 3 minutes each on two cores, once for a machine. Their versions are named
# below; a version that is there already stays. The MySQL server is server.sh's business.

set -euo pipefail
shopt -s inherit_errexit

say() { printf 'setup.sh: %s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# What each is for:
#   g++             the C++ shim, and crates with C in them
#   iproute2        ip and tc: two machines for tests, in network namespaces
#   libclang-dev    bindgen, which `make bindings` runs
#   librocksdb-dev  the RocksDB that tests and tools of the MyRocks clone are linked with
#   openssl         certificates of forms that rcgen does not make, for tests
#   procps          pkill, with which mtr.sh ends a run under sudo
#   util-linux      flock, mount, unshare
#   xfsprogs        mkfs.xfs: a file system for tests whose files can share blocks
# and shellcheck for the shell scripts.
PACKAGES=(g++ git iproute2 libclang-dev librocksdb-dev openssl procps shellcheck util-linux xfsprogs)

readonly NEXTEST_VERSION=0.9.143 DENY_VERSION=0.20.2 FUZZ_VERSION=0.13.2

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this takes root or sudo: $*"
  fi
}

debian_packages() {
  local package missing=()
  for package in "${PACKAGES[@]}"; do
    # The format is dpkg's, not the shell's.
    # shellcheck disable=SC2016
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  if [ "${#missing[@]}" = 0 ]; then return; fi
  say "installing ${missing[*]}"
  # An update that fails in part, for a source that these packages are not from, is no matter.
  as_root apt-get -qq update >&2 || say "warning: apt-get update failed"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >&2 ||
    die "apt-get cannot install ${missing[*]}"
}

rust_component() {
  local component=$1 command=$2
  if cargo "$command" --version >/dev/null 2>&1; then return; fi
  command -v rustup >/dev/null || die "cargo $command is missing; install Rust's component $component"
  say "adding Rust's component $component"
  rustup component add "$component" >&2
}

cargo_tool() {
  local tool=$1 version=$2 began=$SECONDS
  if cargo "${tool#cargo-}" --version >/dev/null 2>&1; then return; fi
  say "compiling $tool $version, which takes minutes"
  # Outside this workspace: its target directory, lints and lock file are not the tool's.
  (cd / && unset CARGO_TARGET_DIR && cargo install --quiet --locked --version "$version" "$tool") >&2 || die "cannot install $tool"
  say "installed $tool in $((SECONDS - began)) s"
}

fuzz=''
case ${1-} in
'') ;;
--fuzz) fuzz=yes ;;
*) die "usage: setup.sh [--fuzz]" ;;
esac

command -v cargo >/dev/null || die "cargo is missing; install Rust first"
if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  debian_packages
else
  say "warning: no apt here; install yourself what these Debian packages hold: ${PACKAGES[*]}"
fi
rust_component rustfmt fmt
rust_component clippy clippy
cargo_tool cargo-nextest "$NEXTEST_VERSION"
cargo_tool cargo-deny "$DENY_VERSION"
if [ -n "$fuzz" ]; then cargo_tool cargo-fuzz "$FUZZ_VERSION"; fi
