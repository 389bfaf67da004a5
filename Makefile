# Everything a machine needs to build, test and show stsfs. `make` alone lists the targets.
#
# Virtual environments carry stamp files: a repeated run does nothing until pyproject.toml changes.
# Variables: PYTHON (interpreter for the virtual environments), ARGS (more arguments for `demo`,
# the tests, `soak` and `bench`).

SHELL = /bin/sh
.SHELLFLAGS = -eu -c
.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # one package manager at a time

VENV = .venv
BIN = $(VENV)/bin
SYNAPSECLIENT_VENV = .venv-synapseclient
PYTHON =
ARGS =

# Administrators' programs (nginx, ceph) are not on every user's path.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

APT_BUILD = fuse3 libfuse3-dev pkg-config gcc libc6-dev python3 python3-dev python3-venv
DNF_BUILD = fuse3 fuse3-devel pkgconf-pkg-config gcc python3.11 python3.11-devel python3.11-pip
TEST_TOOLS = samtools bcftools tabix rsync git faketime
STRICT_TOOLS = ceph-mon ceph-osd radosgw ceph uuidgen
STRICT_PACKAGES = ceph-mon ceph-osd radosgw ceph-common uuid-runtime
SYSTEMD_TOOLS = debootstrap systemd-nspawn
SYSTEMD_PACKAGES = debootstrap systemd-container
BENCH_TOOLS = nginx fio s3fs rclone
BENCH_PACKAGES = nginx-light fio s3fs rclone

# Shell: put an interpreter that can make a virtual environment and build against itself in $python.
find_python = python=; for candidate in $(PYTHON) python3 /usr/bin/python3 python3.13 python3.12 \
	python3.11; do if $$candidate -c '$(usable_python)' 2>/dev/null; \
	then python=$$candidate; break; fi; done
usable_python = import ensurepip, os, sys, sysconfig, venv; \
	header = os.path.join(sysconfig.get_path("include"), "Python.h"); \
	sys.exit(sys.version_info < (3, 11) or not os.path.exists(header))

# Shell: succeed if every one of the programs $(1) is here.
have = for tool in $(1); do command -v $$tool >/dev/null || exit 1; done

