"""Random faults over a small sweep, round after round: is anything lost, made twice, or different?

A round takes a fresh store (base and corpora made once), runs `pinch run` as a process, and causes one to three faults
at random moments (see `benchmarks/faults.py`). Then the same command is run until it is done, and everything is looked
at from outside: results that were there stay as they were (what a round spoiled itself aside), every verdict is there
once, the scores are an undisturbed run's to the last digit, and no lease or process is left.

Rounds are independent and drawn from the seed. What is done is kept in a folder: the same command, stopped, goes on
where it was. The store and logs of a round that did not survive stay there. The exit status is 1 when one did not.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.faults import FAULTS, Hung, Scene, Session, draw, environment, kill_all, marked, pinch
from benchmarks.witness import Witness
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import load

SWEEP = """
name: chaos
corpus: {source: cldr, languages: [en, fi], train_count: 64, dev_count: 4, eval_count: 8}
base: tiny
recipe:
  steps: 16
  batch_size: 8
  learning_rate: 2.0e-3
  max_input_tokens: 96
  max_target_tokens: 48
  checkpoint_every: 8
sampling: {temperature: 0.7, top_p: 0.9, max_new_tokens: 24}
studies:
  - {study: monolingual, languages: [en, fi]}
  - {study: pinch, languages: [en, fi], percents: [50], counts: []}
