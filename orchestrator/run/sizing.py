"""How many GPUs the workers of a run take, told once there is something to tell it from, and who may start yet.

On a machine without a GPU there is one lane, one engine and one judge. With GPUs, a role's size is known when its model
is in the store and a GPU has said how much memory it has; no GPU is held before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from orchestrator.gpu_memory import check
from orchestrator.identity import Step
from orchestrator.plan import Plan
from orchestrator.run.agenda import OPEN
from orchestrator.run.board import Board, State
from orchestrator.run.gpus import Nodes, gpu_memory, gpus_of_engine, gpus_of_lane
from orchestrator.run.placement import Size
from orchestrator.store import Corrupt
from trainables.model_shape import ModelShape, read_shape

ASKED = 3
"""How often nodes with free GPUs may say nothing of their memory before it counts as unknown."""
ALONE = Size(gpus=0, most=1)
REFERENCES = Size(gpus=0, most=4)
"""Judges that only compare with a reference: a core each, on a cluster that has many."""


class Sizing:
    """The size of each role's workers, or None as long as none may start."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        nodes: Nodes | None,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            nodes: None where the run uses no GPUs.
        """
        self._plan, self._board, self._nodes, self._say = plan, board, nodes, say
        self._memory: tuple[float, float] | None = None
        self._looked, self._silent = False, 0
        self._shapes: dict[str, ModelShape] = {}
        self._lane: Size | None = None
        self._engine: Size | None = None
        self._judge: Size | None = None

    def lane(self) -> Size | None:
        """Beside the making of the base on a CPU.

        Raises:
            EnvironmentProblem: a fine-tune does not fit into the GPUs there are.
        """
        if self._nodes is None:
            return ALONE
        if self._lane is None and (nodes := self._there(self._plan.base)):
            shape, counts = self._shapes[self._plan.base.key], self._board.counts("fine_tune")
            waiting = sum(counts[state] for state in OPEN)
            gpus = gpus_of_lane(self._plan.sweep, shape, self._memory, nodes, waiting)
            self._lane = Size(gpus=gpus, together=False)
            if self._memory is None:
                self._say("Memory: no GPU said how much it has, so nothing was checked.")
            else:
                host = self._memory[1] / min(gpus, max(nodes.values()))
                self._say(check(self._plan.sweep, shape, gpus, self._memory[0], host, sum(nodes.values())))
        return self._lane

    def engine(self) -> Size | None:
        """Raises:
        EnvironmentProblem: no node has as many GPUs as an engine takes.
        """
        if self._board.state(self._plan.base) is not State.DONE:
            return None
        if self._nodes is None:
            return ALONE
        if self._engine is None:
            self._engine = self._answering(self._plan.base, "gpus_per_engine")
        return self._engine

    def judge(self) -> Size | None:
        """Raises:
        EnvironmentProblem: no node has as many GPUs as a judge takes.
        """
        plan, base = self._plan, self._plan.judge_base
        if base is not None and self._board.state(base) is not State.DONE:
            return None
        if self._board.counts("generation_set")[State.DONE] < 2:
            return None
        if self._nodes is None or base is None:
            return REFERENCES if self._nodes is not None and plan.sweep.judge.kind == "reference" else ALONE
        if self._judge is None:
            self._judge = self._answering(base, "gpus_per_judge")
        return self._judge

    def _answering(self, base: Step, setting: Literal["gpus_per_engine", "gpus_per_judge"]) -> Size | None:
        """Of an engine or judge; one of transformers takes the one GPU that it is loaded to, whatever its shape."""
        runtime = self._plan.sweep.runtime
        shaped = runtime.engine != "transformers"
        if not (nodes := self._there(base, shaped)):
            return None
        shape = self._shapes[base.key] if shaped else None
        return Size(gpus=gpus_of_engine(getattr(runtime, setting), setting, shape, self._memory, nodes))

    def _there(self, base: Step, shaped: bool = True) -> Mapping[str, int]:
        """The GPUs, once the model is there (and its shape known) and the memory was looked at; nothing before."""
        assert self._nodes is not None
        nodes = self._nodes.whole()
        if not nodes or self._board.state(base) is not State.DONE or (shaped and not self._read(base)):
            return {}
        return nodes if self._looked or self._look(self._nodes.free()) else {}

    def _look(self, free: Mapping[str, int]) -> bool:
        """Ask the nodes that have GPUs to spare how much memory there is; False when it is to be asked again."""
        if not (asked := [node for node, gpus in free.items() if gpus]):
            return False
        said = gpu_memory(asked)
        self._silent += not said
        if not said and self._silent < ASKED:
            self._say("No machine said how much memory its GPUs have; asking again.")
            return False
        self._memory, self._looked = min((memory for memory in said if memory is not None), default=None), True
        return True

    def _read(self, base: Step) -> bool:
        """Read a model's shape; False when it has to be made again first."""
        if base.key not in self._shapes:
            store = self._board.store
            entry = store.find("base", base.key)
            if entry is None:
                if base not in self._board.reopen():
                    store.distrust(base)
                    self._board.reopen()
                self._say(f"base {base.name}: what is left of it is no result; making it again.")
                return False
            try:
                self._shapes[base.key] = read_shape(store.use(entry, weights=False))
            except Corrupt as spoiled:
                self._say(self._board.quarantined(spoiled))
                return False
        return True
