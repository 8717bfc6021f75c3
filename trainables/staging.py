"""Where a fine-tune's files come from and go to, when who asks for it and who runs it may be on different machines.

A lane is told of a fine-tune by name; its workers, wherever they are, turn the names into files with a :class:`Staging`
that whoever owns the lane made. Without one a job's paths are taken as they are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from trainables.job import FineTuneJob


class Staging(Protocol):
    """Made by a lane's owner, pickled, and used by its workers. What it raises ends the job as what `finetune`
    raises."""

    def begin(self, job: FineTuneJob) -> FineTuneJob:
        """On the first worker, before anything: a folder to work in, its examples in it, as a job."""

    def bring(self, job: FineTuneJob) -> FineTuneJob:
        """On every worker: the same job with paths to files that are on this machine."""

    def saving(self, job: FineTuneJob) -> AbstractContextManager[None]:
        """On the first worker, while the job runs: see that its states outlive this machine."""

    def publish(self, job: FineTuneJob, facts: dict[str, Any]) -> None:
        """On the first worker, when it is done."""

    def failed(self, job: FineTuneJob, problem: BaseException) -> None:
        """On the first worker: drop what the next try could not go on from."""
