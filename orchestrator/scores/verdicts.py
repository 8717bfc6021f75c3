"""Reading a verdict table: two judge calls per instruction, one in each order.

``instruction_id,order,choice``: order ``ab`` showed the baseline A first, ``ba`` the model B; choice is 1, 2
or empty (no parsable answer). A table that is incomplete or says one thing twice is refused, not repaired:
the score of an instruction is defined only by both its orders.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.scores.scoring import ORDERS, VerdictRow
from orchestrator.scores.tables import read_table
from trainables.errors import UserError

COLUMNS = ("instruction_id", "order", "choice")
_CHOICES = {"1": 1, "2": 2, "": None}


def read_verdicts(path: Path) -> list[VerdictRow]:
    """The verdicts of a CSV file, in file order; further columns are ignored.

    A table with a header and no rows has no verdicts, which is not an error.

    Raises:
        UserError: naming the file and the row, for what :func:`orchestrator.scores.tables.read_table` refuses, an
            empty instruction id, an unknown order or choice, a doubled row, or an instruction with one order.
    """
    verdicts: list[VerdictRow] = []
    first_rows: dict[tuple[str, str], int] = {}
    for number, cells in read_table(path, COLUMNS):
        name, order, choice = (cells[column] for column in COLUMNS)
        if not name:
            raise UserError(f"{path}: row {number} has no instruction_id; fill it in.")
        if order not in ORDERS:
            raise UserError(f"{path}: row {number} has order {order!r}; write ab (the baseline was shown first) or ba.")
        if choice not in _CHOICES:
            raise UserError(f"{path}: row {number} has choice {choice!r}; write 1, 2, or nothing for no answer.")
        if (name, order) in first_rows:
            raise UserError(
                f"{path}: row {number} repeats instruction {name!r} in order {order} from row "
                f"{first_rows[name, order]}; keep one of them."
            )
        first_rows[name, order] = number
        verdicts.append(VerdictRow(name, order, _CHOICES[choice]))
    for (name, order), number in first_rows.items():
        other = "ba" if order == "ab" else "ab"
        if (name, other) not in first_rows:
            raise UserError(
                f"{path}: row {number} gives instruction {name!r} in order {order}, and no row gives it in "
                f"order {other}; add that row (with an empty choice if there was no answer)."
            )
    return verdicts
