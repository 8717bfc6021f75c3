# Two commands set everything up: `make demo` and `make test`. See README.md.

KNOWN := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do $$name $(KNOWN) 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0+cpu
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# vLLM in the test's own process takes torch's process groups with it when it ends: these files have a process to themselves.
ENGINES := tests/test_generate.py tests/test_judges.py
# Two files at a time; not the slow tests, whose runs take both cores by themselves.
TWO := --numprocesses 2 --dist loadfile
# Whole sweeps with faults in them and on clusters that are made for it: too long for CI beside the slow tests.
FAULTS := $(addprefix tests/test_,faults_workers.py faults_sessions.py remote_run.py)
REDIS := tests/test_submit_run.py::test_a_head_that_died_and_came_back_is_given_the_sweep_again[Redis]
LOCK = $(BIN)/uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.11 --no-annotate --no-header pyproject.toml --extra models --extra cluster --extra dev
AUDIT = $(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_DISABLE_TELEMETRY := 1
export VLLM_NO_USAGE_STATS := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test test-all test-faults test-cluster lint audit lock environment clean

demo: $(VENV)/installed  ## the main job, then where to look
	$(BIN)/pinch run demo
	$(BIN)/pinch report demo

test: $(VENV)/installed lint  ## formatting, types and the fast tests
	$(BIN)/python -m pytest $(TWO) -m "not slow" $(foreach f,$(ENGINES),--ignore=$(f))
	$(BIN)/python -m pytest -m "not slow" $(ENGINES)

test-all: $(VENV)/installed  ## the slow tests: faults, browser, real language models
	@command -v chromium >/dev/null || { echo "The browser tests need Chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pytest -m slow $(foreach f,$(ENGINES) $(FAULTS),--ignore=$(f)) --deselect '$(REDIS)'
	$(BIN)/python -m pytest -m slow $(ENGINES)

test-faults: $(VENV)/installed  ## workers and sessions killed, stopped and starved, a bucket that is away; needs redis-server for one of them
	$(BIN)/python -m pytest -m slow $(FAULTS)
	$(BIN)/python -m pytest -m slow '$(REDIS)'

test-cluster: $(VENV)/installed  ## `ray up`, a sweep, a lost worker, `ray down`; in namespaces of its own, so as root
	@for tool in /usr/sbin/sshd ssh rsync ip setpriv unshare; do command -v $$tool >/dev/null || \
	  { echo "make test-cluster needs $$tool: apt-get install --no-install-recommends openssh-server openssh-client rsync iproute2 util-linux"; exit 1; }; done
	@unshare --mount --pid --net --fork true || { echo "make test-cluster makes namespaces of its own: run it as root"; exit 1; }
	$(BIN)/python -m pytest -m slow tests/test_ray_up.py

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: $(VENV)/installed  ## known vulnerabilities of what the locks install; says so where the data cannot be reached
	$(BIN)/python .ci/audit.py $(AUDIT) -- requirements/cpu.txt requirements/gpu.txt $(TORCH)

environment: $(VENV)/installed

$(VENV)/installed: requirements/cpu.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Pinch needs Python 3.11 or 3.12: install it, or name yours: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) $(KNOWN) || { echo "Pinch needs Python 3.11 or 3.12; $(PYTHON) is neither. Name yours: make PYTHON=/path/to/python3.12"; exit 1; }
	@command -v g++ >/dev/null || { echo "Pinch needs a C++ compiler (DeepSpeed compiles a small op): apt-get install g++"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Pinch needs Python's venv module: apt-get install python3-venv"; exit 1; }
	@test "$$(uname -sm)" = "Linux x86_64" || { echo "Pinch's locked environment is for Linux on x86-64; this is $$(uname -sm)."; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv==0.13.9
	@echo "Installing about 4 GB of packages; this takes a few minutes."
	$(BIN)/pip install --quiet --no-deps $(TORCH) 2>/dev/null || $(BIN)/pip install --quiet --no-deps --index-url $(TORCH_INDEX) $(TORCH)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r requirements/cpu.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@echo "Compiling DeepSpeed's op."
	@$(BIN)/python -m trainables.compiled_op >/dev/null
	@touch $@

lock: $(VENV)/installed  ## resolve the locks again
	$(LOCK) --extra cpu --find-links "$(PIP_FIND_LINKS)" $(foreach p,torch torchvision torchaudio torchcodec,--no-emit-package $(p)) -o requirements/cpu.txt
	$(LOCK) --extra gpu -o requirements/gpu.txt

clean:
	rm -rf $(VENV)
