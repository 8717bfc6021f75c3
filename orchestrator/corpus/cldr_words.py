"""One language's words for the items of the cldr corpus: CLDR names and formats through Babel, and templates.

Three habits of Babel 2.18 are worked around here, and nowhere else:

* Reading through an alias (the stand-alone months of a language that has only format months, say) writes the
  resolved value into data that all languages share, so the next language may get the names of the first.
  Only names that a language has itself are read here; its file says which those are. A test spoils every
  alias there is before it reads, in another order.
* ``format_unit(length="long")`` falls back to raw ids ("12 duration-day") in some languages;
  ``format_timedelta`` finds the words. A name that is missing, or is only its own code, is an error and
  never a text.
* Formats carry what is invisible: no-break spaces and, in right-to-left languages, direction marks. Spaces
  become plain, because that is what people type and one symbol fewer for a small model; marks are dropped,
  because they steer the display, and a reader, a language identifier and chrF alike should see letters
  only. (The zero-width joiners of Devanagari are spelling, and stay.)

This room must never know which items exist or who asks.
"""

from __future__ import annotations

import datetime
import functools
import re
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from babel import Locale
from babel.dates import format_date, format_timedelta
from babel.lists import format_list
from babel.numbers import format_currency, format_decimal, format_percent

from orchestrator.corpus.cldr_items import Item, Subject
from orchestrator.languages import language as known_language

_LOCALES = {"zh": "zh_Hans", "sr": "sr_Cyrl"}
_INVISIBLE = dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
_SPACES = {0x00A0: " ", 0x202F: " ", 0x2009: " "}
_NO_LIMIT = 10**9
"""As format_timedelta's threshold: never change over to a larger unit."""


@functools.cache
def words(language: str) -> Words:
    """The words of one of the seventeen languages, read once.

    Raises:
        UserError: for a code that is not one of them.
    """
    return Words(known_language(language).code)


