"""Google Cloud Translation, version 3, through Google's own client: many strings a request.

The client's REST transport is used everywhere, so that what is tested on loopback is what speaks to Google. An endpoint
that begins with http:// is such a test, or an emulator: it is asked without credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth import default as default_credentials
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud import translate_v3
from google.protobuf.json_format import ParseError

from trainables.errors import EnvironmentProblem
from trainables.patience import Passing, Patience, Turn, each, retry_after
from trainables.translators.engine import SOURCE, Answer, Keep, Target, packed
from trainables.translators.specs import GoogleTranslator

STRINGS, CHARACTERS = 128, 5000
"""In one request; the service takes 1,024 strings and 30,720 characters, and recommends 5,000."""


class GoogleEngine:
    """See :class:`trainables.translators.engine.Engine`."""

    def __init__(self, spec: GoogleTranslator, turn: Turn, parallel: int) -> None:
        """Raises:
        EnvironmentProblem: no credentials, or no project, can be found here.
        """
        self._spec, self._parallel = spec, parallel
        host = spec.endpoint or "translate.googleapis.com"
        credentials, project = _credentials(spec, host)
        self._client = translate_v3.TranslationServiceClient(
            credentials=credentials, transport="rest", client_options={"api_endpoint": host}
        )
        self._parent = f"projects/{project}/locations/{spec.location}"
        plain = "/" not in spec.model
        self._model = f"{self._parent}/models/general/{spec.model}" if plain else spec.model
        self._threads = ThreadPoolExecutor(parallel)
        self._patience = Patience(f"corpus.translator: {host}", spec.tries, spec.timeout, turn)

    def translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        asyncio.run(self._translate(strings, target, keep))

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.transport.close()

    async def _translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        async def work(pack: list[str]) -> None:
            loop = asyncio.get_running_loop()
            said = await self._patience.get(
                lambda: loop.run_in_executor(self._threads, self._send, pack, target.code), sum(map(len, pack))
            )
            keep({string: Answer(text, len(string)) for string, text in zip(pack, said, strict=True)})

        self._patience.begin()
        packs = list(packed(strings, STRINGS, CHARACTERS))
        await each(packs, work, min(self._parallel, len(packs)), self._patience.end)

    def _send(self, pack: list[str], code: str) -> list[str]:
        """One request.

        Raises:
            Passing: it may be answered later. EnvironmentProblem: it will not, with the cure.
        """
        request = {
            "parent": self._parent,
            "contents": pack,
            "mime_type": "text/plain",
            "source_language_code": SOURCE,
            "target_language_code": code,
            "model": self._model,
        }
        try:
            got = self._client.translate_text(request=request, retry=None, timeout=self._spec.timeout)
        except GoogleAPICallError as problem:
            raise _meant(problem, self._spec) from None
        except (requests.RequestException, ParseError, RetryError, TransportError) as problem:
            raise Passing(_short(f"{type(problem).__name__}: {problem}")) from None
        except GoogleAuthError as problem:
            raise EnvironmentProblem(
                f"corpus.translator: Google does not take the credentials ({_short(problem)}); log in again with: "
                "gcloud auth application-default login"
            ) from None
        said = [one.translated_text for one in got.translations]
        if len(said) != len(pack):
            raise Passing(f"{len(said)} translations of {len(pack)} texts")
        return said


def _credentials(spec: GoogleTranslator, host: str) -> tuple[Any, str]:
    if host.startswith("http://"):
        return AnonymousCredentials(), spec.project or "local"
    try:
        credentials, found = default_credentials(scopes=["https://www.googleapis.com/auth/cloud-translation"])
    except DefaultCredentialsError:
        raise EnvironmentProblem(
            "corpus.translator: there are no Google credentials here; log in with: gcloud auth application-default "
            "login, or let GOOGLE_APPLICATION_CREDENTIALS name the key file of a service account"
        ) from None
    project = spec.project or found
    if not project:
        raise EnvironmentProblem(
            "corpus.translator: the Google credentials name no project; set corpus.translator.project to the one that "
            "pays"
        )
    return credentials, project


def _meant(problem: GoogleAPICallError, spec: GoogleTranslator) -> Exception:
    """What an error means: that it passes, or in a sentence with its cure that it will not."""
    status = int(problem.code or 0)
    said = _short(f"{status}: {str(problem.message).split(': ', 1)[-1]}")  # the client puts the address before it
    if status in (0, 408, 409, 429) or status >= 500:
        headers = getattr(problem.response, "headers", None) or {}
        return Passing(said, retry_after(headers.get("retry-after")))
    if status in (401, 403):
        return EnvironmentProblem(
            f"corpus.translator: Google refuses ({said}); let the project use the Cloud Translation API, and its "
            "credentials the role roles/cloudtranslate.user"
        )
    return EnvironmentProblem(
        f"corpus.translator: Google does not take the requests ({said}); mend corpus.translator.model ({spec.model}) "
        f"or corpus.translator.location ({spec.location})"
    )


def _short(problem: object) -> str:
    return " ".join(str(problem).split())[:300]
