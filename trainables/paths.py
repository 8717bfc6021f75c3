"""Names of files as people write them: looked for once, where they are read, so that nobody trips over one later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from trainables.errors import shown


def looked_for(written: str) -> Path:
    """The path that is meant, with ``~`` written out; it need not be there.

    Raises:
        ValueError: nothing can be looked for under that name; with the cure.
    """
    try:
        path = Path(written).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise ValueError(f"{shown(written)} cannot be looked for ({why}); name another.") from None
    return path


def _named(written: str) -> str:
    if "{instruction}" not in written:
        looked_for(written.removeprefix("gguf:"))
    return written


Named = Annotated[str, AfterValidator(_named)]
"""A setting that names a file or folder, or could; a recipe's template may also be a text."""
