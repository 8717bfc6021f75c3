"""Where a store keeps things: a folder, or an object store.

:class:`Storage` is what `orchestrator.store` asks of a place; :func:`open_storage` finds the one a location names.
"""

from __future__ import annotations

from orchestrator.storage.base import Attempt, Entry, Spoiled, Storage, StorageAway, TakenOver, measure, write_json
from orchestrator.storage.folder import Folder
from trainables.errors import UserError

__all__ = [
    "Attempt",
    "Entry",
    "Folder",
    "Spoiled",
    "Storage",
    "StorageAway",
    "TakenOver",
    "measure",
    "open_storage",
    "write_json",
]


def open_storage(location: str) -> Storage:
    """The storage at ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX`` or a folder. Nothing is asked or written yet.

    Raises:
        UserError: no such kind of place, or none named.
    """
    if not location:
        raise UserError("--store: names nothing; name a folder, s3://BUCKET/..., gs://BUCKET/...")
    scheme, separator, rest = location.partition("://")
    if not separator:
        return Folder(location)
    if "@" in rest:
        raise UserError("--store: credentials are taken from the environment; leave them out of the address.")
    if scheme not in ("s3", "gs"):
        raise UserError(
            f"--store {location}: {scheme}:// is not known; name a folder, s3://BUCKET/..., gs://BUCKET/..."
        )
    bucket = rest.partition("/")[0]
    if not bucket or ".." in rest.split("/"):
        raise UserError(f"--store {location}: names no bucket and folder; write {scheme}://BUCKET/FOLDER.")
    if scheme == "s3":
        from orchestrator.storage.s3 import S3  # here: botocore takes a second to import

        return S3(location)
    from orchestrator.storage.gcs import GCS

    return GCS(location)
