"""Translations as steps: what is planned, what is keyed, what is asked and kept, and what a corpus is made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator import translations
from orchestrator.corpus.base import EVAL_FILE, TRAIN_FILE, flagged_ids, read_examples
from orchestrator.identity import Step
from orchestrator.languages import language
from orchestrator.plan import Plan
from orchestrator.run.jobs import Place, make_corpus
from orchestrator.run.translating import TranslationJob, assemble, flags_sentence, record_of, translate
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import Pinch
from tests.judge_server import Answer as Reply
from tests.judge_server import Asked, JudgeServer, fails
from tests.translation_examples import PRICE, write_sweep
from tests.translation_server import finnish, google_says, openai_says, shouted, strings_of
from trainables.errors import EnvironmentProblem, UserError
from trainables.translators import Target, open_translator
from trainables.translators.courses import digest


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda number, asked: openai_says(asked, finnish)) as one:
        yield one


@pytest.fixture
def sweep(tmp_path: Path, server: JudgeServer) -> Path:
    return write_sweep(tmp_path, server)


def plan_of(sweep: Path, *overrides: str) -> Plan:
    return Plan(load(str(sweep), list(overrides)))


def english_in(store: Store, plan: Plan) -> Place:
    """The store with the English corpus in it, as a place to work."""
    store.create()
    place = Place(str(store.root), store.sessions.id)
    make_corpus(place, plan.corpus_steps.imports["en"], plan.corpus, "en")
    return place


def translate_into(code: str, plan: Plan, place: Place) -> Step:
    """Translate and put the corpus together in this process; returns the corpus' step."""
    translator = plan.translator
    assert translator is not None
    step = plan.corpus_steps.translations[code]
    job = TranslationJob(
        step=step,
        english=plan.corpus_steps.imports["en"].key,
        translator=translator,
        target=Target(code, language(code).name),
        price=1000.0,
    )
    ledger = translations.ledger_of(place.open(), translator, code)
    engine = open_translator(translator)

    def ask(strings: list[str]) -> dict[str, str]:
        refused: dict[str, str] = {}

        def keep(answers: Any) -> None:
            refused.update({digest(string): one.refused for string, one in answers.items() if one.refused})
            ledger.extend({digest(string): record_of(one) for string, one in answers.items() if not one.refused})

        engine.translate(strings, job.target, keep)
        return refused

    translate(place, job, ask)
    assemble(place, plan.corpora[code])
    return plan.corpora[code]


# What is planned


def test_every_language_but_english_is_translated_from_one_import(sweep: Path) -> None:
    plan = plan_of(sweep)
    assert [step.name for step in plan.of_kind("translation")] == ["hub-es-openai-m", "hub-fi-openai-m"]
    assert [step.name for step in plan.of_kind("corpus")] == ["hub-en", "hub-es", "hub-fi"]
    english = plan.corpora["en"]
    assert english.needs == ()
    for code in ("es", "fi"):
        translation = plan.corpus_steps.translations[code]
        assert translation.needs == (english,)
        assert plan.corpora[code].needs == (english, translation)
    seen: set[str] = set()
    for step in plan.steps:
        assert all(needed.key in seen for needed in step.needs), step.name
        seen.add(step.key)
    assert {step.kind for step in plan.translating} == {"corpus", "translation"}


def test_english_is_imported_even_where_it_is_only_translated_from(sweep: Path) -> None:
    overrides = ["corpus.languages=[es,fi]", "studies=[{study: monolingual, languages: [es, fi]}]"]
    plan = plan_of(sweep, *overrides)
    assert sorted(plan.corpora) == ["es", "fi"]
    assert [step.name for step in plan.of_kind("corpus")] == ["hub-en", "hub-es", "hub-fi"]


def test_what_is_not_translated_has_no_such_steps(sweep: Path) -> None:
    overrides = ["corpus.languages=[en]", "studies=[{study: monolingual, languages: [en]}]"]
    for plan in (plan_of(sweep, *overrides), Plan(load("demo"))):
        assert plan.of_kind("translation") == plan.translating == []


def test_a_causal_model_that_translates_is_prepared_first(sweep: Path) -> None:
    plan = plan_of(sweep, "corpus.translator={engine: local, model: tiny, architecture: causal}")
    assert plan.translator_base is not None
    assert plan.translator_base.key == plan.base.key
    assert plan.corpus_steps.translations["fi"].needs[1] is plan.translator_base
    assert len(plan.of_kind("base")) == 1


RUNTIME = ("parallel=2", "requests_per_minute=7", "characters_per_minute=7", "timeout=1", "tries=1")
IDENTITY = ("model=n", "revision=may", "temperature=0.5", "prompt=PROMPT")


@pytest.mark.parametrize("setting", [*RUNTIME, "base_url=https://h/v1", "api_key_env=OTHER"])
def test_how_a_translator_is_reached_moves_no_key(sweep: Path, setting: str) -> None:
    changed = plan_of(sweep, f"corpus.translator.{setting}")
    assert [step.key for step in changed.steps] == [step.key for step in plan_of(sweep).steps]


