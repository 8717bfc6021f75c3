"""Translators: English texts in, the same texts in another language out, with what must not be translated unchanged.

A translator is named by a spec (:data:`TranslatorSpec`). What must survive (code, addresses, names in braces, lines) is
the business of `protect`, how a text becomes requests and requests a text that of `courses`; an engine only turns
strings into strings.
"""

from __future__ import annotations

from trainables.translators.specs import (
    RESULT_VERSION,
    GoogleTranslator,
    LocalTranslator,
    OpenAITranslator,
    TranslatorSpec,
)

__all__ = ["RESULT_VERSION", "GoogleTranslator", "LocalTranslator", "OpenAITranslator", "TranslatorSpec"]
