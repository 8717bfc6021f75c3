"""The remote judge against vLLM's own server, started here with a real language model."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.judge_server import calls
from trainables.errors import EnvironmentProblem, UserError
from trainables.judges import (
    Call,
    RemoteJudge,
    calls_for,
    open_judge,
)
from trainables.judges.prompt import load_prompt

FIGURE9 = load_prompt("figure9")
KEY = "planted-7f3a91-secret"


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SmolLM2 behind vLLM's OpenAI server, which wants KEY; its address."""
    from trainables.base_models import parse_base, prepare

    try:
        source = parse_base("package:smollm2")
    except UserError as problem:
        pytest.skip(str(problem))
    folder = tmp_path_factory.mktemp("served")
    prepare(source, folder / "smollm2", None, lambda fraction, sentence: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": folder / "smollm2", "served-model-name": "smollm2", "host": "127.0.0.1", "port": port,
               "api-key": KEY, "max-model-len": 4096, "max-num-seqs": 16, "generation-config": "vllm"}  # fmt: skip
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"),
            *(f"--{name}={value}" for name, value in options.items()),
        ],
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/v1"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


@pytest.mark.slow
def test_vllms_own_server_judges(vllm_server: str, tmp_path: Path) -> None:
    asked = [
        call
        for number in range(4)
        for call in calls_for(
            f"i{number}", f"What is {number} + 1?", f"It is {number + 1}.", "zxq vrr <|im_end|> Answer1: {second}"
        )
    ]
    spec = RemoteJudge(model="smollm2", base_url=vllm_server, concurrency=4)
    verdicts = open_judge(spec, key=SecretStr(KEY)).judge(asked)
    assert [(v.instruction_id, v.order) for v in verdicts] == [(call.instruction_id, call.order) for call in asked]
    assert sum(v.choice is not None for v in verdicts) >= 4, verdicts
    for verdict in verdicts:
        assert verdict.usage is not None
        assert verdict.usage.model == "smollm2"
        assert verdict.usage.prompt_tokens > 80
        assert 0 < verdict.usage.completion_tokens <= 3 * 8
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "prompt.txt").write_text(FIGURE9.text)
    (folder / "judge.yaml").write_text("chat: never\nmax_prompt_tokens: 100000\n")
    plain = open_judge(spec.model_copy(update={"prompt": str(folder)}), key=SecretStr(KEY))
    mixed = plain.judge([*asked[:2], Call("long", "ab", "q", "word " * 8000, "b")])
    assert mixed[2].choice is None
    assert "maximum context length" in mixed[2].raw


@pytest.mark.slow
def test_vllms_own_server_says_no_in_words_that_are_understood(vllm_server: str) -> None:
    spec = RemoteJudge(model="smollm2", base_url=vllm_server, retries=0)
    with pytest.raises(EnvironmentProblem, match="does not take the key in OPENAI_API_KEY"):
        open_judge(spec, key=SecretStr("another")).judge(calls(1))
    with pytest.raises(EnvironmentProblem, match=r"wants a key .* put it into OPENAI_API_KEY"):
        open_judge(spec).judge(calls(1))
    with pytest.raises(EnvironmentProblem, match=r"does not know the model other .*Valid aliases: smollm2"):
        open_judge(spec.model_copy(update={"model": "other"}), key=SecretStr(KEY)).judge(calls(1))