# Shell: install the Debian packages $(1), quietly but for errors.
apt_install = echo "Installing $(1)" && $(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	-o Dpkg::Use-Pty=0 $(1) >/dev/null

# Shell: install $(1) where there is apt-get; elsewhere say that $(2).
apt_only = if command -v apt-get >/dev/null; then $(call apt_install,$(1)); \
	else echo "No apt-get here: $(2)" >&2; fi

# Shell: make the virtual environment $(1) unless it works, then install $(2) into it.
install_into = $(find_python); \
	if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; \
	then echo "Creating $(1)"; "$$python" -m venv --clear $(1); fi; \
	echo "Installing $(2) into $(1)"; \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: setup setup-demo setup-test
setup: $(VENV)/.setup ## system packages (fuse3, its headers, a compiler, Python) and .venv with stsfs
setup-demo: $(VENV)/.setup-demo ## the same, with what the demo needs
setup-test: $(VENV)/.setup-test test-tools $(SYNAPSECLIENT_VENV)/.setup ## the same, with what the tests need

.PHONY: demo
demo: setup-demo ## a local S3 and a local Synapse, mounted and read: needs no account
	@$(BIN)/stsfs demo $(ARGS)

.PHONY: test check test-strict test-systemd soak large-write bench format
test: setup-test check ## checks and tests
	@$(BIN)/python -m pytest -m "not strict and not systemd" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.setup-test ## format, lint, types, layering, who owns the state of a written file
	@$(BIN)/ruff format --check --quiet stsfs tests || \
		{ echo "Run 'make format'." >&2; exit 1; }
	@$(BIN)/ruff check --quiet stsfs tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q --no-header -p no:cacheprovider tests/test_house.py tests/test_house_files.py tests/test_writer_states.py >/dev/null || \
		$(BIN)/python -m pytest -q tests/test_house.py tests/test_house_files.py tests/test_writer_states.py

test-strict: setup-test strict-tools ## tests against a real radosgw, which is started and stopped
	@$(BIN)/python -m pytest -m strict tests/strict $(ARGS)

test-systemd: setup-test systemd-tools ## the units under a real systemd, in a container; needs root
	@$(SUDO) $(BIN)/python -m pytest -m systemd tests/systemd $(ARGS)

soak: setup-test ## twenty minutes of readers and writers while everything around the mounts fails
	@$(BIN)/python -m tests.soak $(ARGS)

large-write: setup-test ## 5 GiB written through a mount, read back after a remount
	@$(BIN)/python -m tests.soak.large_write $(ARGS)

bench: setup-test bench-tools ## compare speed with the peers that are installed
	@$(BIN)/python -m tests.bench $(ARGS)

format: $(VENV)/.setup-test ## format the code, repair what ruff can repair
	@$(BIN)/ruff check --fix --quiet stsfs tests
	@$(BIN)/ruff format stsfs tests

.PHONY: clean
clean: ## remove the virtual environments and everything generated
	@rm -rf $(VENV) $(SYNAPSECLIENT_VENV) build dist *.egg-info \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find stsfs tests -name __pycache__ -type d -prune -exec rm -rf {} +

# What the machine must have. These run every time and are fast when nothing is missing.

.PHONY: system test-tools strict-tools systemd-tools bench-tools
system:
	@if ( $(call have,fusermount3 pkg-config gcc) ) && pkg-config --exists fuse3 && \
		{ $(find_python); [ -n "$$python" ]; }; then exit 0; fi; \
	if command -v apt-get >/dev/null; then $(call apt_install,$(APT_BUILD)); \
	elif command -v dnf >/dev/null; then \
		echo "Installing $(DNF_BUILD)"; $(SUDO) dnf install -q -y $(DNF_BUILD) >/dev/null; \
	else echo "No apt-get or dnf here: install fuse3 and its headers, pkg-config, gcc," \
		"Python >= 3.11 with headers" >&2; exit 1; fi; \
	$(find_python); [ -n "$$python" ] || { echo "No Python >= 3.11 with venv and headers found" \
		"(PYTHON=... names one)" >&2; exit 1; }

test-tools:
	@( $(call have,$(TEST_TOOLS)) ) || \
		{ $(call apt_only,$(TEST_TOOLS),tests of missing programs are skipped); }

strict-tools:
	@( $(call have,$(STRICT_TOOLS)) ) || \
		{ $(call apt_only,$(STRICT_PACKAGES),the strict tests need $(STRICT_PACKAGES)); \
		$(call have,$(STRICT_TOOLS)); }

systemd-tools:
	@( $(call have,$(SYSTEMD_TOOLS)) ) || \
		{ $(call apt_only,$(SYSTEMD_PACKAGES),these tests need $(SYSTEMD_PACKAGES)); \
		$(call have,$(SYSTEMD_TOOLS)); }

bench-tools:
	@for pair in $(join $(BENCH_TOOLS:=:),$(BENCH_PACKAGES)); do \
		command -v $${pair%%:*} >/dev/null || \
		( $(call apt_only,$${pair##*:},the benchmark goes without $${pair%%:*}) ) || \
		echo "The benchmark goes without $${pair%%:*}" >&2; done

# Virtual environments. A larger installation stands for the smaller ones.

$(VENV)/.setup: pyproject.toml | system
	@$(call install_into,$(VENV),-e .)
	@touch $@

$(VENV)/.setup-demo: pyproject.toml | system
	@$(call install_into,$(VENV),-e '.[demo]')
	@touch $@ $(VENV)/.setup

$(VENV)/.setup-test: pyproject.toml | system
	@$(call install_into,$(VENV),-e '.[test]')
	@touch $@ $(VENV)/.setup-demo $(VENV)/.setup

# Apart from the rest, because its pins would hold back ours.
$(SYNAPSECLIENT_VENV)/.setup: | system
	@$(call install_into,$(SYNAPSECLIENT_VENV),synapseclient)
	@touch $@
