"""The places a store can lie in, for tests that hold of each: a folder, S3 (moto), Google Cloud Storage (an
emulator)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.storage import Entry, Folder
from orchestrator.store import Store
from tests.object_servers import aws, clear_clients, gcs_server, make_bucket, s3_server


class Place:
    """Where one test's store lies, and how to lay hands on it behind the store's back."""

    def __init__(self, location: str) -> None:
        self.location = location

    def open(self, session: str | None = None) -> Store:
        return Store(self.location, session)

    def path(self, entry: Entry, name: str) -> str:
        """The place's own path of a result's file."""
        data = entry.manifest.get("data", str(entry.place))
        return f"{self.location}/{data}/{name}"

    def spoil(self, entry: Entry, name: str, content: bytes | None) -> None:
        """Put something else in the place of a result's file, or remove it."""
        storage = self.open().storage
        if isinstance(storage, Folder):
            path = Path(self.path(entry, name))
            path.unlink() if content is None else path.write_bytes(content)
            return
        inside = self.path(entry, name).removeprefix(f"{self.location}/")
        storage.remove(inside) if content is None else storage.write(inside, content)


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    with s3_server() as url:
        make_bucket(url, "bucket", "s3")
        yield url


@pytest.fixture(scope="session")
def gcs_address() -> Iterator[str]:
    with gcs_server() as url:
        make_bucket(url, "bucket", "gs")
        yield url


@pytest.fixture
def s3(s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A prefix of a bucket, and an empty cache."""
    for name, value in {**aws(s3_address), "PINCH_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    clear_clients()
    yield Place(f"s3://bucket/{uuid.uuid4().hex[:8]}/store")
    clear_clients()


@pytest.fixture
def gs(gcs_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_address)
    monkeypatch.setenv("PINCH_CACHE", str(tmp_path / "cache"))
    clear_clients()
    yield Place(f"gs://bucket/{uuid.uuid4().hex[:8]}/store")
    clear_clients()


@pytest.fixture(params=["folder", "s3", "gs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each of them in turn."""
    return Place(str(tmp_path / "store")) if request.param == "folder" else request.getfixturevalue(request.param)
