"""Contract with the engine: llama.cpp's ids are `chat`'s ids."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import real_tokenizers
from chaku.chat.export import template_variables, to_jinja
from chaku.chat.jinja import JinjaTemplate
from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.chat.render import Renderer
from chaku.chat.segments import Layout
from chaku.chat.templates import TEMPLATES
from chaku.models.tokenizers.tokenizer import load_tokenizer
from conversations import TEXTS, chats
from gguf_llama import write_llama

pytestmark = pytest.mark.model

HOST = """
import socket, sys, time, xllamacpp
held = socket.socket(); held.bind(("127.0.0.1", 0)); port = held.getsockname()[1]; held.close()
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]; params.hostnames = ["127.0.0.1"]; params.port = port
params.cpuparams.n_threads = 1; params.n_ctx = 512; params.n_parallel = 1
if len(sys.argv) > 2: params.chat_template = sys.argv[2]; params.use_jinja = True
server = xllamacpp.Server(params)
print("port", port, flush=True)
sys.stdin.read()
"""


class Engine:
    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("port "):
                self.url = f"http://127.0.0.1:{int(line.split()[1])}"
                return
        raise AssertionError("the engine did not start")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def ids(self, text: str, *, parse_special: bool) -> list[int]:
        body = {"content": text, "add_special": False, "parse_special": parse_special}
        return list(self.post("/tokenize", body)["tokens"])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    started = Engine(str(real_tokenizers.file_of("smollm2")))
    yield started
    started.close()


@pytest.fixture(scope="module")
def llama_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model around a Llama-like SentencePiece vocabulary."""
    return write_llama(tmp_path_factory.mktemp("llama") / "random.gguf", real_tokenizers.file_of("llama_spm"))


def test_a_llama_vocabulary_is_read_as_the_engine_does(llama_gguf: Path) -> None:
    tokenizer = load_tokenizer(llama_gguf)
    started = Engine(str(llama_gguf))
    try:
        different = [t for t in TEXTS if tokenizer.encode_text(t) != started.ids(t, parse_special=False)]
        assert different == []
        for name, template in TEMPLATES.items():
            renderer = Renderer(template, tokenizer)
            text = "".join(segment.text for segment in renderer.prompt_segments(CLEAN))
            assert (name, renderer.render_prompt(CLEAN)) == (name, started.ids(text, parse_special=True))
    finally:
        started.close()


def layouts() -> dict[str, Layout]:
    return {**TEMPLATES, "own": JinjaTemplate.of(real_tokenizers.load("smollm2"))}


def test_texts_are_tokenised_as_the_engine_does(engine: Engine) -> None:
    tokenizer = real_tokenizers.load("smollm2")
    different = [text for text in TEXTS if tokenizer.encode_text(text) != engine.ids(text, parse_special=False)]
    assert different == []
    assert len(TEXTS) > 200


@given(text=st.text(max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_text_is_tokenised_as_the_engine_does(engine: Engine, text: str) -> None:
    assert real_tokenizers.load("smollm2").encode_text(text) == engine.ids(text, parse_special=False)


CLEAN = Conversation(
    "c",
    (
        Message(Role.SYSTEM, "Be brief, please."),
        Message(Role.USER, "  What is 12 × 13?\n\nShow your work.\n"),
        Message(Role.ASSISTANT, "\n12 × 13 = 156.\n\n```python\nprint(12 * 13)\n```\n"),
        Message(Role.USER, "Grüße 👩🏽‍🚀 你好"),
    ),
)


@pytest.mark.parametrize("name", [*TEMPLATES, "own"])
def test_the_engine_reads_the_whole_prompt_string_as_the_ids_of_chat(engine: Engine, name: str) -> None:
    tokenizer = real_tokenizers.load("smollm2")
    renderer = Renderer(layouts()[name], tokenizer)
    text = "".join(segment.text for segment in renderer.prompt_segments(CLEAN))
    assert renderer.render_prompt(CLEAN) == engine.ids(text, parse_special=True)


@pytest.mark.parametrize("name", [*TEMPLATES, "own"])
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_prompts_read_piece_by_piece_are_the_ids_of_chat(
    engine: Engine, name: str, data: st.DataObject
) -> None:
    """As the engine seam sends them: special tokens of the template as ids, each run between them as plain text."""
    tokenizer = real_tokenizers.load("smollm2")
    renderer = Renderer(layouts()[name], tokenizer)
    messages = data.draw(chats()).messages[:-1]
    segments = renderer.prompt_segments(Conversation("c", messages))
    pieces: list[str | int] = [""]
    for segment in segments:
        parts = [segment.text] if segment.is_content else _special_split(segment.text)
        for part in parts:
            if isinstance(part, str) and isinstance(pieces[-1], str):
                pieces[-1] += part
            else:
                pieces.append(part)
    ids = [
        i for piece in pieces for i in ([piece] if isinstance(piece, int) else engine.ids(piece, parse_special=False))
    ]
    assert renderer.render_prompt(Conversation("c", messages)) == ids


def _special_split(text: str) -> list[str | int]:
    for spelling, token_id in real_tokenizers.load("smollm2").special_ids.items():
        if spelling in text:
            left, right = text.split(spelling, 1)
            return [*_special_split(left), token_id, *_special_split(right)]
    return [text]


@pytest.mark.parametrize("name", ["vicuna_v1.1", "llama3", "chatml", "zephyr"])
def test_the_engine_renders_an_exported_template_to_the_string_of_chat(name: str) -> None:
    tokenizer = real_tokenizers.load("smollm2")
    conversations = [CLEAN, WITH_TOOLS] if name == "chatml" else [CLEAN]
    source = to_jinja(TEMPLATES[name], bos=tokenizer.adds_bos)
    started = Engine(str(real_tokenizers.file_of("smollm2")), source)
    try:
        answers = [started.post("/apply-template", _request(conversation))["prompt"] for conversation in conversations]
    finally:
        started.close()
    renderer = Renderer(TEMPLATES[name], tokenizer)
    assert answers == [
        "".join(segment.text for segment in renderer.prompt_segments(conversation)) for conversation in conversations
    ]


def _request(conversation: Conversation) -> dict[str, Any]:
    variables = template_variables(conversation)
    return variables if variables["tools"] else {"messages": variables["messages"]}


WITH_TOOLS = Conversation(
    "c",
    (
        Message(Role.USER, "Rain?"),
        Message(Role.ASSISTANT, "", "Hm.", (ToolCall("a", "weather", '{"city": "Lima"}'),)),
        Message(Role.TOOL, "dry", tool_call_id="a"),
        Message(Role.TOOL, "warm", tool_call_id="b"),
    ),
    ({"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": {}}},),
)