class Words:
    """Names, formats and templates of one language; every text is NFC and free of invisible marks."""

    def __init__(self, language: str) -> None:
        self._locale = Locale.parse(_LOCALES.get(language, language))
        path = Path(__file__).parent / "templates" / f"{language}.yaml"
        templates: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.kinds: dict[str, list[dict[str, str]]] = templates["kinds"]
        self.statements: dict[str, list[str]] = templates["statements"]
        self.comma: str = templates["comma"]
        self._fixes: dict[str, list[list[str]]] = templates.get("fixes", {})
        months = self._locale.months[templates["month_names"]]["wide"]
        self._months = [_clean(months[index]) for index in range(1, 13)]
        days = self._locale.days[templates["day_names"]]["wide"]
        self._days = [_clean(days[index]) for index in range(7)]

    def name(self, sort: str, code: str | int) -> str:
        """A territory, currency or language by its code, a month (0 is January) or a day (0 is Monday).

        Raises:
            LookupError: CLDR has no name for it in this language, or only the code itself.
        """
        if sort == "month":
            return self._months[int(code) % 12]
        if sort == "day":
            return self._days[int(code) % 7]
        table = {
            "territory": self._locale.territories,
            "currency": self._locale.currencies,
            "language": self._locale.languages,
        }[sort]
        found = table.get(str(code))
        if not found or found == code:
            raise LookupError(f"CLDR has no name for the {sort} {code!r} in {self._locale}")
        return self._fixed("name", _clean(found))

    def joined(self, items: list[str]) -> str:
        """A list as the language writes it: "A, B, and C"."""
        return self._fixed("list", _clean(format_list(items, style="standard", locale=self._locale)))

    def date(self, iso: str, weekday: bool = False) -> str:
        """A day with its month as a word, and with its weekday if asked."""
        day = datetime.date.fromisoformat(iso)
        return self._fixed("date", _clean(format_date(day, "full" if weekday else "long", locale=self._locale)))

    def number(self, digits: str) -> str:
        """A number given in plain digits, with the language's grouping and decimal mark."""
        return _clean(format_decimal(Decimal(digits), locale=self._locale))

    def percent(self, thousandths: int) -> str:
        """A share as a percentage, all its decimals kept."""
        share = Decimal(thousandths) / 1000
        return _clean(format_percent(share, locale=self._locale, decimal_quantization=False))

    def duration(self, hours: int, minutes: int) -> str:
        """Hours and minutes, counted and joined as the language does."""
        counted = functools.partial(format_timedelta, threshold=_NO_LIMIT, locale=self._locale)
        parts = [
            counted(datetime.timedelta(hours=hours), granularity="hour"),
            counted(datetime.timedelta(minutes=minutes), granularity="minute"),
        ]
        return self.joined([_clean(part) for part in parts])

    def later(self, unit: Literal["day", "month"], count: int) -> str:
        """The words for "in 3 days" or "in 5 months"; unit is day or month."""
        step = datetime.timedelta(days=1 if unit == "day" else 30)  # Babel counts a month as 30 days
        phrase = format_timedelta(
            count * step, granularity=unit, threshold=_NO_LIMIT, add_direction=True, locale=self._locale
        )
        return self._fixed("later", _clean(phrase))

    def amount(self, currency: str, count: int) -> str:
        """An amount of money with the currency's name in the counted form.

        Right for the ``amounts`` of cldr_codes.yaml and round numbers (see ``cldr_items.amount``); beyond them
        it is what CLDR has, which need not agree in every language.
        """
        text = format_currency(count, currency, locale=self._locale, format_type="name", currency_digits=False)
        if currency in text:
            raise LookupError(f"CLDR has no counted name for the currency {currency} in {self._locale}")
        return self._fixed("amount", _clean(text))

    def render(self, item: Item) -> tuple[str, str]:
        """The instruction and the response of an item."""
        template = self.kinds[item.kind][item.variant]
        values = self.slots(item.kind, item.subject)
        return fill(template["ask"], values), fill(template["answer"], values)

    def slots(self, kind: str, subject: Subject) -> dict[str, str]:
        """What stands in the slots of a kind's templates, for one subject."""
        match kind, subject:
            case ("country", (code,)):
                return {"code": str(code), "name": self.name("territory", code)}
            case (("currency" | "language"), (code,)):
                return {"code": str(code), "name": self.name(kind, code)}
            case (("month_next" | "month_previous" | "day_next" | "day_previous"), (int(start),)):
                unit, direction = kind.split("_")
                step = 1 if direction == "next" else -1
                return {unit: self.name(unit, start), "answer": self.name(unit, start + step)}
            case ("day_later", (int(start), int(steps))):
                answer = self.name("day", start + steps)
                return {"day": self.name("day", start), "later": self.later("day", steps), "answer": answer}
            case ("month_later", (int(start), int(steps))):
                answer = self.name("month", start + steps)
                later = self.later("month", steps)
                return {"month": self.name("month", start), "later": later, "answer": answer}
            case ("date", (str(iso),)):
                return {"iso": iso, "date": self.date(iso)}
            case ("month_of_date", (str(iso),)):
                return {"iso": iso, "month": self.name("month", int(iso[5:7]) - 1)}
            case ("list", (str(sort), *rest)):
                items = [self.name(sort, code) for code in rest]
                return {"items": " / ".join(items), "list": self.joined(items)}
            case (("first" | "last"), (str(sort), *rest)):
                items = [self.name(sort, code) for code in rest]
                return {"items": self.comma.join(items), "answer": items[0 if kind == "first" else -1]}
            case ("repeat", (str(sort), code)):
                return {"text": self.name(sort, code)}
            case ("number", (str(digits),)):
                return {"digits": digits, "number": self.number(digits)}
            case ("percent", (int(thousandths),)):
                decimal = format_decimal(Decimal(thousandths) / 1000, locale=self._locale)
                return {"decimal": _clean(decimal), "percent": self.percent(thousandths)}
            case ("duration", (int(hours), int(minutes))):
                return {"clock": f"{hours}:{minutes:02d}", "duration": self.duration(hours, minutes)}
            case ("amount", (str(code), int(count))):
                return {"money": f"{code} {count}", "amount": self.amount(code, count)}
        raise ValueError(f"no slots for an item of kind {kind!r} about {subject!r}")

    def _fixed(self, what: Literal["name", "list", "date", "later", "amount"], text: str) -> str:
        for pattern, replacement in self._fixes.get(what, ()):
            text = re.sub(pattern, replacement, text)
        return text


def fill(template: str, values: dict[str, str]) -> str:
    """A template with its slots filled; a value that ends in a full stop ends the sentence ("2017 г.")."""
    return unicodedata.normalize("NFC", template.format_map(values).replace("..", "."))


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", str(text).translate(_INVISIBLE).translate(_SPACES))
