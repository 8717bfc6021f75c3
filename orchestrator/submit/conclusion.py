"""What follows from what is known of an attempt: its session's heartbeat in the store, and what Ray says of its job.

The heartbeat is believed. While it beats, nobody asks Ray. A job that Ray calls running and whose heart has stopped is
dead (a head that was restarted says running for ever); so is one of which Ray knows nothing. Only where there is no
heartbeat does Ray's status decide, and what was made is asked of the store even then.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from ray.job_submission import JobStatus

from orchestrator.submit.head import Job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds that things may take before they count as not happening."""

    look_every: float = 5.0
    line_every: float = 15.0
    begins_within: float = 900.0
    """From submission to the first heartbeat: a working directory unpacked, a corpus fetched."""
    hint_after: float = 90.0
    silent_for: float = 120.0
    """Without heartbeat while Ray says running; a session that ended draws its report in this time."""
    ends_within: float = 900.0
    """The same, where every step is done: the report of a large sweep."""
    settles_within: float = 90.0
    """From the end of a job to its last results in a listing: a shared folder may show an old one for a while."""
    away_for: float = 1800.0
    """The head, or the store, does not answer: a head that is started again takes its time."""
    pause: float = 5.0
    """Before the next attempt; doubled for each that achieved nothing."""
    futile: int = 3
    """Attempts in a row that died without publishing anything."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of an attempt whose heart does not beat. Times are seconds on the follower's own clock."""

    job: Job | None
    """None when Ray knows nothing of it."""
    seen: bool
    """Whether its heart ever beat while it was followed."""
    quiet: float
    """Since it was first found without a heartbeat."""
    age: float
    """Since it was submitted, or found."""
    missing: int
    """Steps without a result in the store."""


@dataclasses.dataclass(frozen=True)
class End:
    """An attempt is over: Ray ended it, Ray forgot it, its heart stopped, it never began, or it will not end."""

    how: Literal["ended", "forgotten", "silent", "not begun", "not ending"]
    why: str
    job: Job | None = None


def conclude(known: Known, patience: Patience) -> End | None:
    """Whether an attempt whose heart does not beat is over, and why; None while that cannot be said yet."""
    job = known.job
    if job is None:
        return End("forgotten", "its heartbeat stopped, and the head knows nothing of it, as after a restart")
    says = f"Ray says {job.status.value.lower()}"
    if job.ended:
        unsettled = job.status is JobStatus.SUCCEEDED and known.missing and known.quiet < patience.settles_within
        return None if unsettled else End("ended", f"{says}: {job.said or 'no reason given'}", job)
    if not known.missing:
        return End("not ending", "everything is made, its job goes on") if known.quiet > patience.ends_within else None
    if known.seen:
        return (
            End("silent", f"{says}, but its heartbeat in the store stopped")
            if known.quiet > patience.silent_for
            else None
        )
    return End("not begun", f"{says}, but it has not begun") if known.age > patience.begins_within else None
