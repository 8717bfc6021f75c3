"""From what a sweep names to what it means: the corpus behind its ``corpus`` section."""

from __future__ import annotations

from orchestrator.corpus.base import Corpus
from orchestrator.sweep import CldrSource, CorpusSpec, FilesSource


def open_corpus(spec: CorpusSpec, needs_references: bool) -> Corpus:
    """The corpus a sweep names, told its languages and counts; nothing is built.

    Args:
        needs_references: whether eval examples must come with responses (the reference judge needs them).

    Raises:
        UserError: fewer examples than asked for, or user files that cannot be used, with the row and the cure.
    """
    if isinstance(spec, CldrSource):
        from orchestrator.corpus.cldr import CldrCorpus

        return CldrCorpus(
            languages=spec.languages,
            train_count=spec.train_count,
            dev_count=spec.dev_count,
            eval_count=spec.eval_count,
        )
    if isinstance(spec, FilesSource):
        from orchestrator.corpus.files import FilesCorpus

        return FilesCorpus(
            train=spec.train,
            eval=spec.eval,
            languages=spec.languages,
            train_count=spec.train_count,
            eval_count=spec.eval_count,
            needs_references=needs_references,
        )
    from orchestrator.corpus.hub import HubCorpus
    from orchestrator.corpus.hub_data import Source

    sources = {
        name: Source(name, revision=spec.revisions.get(name), copy=spec.copies.get(name))
        for name in (*spec.train, spec.eval)
    }
    return HubCorpus(
        train=[sources[name] for name in spec.train],
        evaluation=sources[spec.eval],
        translator=spec.translator,
        train_count=spec.train_count,
        eval_count=spec.eval_count,
        needs_references=needs_references,
    )
