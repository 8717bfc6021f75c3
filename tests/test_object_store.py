"""What only a store on the network can get wrong: its answers, its absence, and the copies of it on this machine."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from orchestrator import store as store_module
from orchestrator.storage import StorageAway, TakenOver, bucket, cache
from orchestrator.storage.base import as_json
from orchestrator.store import Corrupt, Store
from tests.conftest import Pinch
from tests.object_servers import Proxy, clear_clients, free_port
from tests.store_examples import WEIGHTS, forget_machine, make, step
from tests.store_places import Place
from trainables.errors import EnvironmentProblem, UserError


@pytest.fixture
def proxy(s3: Place, s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """S3 behind a proxy that lets requests fail; the environment points to it."""
    made = Proxy(s3_address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.02)
    clear_clients()
    yield made
    made.close()


@pytest.fixture
def store(s3: Place, proxy: Proxy) -> Store:
    opened = s3.open()
    opened.create()
    return opened


# What a network does


@pytest.mark.parametrize("fault", ["500", "503", "slow", "drop", "lose", "cut"])
def test_what_passes_by_itself_is_tried_again(fault: str, store: Store, proxy: Proxy) -> None:
    for content in (b"one", b"two" * 1000):
        proxy.faults.extend([fault, fault])
        store.storage.write("sweeps/x", content)
        proxy.faults.extend([fault, fault])
        assert store.storage.read("sweeps/x") == content
        proxy.faults.extend([fault, fault])
        assert store.storage.names("sweeps") == ["sweeps/x"]
    proxy.faults.extend([fault, fault])
    store.storage.remove("sweeps/x")
    assert store.storage.read("sweeps/x") is None
    assert proxy.met.count(fault) == 14 or fault == "slow", "what is slow need not be asked for again"


def test_a_put_whose_answer_was_lost_does_not_say_that_another_was_first(store: Store, proxy: Proxy) -> None:
    proxy.faults.append("lose")
    assert store.storage.create("leases/x", b"ours")
    assert not store.storage.create("leases/x", b"theirs")
    proxy.faults.extend(["", "", "lose"])  # the version, the content, the put
    assert store.storage.replace("leases/x", b"ours", b"still ours")
    assert store.storage.read("leases/x") == b"still ours"


def test_a_publication_whose_answer_was_lost_stands_and_is_ours(store: Store, proxy: Proxy, s3: Place) -> None:
    for number in range(1, 8):  # each request of publishing in turn
        proxy.met.clear()
        proxy.faults.extend([""] * (number - 1) + ["lose"])
        entry = make(store, step(f"m{number}"))
        proxy.faults.clear()
        assert entry.manifest["made"]["session"] == store.sessions.id
        assert s3.open().find("fine_tune", entry.key) is not None
    assert list(store.storage.attempts()) == []
    assert {problem for _, problem in store.verify()} == {None}


def test_google_behind_a_bad_network_is_no_worse(gs: Place, gcs_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(gcs_address)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    clear_clients()
    store = gs.open()
    store.create()
    for fault in ("503", "drop", "lose"):
        proxy.faults.append(fault)
        assert store.storage.create(f"leases/{fault}", b"ours")
        proxy.faults.extend(["", "", fault])
        assert store.storage.replace(f"leases/{fault}", b"ours", b"still ours")
        proxy.faults.append(fault)
        entry = make(store, step(fault))
        proxy.faults.append(fault)
        assert (gs.open().use(entry) / WEIGHTS).read_text() == "weights"
    assert len(store.storage.read_all("leases")) == 3
    assert {problem for _, problem in store.verify()} == {None}
    proxy.close()


def test_a_file_that_changes_while_it_is_saved_does_not_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.attempt(step())
    (attempt / "state").write_text("whole")
    store.save(attempt)
    (attempt / "state").write_text("being")
    upload = store.storage._upload  # type: ignore[attr-defined]

    def meanwhile(file: Path, name: str) -> None:
        upload(file, name)
        file.write_text("being written")

    monkeypatch.setattr(store.storage, "_upload", meanwhile)
    (attempt / "more").write_text("more")
    store.save(attempt)
    (saved,) = store.storage.attempts()
    assert set(saved.files) == {"state"}
    with pytest.raises(EnvironmentProblem, match="still writes"):
        store.publish(step(), attempt, {})
    assert store.find("fine_tune", step().key) is None


def test_an_attempt_that_another_machine_took_while_it_was_uploaded_is_not_taken_back(
    store: Store, s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = store.attempt(step())
    (slept / "state").write_text("half-way")
    store.save(slept)
    other, ours, upload = s3.open(), [], store.storage._upload  # type: ignore[attr-defined]

    def meanwhile(file: Path, name: str) -> None:
        upload(file, name)
        if not ours:
            subprocess.run(["cp", "-a", slept.parent, tmp_path / "aside"], check=True)
            ours.append(other.adopt(step()))
            subprocess.run(["cp", "-a", f"{tmp_path}/aside/.", slept.parent], check=True)  # on a machine of its own

    monkeypatch.setattr(store.storage, "_upload", meanwhile)
    (slept / "more").write_text("more")
    with pytest.raises(TakenOver):
        store.save(slept)
    with pytest.raises(TakenOver):
        store.publish(step(), slept, {})
    made = other.publish(step(), ours[0], {})
    assert set(made.manifest["files"]) == {"state"}
    assert [problem for _, problem in s3.open().verify()] == [None]


def test_a_result_with_a_name_too_long_for_a_file_is_found(s3: Place, gs: Place) -> None:
    for place in (s3, gs):
        store, long = place.open(), step("hub-fi-openai-" + "m" * 300)
        store.create()
        made = make(store, long)
        assert place.open().find("fine_tune", long.key) == made


def test_much_going_wrong_loses_nothing(store: Store, proxy: Proxy, s3: Place) -> None:
    proxy.share = 0.2
    store.sessions.start("test")
    ledger = store.ledger("a")
    for number in range(12):
        what = step(f"m{number}")
        assert store.sessions.acquire(what.key)
        ledger.add(str(number), {"n": number})
        make(store, what, f"weights {number}")
        store.sessions.release(what.key)
    store.sessions.stop()
    proxy.share = 0.0
    assert len(proxy.met) > 10
    fresh = s3.open()
    forget_machine(fresh)
    entries = fresh.entries("fine_tune")
    read = {(fresh.use(entry) / WEIGHTS).read_text() for entry in entries.values()}
    assert read == {f"weights {number}" for number in range(12)}
    assert ledger.read() == {str(number): {"n": number} for number in range(12)}
    assert fresh.storage.names("leases") == fresh.storage.names("attempts") == []
    assert {problem for _, problem in fresh.verify()} == {None}


# What is away, or refuses


def test_an_outage_is_waited_out_in_a_run(store: Store, proxy: Proxy) -> None:
    proxy.down = True
    began = time.monotonic()
    threading.Timer(4, lambda: setattr(proxy, "down", False)).start()
    make(store, step())
    assert time.monotonic() - began > 3
    assert store.find("fine_tune", step().key) is not None


def test_an_outage_that_lasts_ends_in_one_sentence_and_then_at_once(
    store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 2.0)
    attempt = store.attempt(step())
    (attempt / "data").write_text("data")
    proxy.down = True
    with pytest.raises(StorageAway, match=rf"^{store.location}: no answer for [2-9] s \(") as found:
        store.publish(step(), attempt, {})
    assert "\n" not in str(found.value)
    assert isinstance(found.value, OSError)
    assert (attempt / "data").exists()
    tries = len(proxy.met)
    store.discard(attempt)
    store.sessions.stop()
    assert len(proxy.met) - tries <= 6, "what ends does not wait again"
    proxy.down = False
    make(store, step())


def test_somebody_who_looks_is_told_soon_that_nobody_answers(pinch: Pinch, s3: Place, small: Path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    said = pinch("status", small, "--store", s3.location, check=3, timeout=120).stderr
    assert said.startswith(f"{s3.location}: no answer for ")
    assert said.count("\n") == 1


def test_a_bucket_that_is_not_there_is_bad_input(pinch: Pinch, s3: Place, small: Path) -> None:
    for command in ("status", "run"):
        said = pinch(command, small, "--store", "s3://no-such-bucket/store", check=2).stderr
        assert said == (
            "--store s3://no-such-bucket/store: there is no bucket no-such-bucket; make it, or name another.\n"
        )


def test_a_bucket_that_is_not_there_is_bad_input_on_google_too(gs: Place) -> None:
    with pytest.raises(UserError, match="there is no bucket no-such-bucket"):
        Store("gs://no-such-bucket/store")


def test_no_credentials_are_bad_input(pinch: Pinch, s3: Place, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    said = pinch("status", small, "--store", s3.location, check=2).stderr
    assert "no AWS credentials that can be used" in said
    assert "set AWS_ACCESS_KEY_ID" in said
    assert said.count("\n") == 1


def test_a_store_that_is_not_there_is_said_to_be_none(pinch: Pinch, s3: Place) -> None:
    assert "nothing is there" in pinch("verify", "--store", s3.location, check=2).stderr
    assert "nothing is there" in pinch("gc", "--store", s3.location, check=2).stderr


# What lies on this machine


def test_a_result_is_fetched_once(store: Store, proxy: Proxy, s3: Place) -> None:
    entry = make(store, step(), "weights")
    forget_machine(store)
    subprocess.run(["rm", "-rf", str(store.root.parent.parent)], check=True)
    assert (s3.open().use(entry) / WEIGHTS).read_text() == "weights"
    other = s3.open()
    proxy.down = True
    assert (other.use(entry) / WEIGHTS).read_text() == "weights"


def test_weights_are_fetched_only_where_they_are_needed(store: Store, s3: Place) -> None:
    attempt = store.attempt(step())
    (attempt / "config.json").write_text("{}")
    (attempt / "model.safetensors").write_text("weights")
    entry = store.publish(step(), attempt, {})
    forget_machine(store)
    fresh = s3.open()
    folder = fresh.use(entry, weights=False)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert fresh.use(entry) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_file_that_changed_on_this_machine_is_fetched_again_and_nothing_is_quarantined(
    store: Store, s3: Place
) -> None:
    entry = make(store, step(), "weights")
    file = s3.open().use(entry) / WEIGHTS
    file.write_text("wEights")
    assert (s3.open().use(entry) / WEIGHTS).read_text() == "weights"
    file.write_text("w")
    assert (s3.open().use(entry) / WEIGHTS).read_text() == "weights"
    assert store.storage.names("quarantine") == []


def test_the_cache_is_bounded_and_what_is_in_use_stays(
    store: Store, s3: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINCH_CACHE_GB", "0.000003")  # three files of 1000 bytes
    monkeypatch.setattr(cache, "GRACE", 0.0)
    entries = [make(store, step(f"m{number}"), str(number) * 1000) for number in range(6)]
    subprocess.run(["rm", "-rf", str(store.root.parent.parent)], check=True)
    small = s3.open()
    for number, entry in enumerate(entries):
        assert (small.use(entry) / WEIGHTS).read_text() == str(number) * 1000
        time.sleep(0.02)
    assert _cached(small) == 3
    assert len(list((small.root / "results").rglob("*.safetensors"))) == 3, "views go with what they link to"
    assert (small.use(entries[0]) / WEIGHTS).read_text() == "0" * 1000, "what went is fetched again"
    monkeypatch.setattr(cache, "GRACE", 600.0)
    for entry in entries:
        s3.open().use(entry)
    assert _cached(small) >= 5, "what was asked for in the last minutes stays"


def _cached(store: Store) -> int:
    return len([path for path in (store.root.parent.parent / "sha256").rglob("*") if path.is_file()])


def test_a_bound_that_is_no_number_is_bad_input(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINCH_CACHE_GB", "plenty")
    with pytest.raises(UserError, match="PINCH_CACHE_GB: 'plenty'"):
        s3.open()


# What was interrupted


def test_a_session_killed_after_it_published_leaves_a_whole_result_for_gc(store: Store, s3: Place) -> None:
    entry = make(store, step(), "weights")
    number = entry.manifest["data"].rpartition("/")[2]
    about = {"kind": "fine_tune", "key": entry.key, "session": "f" * 32, "files": {}}
    record = f"attempts/{entry.key[:16]}.{number}.json"
    store.storage.write(record, as_json({**about, "attempt": f"{step().folder}.{number}"}))
    (left,) = store.abandoned()
    store.discard(left)
    assert store.storage.names("attempts") == []
    assert [problem for _, problem in s3.open().verify()] == [None]


def test_the_manifest_is_put_last(store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, s3: Place) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 0.0)
    attempt = store.attempt(step())
    (attempt / "a").write_text("a")
    (attempt / "b").write_text("b")
    for number in range(20):  # record, two files, record, manifest, and looks at them: each fails in turn
        proxy.faults.extend([""] * number + ["500"])
        try:
            store.publish(step(), attempt, {})
        except StorageAway:
            assert s3.open().find("fine_tune", step().key) is None
            assert attempt.is_dir()
        else:
            break
        proxy.faults.clear()
    assert number >= 2
    assert [problem for _, problem in s3.open().verify()] == [None]


def test_a_manifest_that_points_into_another_result_is_not_one(store: Store, s3: Place) -> None:
    one, other = make(store, step("one")), make(store, step("other"))
    name = f"manifests/fine_tune/{one.key[:16]}.json"
    for data in (other.manifest["data"], "fine_tune/..", "/etc", ""):
        store.storage.write(name, as_json({**one.manifest, "data": data}))
        assert s3.open().find("fine_tune", one.key) is None


def test_no_name_in_a_bucket_leads_out_of_this_machines_folder(store: Store, s3: Place, tmp_path: Path) -> None:
    mine = tmp_path / "mine.0"
    mine.mkdir()
    about = {"kind": "fine_tune", "key": step().key, "session": "f" * 32, "files": {}}
    for name in (str(mine), os.path.relpath(mine, store.root / "attempts"), ".."):
        folder, _, number = name.rpartition(".")
        store.storage.write(f"attempts/{folder[-16:]}.{number}.json", as_json({**about, "attempt": name}))
        store.storage.write("attempts/0000000000000000.0.json", as_json({**about, "attempt": name}))
        assert list(s3.open().abandoned()) == []
    entry = make(store, step())
    for name in (str(mine), f"..{mine}", "a/b"):
        lying = {**entry.manifest, "name": name, "data": f"{PurePosixPath('fine_tune', name)}-{entry.key[:16]}/0"}
        store.storage.write(f"manifests/fine_tune/{entry.key[:16]}.json", as_json(lying))
        assert s3.open().find("fine_tune", entry.key) is None
    assert mine.is_dir()


def test_a_result_made_again_is_not_quarantined_for_the_one_before(store: Store, s3: Place) -> None:
    old = make(store, step(), "weights")
    late = s3.open()
    late.find("fine_tune", old.key)
    s3.spoil(old, WEIGHTS, b"wEights")
    forget_machine(store)
    subprocess.run(["rm", "-rf", str(store.root.parent.parent / "sha256")], check=True)
    with pytest.raises(Corrupt):
        s3.open().use(old)
    new = make(s3.open(), step(), "other weights")
    with pytest.raises(Corrupt):
        late.use(old)  # it still knows the old one
    assert late.find("fine_tune", old.key) == new
    assert (late.use(new) / WEIGHTS).read_text() == "other weights"


def test_manifests_are_read_once_on_a_machine(store: Store, proxy: Proxy, s3: Place) -> None:
    for number in range(5):
        make(store, step(f"m{number}"))
    assert len(s3.open().entries("fine_tune")) == 5
    fresh = s3.open()
    proxy.faults.extend([""] + ["503"] * 100)  # the first request is a listing, and there is no other
    assert len(fresh.entries("fine_tune")) == 5
    assert proxy.met == []
    proxy.faults.clear()


def test_who_glances_lists_less_often_the_longer_a_listing_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "GLANCE", 0.0)
    listings: list[str] = []
    listed = store.storage.stamps

    def slowly(kind: str) -> dict[str, str]:
        listings.append(kind)
        time.sleep(0.2)
        return listed(kind)

    monkeypatch.setattr(store.storage, "stamps", slowly)
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        assert store.glance("fine_tune", step().key) is None
    assert listings == ["fine_tune"], "the next would be after four seconds"


def test_who_glances_reads_what_is_asked_for_and_sees_what_others_made(
    store: Store, s3: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "GLANCE", 0.0)
    monkeypatch.setattr(store_module, "GLANCES", 0)
    made = [make(store, step(f"m{number}")) for number in range(5)]
    other = s3.open()
    read: list[str] = []
    really = other.storage.read
    monkeypatch.setattr(other.storage, "read", lambda name: read.append(name) or really(name))
    for _ in range(3):
        assert other.glance("fine_tune", made[0].key) == made[0]
        assert other.glance("fine_tune", step("late").key) is None
    assert read == [f"manifests/fine_tune/{made[0].key[:16]}.json"]
    late = make(store, step("late"))
    assert other.glance("fine_tune", late.key) == late
