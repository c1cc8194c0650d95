"""A moderation model plugs in behind any OpenAI-compatible endpoint; when it is away, nothing passes unjudged."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chaku.data.recipe import ModerationConfig
from chaku.data.rules import moderation
from chaku.data.rules.moderation import EndpointClassifier
from chaku.errors import ChakuError, ConfigError
from data.made import built, sharegpt, write_json


class Moderator(ThreadingHTTPServer):
    """Flags texts with the word 'candle'. `failures` answers come as 503 first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.failures = 0
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Moderator

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.append(self.headers["authorization"])
        if self.server.failures:
            self.server.failures -= 1
            self.send_response(503)
            self.end_headers()
            return
        results = [
            {
                "flagged": "candle" in text.lower(),
                "categories": {"violence": "candle" in text.lower()},
                "category_scores": {"violence": 0.9 if "candle" in text.lower() else 0.1},
            }
            for text in body["input"]
        ]
        answer = json.dumps({"results": results}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def moderator(monkeypatch) -> Iterator[Moderator]:
    monkeypatch.setattr(moderation.time, "sleep", lambda seconds: None)
    with Moderator() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_flagged_conversations_are_dropped_with_category_and_score(tmp_path, tokenizer, moderator):
    source = write_json(tmp_path / "in.json", sharegpt(30, most_rounds=2))
    with_candle = sum("candle" in json.dumps(one).lower() for one in sharegpt(30, most_rounds=2))
    config = {"moderation": {"url": moderator.url}}
    counts = built(tmp_path / "set", tokenizer, source, **config).manifest["counts"]["moderation"]
    assert counts["in"] == 30 and 0 < with_candle < 30
    assert counts["drops"] == {"moderation": with_candle}
    flagged = built(tmp_path / "flag", tokenizer, source, rules={"moderation": "flag"}, **config).manifest["counts"][
        "moderation"
    ]
    assert flagged["flags"] == {"moderation": with_candle} and flagged["dropped"] == 0


def test_the_judgement_names_category_and_score_and_a_threshold_replaces_the_models_own(moderator, monkeypatch):
    monkeypatch.setenv("THE_KEY", "k123")
    classifier = EndpointClassifier(ModerationConfig(url=moderator.url, api_key_env="THE_KEY", threshold=0.05))
    one, other = classifier.classify(["a candle", "a lamp"])
    assert (one.flagged, one.category, one.score) == (True, "violence", 0.9)
    assert other.flagged and other.score == 0.1
    assert moderator.keys == ["Bearer k123"]
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        EndpointClassifier(ModerationConfig(url=moderator.url, api_key_env="NO_SUCH_KEY"))


def test_a_busy_endpoint_is_asked_again_and_a_dead_one_stops_the_build(tmp_path, tokenizer, moderator):
    moderator.failures = 2
    assert not EndpointClassifier(ModerationConfig(url=moderator.url)).classify(["a lamp"])[0].flagged
    moderator.failures = 10_000
    source = write_json(tmp_path / "in.json", sharegpt(12, most_rounds=2))
    config = {"moderation": {"url": moderator.url, "concurrency": 1}}
    with pytest.raises(ChakuError, match="503"):
        built(tmp_path / "set", tokenizer, source, **config)
    moderator.failures = 0
    assert built(tmp_path / "set", tokenizer, source, **config).manifest["counts"]["moderation"]["in"] == 12
