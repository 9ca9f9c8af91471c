# The commands of this project: `make help`. Everything they make is in .venv/, build/, runs/ and, if there is a Docker
# engine, in an image. Each works in a fresh clone.

PYTHON ?= python3
# docker or local; if it is empty, docker where an engine answers, else local.
BACKEND ?=
# More for `docker build`, like `--network host` or `--no-cache`.
DOCKER_BUILD_FLAGS ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
IMAGE := $(or $(CHITCP_IMAGE),chitcp:$(VERSION))
BIN := .venv/bin
ENGINE := docker info >/dev/null 2>&1
# A registry that can't be reached may keep a build waiting for ever.
TIMEOUT := $(shell command -v timeout >/dev/null && echo timeout 900)
BUILD := $(TIMEOUT) docker build $(DOCKER_BUILD_FLAGS) -t $(IMAGE)

.DEFAULT_GOAL := help
.PHONY: help demo test bench compiled bench-compiled netem c c-checks c-clang c-asan c-tsan c-valgrind coverage fuzz mutants grading-mutants image protocol clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/installed ## carry a file of 5 MiB between two hosts over our own TCP; BACKEND=local or docker to choose
	@backend=$(BACKEND); \
	if [ "$$backend" = local ]; then :; \
	elif $(ENGINE); then \
	    if ! $(MAKE) --no-print-directory image; then \
	        [ "$$backend" != docker ] || exit 1; \
	        echo "==> So this demo runs on the local backend."; backend=local; \
	    fi; \
	else echo "==> No Docker engine answers (docker info says why), so there is no image to build."; fi; \
	echo "==> testbed run topologies/two-hosts.yaml$${backend:+ --backend $$backend}"; \
	$(BIN)/testbed run topologies/two-hosts.yaml $${backend:+--backend $$backend}

test: .venv/installed-dev ## lint, types and all tests; those for Docker, C and a browser where they can be (REQUIRE_DOCKER=1, REQUIRE_C=1, REQUIRE_BROWSER=1: they must)
	@if $(ENGINE); then \
	    $(MAKE) --no-print-directory image || [ -z "$$REQUIRE_DOCKER" ] || exit 1; \
	else echo "==> No Docker engine answers: the tests for it say so, and are skipped."; fi
	@missing="$(MISSING_C)"; \
	if [ -z "$$missing" ] || [ -n "$$REQUIRE_C" ]; then $(MAKE) --no-print-directory c || [ -z "$$REQUIRE_C" ] || exit 1; \
	else echo "==> There is no$$missing: the tests for C say so, and are skipped (make c tells what to install)."; fi
	@echo "==> ruff check"
	@$(BIN)/ruff check . || { echo "==> Mend that; '$(BIN)/ruff check --fix' can do a part of it."; exit 1; }
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check . || { echo "==> '$(BIN)/ruff format' formats these files."; exit 1; }
	@echo "==> clang-format --dry-run"
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES) || { echo "==> '$(BIN)/clang-format -i FILE' formats a file."; exit 1; }
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> pytest, a process for each processor (some twelve minutes on two); then, one by one, the tests marked as alone"
	@$(BIN)/pytest -n auto --dist worksteal -m "not alone"; beside=$$?; $(BIN)/pytest -m alone && exit $$beside

bench: .venv/installed-bench ## how fast it is, beside a relay in plain Python and the kernel's TCP, and what got slower (minutes)
	@$(BIN)/python -m benchmarks

bench-compiled: build/compiled/.done .venv/installed-bench ## the same with the TCP compiled by mypyc
	@cd build/compiled && PYTHONPATH=. ../../$(BIN)/python -m benchmarks --output ../bench-compiled

# Whatever is behind the contract: not the tests that look inside.
COMPILED_TESTS := $(addprefix tests/,tcp/conformance tcp/property tcp/test_wire.py tcp/test_simulation.py)

compiled: build/compiled/.done ## compile the TCP by mypyc, in a copy of the sources, and let its tests run there
	@echo "==> tests of the compiled TCP: $(COMPILED_TESTS)"
	@cd build/compiled && PYTHONPATH=. ../../$(BIN)/python -c 'import chitcpd.tcp.connection as c; assert c.__file__.endswith(".so")'
	@cd build/compiled && PYTHONPATH=. ../../$(BIN)/pytest -q -n auto -p no:cacheprovider $(COMPILED_TESTS) \
	    -k 'not the_example_of_the_documentation and not a_failure_tells'

