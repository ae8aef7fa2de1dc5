# SPDX-License-Identifier: GPL-2.0-only
#
# `make` lists the targets. Everything here can also be run by hand: these are names for commands.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
PLUGIN := $(abspath $(TARGET))/release/libmysql_clone.so
PROGRAM := $(abspath $(TARGET))/release/mysql-clone
STEP := .ci/step run
# The tests that start servers. Everything else is a unit test.
SERVER_TESTS := kind(test) & (package(mysql-clone) | package(clone-testkit) | package(clone-cli))
# The releases that tests run on in `make test`, besides 9.7. MYSQL_CLONE_SERVERS=none leaves out the tests on them,
# which have the release in their names.
COMPAT_SERVERS := 8.0.19 8.0.36 8.0.42 8.0 8.4.4 8.4
COMPAT_TESTS := package(mysql-clone) & binary(compat)
ifeq ($(MYSQL_CLONE_SERVERS),none)
LEFT_OUT := - (($(COMPAT_TESTS)) | test(/8_[04]/))
endif
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 20

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## build the plugin: target/release/libmysql_clone.so
	$(CARGO) build --locked --release --lib

.PHONY: program
program: ## build the program: target/release/mysql-clone
	$(CARGO) build --locked --release -p clone-cli

.PHONY: portable
portable: ## build the plugin for hosts with an older libc: target/portable/libmysql_clone.so
	packaging/portable.sh

.PHONY: man
man: program ## manual pages and completions of the program: target/release/manual
	rm -rf $(TARGET)/release/manual
	$(TARGET)/release/mysql-clone manual $(TARGET)/release/manual

.PHONY: packages
packages: build man ## .deb and .rpm of plugin and program: target/packages
	packaging/packages.sh

.PHONY: server
server: ## get the MySQL server that the tests run, unless it is there
	mysql-test/server.sh

.PHONY: servers
servers: ## get the older MySQL servers that the compatibility tests run, unless they are there
	@for release in $(COMPAT_SERVERS); do \
	  mysql-test/server.sh $$release | grep '^MYSQL_CLONE_VERSION' || { \
	    echo "MySQL $$release cannot be had. To go on without old servers: MYSQL_CLONE_SERVERS=none" >&2; exit 1; }; \
	done

.PHONY: demo
demo: build program server ## clone a running server in four ways before your eyes
	MYSQL_CLONE_SO=$(PLUGIN) MYSQL_CLONE_PROGRAM=$(PROGRAM) $(CARGO) run --release -p clone-testkit --example demo

.PHONY: demo-group
demo-group: build server ## three members of Group Replication, the third provisioned by a clone
	MYSQL_CLONE_SO=$(PLUGIN) $(CARGO) run --release -p clone-testkit --example group

.PHONY: setup
setup: ## install what building and testing need (apt, cargo)
	mysql-test/setup.sh

.PHONY: test
test: ## everything that continuous integration runs
	@.ci/step start
	@$(STEP) setup $(MAKE) --no-print-directory setup
	@$(STEP) dependencies $(CARGO) fetch --locked
	@$(STEP) shell $(MAKE) --no-print-directory shell
	@$(STEP) comments .ci/comments
	@$(STEP) map .ci/map
	@$(STEP) format $(CARGO) fmt --all --check
	@$(STEP) clippy $(CARGO) clippy --workspace --all-targets -- -D warnings
	@$(STEP) doc $(MAKE) --no-print-directory doc
	@$(STEP) deny $(MAKE) --no-print-directory deny
	@$(STEP) bindings $(MAKE) --no-print-directory bindings
	@$(STEP) unit $(MAKE) --no-print-directory unit
	@$(STEP) asan $(MAKE) --no-print-directory asan
	@$(STEP) server $(MAKE) --no-print-directory server
ifneq ($(MYSQL_CLONE_SERVERS),none)
	@$(STEP) servers $(MAKE) --no-print-directory servers
endif
	@$(STEP) build $(MAKE) --no-print-directory build
	@$(STEP) integration $(MAKE) --no-print-directory integration
ifndef MYSQL_BASEDIR
	@$(STEP) mtr $(MAKE) --no-print-directory mtr
else
	@echo "=== mtr: left out, since mysql-test-run.pl needs Debian's server and MYSQL_BASEDIR names another"
endif
ifeq ($(MYSQL_CLONE_SERVERS),none)
	@echo "=== NOT RUN: the tests on MySQL 8.0 and 8.4, since MYSQL_CLONE_SERVERS is none"
