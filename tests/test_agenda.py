"""What is ready, what is soon and what is left, counted as states change, is what looking at every step would say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.identity import Step
from orchestrator.run.agenda import KINDS, Agenda, State
from orchestrator.run.placement import Demand, Role


@st.composite
def plans(draw: st.DrawFn) -> list[Step]:
    """Steps of every kind, each needing some of those before it."""
    steps: list[Step] = []
    kinds = [kind for of_role in KINDS.values() for kind in of_role]
    for at in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.sampled_from(steps), max_size=3, unique=True)) if steps else []
        kind = draw(st.sampled_from(kinds))
        steps.append(Step(kind=kind, name=f"{kind}-{at % 3}", payload={"at": at}, needs=tuple(needs)))
    return steps


def looked_up(steps: list[Step], states: dict[str, State], role: Role, first: set[str]) -> Demand:
    mine = [step for step in steps if step.kind in KINDS[role]]
    todo = [step for step in mine if states[step.key] is State.TODO and (not first or step.key in first)]
    ready = [step for step in todo if all(states[need.key] is State.DONE for need in step.needs)]
    begun = (State.DONE, State.RUNNING)
    return Demand(
        ready=len(ready),
        soon=sum(all(states[need.key] in begun for need in step.needs) for step in todo) - len(ready),
        left=sum(states[step.key] in (State.TODO, State.ELSEWHERE) for step in mine),
        models=len({step.name for step in ready}),
    )


@settings(max_examples=150, deadline=None)
@given(plans(), st.lists(st.tuples(st.integers(0, 11), st.sampled_from(State)), max_size=40), st.booleans())
def test_counts_follow_every_change_of_state(
    steps: list[Step], changes: list[tuple[int, State]], holding: bool
) -> None:
    agenda = Agenda(steps)
    first = {step.key for step in steps[::2]} if holding else set()
    if holding:
        agenda.hold_back(steps[::2])
    for at, state in changes:
        agenda.set(steps[at % len(steps)], state)
        if state is State.DONE:
            first.discard(steps[at % len(steps)].key)
        for role in Role:
            found = agenda.demand(role, lambda step: step.name)
            assert found == looked_up(steps, agenda.states, role, first)
        for kind in agenda.kinds:
            states = [agenda.states[step.key] for step in steps if step.kind == kind]
            assert {state: len(agenda.in_state(kind, state)) for state in State} == {
                state: states.count(state) for state in State
            }
            assert [step for step in steps if step in agenda.ready(kind)] == agenda.ready(kind), "in plan order"


def test_what_is_held_back_comes_when_what_goes_first_is_done() -> None:
    one, other = (Step(kind="fine_tune", name=name, payload={"name": name}) for name in ("one", "other"))
    agenda = Agenda([one, other])
    agenda.hold_back([other])
    assert agenda.ready("fine_tune") == [other]
    agenda.set(other, State.DONE)
    assert agenda.ready("fine_tune") == [one]
