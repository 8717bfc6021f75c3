"""What a person sees of a run: live bars on a terminal, plain lines elsewhere (a log, a job's output).

Per kind of step: how many are done, how fast they come, and how long the rest will take at that rate. It only
listens; nothing here decides anything.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.identity import Step
from orchestrator.review import in_a_sentence
from orchestrator.run.agenda import OPEN
from orchestrator.run.board import Board, State
from orchestrator.saying import say

LABELS = {
    "base": "base model",
    "corpus": "corpora",
    "translation": "translations",
    "fine_tune": "fine-tunes",
    "selection": "checkpoints selected",
    "generation_set": "response sets",
    "comparison": "comparisons",
}
LINE_EVERY = 15.0
"""Seconds between two lines of counts where there is no terminal."""
_TELLING = 0.25
"""Of a step: from here on, how long it takes says more than how long the first one took."""


class Progress:
    """Shows a board's progress until it is closed. Thread-safe."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self._board: Board | None = None
        self._live: Live | None = None
        self._started = time.monotonic()
        self._at_start: dict[str, int] = {}
        self._first: dict[str, float] = {}
        self._first_done: dict[str, float] = {}
        self._now: dict[str, str] = {}
        self._inside: dict[str, tuple[float, float]] = {}
        self._last_line = 0.0
        self._to_say: deque[str] = deque()
        self._lock = threading.Lock()

    def open(self, board: Board) -> None:
        self._board = board
        self._at_start = {kind: board.counts(kind)[State.DONE] for kind in LABELS}
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=2, transient=True)
            self._live.start()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._say_all()

    def say(self, sentence: str) -> None:
        """One line for the reader, above the bars."""
        say(self.console, sentence)

    def change(self, step: Step, state: State) -> None:
        """A step changed its state.

        The board is locked meanwhile, and a terminal's bars ask it under a lock that printing takes: what there is to
        say is said at the next :meth:`tick`.
        """
        with self._lock:
            if state is State.RUNNING:
                self._first.setdefault(step.kind, time.monotonic())
            else:
                self._now.pop(step.key, None)
                self._inside.pop(step.key, None)
            if state is State.DONE:
                self._first_done.setdefault(step.kind, time.monotonic())
        if state is State.FAILED and self._board is not None:
            error = in_a_sentence(self._board.errors.get(step.key, ""))
            self._to_say.append(f"Failed: {step.kind} {step.name}: {error}")
        elif state is State.DONE and step.kind in ("base", "fine_tune") and not self.console.is_terminal:
            self._to_say.append(f"{self._clock()} {step.kind} {step.name} done")

    def fine_tune(self, step: Step | None, report: dict[str, Any], steps: int) -> None:
        """A report from inside a fine-tune."""
        if step is None or "loss" not in report:
            return
        speed = f", {report['tokens_per_second']:,.0f} tokens/s" if report.get("tokens_per_second") else ""
        with self._lock:
            self._now[step.key] = f"{step.name}: step {report.get('step', 0)}/{steps}, loss {report['loss']:.2f}{speed}"
            self._inside[step.key] = (float(report.get("step", 0)), float(steps))

    def inside(self, calls: dict[str, tuple[float, float]]) -> None:
        """How far the calls in progress are."""
        states = self._board.agenda.states if self._board is not None else {}
        running = {key: part for key, part in calls.items() if states.get(key) is State.RUNNING}
        with self._lock:
            self._inside.update(running)

    def _say_all(self) -> None:
        while self._to_say:
            self.say(self._to_say.popleft())

    def tick(self) -> None:
        """What happened since the last one; where there is no terminal, a line of counts now and then."""
        self._say_all()
        now = time.monotonic()
        if self.console.is_terminal or self._board is None or now - self._last_line < LINE_EVERY:
            return
        self._last_line = now
        parts = []
        for kind, label in LABELS.items():
            counts = self._board.counts(kind)
            total = sum(counts.values())
            if total:
                left = self._left(kind, counts)
                parts.append(f"{label} {counts[State.DONE]}/{total}{f' ({left} left)' if left else ''}")
        running = "; ".join(self._now.values())
        self.say(f"{self._clock()} {', '.join(parts)}{f'; {running}' if running else ''}")

    def _clock(self) -> str:
        return duration(time.monotonic() - self._started).rjust(6)

    @staticmethod
    def _remaining(counts: dict[State, int]) -> int:
        return sum(counts[state] for state in OPEN)

    def _pace(self, kind: str, counts: dict[State, int]) -> tuple[float | None, float]:
        """Seconds per step here, and how many steps' worth is left; what is done of a running step counts.

        The first of a kind brings up what the others find ready, so it is left out once another says more.
        """
        board = self._board
        assert board is not None
        with self._lock:
            parts = [
                min(1.0, part / whole)
                for key, (part, whole) in self._inside.items()
                if whole and key in board.steps and board.steps[key].kind == kind
            ]
        running = sum(parts)
        made = counts[State.DONE] - self._at_start.get(kind, 0)
        left = max(0.0, self._remaining(counts) - running)
        began, first_done = self._first.get(kind), self._first_done.get(kind)
        if first_done is not None and made - 1 + running >= _TELLING:
            return (time.monotonic() - first_done) / (made - 1 + running), left
        if began is None or not made:
            return None, left
        return (time.monotonic() - began) / (made + running), left

    def _left(self, kind: str, counts: dict[State, int]) -> str:
        seconds, left = self._pace(kind, counts)
        return duration(seconds * left) if seconds is not None and left else ""

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        if self._board is None:
            return table
        table.add_row(f"[bold]{self.name}[/bold]", "", "", self._clock().strip(), "")
        for kind, label in LABELS.items():
            counts = self._board.counts(kind)
            total = sum(counts.values())
            if not total:
                continue
            done = counts[State.DONE]
            filled = round(24 * done / total)
            bar = f"[green]{'━' * filled}[/green][dim]{'━' * (24 - filled)}[/dim]"
            seconds, _ = self._pace(kind, counts)
            rate = f"{60 / seconds:.1f}/min" if seconds else ""
            left = self._left(kind, counts)
            notes = [f"{left} left"] if left else []
            notes += [
                f"{counts[state]} {state}" for state in (State.ELSEWHERE, State.FAILED, State.BLOCKED) if counts[state]
            ]
            table.add_row(label, bar, f"{done}/{total}", rate, ", ".join(notes))
        with self._lock:
            for line in self._now.values():
                table.add_row("", f"[dim]{line}[/dim]")
        return table


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
