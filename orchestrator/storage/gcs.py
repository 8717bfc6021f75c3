"""Google Cloud Storage, through gcsfs.

Credentials are found as every Google tool finds them (``GOOGLE_APPLICATION_CREDENTIALS``, gcloud's own, the machine's
service account). "If absent" is an upload with ``ifGenerationMatch=0``, "if still this one" with the object's
generation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from typing import Any

import aiohttp
import google.auth.exceptions
import requests
from fsspec.asyn import sync
from gcsfs.core import GCSFileSystem  # not gcsfs.GCSFileSystem, which asks over gRPC what kind of bucket it is
from gcsfs.retry import HttpError

from orchestrator.storage.bucket import Absent, Met, Passing, Refused
from orchestrator.storage.objects import ObjectStore

_NETWORK = (
    aiohttp.ClientError,
    asyncio.TimeoutError,
    requests.exceptions.RequestException,
    ConnectionError,
    TimeoutError,
    google.auth.exceptions.TransportError,
)
_BETWEEN = uuid.uuid4().hex.encode()
"""Between the parts of an upload; in no content, for nobody knows it before."""
CURE = "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"


class GCS(ObjectStore):
    """See the module."""

    def connect(self) -> Any:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints a trace of what is tried again
        token = "anon" if os.environ.get("STORAGE_EMULATOR_HOST") else None
        return GCSFileSystem(token=token, use_listings_cache=False, requests_timeout=60)

    def put(self, path: str, data: bytes, version: str | None) -> None:
        bucket, _, key = path.partition("/")
        about = json.dumps({"name": key}).encode()
        parts = (b"application/json; charset=UTF-8\r\n\r\n" + about, b"application/octet-stream\r\n\r\n" + data)
        body = b"".join(b"--" + _BETWEEN + b"\r\nContent-Type: " + part + b"\r\n" for part in parts)
        sync(
            self.fs.loop,
            self.fs._call,
            "POST",
            f"{self.fs._location}/upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=version or "0",
            headers={"Content-Type": f'multipart/related; boundary="{_BETWEEN.decode()}"'},
            data=body + b"--" + _BETWEEN + b"--",
        )

    def version(self, path: str) -> str:
        return str(self.fs.info(path)["generation"])

    def understood(self, problem: Exception) -> Exception:
        text = str(problem)
        if isinstance(problem, FileExistsError):
            return Met()
        if isinstance(problem, FileNotFoundError):
            if problem.errno:
                return problem  # of this machine
            return Absent() if self.answered or self._has_bucket() else Refused(self._no_bucket())
        if isinstance(problem, HttpError):
            status = int(problem.code or 0)
            if status == 412:
                return Met()
            if status in (401, 403):
                return Refused(f"access is refused ({_first_line(text)}); allow it, or {CURE}.")
            if status == 404:
                return Absent()
            if status >= 500 or status in (408, 429):
                return Passing(_first_line(text))
            return Refused(f"the request is refused ({_first_line(text)}).")
        if isinstance(problem, google.auth.exceptions.GoogleAuthError) and not isinstance(problem, _NETWORK):
            return Refused(f"no Google credentials that can be used ({_first_line(text)}); {CURE}.")
        if isinstance(problem, _NETWORK):
            return Passing(_first_line(text) or type(problem).__name__)
        if isinstance(problem, OSError) and text.startswith("Forbidden"):
            return Refused(f"access is refused ({_first_line(text)}); allow it, or {CURE}.")
        return problem

    def _has_bucket(self) -> bool:
        try:
            sync(self.fs.loop, self.fs._call, "GET", f"b/{self.bucket}")
        except FileNotFoundError:
            return False
        except Exception:  # noqa: BLE001  (one that may not be looked at is there)
            return True
        return True

    def _no_bucket(self) -> str:
        return f"there is no bucket {self.bucket}; make it, or name another."


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else ""
