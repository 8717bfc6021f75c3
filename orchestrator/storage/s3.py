"""S3 and what speaks like it, through s3fs.

Credentials, region and endpoint are found as every AWS tool finds them (environment, shared files, instance profile;
``AWS_ENDPOINT_URL`` for other services). "If absent" is a put with ``If-None-Match: *``, "if still this one" a put with
``If-Match`` and the object's ETag (AWS since 2024; MinIO, R2 and Ceph have both).
"""

from __future__ import annotations

import asyncio
from http.client import HTTPException
from typing import Any

import aiohttp
import s3fs
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from fsspec.exceptions import FSTimeoutError

from orchestrator.storage.bucket import Absent, Met, Passing, Refused
from orchestrator.storage.objects import ObjectStore

_NETWORK = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    ResponseParserError,
    FSTimeoutError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
    HTTPException,
    ConnectionError,
    TimeoutError,
)
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.ProfileNotFound,
    boto.SSOError,
)
_PASSING = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "ConditionalRequestConflict"}
CURE = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them"


class S3(ObjectStore):
    """See the module."""

    def connect(self) -> Any:
        settings = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 60}
        fs = s3fs.S3FileSystem(config_kwargs=settings, use_listings_cache=False, max_concurrency=4)
        fs.retries = 1
        return fs

    def put(self, path: str, data: bytes, version: str | None) -> None:
        if version is None:
            self.fs.pipe_file(path, data, mode="create")
        else:
            self.fs.pipe_file(path, data, IfMatch=version)

    def version(self, path: str) -> str:
        return str(self.fs.info(path)["ETag"])

    def understood(self, problem: Exception) -> Exception:
        if isinstance(problem, _CREDENTIALS):
            return Refused(f"no AWS credentials that can be used ({problem}); {CURE}.")
        response = getattr(problem, "response", None) or getattr(problem.__cause__, "response", None)
        if not isinstance(response, dict):
            if isinstance(problem, _NETWORK):
                return Passing(str(problem) or type(problem).__name__)
            if isinstance(problem, boto.BotoCoreError):
                return Refused(f"{problem}.")
            return Absent() if isinstance(problem, FileNotFoundError) and not problem.errno else problem
        error = response.get("Error", {})
        code, said = str(error.get("Code")), str(error.get("Message") or error.get("Code"))
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
        if code == "NoSuchBucket":
            return Refused(f"there is no bucket {self.bucket}; make it, or name another.")
        if status == 404:
            return Absent()
        if status == 412:
            return Met()
        if status >= 500 or status in (408, 409, 429) or code in _PASSING:
            return Passing(f"HTTP {status} {code}")
        if status in (401, 403) or "Token" in code:
            return Refused(f"access is refused ({code}: {said}); allow it, or {CURE}.")
        return Refused(f"the request is refused ({code}: {said}); look at the bucket's name, region and endpoint.")
