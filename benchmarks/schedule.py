"""How near the run's scheduling comes to the best there could be: the paper's grid with its work replaced by waits.

No schedule ends before max(all work / GPUs, longest chain of steps), starts and swaps of weights not counted. The
paper's sweep (56 fine-tunes, 579 response sets, 562 comparisons) is scheduled by the code that schedules a run:
on 8, 64 and 256 GPUs on a virtual clock, undisturbed and with a node lost every ten minutes; with ``--ray``, on 8 GPUs
that do not exist in a real Ray cluster, with the run's own actors, Tune and store, and waits made shorter.

How long steps take is worked out, not measured (:data:`TIMES`); each lies up to a quarter to either side of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from benchmarks.virtual_cluster import Times, VirtualCluster, bound
from orchestrator.plan import Plan
from orchestrator.run.agenda import Order
from orchestrator.run.placement import TURN, Role, Size
from orchestrator.sweep import load

MINUTE = 60.0
SIZES = {
    Role.LANE: Size(gpus=4, together=False),
    Role.ENGINE: Size(gpus=1),
    Role.JUDGE: Size(gpus=1),
}
"""GPUs of 80 GB: a 7B model is tuned whole on four under ZeRO 3, and answers on one; the 14B judge takes one."""
TIMES = Times(
    step={"fine_tune": 60 * MINUTE, "selection": 8 * MINUTE, "generation_set": MINUTE, "comparison": 3 * MINUTE},
    start={Role.LANE: MINUTE, Role.ENGINE: 1.5 * MINUTE, Role.JUDGE: 1.5 * MINUTE},
    swap=10.0,
    spread=0.25,
    state_every=0.05,
    noticed=15.0,
    replaced=3 * MINUTE,
)
"""Worked out for H100s at 400 Tflop/s. A fine-tune: 2,000 steps of 128 examples of about 450 tokens, 6 x 7.6e9 flop a
token, 3.6 GPU-hours, and ten checkpoints of 15 GB at 1 GB/s. A selection: ten checkpoints loaded, 250 greedy answers
each, at 4,000 tokens/s. A set: 617 answers of about 300 tokens. A comparison: 1,234 prompts of about 1,500 tokens read
by 14e9 parameters. A state every half a checkpoint interval, as in a run; a dead node was noticed after 14 s in Ray."""
SHAPES = {8: 4, 64: 8, 256: 8}
"""GPUs in all -> GPUs of a node."""
BAR, BAR_WITH_LOSSES = 1.15, 1.4
LOSS_EVERY = 10 * MINUTE


def virtual(plan: Plan, gpus: int, seeds: int) -> dict[str, Any]:
    """One size on the virtual clock."""
    steps, order = plan.steps, Order.of(plan)
    nodes = {f"node-{at:02d}": SHAPES[gpus] for at in range(gpus // SHAPES[gpus])}
    best = bound(steps, TIMES, SIZES, gpus)

    def ratio(seed: int | None) -> float:
        cluster = VirtualCluster(steps, order, nodes, SIZES, TIMES, TURN)
        if seed is not None:
            cluster.lose_nodes(LOSS_EVERY, seed)
        return cluster.run() / best.seconds

    lossy = [ratio(seed) for seed in range(seeds)]
    return {
        "gpus": gpus,
        "bound_hours": round(best.seconds / 3600, 2),
        "of": "work" if best.work > best.path else "longest chain",
        "ratio": round(ratio(None), 3),
        "with_losses_median": round(statistics.median(lossy), 3),
        "with_losses_worst": round(max(lossy), 3),
    }


def in_ray(plan: Plan, gpus: int, speed: float) -> dict[str, Any]:
    """One size in real Ray; Ray's own delays count ``speed`` times."""
    from benchmarks.waiting_cluster import run

    best = bound(plan.steps, TIMES, SIZES, gpus)
    print(f"{gpus} GPUs in real Ray, {speed:g} times as fast: at best {best.seconds / speed:.0f} s", flush=True)
    shape = [SHAPES[gpus]] * (gpus // SHAPES[gpus])
    took = run(plan, shape, SIZES, TIMES, speed, lambda line: print(line, flush=True))
    print(f"{took / speed:.0f} s; time to finish over the bound {took / best.seconds:.3f} (bar {BAR})")
    return {"gpus": gpus, "speed": speed, "ratio": round(took / best.seconds, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", default="paper")
    parser.add_argument("--ray", action="store_true", help="on 8 GPUs in real Ray instead")
    parser.add_argument("--speed", type=float, default=150.0, help="with --ray: how much shorter the waits are")
    parser.add_argument("--seeds", type=int, default=10, help="runs with losses at each size")
    parser.add_argument("--gpus", type=int, nargs="*", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    plan = Plan(load(arguments.sweep))
    if arguments.ray:
        print(json.dumps(in_ray(plan, 8, arguments.speed)))
        return
    results = []
    for gpus in arguments.gpus:
        began = time.monotonic()
        found = virtual(plan, gpus, arguments.seeds)
        results.append(found)
        print(
            f"{gpus:4d} GPUs in nodes of {SHAPES[gpus]}: bound {found['bound_hours']:6.2f} h ({found['of']}); "
            f"time to finish over it {found['ratio']:.3f} (bar {BAR}); a node lost every {LOSS_EVERY / 60:.0f} min: "
            f"{found['with_losses_median']:.3f}, worst of {arguments.seeds} {found['with_losses_worst']:.3f} "
            f"(bar {BAR_WITH_LOSSES})  [{time.monotonic() - began:.0f} s]",
            flush=True,
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
