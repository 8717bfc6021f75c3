"""`pinch submit`: a sweep as a job on a real Ray head, killed and stopped in several ways, and what is said of it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import yaml
from ray.job_submission import JobStatus
from rich.console import Console

from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.submit.bundle import FILE_SETTINGS, bundle, named_files
from orchestrator.submit.conclusion import Known, Patience, conclude
from orchestrator.submit.following import Following
from orchestrator.submit.head import Head, Job
from orchestrator.sweep import CldrSource, FilesSource, HubSource, Sweep, load
from tests.conftest import SMALL, Pinch
from tests.faults import digests
from tests.object_servers import free_port
from tests.ray_head import ROOT, RayHead
from trainables.errors import UserError
from trainables.judges.specs import LocalJudge, RemoteJudge
from trainables.recipe import Recipe
from trainables.translators.specs import GoogleTranslator, LocalTranslator, OpenAITranslator

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# What travels


def _files_sweep(folder: Path) -> Path:
    rows = [
        {"id": f"x-{n}", "language": code, "instruction": f"{code} {n}?", "response": f"{code} {n}."}
        for n in range(20)
        for code in ("en", "fi")
    ]
    (folder / "data").mkdir()
    for name in ("train", "eval"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{name}.jsonl").write_text(text)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "mine.txt").write_text("Q: {instruction}\nA:")
    corpus = {
        "source": "files",
        "languages": ["en", "fi"],
        "train": "data/train.jsonl",
        "eval": "data/eval.jsonl",
        "train_count": 16,
        "dev_count": 4,
        "eval_count": 4,
    }
    plain = yaml.safe_load(SMALL)
    plain["corpus"] = corpus
    plain["recipe"]["template"] = str(folder / "elsewhere" / "mine.txt")
    plain["studies"] = [{"study": "monolingual", "languages": ["en", "fi"]}]
    sweep = folder / "mine.yaml"
    sweep.write_text(yaml.safe_dump(plain))
    return sweep


def test_a_sweep_means_the_same_where_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(str(_files_sweep(tmp_path)), ["recipe.steps=6"])
    digest = Plan(loaded).digest
    with bundle(loaded.sweep) as travels:
        assert not travels.left
        assert (travels.folder / "data" / "train.jsonl").is_file(), "a relative path keeps its place"
        assert (travels.folder / "files" / "recipe.template" / "mine.txt").is_file()
        monkeypatch.chdir(travels.folder)
        for folder in ("data", "elsewhere"):
            (tmp_path / folder).rename(tmp_path / f"{folder}-away")
        arrived = load(travels.sweep)
        assert arrived.sweep.recipe.steps == 6
        assert Plan(arrived).digest == digest


def test_what_is_too_large_stays_and_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(str(_files_sweep(tmp_path)))
    with bundle(loaded.sweep, limit=1000) as travels:
        assert {file.name for file in travels.left} == {"corpus.train", "corpus.eval"}
        assert load(str(travels.folder / travels.sweep)).sweep.corpus.train == str(tmp_path / "data" / "train.jsonl")
        assert "corpus.train" in travels.sentence()
        assert "every node" in travels.sentence()
        assert [path.name for path in travels.folder.rglob("*.jsonl")] == []


@pytest.mark.parametrize("name", ["demo", "paper", "gemma-trial", "paper-tiny"])
def test_a_shipped_sweep_names_no_files(name: str) -> None:
    assert list(named_files(load(name).sweep)) == []


def test_every_setting_that_may_name_a_file_is_known_to_travel() -> None:
    """By what the specs say of themselves: a new field for a path fails here until it is in the list."""
    specs = {
        "": Sweep,
        "recipe": Recipe,
        "corpus": FilesSource,
        "corpus ": HubSource,
        "corpus  ": CldrSource,
        "judge": LocalJudge,
        "judge ": RemoteJudge,
        "corpus.translator": OpenAITranslator,
        "corpus.translator ": LocalTranslator,
        "corpus.translator  ": GoogleTranslator,
    }
    told = {
        f"{where.strip()}.{name}".strip(".")
        for where, spec in specs.items()
        for name, field in spec.model_fields.items()
        if re.search(r"\b(path|folder|file|JSONL|the same)\b", field.description or "")
    }
    assert told | {"base"} == FILE_SETTINGS


# What is refused


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "auto", "127.0.0.1:8265", "http://me:secret@head:8265"])
def test_an_address_that_is_no_dashboards_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:8265"):
        Head(address)


def test_a_head_that_does_not_answer_ends_the_command_at_once(small: Path, pinch: Pinch) -> None:
    done = pinch("submit", small, "--address", "http://127.0.0.1:9", check=3)
    assert "ray dashboard" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_is_suggested_repeats_the_overrides(small: Path, tmp_path: Path) -> None:
    class Left(Head):
        """Somebody presses Ctrl-C while it is asked."""

        def running(self, about: Mapping[str, str]) -> str | None:
            raise KeyboardInterrupt

    said = io.StringIO()
    loaded = load(str(small), ["recipe.steps=6"])
    following = Following(loaded, str(tmp_path / "store"), Left("http://127.0.0.1:1"), Console(file=said, width=400))
    assert following.run() == 130
    assert f"pinch submit {small} --set recipe.steps=6 --address http://127.0.0.1:1 --store" in said.getvalue()


def test_a_cluster_that_would_do_something_else_refuses(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    done = pinch("run", small, "--store", tmp_path / "store", "--expect", "0" * 16, check=2)
    assert "another plan" in done.stderr
    assert not (tmp_path / "store").exists()


# Whose heart beats


def test_a_session_in_a_container_beside_us_is_not_dead_because_its_pid_is_not_ours(tmp_path: Path) -> None:
    beating = "import sys, time; from orchestrator.store import Store; store = Store(sys.argv[1], 'contained'); "
    beating += "store.create(); store.sessions.start('in a container'); time.sleep(60)"
    unshare = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this process may not have a process namespace of its own")
    contained = subprocess.Popen([*unshare, sys.executable, "-c", beating, str(tmp_path)], env=_ENVIRONMENT)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "sessions" / "contained.json").exists():
            assert contained.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        store = Store(tmp_path)
        assert json.loads((tmp_path / "sessions" / "contained.json").read_text())["pid"] < 10, (
            "a pid of its own namespace"
        )
        assert store.sessions.alive("contained")
    finally:
        contained.kill()
        contained.wait()


PATIENCE = Patience()
RUNNING, FAILED, SUCCEEDED = (Job(JobStatus[name], None, "") for name in ("RUNNING", "FAILED", "SUCCEEDED"))
LONG = 10_000.0
CASES = {
    "running, and silent for a moment": (RUNNING, True, 1.0, 500.0, 5, None),
    "running, and silent": (RUNNING, True, LONG, LONG, 5, "silent"),
    "running, everything made, drawing its report": (RUNNING, True, PATIENCE.silent_for + 1, LONG, 0, None),
    "running, everything made, and stuck": (RUNNING, True, LONG, LONG, 0, "not ending"),
    "running, not begun yet": (RUNNING, False, 100.0, 100.0, 5, None),
    "running, never begun": (RUNNING, False, LONG, LONG, 5, "not begun"),
    "forgotten by Ray": (None, True, 0.0, 100.0, 5, "forgotten"),
    "failed": (FAILED, True, 0.0, 100.0, 5, "ended"),
    "succeeded": (SUCCEEDED, True, 0.0, 100.0, 0, "ended"),
    "succeeded, results not seen yet": (SUCCEEDED, True, 1.0, 100.0, 5, None),
    "succeeded, results missing": (SUCCEEDED, True, LONG, LONG, 5, "ended"),
}


@pytest.mark.parametrize("case", CASES)
def test_without_a_heartbeat_rays_word_counts_for_what_it_is_worth(case: str) -> None:
    job, seen, quiet, age, missing, how = CASES[case]
    end = conclude(Known(job=job, seen=seen, quiet=quiet, age=age, missing=missing), PATIENCE)
    assert (end.how if end else None) == how


# On a real head

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
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
    submit = Submit(head, _files_sweep(folder), folder / "store", as_typed=True)
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
