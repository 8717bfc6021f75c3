"""`pinch submit`: a sweep as a job on a Ray cluster, followed, and submitted again when it dies.

An attempt's session in the store has the submission's id, so that its heartbeat and Ray's word can be held against each
other; `orchestrator.submit.conclusion` says what follows from them. A job that died is submitted again under a new id,
for as long as the store moves forward. Whoever follows may go away and come back: the job goes on without them, and
`pinch submit` finds it.
"""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ray.job_submission import JobStatus
from rich.console import Console

from orchestrator.exit_status import ExitStatus
from orchestrator.plan import Plan
from orchestrator.review import in_a_sentence
from orchestrator.run.progress import LABELS, duration
from orchestrator.saying import say
from orchestrator.store import Store
from orchestrator.submit.bundle import Bundle, bundle
from orchestrator.submit.conclusion import End, Known, Patience, conclude
from orchestrator.submit.head import Head
from orchestrator.sweep import LoadedSweep
from trainables.errors import EnvironmentProblem, Unreachable, UserError

T = TypeVar("T")


class Following:
    """One sweep on one cluster: attempts, one after another, until the store says it is done or nothing moves."""

    def __init__(
        self,
        loaded: LoadedSweep,
        location: str,
        head: Head,
        console: Console,
        patience: Patience = Patience(),
        retry_failed: bool = False,
    ) -> None:
        """Args:
            location: the store, which this machine and every node of the cluster must see under this name.
            retry_failed: try steps again whose failure is on record now; not those that fail from here on.

        Raises:
            UserError: bad input; nothing has been written then.
        """
        self.loaded, self.head, self.console, self.patience = loaded, head, console, patience
        self.plan = Plan(loaded)
        self.store = Store(location)
        self.location = location if "://" in location else self.store.location
        self.submission = ""
        self._retry_failed = retry_failed
        self._seen = False
        self._started = time.monotonic()
        self._line, self._line_at, self._missing_at_line = "", 0.0, 0
        self._failures: set[str] = set()
        self._about = {"pinch_sweep": loaded.sweep.name, "pinch_store": self.location, "pinch_plan": self.plan.digest}

    def run(self) -> int:
        """Follow the sweep to its end; returns the exit status `pinch run` would have, 130 after Ctrl-C."""
        try:
            with bundle(self.loaded.sweep) as travels:
                return self._run(travels)
        except KeyboardInterrupt:
            self._leave()
            return ExitStatus.INTERRUPTED

    def _run(self, travels: Bundle) -> int:
        if self._missing() == 0:
            self._say(f"{self.plan.sweep.name}: nothing is missing.")
            return ExitStatus.DONE
        found = self._first_look()
        self.store.create()
        if self._retry_failed:
            for key in self._failed():
                self.store.forget_failure(key)
        futile = 0
        while True:
            missing = self._patiently(self._missing)
            if found is None:
                self._submit(travels)
            else:
                self.submission, found = found, None
                self._say(f"Following {self.submission}, which was submitted before. Ctrl-C leaves it running.")
            self._seen = False
            end = self._follow()
            status = self._status(end, travels)
            if status is not None:
                return status
            moved = self._patiently(self._missing) < missing
            futile = 0 if moved else futile + 1
            if futile >= self.patience.futile:
                self._give_up(f"{futile} attempts in a row died without a new result, the last because {end.why}")
            self._say(f"{self.submission} is lost: {end.why}. What is published stays; submitting again.")
            self.submission = ""
            time.sleep(self.patience.pause * 2**futile)

    # One attempt

    def _first_look(self) -> str | None:
        """A job for this sweep and store that is there already; also the first word with the head.

        Raises:
            EnvironmentProblem: nothing answers; whoever types the command sees that at once.
        """
        try:
            return self.head.running(self._about)
        except Unreachable as problem:
            raise EnvironmentProblem(
                f"--address {problem}; start the cluster, or lay the tunnel: ray dashboard cluster.yaml"
            ) from problem

    def _submit(self, travels: Bundle) -> None:
        self.submission = f"pinch-{self.plan.sweep.name}-{uuid.uuid4().hex[:8]}"
        command = ["pinch", "run", travels.sweep, "--store", self.location, "--address", "auto"]
        command += ["--session", self.submission, "--expect", self.plan.digest]
        self._patiently(lambda: self.head.submit(self.submission, command, travels.folder, self._about))
        self._say(f"Submitted {self.submission}. Ctrl-C leaves it running.")
        if travels.left:
            self._say(travels.sentence())

    def _follow(self) -> End:
        """Look at the job, its heartbeat and the store until the attempt is over.

        Raises:
            EnvironmentProblem: it never began, or the head or the store stayed away.
        """
        patience = self.patience
        submitted = time.monotonic()
        quiet: float | None = None
        away: float | None = None
        hinted = False
        while True:
            now = time.monotonic()
            try:
                beats, missing = self.store.sessions.alive(self.submission), self._progress()
                if beats:
                    self._seen, quiet, away = True, None, None
            except (EnvironmentProblem, OSError) as problem:
                beats, quiet = True, None  # nothing is known of anybody's silence
                away = self._away(away, problem)
            if not beats:
                quiet = now if quiet is None else quiet
                try:
                    job, away = self.head.look(self.submission), None
                except (Unreachable, EnvironmentProblem) as problem:
                    away = self._away(away, problem)
                else:
                    age = now - submitted
                    end = conclude(
                        Known(job=job, seen=self._seen, quiet=now - quiet, age=age, missing=missing), patience
                    )
                    if end is not None:
                        return end
                    if not self._seen and not hinted and age > patience.hint_after:
                        hinted = True
                        self._say(f"Waiting for its heartbeat: {self._no_heartbeat(age)}.")
            time.sleep(patience.look_every)

    def _status(self, end: End, travels: Bundle) -> int | None:
        """The exit status after an attempt; None when the sweep should be submitted again.

        Raises:
            UserError: the cluster could not use the input.
            EnvironmentProblem: what ended it would end the next one too.
        """
        if self._patiently(self._missing) == 0:
            self._print_end()
            return ExitStatus.DONE
        job = end.job
        if end.how == "not begun":
            self._give_up(
                f"{end.why}: {self._no_heartbeat(self.patience.begins_within)}. It was left as it is; it ends with ray "
                f"job stop {self.submission} --address {self.head.address}"
            )
        if end.how == "silent":
            self._stop()
        if end.how != "ended" or job is None:
            return None
        if job.status is JobStatus.STOPPED:
            self._say(f"{self.submission} was stopped. What is published stays; go on with: {self._again()}")
            return ExitStatus.INTERRUPTED
        if job.status is JobStatus.SUCCEEDED:
            self._give_up(
                f"Ray says its job is done, but {self._missing()} steps are not in {self.location}; the cluster wrote "
                "to another place of that name"
            )
        if job.exit_code == ExitStatus.SOME_FAILED and (self._seen or self._failed()):
            self._print_end()
            self._say(f"Look: pinch status {self.loaded.typed()}{self._store_option()}")
            return ExitStatus.SOME_FAILED
        if job.exit_code == ExitStatus.BAD_INPUT:
            hint = f"\n{travels.sentence()}" if travels.left else ""
            raise UserError(f"{self.submission}: the cluster could not use what it was sent:\n{self._last()}{hint}")
        if job.exit_code in (ExitStatus.SOME_FAILED, ExitStatus.ENVIRONMENT, 126, 127) and not self._seen:
            self._give_up("its job could not begin")
        return None

    # What the store says

    def _missing(self) -> int:
        """How many steps have no result."""
        there = self.store.listings(self.plan.steps)
        return sum(step.key not in there[step.kind] for step in self.plan.steps)

    def _failed(self) -> list[str]:
        """Keys of this sweep's steps that failed for good."""
        failures = self.store.failures()
        return [step.key for step in self.plan.steps if step.key in failures]

    def _progress(self) -> int:
        """Say what changed since the last line; returns how many steps are missing."""
        now = time.monotonic()
        if self._line and now - self._line_at < self.patience.line_every:
            return self._missing_at_line
        self._line_at, self._missing_at_line = now, self._missing()
        parts = []
        for kind, label in LABELS.items():
            if steps := self.plan.of_kind(kind):
                there = self.store.listing(kind)
                parts.append(f"{label} {sum(step.key in there for step in steps)}/{len(steps)}")
        line = ", ".join(parts)
        if line != self._line:
            self._say(f"{duration(now - self._started).rjust(6)} {line}")
        self._line = line
        failures = self.store.failures()
        for key in set(self._failed()) - self._failures:
            failure = failures[key]
            self._say(f"Failed: {failure['kind']} {failure['name']}: {in_a_sentence(failure['error'])}")
            self._failures.add(key)
        return self._missing_at_line

    # What is away for a while

    def _away(self, since: float | None, problem: Exception) -> float:
        now = time.monotonic()
        if since is None:
            self._say(f"{problem}; waiting for it to come back.")
            return now
        if now - since > self.patience.away_for:
            self._give_up(f"{problem}, for {duration(now - since)} now")
        return since

    def _patiently(self, call: Callable[[], T]) -> T:
        away = None
        while True:
            try:
                return call()
            except (Unreachable, OSError) as problem:
                away = self._away(away, problem)
            time.sleep(self.patience.look_every)

    def _stop(self) -> None:
        """What is left of a dead attempt should not wake up beside the next; if it does, leases keep them apart."""
        try:
            self.head.stop(self.submission)
        except (Unreachable, EnvironmentProblem) as problem:
            self._say(f"{self.submission} could not be stopped ({problem}).")

    # What is said

    def _no_heartbeat(self, seconds: float) -> str:
        return (
            f"after {duration(seconds)} there is none in {self.location}. The store must be one that every node of the "
            "cluster sees under this name: a bucket, or a shared folder"
        )

    def _print_end(self) -> None:
        if last := self._last():
            self._say(f"The end of what {self.submission} printed:\n{last}")

    def _last(self) -> str:
        return self.head.last_lines(self.submission)

    def _give_up(self, why: str) -> NoReturn:
        last = f"\nThe end of what {self.submission} printed:\n{self._last()}" if self.submission else ""
        raise EnvironmentProblem(
            f"{self.submission or self.plan.sweep.name}: {why}. What is published stays; mend it and go on with: "
            f"{self._again()}{last}"
        )

    def _leave(self) -> None:
        typed, store, address = self.loaded.typed(), self._store_option(), self.head.address
        if not self.submission:
            self._say(f"No job is running now. What is published stays; go on with: {self._again()}")
            return
        self._say(f"{self.submission} goes on without this command.")
        self._say(f"  Look:   pinch status {typed}{store} | ray job logs {self.submission} --address {address}")
        self._say(f"  Follow: {self._again()}")
        self._say(f"  Stop:   ray job stop {self.submission} --address {address}")

    def _again(self) -> str:
        return f"pinch submit {self.loaded.typed()} --address {self.head.address}{self._store_option()}"

    def _store_option(self) -> str:
        return f" --store {shlex.quote(self.location)}"

    def _say(self, line: str) -> None:
        say(self.console, line)
