"""What the embedded base `tiny` is pre-trained on: CLDR statements in known shares per language.

The shares are fixed and cover all seventeen languages, whatever a sweep asks for, so that adding a language to a
sweep leaves the base, and with it every model tuned from it, as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

STATEMENTS = 48_000
SEED = 0
SHARES: dict[str, float] = {
    "en": 16.0,
    "ru": 10.0,
    "es": 8.0,
    "fi": 7.0,
    "zh": 7.0,
    "it": 6.0,
    "ar": 6.0,
    "cs": 6.0,
    "he": 6.0,
    "hi": 5.0,
    "et": 5.0,
    "sw": 4.0,
    "pl": 4.0,
    "sr": 3.0,
    "hr": 3.0,
    "sk": 2.0,
    "sl": 2.0,
}
"""Percent of the statements in each language; uneven, as real pre-training data is."""


def statements_payload() -> dict[str, Any]:
    """What determines the statements, as part of the base's key."""
    from orchestrator.corpus import cldr

    return {"cldr": cldr.RESULT_VERSION, "count": STATEMENTS, "seed": SEED, "shares": SHARES}


def write_statements(out: Path) -> int:
    """Write the statements as parquet with columns language and text; returns how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from orchestrator.corpus import cldr

    rows = cldr.statements(SHARES, STATEMENTS, SEED)
    table = pa.table({"language": [code for code, _ in rows], "text": [text for _, text in rows]})
    pq.write_table(table, out)
    return len(rows)
