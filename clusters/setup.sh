#!/usr/bin/env bash
# Makes a machine a node that can run Pinch: Python, the locked packages and Pinch itself, in .venv beside this folder.
# cluster.yaml and its variants run it on the head and on every worker, the Dockerfile in an image. Running it again is safe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

UV=0.13.9   # the Makefile's
PYTHON=3.11 # the Python Pinch was measured with; uv's own, because Triton needs the headers that come with it

root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
for tool in g++ curl; do # g++: DeepSpeed and Triton compile small things when they are first used
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ "${#missing[@]}" -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "Install ${missing[*]} on $(hostname), then run this again."; exit 1; }
  for pause in 10 20 40 80 0; do # a machine that has just started may be updating itself
    root apt-get update -qq && break
    sleep "$pause"
  done
  root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "${missing[@]}"
fi

export PATH="$HOME/.local/bin:$PATH"
if [ "$(uv --version 2>/dev/null | cut -d' ' -f2)" != "$UV" ]; then
  curl -LsSf --retry 5 "https://astral.sh/uv/$UV/install.sh" | env UV_INSTALL_DIR="$HOME/.local/bin" UV_NO_MODIFY_PATH=1 sh
fi

export UV_HTTP_TIMEOUT=300
[ -x .venv/bin/python ] || uv venv --quiet --managed-python --python "$PYTHON" .venv
uv pip install --quiet --python .venv/bin/python --no-deps --compile-bytecode -r requirements/gpu.txt
rm -rf build # what an earlier build left would be installed again
uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --reinstall-package pinch-sweeps .

# `ray down` and a person who logs in look for these on the PATH of a login shell.
mkdir -p "$HOME/.local/bin"
ln -sf "$PWD/.venv/bin/ray" "$PWD/.venv/bin/pinch" "$HOME/.local/bin/"
