"""How to cite the paper and Pinch, as BibTeX: on the page and in a model's card."""

from __future__ import annotations

PAPER = """\
@article{shaham2024multilingual,
  title   = {Multilingual Instruction Tuning With Just a Pinch of Multilinguality},
  author  = {Shaham, Uri and Herzig, Jonathan and Aharoni, Roee and Szpektor, Idan and Tsarfaty, Reut and Eyal, Matan},
  journal = {arXiv preprint arXiv:2401.01854},
  year    = {2024}
}"""


def citation(version: str, note: str) -> str:
    """Two entries: the paper, and Pinch of this version; no brace or backslash is left in ``note`` that could end it.

    Args:
        note: what the numbers depend on.
    """
    plain = note.translate({ord(character): None for character in "{}\\"})
    return f"""{PAPER}

@software{{pinch_sweeps,
  title   = {{Pinch: sweeps for how much multilingual data an instruction-tuning set needs}},
  version = {{{version}}},
  note    = {{{plain}}}
}}"""
