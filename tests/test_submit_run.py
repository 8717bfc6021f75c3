"""`pinch submit`: a sweep as a job on a real Ray head, killed and stopped in several ways, and what is said of it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL
from tests.faults import digests
from tests.object_servers import free_port
from tests.ray_head import RayHead
from tests.submit_examples import files_sweep

FOLLOW = """
import sys
from rich.console import Console
from orchestrator.submit.conclusion import Patience
from orchestrator.submit.following import Following
from orchestrator.submit.head import Head
from orchestrator.sweep import load
from trainables.errors import EnvironmentProblem

sweep, store, address = sys.argv[1:]
patience = Patience(look_every=0.5, line_every=2, silent_for=5, settles_within=3, away_for=120, pause=0.2)
try:
    sys.exit(Following(load(sweep), store, Head(address), Console(stderr=True), patience).run())
except EnvironmentProblem as problem:
    print(problem, file=sys.stderr)
    sys.exit(3)
"""
"""`pinch submit` with less patience."""


class Submit:
    """`pinch submit` as a process of its own."""

    def __init__(self, head: RayHead, sweep: Path, store: Path, *, as_typed: bool = False) -> None:
        self.head, self.store = head, store
        self.log = store.parent / f"submit-{time.monotonic_ns()}.log"
        command = ["-c", FOLLOW, str(sweep), str(store), head.address]
        if as_typed:
            command = ["-m", "orchestrator.cli", "submit", str(sweep), "--store", str(store), "--address", head.address]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=store.parent,
            env=head.client_environment,
            stdout=subprocess.DEVNULL,
            stderr=self.log.open("w"),
            start_new_session=True,
        )

    def text(self) -> str:
        return self.log.read_text()

    def ids(self) -> list[str]:
        return re.findall(r"Submitted (\S+)\. Ctrl-C", self.text())

    def until(self, condition: Callable[[], bool], timeout: float = 300) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"it ended first:\n{self.text()}"
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def driver(self, submission: str) -> psutil.Process:
        """The process that is the job, by what its session says of itself."""
        file = self.store / "sessions" / f"{submission}.json"
        self.until(file.exists)
        return psutil.Process(json.loads(file.read_text())["pid"])

    def tuning(self) -> bool:
        return any((self.store / "attempts").glob("*/checkpoint-*"))

    def wait(self, status: int, timeout: float = 500) -> None:
        assert self.process.wait(timeout) == status, f"{self.text()}\n{self.head.log()}"


TWO = SMALL.replace("  - {study: pinch, languages: [en, fi], percents: [50], counts: []}\n", "")
"""Two models in two languages."""


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    head = RayHead()
    try:
        head.start()
        yield head
    finally:
        head.close()


@pytest.fixture(autouse=True)
def _no_orders(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "head" in request.fixturenames:
        request.getfixturevalue("head").orders.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def first(head: RayHead, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Submit:
    """A sweep with files of one's own, submitted as typed; the store holds its base."""
    folder = tmp_path_factory.mktemp("first")
    shutil.copytree(undisturbed / "base", folder / "store" / "base")
    submit = Submit(head, files_sweep(folder), folder / "store", as_typed=True)
    submit.wait(0)
    return submit


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TWO)
    return path


def missing(sweep: Path, store: Path) -> int:
    opened = Store(store)
    return sum(opened.find(step.kind, step.key) is None for step in Plan(load(str(sweep))).steps)


@pytest.mark.slow
def test_a_submitted_sweep_is_made_on_the_cluster_with_the_files_it_names(first: Submit) -> None:
    text = first.text()
    assert len(first.ids()) == 1
    assert "Scores: 4 of 4" in text, "the end of what the job printed is shown"
    made = json.loads(next((first.store / "comparison").glob("*/manifest.json")).read_text())["made"]
    assert made["session"] == first.ids()[0]


