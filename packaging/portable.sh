#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the plugin for hosts with an older libc than this one: for every distribution since about 2015, among them
# Red Hat 8 and Ubuntu 20.04, whose MySQL 8.0 does not load what was linked on a newer one.
#
#   packaging/portable.sh     makes target/portable/libmysql_clone.so
#
# It is the same source and the same compiler. Only what the library is linked with differs: the libc of Ubuntu 18.04, which
# is downloaded, checked and unpacked as server.sh does with servers. The file loads into servers on newer hosts as well.

set -euo pipefail
shopt -s inherit_errexit

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# For apt: use_ubuntu, private_apt, merge_usr.
# shellcheck source=mysql-test/server.sh
source "$here/mysql-test/server.sh"

target=${CARGO_TARGET_DIR:-$here/target}
work=$target/portable
sysroot=$work/sysroot

if ! [ -e "$sysroot/usr/lib/libc.ok" ]; then
  rm -rf "$work"
  mkdir -p "$sysroot"
  merge_usr "$sysroot"
  use_ubuntu "$work" '' bionic
  (cd "$work" && private_apt "$work" download libc6 libc6-dev) ||
    die "the libc of Ubuntu 18.04 cannot be downloaded: $(tail -n 3 "$work/apt.log")"
  for deb in "$work"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -xp --keep-directory-symlink -C "$sysroot"
  done
  chmod -R ug-s "$sysroot"
  : >"$sysroot/usr/lib/libc.ok"
fi

libraries=$(libraries_of "$sysroot")
host=$(rustc -vV | sed -n 's/^host: //p')
# The compiler looks for libraries in its own places first, unless it is told these.
export RUSTFLAGS="-C link-arg=--sysroot=$sysroot -C link-arg=-L$libraries"
cargo build --locked --release --lib --package mysql-clone --manifest-path "$here/Cargo.toml" --target "$host" --target-dir "$work/build"
cp "$work/build/$host/release/libmysql_clone.so" "$work/"
needs=$(objdump -T "$work/libmysql_clone.so" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
printf '%s needs %s or later\n' "$work/libmysql_clone.so" "$needs"