"""
"""Three models, six response sets, four comparisons of eight prompts."""
TRIES = 3
"""Runs after the last fault, one of which must end with 0."""
LEAVES_WITHIN = 30.0
"""Seconds that what a session started has to be gone after it."""


class Chaos:
    """The rounds of one seed, and the folder they are kept in."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Raises:
        SystemExit: the folder holds rounds of something else.
        """
        self.folder, self.seed = folder, seed
        folder.mkdir(parents=True, exist_ok=True)
        self.sweep = folder / "chaos.yaml"
        about = folder / "about.json"
        mine = {"seed": seed, "sweep": SWEEP, "faults": list(FAULTS)}
        if about.exists() and json.loads(about.read_text()) != mine:
            raise SystemExit(f"--folder {folder}: holds rounds of another seed, sweep or set of faults; name another.")
        about.write_text(json.dumps(mine))
        self.sweep.write_text(SWEEP)
        plan = Plan(load(str(self.sweep)))
        self.kinds = {step.key[:16]: step.kind for step in plan.steps}
        self.comparisons = plan.of_kind("comparison")
        self.mark = f"{folder}/{time.monotonic_ns()}"
        self._rounds = folder / "rounds.jsonl"

    def done(self) -> dict[int, dict[str, Any]]:
        """Round -> what came of it."""
        lines = self._rounds.read_text().splitlines() if self._rounds.exists() else []
        return {row["round"]: row for row in map(json.loads, lines)}

    def undisturbed(self, engine: str) -> dict[str, Any]:
        """Seconds and scores of a run that nothing happens to, measured once per engine."""
        kept = self.folder / f"undisturbed-{engine}.json"
        base = self.folder / "base"
        if not (base / "made").exists():
            shutil.rmtree(base, ignore_errors=True)
            print("Making the base and the corpora, once.", flush=True)
            self._run_alone(base, "transformers")
            (base / "made").touch()
        if not kept.exists():
            with tempfile.TemporaryDirectory(prefix="undisturbed-", dir=self.folder) as folder:
                self._copy_inputs(Path(folder))
                seconds = self._run_alone(Path(folder), engine)
                scores = self._said(Path(folder), "scores").stdout
            if engine == "transformers" and scores != self._said(base, "scores").stdout:
                raise SystemExit("Two undisturbed runs have different scores: nothing can be compared with them.")
            kept.write_text(json.dumps({"seconds": seconds, "scores": scores}))
        return json.loads(kept.read_text())

    def _run_alone(self, folder: Path, engine: str) -> float:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ray-") as scratch:
            session = Session(self.sweep, folder / "store", self.mark, Path(scratch), settings(engine))
            if session.wait() != 0:
                raise SystemExit(f"An undisturbed run failed:\n{session.log.read_text()}")
            return time.monotonic() - session.began

    def _copy_inputs(self, folder: Path) -> None:
        store = folder / "store"
        store.mkdir(parents=True)
        for kind in ("base", "corpus"):
            shutil.copytree(self.folder / "base" / "store" / kind, store / kind)

    def _said(self, folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = pinch(self.sweep, folder / "store", command, *arguments)
        if command == "verify":
            line.remove(str(self.sweep))
        return subprocess.run(
            line,
            cwd=folder,
            env=environment(f"{self.mark}/looking", folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def round(self, number: int, engine: str) -> dict[str, Any]:
        """One round; its store is removed when it survived."""
        expected = self.undisturbed(engine)
        rng = random.Random(f"{self.seed} {number}")
        folder = Path(tempfile.mkdtemp(prefix=f"round-{number:03d}-", dir=self.folder))
        self._copy_inputs(folder)
        mark = f"{self.mark}/{number}"
        faults: list[dict[str, str]] = []
        problems: list[str] = []
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ray-") as scratch, Witness(folder / "store") as witness:
            scene = Scene(rng, folder / "store", witness, lambda: start())

            def start() -> Session:
                session = Session(self.sweep, folder / "store", mark, Path(scratch), settings(engine))
                scene.sessions.append(session)
                return session

            try:
                for planned in draw(rng):
                    what = planned.strike(scene, self.kinds)
                    if what is not None:
                        faults.append({"kind": planned.kind, "phase": planned.phase, "what": what})
                for session in scene.sessions:
                    session.wait()
                if not any(session.driver.returncode == 0 for session in scene.sessions):
                    self._until_done(scene)
                seconds = time.monotonic() - began
                if witness.spoiled:
                    self._said(folder, "verify")
                    self._until_done(scene)
                problems += self._left(mark)
            except Hung as hung:
                seconds = time.monotonic() - began
                problems.append(str(hung))
            finally:
                kill_all(mark)
            changed = witness.changed()
        lost = witness.lost + changed
        verdicts = self._verdicts(folder / "store")
        problems += lost + verdicts + self._differs(folder, expected["scores"])
        problems += [
            f"{session.log.name} ended with {session.driver.returncode}, to which nothing had been done that it "
            "should not go on after"
            for session in scene.sessions
            if session.unharmed and session.driver.returncode != 0
        ]
        outcome = {
            "round": number,
            "engine": engine,
            "seconds": round(seconds, 1),
            "time_lost": round(seconds - expected["seconds"], 1),
            "faults": faults,
            "exits": [session.driver.returncode for session in scene.sessions],
            "made_twice": sum(made_twice(session, witness) for session in scene.sessions),
            "lost": len(lost),
            "verdicts": len(verdicts),
            "problems": problems,
        }
        with self._rounds.open("a") as file:
            file.write(json.dumps(outcome) + "\n")
        if not problems:
            shutil.rmtree(folder)
        return outcome

    def _until_done(self, scene: Scene) -> None:
        """The same command again, until it ends with 0."""
        for _ in range(TRIES):
            if scene.start().wait() == 0:
                return

    def _left(self, mark: str) -> list[str]:
        """Processes that outlive the last session."""
        deadline = time.monotonic() + LEAVES_WITHIN
        while (left := list(marked(mark))) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [f"process left: {' '.join(process.cmdline())[:80]}" for process in left if process.is_running()]

    def _verdicts(self, store: Path) -> list[str]:
        """Verdicts that are missing or there twice; a comparison that is missing is one problem."""
        wrong = []
        for step in self.comparisons:
            path = store / "comparison" / step.folder / "verdicts.parquet"
            if not path.exists():
                wrong.append(f"{step.name} was not compared")
                continue
            rows = pq.read_table(path).to_pylist()
            there = Counter((row["instruction_id"], row["order"]) for row in rows if row["choice"] is not None)
            wrong += [f"{step.name}: {count} verdicts on {call}" for call, count in there.items() if count > 1]
            wanted = 2 * int(step.needs[0].payload["prompts"])
            wrong += [f"{step.name}: a verdict is missing"] * (wanted - len(there))
        return wrong

    def _differs(self, folder: Path, scores: str) -> list[str]:
        """Whether the store holds, nobody works on it, and its scores are these."""
        verified = self._said(folder, "verify")
        problems = [] if verified.returncode == 0 else [f"pinch verify: {verified.stderr.strip()}"]
        problems += [f"lease left: {key} of {who}" for key, who in Store(folder / "store").sessions.holders().items()]
        if self._said(folder, "scores").stdout != scores:
            problems.append("the scores are not an undisturbed run's")
        return problems


def settings(engine: str) -> list[str]:
    return ["--set", f"runtime.engine={engine}"]


def made_twice(session: Session, witness: Witness) -> int:
    """How many steps more a session says it made than it published; one that was killed says nothing."""
    for line in session.log.read_text().splitlines():
        if line.startswith("chaos: ") and ", in " in line:
            parts = [part.split() for part in line.removeprefix("chaos: ").split(", in ")[0].split(", ")]
            said = sum(int(part[0]) for part in parts if part[-1] in Witness.MADE)
            return max(0, said - witness.by_session[session.id])
    return 0


def in_a_line(outcome: dict[str, Any], rounds: int, minutes_left: float) -> str:
    faults = "; ".join(
        f"{fault['phase']}: {fault['kind']}" + (f" ({fault['what']})" if fault["what"] else "")
        for fault in outcome["faults"]
    )
    came = "survived" if not outcome["problems"] else "NOT SURVIVED: " + "; ".join(outcome["problems"])
    ends = ", ".join(map(str, outcome["exits"]))
    return (
        f"round {outcome['round']} of {rounds}, {outcome['engine']}: {faults or 'no fault had its moment'}. "
        f"Exits {ends}; {outcome['seconds']:.0f} s, {outcome['time_lost']:+.0f}; {came}. {minutes_left:.0f} min left."
    )


def summary(outcomes: list[dict[str, Any]]) -> str:
    """What was done and what came of it; the last line says it all."""
    kinds = Counter(fault["kind"] for outcome in outcomes for fault in outcome["faults"])
    lines = ["", "faults:"] + [f"{count:4d}  {kind}" for kind, count in kinds.most_common()]
    survived = sum(not outcome["problems"] for outcome in outcomes)
    twice, lost, verdicts = (sum(outcome[name] for outcome in outcomes) for name in ("made_twice", "lost", "verdicts"))
    late = statistics.median(outcome["time_lost"] for outcome in outcomes)
    lines.append(
        f"chaos: {survived} of {len(outcomes)} rounds survived, {kinds.total()} faults; {twice} steps made twice, "
        f"{lost} results lost, {verdicts} verdicts missing or doubled; "
        f"{sum(outcome['time_lost'] for outcome in outcomes) / 60:.1f} min lost, {late:.0f} s a round (median)"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="default: pinch-chaos-SEED among the temporary files")
    parser.add_argument("--vllm-every", type=int, default=10, help="every so many rounds with vLLM; 0: never")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.gettempdir()) / f"pinch-chaos-{arguments.seed}"
    chaos = Chaos(folder.absolute(), arguments.seed)
    print(f"Kept in {chaos.folder}; stopped, the same command goes on.", flush=True)
    outcomes = {number: row for number, row in chaos.done().items() if number <= arguments.rounds}
    took: list[float] = []
    try:
        for number in range(1, arguments.rounds + 1):
            if number in outcomes:
                continue
            engine = "vllm" if arguments.vllm_every and number % arguments.vllm_every == 0 else "transformers"
            chaos.undisturbed(engine)
            began = time.monotonic()
            outcomes[number] = chaos.round(number, engine)
            took.append(time.monotonic() - began)
            left = (arguments.rounds - len(outcomes)) * statistics.mean(took) / 60
            print(in_a_line(outcomes[number], arguments.rounds, left), flush=True)
    except KeyboardInterrupt:
        kill_all(chaos.mark)
        print(f"Stopped after {len(outcomes)} of {arguments.rounds} rounds; the same command goes on.")
        sys.exit(130)
    print(summary(list(outcomes.values())))
    sys.exit(any(outcome["problems"] for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
