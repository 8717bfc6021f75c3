"""What a fine-tune is asked to do. Whoever hands it on needs nothing that tunes."""

from __future__ import annotations

from pathlib import Path

from trainables.parallel import Parallel
from trainables.recipe import Recipe
from trainables.spec import Spec, identity, runtime


class FineTuneJob(Spec):
    """One fine-tune to run. Its key is computed by who asks; here only recipe and seed are identity by themselves."""

    name: str = runtime(description="for people")
    base: Path = runtime(description="prepared base folder")
    examples: Path = runtime(description="parquet id, language, instruction, response; sorted by id, dev left out")
    recipe: Recipe = identity()
    seed: int = identity()
    template: str = runtime(description="the template's text, or chat")
    out: Path = runtime(description="the attempt's folder, nobody else's")
    resume: bool = runtime(False, description="continue from the newest complete state in out")
    parallel: Parallel = runtime(default_factory=Parallel)
