#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Makes packages of the plugin and of the program, from what `make build man` has built:
#
#   packaging/packages.sh     makes target/packages/*.deb and *.rpm
#
# cargo-deb and cargo-generate-rpm are compiled if they are missing, which takes minutes, once for a machine. They are no part of
# `make setup`, since no test needs them. The plugin in the packages needs the libc of this machine or a newer one: build on the
# oldest distribution that you have. The files keep their line tables, so that the backtrace of a defect names lines.

set -euo pipefail
shopt -s inherit_errexit

readonly DEB_VERSION=3.8.0 RPM_VERSION=0.21.1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$here"
target=${CARGO_TARGET_DIR:-$here/target}
out=$target/packages

cargo_tool() {
  local tool=$1 version=$2
  if cargo "${tool#cargo-}" --version >/dev/null 2>&1; then return; fi
  printf 'packages.sh: compiling %s %s, which takes minutes\n' "$tool" "$version" >&2
  (cd / && unset CARGO_TARGET_DIR && cargo install --quiet --locked --version "$version" "$tool")
}

cargo_tool cargo-deb "$DEB_VERSION"
cargo_tool cargo-generate-rpm "$RPM_VERSION"

rm -rf "$out"
mkdir -p "$out"
for package in mysql-clone clone-cli; do
  cargo deb --quiet --no-build --package "$package" --output "$out/"
done
for folder in . crates/clone-cli; do
  cargo generate-rpm --package "$folder" --target-dir "$target" --auto-req builtin --output "$out/"
done
ls -l "$out"
