"""Suites that are drafted with a model, and suites that are fetched: nothing twice, nothing unchecked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from model_server import ModelServer

from chaku.cli.main import root
from chaku.errors import ChakuError, ModelError
from chaku.evals import published
from chaku.evals.drafting import Drafts, read_drafts
from chaku.evals.published import PUBLISHED
from chaku.evals.suites import load_suite, read_questions, suite_names
from file_server import FileServer, Page

SHARED = Path(__file__).parents[2] / "../shared/data"


def run(*words: object) -> Result:
    return CliRunner().invoke(root, ["eval", *map(str, words)], standalone_mode=False)


def test_drafts_are_added_to_a_suite_and_near_duplicates_are_dropped(tmp_path: Path) -> None:
    first = "\n".join(
        [
            "Here you are:",
            "1. How does a bowline knot hold under load?",
            "2. How does the bowline knot hold a load?",
            "3) Why do ropes stretch?",
        ]
    )
    second = json.dumps({"questions": ["When is a splice better than a knot?", "Why do ropes stretch?"]})
    texts = iter([first, second, "no list", "- How does a bowline knot hold under load?", "…"])
    path = tmp_path / "knots.jsonl"
    with ModelServer({"writer": lambda body: next(texts)}).running() as server:
        options = ("--about", "knots & splices", "-n", 5, "-m", "writer", "-o", path, "--base-url", server.base_url)
        done = run("questions", "new", *options)
        assert done.exception is None, done.output
        assert "3 questions" in done.output and "3 near duplicates dropped" in done.output
        assert "2 are missing" in done.output
        server.functions["writer"] = lambda body: "no list"
        nothing = run("questions", "new", *options)
        assert isinstance(nothing.exception, ChakuError) and "wrote nothing" in str(nothing.exception)
    questions = read_questions(path)
    assert [question.id for question in questions] == ["knots-splices-1", "knots-splices-2", "knots-splices-3"]
    assert {question.category for question in questions} == {"knots & splices"}


def test_a_suite_that_exists_is_kept_and_its_questions_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "tea-1", "turns": ["How long should green tea steep?"]}\n')
    answer = json.dumps({"questions": ["How long should green tea steep then?", "Which water suits black tea?"]})
    with ModelServer({"writer": lambda body: answer}).running() as server:
        done = run(
            "questions", "new", "--about", "tea", "-n", 1, "-m", "writer", "-o", path, "--base-url", server.base_url
        )
    assert done.exception is None, done.output
    assert [(one.id, one.turns[0]) for one in read_questions(path)] == [
        ("tea-1", "How long should green tea steep?"),
        ("tea-2", "Which water suits black tea?"),
    ]


def test_words_that_every_question_has_do_not_make_duplicates() -> None:
    drafts = Drafts()
    drafts.add(
        ["What is the capital of Peru?", "What is the capital of Chile?", "What is the weight of an alpaca?"], limit=9
    )
    assert len(drafts.kept) == 3
    assert read_drafts('text\n* "How are knots tied?"\n2. no') == ["How are knots tied?"]


@pytest.fixture
def small_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    """A published suite of two small files, and a cache of its own."""
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    contents = {
        "question.jsonl": b'{"question_id": 1, "text": "Why?", "category": "generic"}\n',
        "prompt.jsonl": b"{}\n",
    }
    files = tuple(
        published.PublishedFile(name, name, hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    )
    monkeypatch.setitem(PUBLISHED, "vicuna80", replace(PUBLISHED["vicuna80"], files=files))
    suite = PUBLISHED["vicuna80"]
    return {f"/{suite.commit}/{suite.folder}/{name}": content for name, content in contents.items()}


def test_a_published_suite_is_fetched_once_at_its_commit_and_can_then_be_named(small_suite: dict[str, bytes]) -> None:
    with FileServer() as server:
        server.pages |= {path: Page(content) for path, content in small_suite.items()}
        at: tuple[Any, ...] = ("fetch", "vicuna80", "--site", server.url)
        for _ in range(2):
            done = run(*at)
            assert done.exception is None, done.output
        assert sorted(path for method, path, _ in server.requests if method == "GET") == sorted(small_suite)
    assert "vicuna80" in suite_names() and load_suite("vicuna80")[0].turns == ("Why?",)


def test_a_file_with_another_content_is_refused_and_leaves_nothing(small_suite: dict[str, bytes]) -> None:
    with FileServer() as server:
        server.pages |= {path: Page(content + b"changed") for path, content in small_suite.items()}
        done = run("fetch", "vicuna80", "--site", server.url)
    assert isinstance(done.exception, ModelError) and "sha256" in str(done.exception)
    assert "vicuna80" not in suite_names()


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_the_pinned_sha256_are_those_of_the_files_that_were_published() -> None:
    known = {hashlib.sha256(path.read_bytes()).hexdigest() for path in SHARED.rglob("*.jsonl")}
    assert all(file.sha256 in known for suite in PUBLISHED.values() for file in suite.files)