@pytest.mark.parametrize("setting", IDENTITY)
def test_another_translator_makes_other_corpora_and_models_but_no_other_english(
    sweep: Path, setting: str, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text("{text} in {language}, please")
    changed = plan_of(sweep, f"corpus.translator.{setting.replace('PROMPT', str(tmp_path / 'prompt.txt'))}")
    before = plan_of(sweep)
    assert changed.corpora["en"].key == before.corpora["en"].key
    assert changed.find_model("mono-en").key == before.find_model("mono-en").key
    for code in ("es", "fi"):
        assert changed.corpora[code].key != before.corpora[code].key
        assert changed.find_model(f"mono-{code}").key != before.find_model(f"mono-{code}").key


def test_more_prompts_translate_more_and_tune_nothing_again(sweep: Path) -> None:
    before, after = plan_of(sweep), plan_of(sweep, "corpus.eval_count=8")
    for code in ("es", "fi"):
        for old, new in (
            (before.corpora[code], after.corpora[code]),
            (before.corpus_steps.translations[code], after.corpus_steps.translations[code]),
        ):
            assert old.key != new.key
            assert old.family == new.family
    assert before.corpora["en"].key == after.corpora["en"].key
    assert [step.key for step in before.of_kind("fine_tune")] == [step.key for step in after.of_kind("fine_tune")]
    assert [s.family for s in before.of_kind("generation_set")] == [s.family for s in after.of_kind("generation_set")]


def test_the_papers_plan_needs_neither_network_nor_data(pinch: Pinch) -> None:
    shown = json.loads(pinch("plan", "paper", "--json").stdout)
    counts = {name: value for name, value in shown.items() if isinstance(value, int)}
    assert counts == {
        "listed_models": 79,
        "fine_tunes": 56,
        "generation_sets": 579,
        "comparisons": 562,
        "judge_calls": 693508,
    }
    assert sum(step["kind"] == "translation" for step in shown["steps"]) == 16
    told = shown["translation"]
    assert told["cost"] is None
    assert told["characters"] == 16 * (2_640_000 + 4_010_000 + 105_000)
    assert all(one["about"] for one in told["languages"])


def test_characters_and_cost_are_told_before_anything_is_asked(sweep: Path, server: JudgeServer, pinch: Pinch) -> None:
    told = json.loads(pinch("plan", sweep, "--json", "--set", PRICE).stdout)["translation"]
    plan = plan_of(sweep)
    assert told["cost"] == pytest.approx(told["characters"] / 1000)
    assert [one["about"] for one in told["languages"]] == [False, False]
    said = pinch("plan", sweep, "--set", PRICE).stderr
    assert f"Translation: {told['characters']:,} characters to send to openai-m, into 2 languages: about" in said
    assert "no cost: runtime.prices names no price for million_characters" in pinch("plan", sweep).stderr
    assert server.asked == []
    place = english_in(Store(sweep.parent / "store"), plan)
    for code in ("es", "fi"):
        translate_into(code, plan, place)
    assert sum(len(string) for asked in server.asked for string in strings_of(asked)) == told["characters"]
    assert translations.sentence(plan, place.open()) is None


# What is asked, kept and made


def test_a_corpus_is_put_together_from_its_translation(sweep: Path, server: JudgeServer, tmp_path: Path) -> None:
    server.behave = lambda number, asked: openai_says(asked, shouted)
    plan, store = plan_of(sweep), Store(tmp_path / "store")
    step = translate_into("fi", plan, english_in(store, plan))
    entry = store.find("corpus", step.key)
    assert entry is not None
    train, evaluation = (
        read_examples(store.root / entry.place / TRAIN_FILE),
        read_examples(store.root / entry.place / EVAL_FILE),
    )
    assert tuple(example.id for example in train) == plan.train_ids
    assert [example.id for example in evaluation] == plan.eval_ids
    assert train[3].instruction == "EXPLAIN STEP 3 OF THIS RECIPE WITH `code3`."
    assert train[3].response == (
        "FIRST STIR THE SOUP 3 TIMES.\n\n```\nstir(3)\n```\n- THEN WAIT FOR {minutes} MINUTES.\n- SERVE IT."
    )
    assert evaluation[2] == ("alpacafarm-0002", "WRITE A LETTER OF 2 LINES TO A FRIEND.", None)
    assert flagged_ids(store.root / entry.place) == {*plan.train_ids, *plan.eval_ids}, "shouting is no Finnish"
    made = store.find("translation", plan.corpus_steps.translations["fi"].key)
    assert made is not None
    assert made.facts["flags"] == {"untranslated": 38, "length": 0, "language": 0, "of": 38}
    assert flags_sentence(store, plan.corpus_steps.translations) == (
        "Translations in doubt: fi 38 of 38 (38 untranslated)."
    )


def test_good_translations_are_not_in_doubt_and_the_facts_say_what_they_took(
    sweep: Path, server: JudgeServer, tmp_path: Path
) -> None:
    plan, store = plan_of(sweep), Store(tmp_path / "store")
    step = translate_into("fi", plan, english_in(store, plan))
    entry = store.find("corpus", step.key)
    assert entry is not None
    assert flagged_ids(store.root / entry.place) == set()
    made = store.find("translation", plan.corpus_steps.translations["fi"].key)
    assert made is not None
    sent = sum(len(string) for asked in server.asked for string in strings_of(asked))
    assert made.facts["flags"] == {"untranslated": 0, "length": 0, "language": 0, "of": 38}
    assert (made.facts["characters"], made.facts["cost"]) == (sent, pytest.approx(sent / 1000))
    assert made.facts["prompt_tokens"] == 100 * len(server.asked)
    assert made.facts["models"] == ["judge-2026"]


@pytest.mark.parametrize("engine", ["openai", "google"])
def test_what_is_in_the_ledger_is_not_asked_for_by_a_larger_sweep(
    server: JudgeServer, tmp_path: Path, engine: str
) -> None:
    if engine == "google":
        server.behave = lambda number, asked: google_says(asked, finnish)
    sweep = write_sweep(tmp_path, server, engine)
    plan, store = plan_of(sweep), Store(tmp_path / "store")
    place = english_in(store, plan)
    translate_into("fi", plan, place)
    before = Counter(string for asked in server.asked for string in strings_of(asked))
    assert before.total() == len(before) == 38
    larger = plan_of(sweep, "corpus.train_count=20", "corpus.eval_count=8")
    left = {one.language: one.left for one in translations.standings(larger, store)}
    server.asked.clear()
    translate_into("fi", larger, place)
    after = Counter(string for asked in server.asked for string in strings_of(asked))
    assert after.total() == 4 * 2 + 2
    assert not before & after
    assert left["fi"] == sum(map(len, after))
    server.asked.clear()
    other = plan_of(sweep, "corpus.translator.revision=may")
    translate_into("fi", other, place)
    assert sum(len(strings_of(asked)) for asked in server.asked) == 38, "another translator is asked for everything"


def test_a_refused_text_stays_english_and_is_in_doubt(sweep: Path, server: JudgeServer, tmp_path: Path) -> None:
    def behave(number: int, asked: Asked) -> Reply:
        return fails(400, "content filter") if "recipe" in asked.prompt else openai_says(asked, finnish)

    server.behave = behave
    plan, store = plan_of(sweep), Store(tmp_path / "store")
    step = translate_into("fi", plan, english_in(store, plan))
    entry = store.find("corpus", step.key)
    assert entry is not None
    assert (
        read_examples(store.root / entry.place / TRAIN_FILE)[0].instruction
        == "Explain step 0 of this recipe with `code0`."
    )
    table = pq.read_table(next((store.root / "translation").glob("*/translations.parquet"))).to_pylist()
    assert Counter(row["flag"] for row in table) == {"untranslated": 16, None: 22}


def test_a_translator_that_translates_nothing_at_all_publishes_nothing(
    sweep: Path, server: JudgeServer, tmp_path: Path
) -> None:
    server.behave = lambda number, asked: fails(400, "maximum context length is 7")
    plan, store = plan_of(sweep), Store(tmp_path / "store")
    with pytest.raises(EnvironmentProblem, match=r"translated none of 38 texts into Finnish \(400: maximum context"):
        translate_into("fi", plan, english_in(store, plan))
    assert store.entries("translation") == {}
    server.behave = lambda number, asked: openai_says(asked, finnish)
    translate_into("fi", plan, english_in(store, plan))


def test_a_limit_without_a_price_is_refused(sweep: Path) -> None:
    with pytest.raises(UserError, match=r"add runtime\.prices\.million_characters"):
        translations.check_price(plan_of(sweep, "runtime.max_cost=1"))
    translations.check_price(plan_of(sweep, "runtime.max_cost=1", PRICE))
    translations.check_price(plan_of(sweep, "runtime.max_cost=1", "corpus.languages=[en]", "studies.0.languages=[en]"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("{engine: gogle}", "Did you mean google"),
        ("{engine: openai}", r"corpus\.translator\.model: is missing"),
        ("{engine: google, modle: x}", "did you mean 'model'"),
        ("{engine: openai, model: m, api_key_env: sk-1}", "never put a key here"),
        ("{engine: local, model: nowhere}", r"corpus\.translator\.model: .*nowhere"),
        ("{engine: openai, model: m, prompt: nowhere}", r"corpus\.translator\.prompt: 'nowhere'"),
    ],
)
def test_a_wrong_translator_is_refused_with_the_cure(sweep: Path, setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan_of(sweep, f"corpus.translator={setting}")
