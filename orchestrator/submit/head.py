"""The head of a Ray cluster as its Jobs API shows it: submit, look, stop, read the last lines.

Every call ends in time, and in one of three ways: an answer, :class:`Unreachable` (the head is away and may come
back), or :class:`EnvironmentProblem` (it answers, and will not do this). What a status is worth is not for this
module to say.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from trainables.addresses import web_address, without_password
from trainables.errors import EnvironmentProblem, Unreachable, UserError

PATIENCE = 30.0
"""Seconds the head has for each answer."""
_LAST_LINES = 15

T = TypeVar("T")

for _chatty in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


@dataclasses.dataclass(frozen=True)
class Job:
    """What Ray says of a job."""

    status: JobStatus
    exit_code: int | None
    """The driver's exit status; None where it has none, or nobody saw it."""
    said: str
    """Why, in Ray's words, without the logs it adds."""

    @property
    def ended(self) -> bool:
        return self.status.is_terminal()


class Head:
    """The Jobs API at ``address``, the dashboard's, such as http://127.0.0.1:8265.

    Raises:
        UserError: that is not an address.
    """

    def __init__(self, address: str) -> None:
        try:
            web_address(address)
        except ValueError:
            raise UserError(
                f"--address {without_password(address)}: is not a dashboard's address; write one such as "
                "http://127.0.0.1:8265, without user and password, where `ray dashboard cluster.yaml` lays a tunnel to."
            ) from None
        self.address = address.rstrip("/")
        self._client: _Client | None = None

    def submit(self, submission: str, command: Sequence[str], folder: Path, about: Mapping[str, str]) -> None:
        """Submit ``command`` as a job, in a copy of ``folder`` that every node gets. Submitting it again does nothing.

        The job's environment is the cluster's own; nothing of this machine's is sent, so no secret can be.
        """
        if self.look(submission) is not None:
            return
        self._ask(
            lambda client: client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=submission,
                runtime_env={"working_dir": str(folder)},
                metadata=dict(about),
            )
        )

    def look(self, submission: str) -> Job | None:
        """What Ray says of a job; None when it knows nothing of it (a head that was restarted, say)."""
        found = self._ask(lambda client: client.get_job_info(submission), unknown=None)
        if found is None:
            return None
        said = (found.message or "").partition(", last available logs")[0].strip().partition("\n")[0]
        return Job(found.status, found.driver_exit_code, said.rstrip("."))

    def running(self, about: Mapping[str, str]) -> str | None:
        """The submission id of a job that was submitted with this ``about`` and has not ended, as far as Ray knows."""
        for job in self._ask(lambda client: client.list_jobs()):
            if job.submission_id and not job.status.is_terminal() and about.items() <= (job.metadata or {}).items():
                return job.submission_id
        return None

    def stop(self, submission: str) -> None:
        """Ask for a job's end; it may have ended, or be unknown."""
        self._ask(lambda client: client.stop_job(submission), unknown=False)

    def last_lines(self, submission: str) -> str:
        """The end of what the job printed; empty when that cannot be had."""
        try:
            printed = self._ask(lambda client: client.get_job_logs(submission), unknown="")
        except (Unreachable, EnvironmentProblem):
            return ""
        return "\n".join(line.rstrip() for line in printed.strip().splitlines()[-_LAST_LINES:])

    def _ask(self, call: Callable[[JobSubmissionClient], T], **unknown: Any) -> T:
        """``call``'s answer, or what ``unknown`` names where there is no such job."""
        try:
            if self._client is None:
                # Ray lets this variable win over the address its client is given.
                os.environ["RAY_API_SERVER_ADDRESS"] = self.address
                self._client = _Client(self.address)
            return call(self._client)
        except _Answered as answer:
            if answer.status == 404 and "unknown" in unknown:
                return unknown["unknown"]
            if answer.status >= 500:
                raise Unreachable(f"{self.address} answered {answer}") from None
            raise EnvironmentProblem(f"--address {self.address}: {answer}") from None
        except AuthenticationError as problem:
            raise EnvironmentProblem(
                f"--address {self.address}: the cluster asks for a token, and got none or another one; set "
                "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token."
            ) from problem
        except (requests.RequestException, OSError) as problem:
            raise Unreachable(f"{self.address} does not answer ({type(problem).__name__})") from problem
        except RuntimeError as problem:
            raise EnvironmentProblem(
                f"--address {self.address}: what answers there is not the dashboard of Ray 2: {problem}"
            ) from problem


class _Answered(RuntimeError):
    """An answer that is not the one hoped for."""

    def __init__(self, status: int, text: str) -> None:
        lines = text.strip().splitlines()
        super().__init__(f"{status}: {lines[-1] if lines else 'no reason given'}")
        self.status = status


class _Client(JobSubmissionClient):
    """Ray's client, whose calls would otherwise wait for ever, and tell a missing job only by a sentence."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:  # type: ignore[override]
        return super()._do_request(method, endpoint, **{"timeout": PATIENCE, **options})

    def _raise_error(self, r: requests.Response) -> None:
        raise _Answered(r.status_code, r.text)