@pytest.mark.slow
def test_without_the_clusters_token_it_says_which_variables_to_set(head: RayHead, sweep: Path, tmp_path: Path) -> None:
    bare = {name: value for name, value in head.client_environment.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "submit", str(sweep), "--address", head.address],
        cwd=tmp_path,
        env={**bare, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert "a-token-of-this-test" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_running_and_a_killed_job_is_submitted_again(
    head: RayHead, sweep: Path, begun: Path
) -> None:
    left = Submit(head, sweep, begun)
    left.until(lambda: bool(left.ids()))
    (submission,) = left.ids()
    driver = left.driver(submission)
    left.process.send_signal(signal.SIGINT)
    left.wait(130, timeout=30)
    for words in (f"pinch status {sweep}", f"ray job logs {submission}", f"ray job stop {submission}"):
        assert words in left.text()
    assert driver.is_running()

    again = Submit(head, sweep, begun)
    again.until(lambda: f"Following {submission}" in again.text())
    again.until(again.tuning)
    driver.kill()
    before = digests(begun)
    again.wait(0)
    (second,) = again.ids()
    assert second != submission
    assert missing(sweep, begun) == 0
    assert {path: digest for path, digest in digests(begun).items() if path in before} == before


@pytest.mark.slow
def test_a_job_that_ray_calls_running_is_dead_when_its_heart_stands_still(
    head: RayHead, sweep: Path, begun: Path
) -> None:
    submit = Submit(head, sweep, begun)
    submit.until(submit.tuning)
    (first,) = submit.ids()
    submit.driver(first).suspend()
    submit.until(lambda: len(submit.ids()) == 2)
    assert f"{first} is lost: Ray says running, but its heartbeat in the store stopped" in submit.text()
    submit.wait(0)
    assert missing(sweep, begun) == 0


@pytest.fixture(params=["nothing", "Redis"])
def remembering(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RayHead]:
    """A head that remembers nothing of its life before, or, by Redis, all of it."""
    if request.param == "nothing":
        yield request.getfixturevalue("head")
        return
    if shutil.which("redis-server") is None:
        pytest.skip("apt-get install redis-server")
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    head = RayHead(more={"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}", "RAY_external_storage_namespace": "a-test"})
    try:
        head.start()
        yield head
    finally:
        head.close()
        redis.terminate()
        redis.wait(20)


@pytest.mark.slow
def test_a_head_that_died_and_came_back_is_given_the_sweep_again(
    remembering: RayHead, sweep: Path, begun: Path
) -> None:
    head = remembering
    submit = Submit(head, sweep, begun)
    submit.until(submit.tuning)
    head.kill()
    submit.until(lambda: "waiting for it to come back" in submit.text())
    head.start()
    submit.wait(0)
    assert len(set(submit.ids())) == 2
    assert f"{submit.ids()[0]} is lost" in submit.text()
    assert missing(sweep, begun) == 0


@pytest.mark.slow
def test_a_sweep_that_moves_nowhere_is_not_submitted_for_ever(head: RayHead, sweep: Path, begun: Path) -> None:
    head.orders.write_text("echo struck down; kill -9 $$\n")
    submit = Submit(head, sweep, begun)
    submit.wait(3, timeout=120)
    assert len(set(submit.ids())) == 3
    assert "3 attempts in a row died without a new result" in submit.text()
    assert "struck down" in submit.text()


@pytest.mark.slow
def test_a_job_that_says_done_is_asked_for_what_it_made(head: RayHead, sweep: Path, begun: Path) -> None:
    head.orders.write_text("exit 0\n")
    submit = Submit(head, sweep, begun)
    submit.wait(3, timeout=120)
    assert "Ray says its job is done, but" in submit.text()


@pytest.mark.slow
def test_input_that_the_cluster_cannot_use_is_bad_input_here_too(head: RayHead, sweep: Path, begun: Path) -> None:
    head.orders.write_text('echo "small.yaml: base: is not there"; exit 2\n')
    submit = Submit(head, sweep, begun, as_typed=True)
    submit.wait(2, timeout=120)
    assert "small.yaml: base: is not there" in submit.text()
    assert len(submit.ids()) == 1
