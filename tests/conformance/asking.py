"""How the honesty table asks one route, and the checks that several fields share."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from chaku_server import MODEL, ChakuServer

LOOP = "la la la la la la la la la la"


class Ask:
    """Asks one route; `ask(field=value)` gives status and body."""

    def __init__(
        self, served: ChakuServer, vocabulary: dict[str, int], path: str, abilities: frozenset[str], **fields: Any
    ) -> None:
        self.abilities = abilities
        self.scores_prompts = "scores_prompts" in abilities
        self._url = served.base_url + path
        self._fields = {"model": MODEL, **fields}
        self.is_chat = "messages" in fields
        self.vocabulary = vocabulary

    def __call__(self, **fields: Any) -> tuple[int, Any]:
        """None leaves a field out."""
        body = {key: value for key, value in {**self._fields, **fields}.items() if value is not None}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                content = response.read()
                return response.status, content.decode() if body.get("stream") else json.loads(content)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def answer(self, **fields: Any) -> Any:
        """The body of a success."""
        status, body = self(**fields)
        assert status == 200, body
        return body

    def text(self, **fields: Any) -> str:
        """The text of the first choice of a success."""
        choice = self.answer(**fields)["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"]

    def finish(self, **fields: Any) -> str:
        """Why the first choice ended."""
        return self.answer(**fields)["choices"][0]["finish_reason"]

    def refuses(self, param: str, **fields: Any) -> None:
        """A 400 that names the field."""
        status, body = self(**fields)
        assert status == 400, body
        error = body["error"]
        assert (error["param"], error["type"]) == (param, "invalid_request_error"), error
        assert error["message"]


Check = Callable[[Ask], None]


def refused(field: str, *values: Any) -> Check:
    def check(ask: Ask) -> None:
        for value in values:
            ask.refuses(field, **{field: value})

    return check


def of_no_effect(field: str, *values: Any, refuses: tuple[Any, ...] = ()) -> Check:
    """Fields that, by OpenAI's own description, change no answer: labels, and asking for what happens anyway."""

    def check(ask: Ask) -> None:
        plain = ask.answer(seed=1)
        for value in values:
            labelled = ask.answer(seed=1, **{field: value})
            assert labelled["choices"] == plain["choices"]
        refused(field, *refuses)(ask)

    return check


def penalty(field: str, *, none: float = 0, too_much: float = 2.1) -> Check:
    def check(ask: Ask) -> None:
        said = (
            {"messages": [{"role": "user", "content": "Say the word la fifty times."}]}
            if ask.is_chat
            else {"prompt": LOOP}
        )
        long = {"temperature": 0, "max_tokens": 32, **said}
        assert ask.text(**long, **{field: 2}) != ask.text(**long)
        assert ask.text(**long, **{field: none}) == ask.text(**long)
        ask.refuses(field, **{field: too_much})

    return check


def leaves_one_token(field: str, value: float) -> Check:
    def check(ask: Ask) -> None:
        greedy = ask.text(temperature=0)
        assert {ask.text(temperature=1.5, seed=seed, **{field: value}) for seed in range(3)} == {greedy}

    return check
