"""What comes from the Hugging Face hub: a name and a revision, pinned to a commit before anything is keyed.

A branch moves, a commit does not, so keys hold commits. A full commit needs no network; anything else is asked of
the hub, and where the hub cannot be reached, of the local cache of an earlier fetch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from trainables.errors import EnvironmentProblem, UserError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]

WITHOUT_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.txt"]
"""A model's configuration and tokenizer."""


@lru_cache(maxsize=32)
def commit_of(name: str, revision: str | None) -> str:
    """The 40-digit commit of ``name`` at ``revision`` (a branch or tag; the main branch when None).

    Raises:
        UserError: no such model or revision, or the hub cannot be reached and this revision was never fetched.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = HfApi().model_info(name, revision=revision, timeout=10).sha
        if commit:
            return str(commit)
        raise UserError(f"base: the hub names no commit for {name}; write {name}@ and the commit")
    except RevisionNotFoundError:
        raise UserError(f"base: {name} has no revision {revision!r} on the hub; write one it has") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"base: the hub has no model {name} that you may read; check the name, or log in with: hf auth login"
        ) from None
    except UserError:
        raise
    except Exception as problem:  # not reached: the hub's HTTP library, and so its errors, change
        cached = _cached_commit(name, revision or "main")
        if cached:
            return cached
        raise UserError(
            f"base: the commit of {name} is not known here and the hub cannot be asked ({type(problem).__name__}); "
            f"write the commit into the sweep file ({name}@<40 hex digits>), fetch it once while online "
            f"(hf download {name}), or give a local folder"
        ) from problem


def fetch(
    name: str,
    commit: str,
    *,
    key: str = "base",
    kind: Literal["model", "dataset"] = "model",
    wanted: Sequence[str] = _WANTED,
    instead: str = "fetch it elsewhere and give the folder",
) -> Path:
    """The local folder of a repository at a commit, downloaded where missing; of a model, all that loading it takes.

    Args:
        key: the setting that named it, for messages.
        wanted: patterns of the files to have.
        instead: what else the user may do, for messages.

    Raises:
        UserError: the repository may not be read. EnvironmentProblem: the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        return Path(snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=list(wanted)))
    except GatedRepoError:
        raise UserError(
            f"{key}: {name} is gated; accept its terms at {page} and log in with: hf auth login; or {instead}"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise UserError(
            f"{key}: the hub has no {name} at commit {commit} that you may read; check it, or {instead}"
        ) from None
    except Exception as problem:  # not reached, as above
        raise EnvironmentProblem(
            f"{key}: {name} could not be fetched from the hub ({type(problem).__name__}: {problem}); connect, or "
            f"{instead}"
        ) from problem


def cached(name: str, commit: str) -> Path | None:
    """The local cache's folder of a model at a commit, if at least its configuration was fetched."""
    folder = _cache(name) / "snapshots" / commit
    return folder if (folder / "config.json").is_file() else None


def _cache(name: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def _cached_commit(name: str, revision: str) -> str | None:
    """The commit a branch or tag had when it was last fetched, from the local cache's references."""
    reference = _cache(name) / "refs" / revision
    if not reference.is_file():
        return None
    commit = reference.read_text(encoding="utf-8").strip()
    return commit if _COMMIT.fullmatch(commit) else None
