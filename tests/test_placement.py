"""Which workers there are on which GPUs: every sweep ends on every cluster, and no GPU is taken twice or left idle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.virtual_cluster import Times, VirtualCluster
from orchestrator.identity import Step
from orchestrator.run.agenda import Order, State
from orchestrator.run.placement import Activity, Decision, Demand, Role, Size, Worker, decide

TIMES = Times(
    step={"fine_tune": 600, "selection": 80, "generation_set": 20, "comparison": 30},
    start={Role.LANE: 10, Role.ENGINE: 15, Role.JUDGE: 15},
    swap=2,
    spread=0.9,
    state_every=0.1,
    noticed=5,
    replaced=60,
)


def sweep(models: int, languages: int, corpora: int = 0) -> tuple[list[Step], Order]:
    """``models`` fine-tunes, each answering in every language and compared with the first ones, round robin."""
    inputs = [Step(kind="base", name="base", payload={})]
    tunes = [Step(kind="fine_tune", name=str(at), payload={"m": at}, needs=tuple(inputs)) for at in range(models)]
    selections = [Step(kind="selection", name=tune.name, payload={"t": tune.key}, needs=(tune,)) for tune in tunes]
    sets = [
        [
            Step(kind="generation_set", name=f"{made.name}.{at}", payload={"s": made.key, "l": at}, needs=(made,))
            for at in range(languages)
        ]
        for made in selections
    ]
    comparisons = [
        Step(
            kind="comparison",
            name=f"{at}.{language}",
            payload={"a": sets[language % models][language].key, "b": sets[at][language].key},
            needs=(sets[language % models][language], sets[at][language]),
        )
        for at in range(models)
        for language in range(languages)
        if at != language % models
    ]
    owner = {step.key: tune.key for tune in tunes for step in (tune,)}
    owner |= {made.key: tune.key for tune, made in zip(tunes, selections, strict=True)}
    owner |= {step.key: tune.key for tune, of_model in zip(tunes, sets, strict=True) for step in of_model}
    steps = [*inputs, *tunes, *selections, *(step for of_model in sets for step in of_model), *comparisons]
    return steps, Order(owner, {tune.key for tune in tunes[:languages]})


class Watched(VirtualCluster):
    """Looks at everything whenever nothing more can be done at a moment."""

    def _settle(self) -> None:
        super()._settle()
        workers = [waiter.worker for waiter in self._waiters.values()]
        free = dict(self._nodes)
        for worker in workers:
            size = self._sizes[worker.role]
            assert sum(gpus for _, gpus in worker.seat) == size.gpus
            assert len(worker.seat) <= 1 or not size.together
            for node, gpus in worker.seat:
                free[node] -= gpus
        assert all(gpus >= 0 for gpus in free.values()), "a GPU is taken twice"
        demands = {role: self._agenda.demand(role, self._order.model_of) for role in Role}
        unused = [worker for worker in workers if worker.activity is Activity.IDLE]
        for role in Role:  # and those that come up for nothing
            unused += [w for w in workers if w.role is role and w.activity == "starting"][demands[role].ready :]
        for role, size in self._sizes.items():
            of_role = [worker for worker in workers if worker.role is role]
            starting = sum(worker.activity is Activity.STARTING for worker in of_role)
            waiting = demands[role].ready - starting
            if waiting <= 0 or (size.most is not None and len(of_role) >= size.most):
                continue
            room = dict(free)
            for worker in unused:
                for node, gpus in worker.seat:
                    room[node] += gpus
            assert not _has_room(room, self._nodes, size), f"{waiting} steps wait for a {role} and there is room"


def _has_room(free: Mapping[str, int], nodes: Mapping[str, int], size: Size) -> bool:
    if size.together or any(gpus >= size.gpus for gpus in nodes.values()):
        return any(gpus >= size.gpus for gpus in free.values())
    return sum(free.values()) >= size.gpus


@st.composite
def clusters(draw: st.DrawFn) -> tuple[dict[str, int], dict[Role, Size]]:
    """1 to 64 GPUs in nodes of any shape, and sizes that fit on them."""
    shape = draw(st.lists(st.integers(1, 8), min_size=1, max_size=64).filter(lambda shape: sum(shape) <= 64))
    nodes = {f"node-{at}": gpus for at, gpus in enumerate(shape)}
    inside = st.integers(1, max(shape))
    judge = st.one_of(st.just(Size(gpus=0, most=1)), st.builds(lambda gpus: Size(gpus=gpus), inside))
    sizes = {
        Role.LANE: Size(gpus=draw(st.one_of(inside, st.integers(1, sum(shape)))), together=False),
        Role.ENGINE: Size(gpus=draw(inside)),
        Role.JUDGE: draw(judge),
    }
    return nodes, sizes


@settings(max_examples=150, deadline=None)
@given(clusters(), st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_every_sweep_ends_on_every_cluster_and_nothing_waits_where_it_has_room(
    cluster: tuple[dict[str, int], dict[Role, Size]], models: int, languages: int, turn: int, lossy: bool, seed: int
) -> None:
    nodes, sizes = cluster
    steps, order = sweep(models, languages)
    run = Watched(steps, order, nodes, sizes, TIMES, turn)
    if lossy:
        run.lose_nodes(every=900, seed=seed)
    run.run()
    assert all(state is State.DONE for state in run._agenda.states.values())


@given(clusters(), st.sets(st.sampled_from(Role)), st.integers(0, 3), st.integers(0, 40), st.integers(1, 6))
def test_a_role_whose_size_is_not_known_yet_is_waited_for(
    cluster: tuple[dict[str, int], dict[Role, Size]], known: set[Role], ready: int, left: int, turn: int
) -> None:
    nodes, sizes = cluster
    demand = Demand(ready=ready, left=ready + left, models=ready)
    demands = {role: demand if role in known else Demand(left=demand.left) for role in Role}
    decision = decide(nodes, [], {role: sizes[role] for role in known}, demands, turn)
    assert {role for role, _ in decision.start} <= known


def test_on_one_gpu_the_roles_take_turns_of_so_many_models() -> None:
    tuned, peak, starts = 0, 0, dict.fromkeys(Role, 0)

    class Turns(Watched):
        def _hand(self, waiter: Any) -> bool:
            nonlocal tuned, peak
            handed = super()._hand(waiter)
            if handed and waiter.worker.role is Role.LANE:
                tuned = len(self._agenda.ready("selection"))
                peak = max(peak, tuned)
            return handed

        def _up(self, name: str) -> None:
            if name in self._waiters:
                starts[self._waiters[name].worker.role] += 1
            super()._up(name)

    steps, order = sweep(models=12, languages=3)
    sizes = {role: Size(gpus=1) for role in Role}
    Turns(steps, order, {"only": 1}, sizes, TIMES, 4).run()
    assert peak == 3, "a fourth model that waits for the engine ends the lane's turn"
    assert starts[Role.LANE] == 3
    assert starts[Role.ENGINE] == 3


def test_freed_training_gpus_go_to_engines_at_once() -> None:
    lane = Worker(name="lane", role=Role.LANE, seat=(("a", 4),), activity=Activity.IDLE)
    demands = {Role.LANE: Demand(), Role.ENGINE: Demand(ready=9, left=9, models=9)}
    sizes = {Role.LANE: Size(gpus=4), Role.ENGINE: Size(gpus=1), Role.JUDGE: Size(gpus=1)}
    decision = decide({"a": 4}, [lane], sizes, demands, 4)
    assert decision == Decision(("lane",), ((Role.ENGINE, (("a", 1),)),) * 4, ((Role.ENGINE, 5),))


def test_an_engine_of_several_gpus_lies_in_one_node_and_a_lane_larger_than_a_node_in_as_few_as_it_can() -> None:
    nodes = {"a": 2, "b": 3, "c": 4}
    sizes = {Role.LANE: Size(gpus=6, together=False), Role.ENGINE: Size(gpus=3)}
    engines = decide(nodes, [], sizes, {Role.ENGINE: Demand(ready=5, left=5)}, 4)
    assert engines.start == ((Role.ENGINE, (("b", 3),)), (Role.ENGINE, (("c", 3),)))
    lanes = decide(nodes, [], sizes, {Role.LANE: Demand(ready=5, left=5)}, 4)
    assert lanes.start == ((Role.LANE, (("b", 2), ("c", 4))),)
    assert not decide(nodes, [], {Role.ENGINE: Size(gpus=5)}, {Role.ENGINE: Demand(ready=1, left=1)}, 4).start


def test_small_workers_fill_the_fullest_node_so_that_whole_nodes_stay_whole() -> None:
    sizes = {Role.ENGINE: Size(gpus=1)}
    there = Worker(name="e", role=Role.ENGINE, seat=(("b", 1),), activity=Activity.BUSY)
    decision = decide({"a": 4, "b": 4, "c": 4}, [there], sizes, {Role.ENGINE: Demand(ready=3, left=3)}, 4)
    assert decision.start == ((Role.ENGINE, (("b", 1),)),) * 3


def test_without_gpus_a_lane_and_an_engine_come_up_side_by_side_before_there_is_work_for_them() -> None:
    sizes = {role: Size(gpus=0, most=1) for role in Role}
    soon = {Role.LANE: Demand(soon=3, left=3), Role.ENGINE: Demand(soon=1, left=9), Role.JUDGE: Demand(left=9)}
    decision = decide({}, [], sizes, soon, 4)
    assert decision == Decision((), ((Role.LANE, ()), (Role.ENGINE, ())))
    up = [Worker(name=role, role=role, seat=(), activity=Activity.IDLE) for role, _ in decision.start]
    assert decide({}, up, sizes, soon, 4) == Decision()


def test_gpus_are_given_back_when_nothing_is_left_for_their_worker() -> None:
    idle = Worker(name="engine", role=Role.ENGINE, seat=(("a", 1),), activity=Activity.IDLE)
    sizes = {role: Size(gpus=1) for role in Role}
    assert decide({"a": 2}, [idle], sizes, {}, 4).end == ("engine",)
    assert decide({"a": 2}, [idle], sizes, {Role.ENGINE: Demand(left=1)}, 4) == Decision()
    busy = dataclasses.replace(idle, activity=Activity.BUSY)
    assert decide({"a": 2}, [busy], sizes, {}, 4) == Decision()
