# SPDX-License-Identifier: GPL-2.0-only
#
# `make` lists the targets. Everything here can also be run by hand: these are names for commands.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PLUGIN := $(abspath $(TARGET))/release/libmysql_clone.so
STEP := .ci/step run
# The tests that start servers. Everything else is a unit test.
SERVER_TESTS := kind(test) & (package(mysql-clone) | package(clone-testkit))
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 20

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## build the plugin: target/release/libmysql_clone.so
	$(CARGO) build --release --lib

.PHONY: server
server: ## get the MySQL server that the tests run, unless it is there
	mysql-test/server.sh

.PHONY: demo
demo: build server ## clone a running server to a second one before your eyes
	MYSQL_CLONE_SO=$(PLUGIN) $(CARGO) run --release -p clone-testkit --example demo

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
	@$(STEP) format $(CARGO) fmt --all --check
	@$(STEP) clippy $(CARGO) clippy --workspace --all-targets -- -D warnings
	@$(STEP) doc $(MAKE) --no-print-directory doc
	@$(STEP) deny $(MAKE) --no-print-directory deny
	@$(STEP) bindings $(MAKE) --no-print-directory bindings
	@$(STEP) unit $(MAKE) --no-print-directory unit
	@$(STEP) server $(MAKE) --no-print-directory server
	@$(STEP) build $(MAKE) --no-print-directory build
	@$(STEP) integration $(MAKE) --no-print-directory integration
ifndef MYSQL_BASEDIR
	@$(STEP) mtr $(MAKE) --no-print-directory mtr
else
	@echo "=== mtr: left out, since mysql-test-run.pl needs Debian's server and MYSQL_BASEDIR names another"
endif
	@.ci/step summary

.PHONY: unit
unit: ## the tests that need no server
	$(CARGO) nextest run --workspace -E 'not ($(SERVER_TESTS))'
	$(CARGO) test --workspace --doc

.PHONY: integration
integration: build server ## our tests against real servers
	MYSQL_CLONE_SO=$(PLUGIN) $(CARGO) nextest run --workspace -E '$(SERVER_TESTS)'

.PHONY: mtr
mtr: build ## MySQL's own clone, replication and Group Replication tests, 50 of them, with our plugin
	mysql-test/mtr.sh --plugin $(PLUGIN) --retry 2 --list all

.PHONY: mtr-core
mtr-core: build ## the 7 of them that say most in a minute
	mysql-test/mtr.sh --plugin $(PLUGIN) --list core

.PHONY: doc
doc: ## the documentation of the code, without warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

.PHONY: deny
deny: ## licences, sources and duplicates among the dependencies
	$(CARGO) deny --workspace check bans licenses sources

.PHONY: bindings
bindings: ## write the bindings to the server anew, and fail if they differ from those committed
	$(CARGO) build --features regenerate-bindings
	git diff --exit-code src/server/abi

.PHONY: shell
shell: ## shellcheck on all scripts
	shellcheck .ci/run .ci/step mysql-test/*.sh

.PHONY: fuzz-smoke
fuzz-smoke: ## every fuzz target for some seconds (FUZZ_SECONDS)
	mysql-test/setup.sh --fuzz
	targets=$$($(CARGO) fuzz list); \
	for target in $${targets:?no fuzz targets}; do \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); \
	done

.PHONY: clean
clean: ## remove what was built here; the server stays in its cache
	$(CARGO) clean