build/compiled/.done: hatch_build.py pyproject.toml chitcpd/tcp/_checksum.c $(shell find chitcpd chisocket testbed tests benchmarks -name '*.py') | .venv/installed-dev
	@echo "==> compiling the TCP in build/compiled (a minute)"
	@rm -rf build/compiled && mkdir -p build/compiled
	@cp -r chitcpd chisocket testbed tests benchmarks topologies examples docs hatch_build.py pyproject.toml build/compiled
	@$(BIN)/python hatch_build.py build/compiled >build/compiled.log 2>&1 || { tail -n 30 build/compiled.log; exit 1; }
	@touch $@

netem: .venv/installed-dev image ## the tests of links shaped by netem, in a kernel that has it: an ordinary process (Linux, as root)
	@echo "==> pytest -m netem, in a kernel in user mode (five minutes)"
	@.ci/netem-kernel --docker $(IMAGE) -- env REQUIRE_NETEM=1 REQUIRE_DOCKER=1 \
	    $(BIN)/pytest -m netem -p no:cacheprovider --color=no --durations=12 tests/netem

# ---- C -----------------------------------------------------------------------------------------------------------------

C_FILES := $(shell find chisocket/c -name '*.[ch]')
MISSING_C = $(shell for tool in cc meson pkg-config protoc-c; do command -v $$tool >/dev/null || printf ' %s' $$tool; done)
# $(call BUILD_C,FOLDER,OPTIONS): below build/. What it says is shown if it fails.
BUILD_C = { [ -f build/$(1)/build.ninja ] || meson setup build/$(1) chisocket/c -Dwerror=true $(2); } >build/$(1).log 2>&1 \
	&& meson compile -C build/$(1) >>build/$(1).log 2>&1 || { cat build/$(1).log; exit 1; }
# $(call TEST_C,FOLDER,TESTS): each in a process of its own, so that they may run beside each other (make -j).
TEST_C = REQUIRE_C=1 CHITCP_C_BUILD=build/$(1) $(BIN)/pytest -q -p no:cacheprovider $(2)

c: ## build libchisocket, chirun and the samples into build/c; `meson install -C build/c` installs them
	@missing="$(MISSING_C)"; \
	if [ -n "$$missing" ]; then \
	    echo "==> The C library can't be built here: there is no$$missing. On Debian and Ubuntu:"; \
	    echo "==>     apt-get install gcc meson pkg-config protobuf-c-compiler libprotobuf-c-dev"; \
	    exit 1; \
	fi
	@mkdir -p build
	@echo "==> building the C library in build/c"
	@$(call BUILD_C,c,)

c-checks: c-clang c-asan c-tsan c-valgrind ## the tests of the C library with clang, with sanitizers and under valgrind

c-clang: .venv/installed-dev
	@mkdir -p build
	@echo "==> the C library, compiled with clang"
	@export CC=clang; $(call BUILD_C,c-clang,)
	@$(call TEST_C,c-clang,tests/c)

c-asan: .venv/installed-dev
	@mkdir -p build
	@echo "==> the C library with AddressSanitizer and UndefinedBehaviorSanitizer"
	@$(call BUILD_C,c-asan,-Db_sanitize=address$(comma)undefined -Dc_args=-fno-sanitize-recover=undefined)
	@# Not what AddressSanitizer itself does not stand: signal handlers, a thread that is cancelled, a fork beside threads.
	@$(call TEST_C,c-asan,tests/c --ignore tests/c/test_install.py -k 'not handlers and not parent_watched')

c-tsan: .venv/installed-dev
	@mkdir -p build
	@echo "==> the C library with ThreadSanitizer"
	@$(call BUILD_C,c-tsan,-Db_sanitize=thread)
	@$(call TEST_C,c-tsan,tests/c/test_debug.py tests/c/test_samples.py -k 'not parent_watched')

c-valgrind: c .venv/installed-dev
	@echo "==> the C library under valgrind"
	@# Not the program that has no number free: valgrind has some, and does not keep to the limit.
	@export CHITCP_C_WRAPPER="valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite"; \
	$(call TEST_C,c,tests/c/test_bytes.py tests/c/test_calls.py tests/c/test_debug.py -k 'not chirun and not free_number')

