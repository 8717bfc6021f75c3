"""Rules of the op that DeepSpeed compiles: no killed compiler is waited for, and nothing is compiled twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BUILD = "from trainables import compiled_op; compiled_op.build(); print('built')"


@pytest.mark.slow
def test_a_compiler_that_was_killed_is_not_waited_for_and_no_other_ninja_begins_anew(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    command = [sys.executable, "-c", BUILD]
    killed = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not (marks := list(tmp_path.glob("*/*/lock"))):
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert marks[0].exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == "built"
    (library,) = tmp_path.glob("*/*/*.so")
    built = library.stat().st_mtime_ns
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ninja").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "ninja").chmod(0o755)
    other = {**environment, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    assert subprocess.run(command, env=other, capture_output=True, timeout=500).returncode == 0
    assert library.stat().st_mtime_ns == built