endif
	@.ci/step summary

.PHONY: unit
unit: ## the tests that need no server
	$(CARGO) nextest run --workspace -E 'not ($(SERVER_TESTS))'
	$(CARGO) test --workspace --doc

.PHONY: integration
integration: build program server ## our tests against real servers
	MYSQL_CLONE_SO=$(PLUGIN) MYSQL_CLONE_PROGRAM=$(PROGRAM) $(CARGO) nextest run --workspace -E '($(SERVER_TESTS)) $(LEFT_OUT)'

.PHONY: compat
compat: build program ## every role on every release of MySQL that can be had, 12 of them
	for release in $$(mysql-test/server.sh --list); do mysql-test/server.sh $$release; done
	MYSQL_CLONE_SO=$(PLUGIN) MYSQL_CLONE_PROGRAM=$(PROGRAM) $(CARGO) nextest run --workspace --run-ignored all \
	  -E '(($(COMPAT_TESTS)) | (($(SERVER_TESTS)) & test(/8_[04]/))) - test(a_server_of_ones_own)'

.PHONY: mtr
mtr: build ## MySQL's own clone, replication and Group Replication tests, 49 of them, with our plugin
	mysql-test/mtr.sh --plugin $(PLUGIN) --list all

.PHONY: mtr-core
mtr-core: build ## the 7 of them that say most in a minute
	mysql-test/mtr.sh --plugin $(PLUGIN) --list core

# A test of clone-io asks for more memory than there can be, and wants to be told so. The fake server of the plugin's
# tests is leaked on purpose. programs_are_told_apart looks for malloc in libc, and
# AddressSanitizer has a malloc of its own.
.PHONY: asan
asan: ## AddressSanitizer: the parsers, the crate with system calls, and the plugin's unit tests
	export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=allocator_may_return_null=1; \
	$(CARGO) test --locked --target $(HOST) --target-dir $(TARGET)/asan -p clone-io -p clone-protocol --lib --tests; \
	ASAN_OPTIONS=detect_leaks=0 $(CARGO) test --locked --target $(HOST) --target-dir $(TARGET)/asan -p mysql-clone --lib -- \
	  --skip programs_are_told_apart

.PHONY: doc
doc: ## the documentation of the code, without warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

.PHONY: deny
deny: ## licences, sources and duplicates among the dependencies
	$(CARGO) deny --workspace check bans licenses sources

.PHONY: advisories
advisories: ## known holes in the dependencies; reads a database on GitHub, so it is no part of `make test`
	$(CARGO) deny --workspace check advisories

.PHONY: bindings
bindings: ## write the bindings to the server anew, and fail if they differ from those committed
	$(CARGO) build --features regenerate-bindings
	git diff --exit-code src/server/abi

.PHONY: shell
shell: ## shellcheck on all scripts, and the test of .ci/step
	shellcheck -x .ci/comments .ci/map .ci/run .ci/step .ci/test-step mysql-test/*.sh packaging/*.sh packaging/nightly/mysql-clone-nightly
	.ci/test-step

.PHONY: prose
prose: ## lines of comment that are too long, and folders that docs/design.md does not name
	.ci/comments
	.ci/map

.PHONY: fuzz-smoke
fuzz-smoke: ## every fuzz target for some seconds (FUZZ_SECONDS)
	mysql-test/setup.sh --fuzz
	targets=$$($(CARGO) fuzz list); \
	for target in $${targets:?no fuzz targets}; do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); \
	done

.PHONY: soak
soak: build server ## clones of all forms with faults by chance, under load, for SOAK_MINUTES (20)
	MYSQL_CLONE_SO=$(PLUGIN) $(CARGO) test --test matrix -- \
	  --ignored --nocapture --exact memory_descriptors_and_threads_stay_flat

.PHONY: bench
bench: build server ## stock and ours beside each other: docs/performance.md, BENCH_* set sizes (a quarter of an hour or more)
	$(CARGO) build --release -p clone-testkit --bin bench -p clone-cli --bin mysql-clone
	MYSQL_CLONE_SO=$(PLUGIN) BENCH_OUT=$${BENCH_OUT:-docs} BENCH_TOOL=$(TARGET)/release/mysql-clone $(TARGET)/release/bench

.PHONY: clean
clean: ## remove what was built here; the server stays in its cache
	$(CARGO) clean