comma := ,

# ---- Python ------------------------------------------------------------------------------------------------------------

# The fast tests alone: those of the simulation reach no more, and take minutes.
FAST_TCP_TESTS := tests/tcp/conformance tests/tcp/property tests/tcp/unit tests/tcp/test_fuzz.py tests/tcp/test_wire.py

coverage: .venv/installed-dev ## how much of the TCP its fast tests reach, branches too; below 98 % is a failure
	@echo "==> coverage of chitcpd/tcp by $(FAST_TCP_TESTS)"
	@$(BIN)/coverage run -m pytest -q --hypothesis-profile=ci --timeout 600 $(FAST_TCP_TESTS)
	@$(BIN)/coverage report

mutants: .venv/installed-dev ## put 400 small faults into the TCP, one at a time: more than 10 % that no test sees is a failure
	@$(BIN)/python -m tests.mutants

grading-mutants: .venv/installed-dev ## grade TCPs with a mistake each: more than 5 % that lose no points in its stage is a failure
	@$(BIN)/python -m tests.grading.mutants

fuzz: .venv/installed-dev ## bad input, drawn from a seed: 10 million times for the TCP, a million for each socket of the daemon
	@$(BIN)/python -m tests.tcp.fuzz --executions 10_000_000
	@$(BIN)/python -m tests.daemon.fuzz_peers --executions 1_000_000
	@$(BIN)/python -m tests.daemon.fuzz_rpc --executions 1_000_000

image: ## build the image of the lab's containers (DOCKER_BUILD_FLAGS are handed on)
	@mkdir -p build
	@echo "==> building the image $(IMAGE) (one minute or two the first time, then seconds; what it says: build/image.log)"
	@{ $(BUILD) . || $(if $(DOCKER_BUILD_FLAGS),false,{ \
	    echo "==> That failed. Once more, with this machine's own network in place of Docker's bridge:"; \
	    $(BUILD) --network host .; \
	}); } >build/image.log 2>&1 || { \
	    tail -n 30 build/image.log; \
	    echo "==> The image can't be built. If the messages above speak of the network or of certificates: an engine that"; \
	    echo "==> reaches no registry needs the base image by hand (.ci/base-image makes it from Debian's packages)."; \
	    exit 1; \
	}

protocol: ## generate chisocket/protocol/chitcpd_pb2.py from chitcpd.proto anew
	@echo "==> protoc, in a virtual environment that goes afterwards"
	@venv=$$(mktemp -d) && trap 'rm -rf "$$venv"' EXIT && \
	$(PYTHON) -m venv $$venv && \
	$$venv/bin/pip install --quiet grpcio-tools==1.75.1 && \
	cd chisocket/protocol && \
	$$venv/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. chitcpd.proto

clean: ## remove .venv/ and what tools keep between runs (not runs/, which is yours)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage dist build
	find chitcpd chisocket testbed tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed anew when pyproject.toml has changed, and only then: the installation points at the sources here.
.venv/installed: pyproject.toml hatch_build.py chitcpd/tcp/_checksum.c | $(BIN)/python
	@echo "==> installing testbed, chitcpd and chisocket into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable . || { $(INSTALL_FAILED); }
	@touch $@

.venv/installed-dev: pyproject.toml hatch_build.py chitcpd/tcp/_checksum.c | $(BIN)/python
	@echo "==> installing the project and the tools for its tests into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]' || { $(INSTALL_FAILED); }
	@touch $@ .venv/installed

.venv/installed-bench: pyproject.toml | $(BIN)/python
	@echo "==> installing the project and the tools for its benchmarks into .venv"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]' || { $(INSTALL_FAILED); }
	@touch $@ .venv/installed

INSTALL_FAILED = echo "==> pip could not install. It needs the Python package index, or what PIP_INDEX_URL names;"; \
	echo "==> behind a proxy that inspects TLS set PIP_CERT to its certificates. Then type the same again."; exit 1

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "==> Python 3.11 or newer is needed, and $(PYTHON) is not that. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
	    exit 1; \
	}
	@echo "==> making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv || { \
	    rm -rf .venv; \
	    echo "==> Python's venv module does not work. On Debian and Ubuntu: apt-get install python3-venv"; \
	    exit 1; \
	}
