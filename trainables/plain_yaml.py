"""YAML that a user wrote, or a program, as plain data; of all that YAML can do, what settings need.

Without tags, keys written once, nested less deeply than a parser's stack, and not larger than it looks: with anchors a
thousand bytes can stand for gigabytes. So a text is looked through before anything is made of it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import UserError, shown

LEVELS = 100
"""Of lists and keys in one another."""
PARTS = 1_000_000
"""Values, lists and keys of a whole text."""
DIGITS = 100
"""A longer number is none that a setting could have."""


class NotYaml(Exception):
    """What is wrong with a text; it repeats no value. ``line`` counts from 1; None where it is not known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read_file(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        UserError: it cannot be read, or is not YAML; with the line.
    """
    try:
        return read_text(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read ({problem}); give a YAML file in UTF-8.") from None
    except NotYaml as problem:
        where = f"{path} line {problem.line}" if problem.line else str(path)
        raise UserError(f"{where}: is not YAML ({problem}); mend the line.") from None


def read_text(text: str) -> Any:
    """What a YAML text says.

    Raises:
        NotYaml: nothing that is read here.
    """
    strange = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if strange:
        raise NotYaml(f"{strange[0]!a} is no printable character", text.count("\n", 0, strange.start()) + 1)
    try:
        _look_through(text)
        return yaml.load(text, Loader=_NoDoubledKeys)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        raise NotYaml(str(problem.problem), mark.line + 1 if mark else None) from None
    except yaml.YAMLError as problem:
        raise NotYaml(str(problem).splitlines()[0]) from None


def _look_through(text: str) -> None:
    """Refuses what is too deep, or too large once every anchor is written out, before anything is made of it."""
    known: dict[str | None, tuple[int, int]] = {}
    """Anchor -> the parts that it stands for, and their levels."""
    above: list[tuple[Any, int, int]] = []
    """The lists and keys that are open: where each began, its parts and its levels so far."""
    for event in yaml.parse(text, Loader=_NoDoubledKeys):
        problem, parts, levels = None, 1, 0
        if getattr(event, "tag", None):
            problem = "a word that begins with ! is a tag, and none is known; write text in quotes"
        elif isinstance(event, yaml.AliasEvent):
            parts, levels = known.get(event.anchor, (0, 0))
            if not parts:
                problem = "a word that begins with * names what was written before it, and this one nothing; quote text"
        elif isinstance(event, yaml.CollectionStartEvent):
            above.append((event, 1, 1))
            if len(above) <= LEVELS:
                continue
        elif isinstance(event, yaml.CollectionEndEvent):
            began, parts, levels = above.pop()
            known[began.anchor] = parts, levels
        elif isinstance(event, yaml.ScalarEvent):
            known[event.anchor] = 1, 0
        else:
            continue
        if above:
            began, so_far, deepest = above[-1]
            above[-1] = began, so_far + parts, max(deepest, levels + 1)
            if so_far + parts > PARTS:
                problem = f"more than {PARTS:,} parts, once what * names is written out"
        if levels + len(above) > LEVELS:
            problem = f"more than {LEVELS} levels in one another"
        if problem:
            raise NotYaml(problem, event.start_mark.line + 1 if event.start_mark else None)


# libyaml's parser, where PyYAML has it: a sweep of ten thousand mixtures is a megabyte
_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _NoDoubledKeys(_Fastest):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for name, times in Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)).items():
            if times > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {shown(name)} is written twice; keep one", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        problem = f"what looks like a {'date' if kind == 'timestamp' else 'number'} is none; write text in quotes"
        if kind in ("int", "float") and len(node.value) > DIGITS:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except ValueError:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


# "no" is Norwegian's code, not false; only true and false are booleans here
_NoDoubledKeys.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NoDoubledKeys.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
