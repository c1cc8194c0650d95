"""Records of the formats that conversations are shared in, to Conversations; the format is detected from the JSON keys.

Known: ShareGPT, OpenAI messages, Alpaca, Dolly, prompt and completion, bare prompts, transcripts; trees and exports
(trees.py); preference pairs (pairs.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.inputs import pairs, trees
from chaku.data.inputs.fields import (
    BadMessage,
    Fields,
    Imported,
    UnknownShape,
    identity_of,
    source_of,
    system_messages,
    text_of,
)  # fmt: skip
from chaku.data.inputs.trees import Paths
from chaku.data.inputs.turns import answer_messages, is_turn_list, prompt_messages, read_transcript, read_turns
from chaku.errors import InvalidRequest
from chaku.protocol.json_scan import loads

_TURN_KEYS = ("conversations", "conversation", "messages", "items", "dialogue", "dialog", "turns")
_PROMPT_KEYS = ("prompt", "question", "instruction", "query")
_CONTEXT_KEYS = ("input", "context", "passage", "document", "background")
_ANSWER_KEYS = ("completion", "response", "output", "answer", "answers", "target")


def read(value: Any, paths: Paths) -> Imported:
    """Recognise a record and read it. Conversations carry the original id, or "". Raises UnknownShape, BadMessage."""
    for name, fits, reader in _SHAPES:
        if not fits(value):
            continue
        try:
            if reader is not None:
                return reader(value, paths)
            return _plain(name, value)
        except InvalidRequest as error:
            raise BadMessage(str(error)) from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise BadMessage(f"{name}: {type(error).__name__} {error}"[:200]) from None
    if isinstance(value, dict):
        raise UnknownShape(f"an object with the keys {', '.join(sorted(map(str, value))[:8]) or '(none)'}")
    raise UnknownShape(f"a {type(value).__name__}")


def _plain(name: str, value: Any) -> Imported:
    """A record that is one conversation."""
    unused: Counter[str] = Counter()
    if isinstance(value, str):
        messages = read_transcript(value) or [Message(Role.USER, value)]
        return Imported(name, [Conversation("", tuple(messages))])
    if isinstance(value, list):
        messages = read_turns([Fields(turn) for turn in value], unused)
        return Imported(name, [Conversation("", tuple(messages))], unused=unused)
    record = Fields(value)
    messages = [*system_messages(record), *_READERS[name](record, unused)]
    tools = record.get("tools", "functions") or ()
    if isinstance(tools, str) and tools.strip().startswith("["):
        tools = loads(tools)
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, dict) for tool in tools):
        raise BadMessage("tools is not a list of objects")
    conversation = Conversation(identity_of(record), tuple(messages), tuple(tools), source_of(record))
    unused.update(record.left_over())
    return Imported(name, [conversation], unused=unused)


def _turns(record: Fields, unused: Counter[str]) -> list[Message]:
    key = next(key for key in _TURN_KEYS if isinstance(record.value.get(key), list))
    return read_turns(record.objects(key), unused)


def _question(record: Fields, unused: Counter[str]) -> list[Message]:
    """An instruction or question with what it refers to, earlier rounds before it, and its answer."""
    if record.value.get("label") is False:
        raise BadMessage("label is false: the completion was rejected and has no better one beside it")
    messages: list[Message] = []
    for turn in record.get("history") or ():
        asked, answered = turn
        messages += [Message(Role.USER, text_of(asked)), Message(Role.ASSISTANT, text_of(answered))]
    given = record.get(*_PROMPT_KEYS)
    prompt = prompt_messages(given if given is not None else record.get("input"), unused)
    extras = [extra for key in _CONTEXT_KEYS if key not in record.used and (extra := record.text(key)).strip()]
    if extras:
        last = prompt[-1]
        prompt[-1] = Message(last.role, "\n\n".join([last.content, *extras]))
    return [*messages, *prompt, *answer_messages(_answer(record.get(*_ANSWER_KEYS)), unused)]


def _answer(value: Any) -> Any:
    """SQuAD's {"text": [answers]} and lists of answers: the first one."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value[0]
    return value


def _prompt(record: Fields, unused: Counter[str]) -> list[Message]:
    turns = record.get("turns")
    if turns is None:
        given = record.get("prompt", "question", "text")
        if given is None:
            raise BadMessage("the prompt is empty")
        return prompt_messages(given, unused)
    if not isinstance(turns, list):
        raise BadMessage(f"turns is a {type(turns).__name__}, not a list")
    record.used.update({"reference", "checker"})
    return [Message(Role.USER, text_of(turn)) for turn in turns]


def _transcript(record: Fields, unused: Counter[str]) -> list[Message]:
    messages = read_transcript(record.text("text"))
    assert messages is not None
    return messages


_READERS: dict[str, Callable[[Fields, Counter[str]], list[Message]]] = {
    "sharegpt": _turns,
    "openai messages": _turns,
    "alpaca": _question,
    "prompt and completion": _question,
    "bare prompt": _prompt,
    "transcript": _transcript,
}


def _has_turns(value: Any, *keys: str) -> bool:
    return isinstance(value, dict) and any(
        isinstance(value.get(key), list) and (not value[key] or isinstance(value[key][0], dict)) for key in keys
    )


def _is_alpaca(value: Any) -> bool:
    return _holds(value, ("instruction",)) and _holds(value, _ANSWER_KEYS)


def _is_completion(value: Any) -> bool:
    return _holds(value, (*_PROMPT_KEYS, "input")) and _holds(value, _ANSWER_KEYS)


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if _holds(value, ("prompt", "question")):
        return True
    if not isinstance(value, dict):
        return False
    if "question_id" in value:  # FastChat's questions
        return bool({"turns", "text"} & value.keys())
    turns = value.get("turns")  # chaku's suites
    is_texts = isinstance(turns, list) and bool(turns) and all(isinstance(turn, str) for turn in turns)
    return is_texts and bool({"category", "reference", "checker"} & value.keys())


def _holds(value: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(value, dict) and any(value.get(key) is not None for key in keys)


def _is_transcript(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str) and read_transcript(value["text"]) is not None


Reader = Callable[[Any, Paths], Imported]
_SHAPES: tuple[tuple[str, Callable[[Any], bool], Reader | None], ...] = (
    ("message tree", trees.is_oasst, trees.read_oasst),
    ("chatgpt export", trees.is_chatgpt, trees.read_chatgpt),
    ("open webui export", trees.is_webui, trees.read_webui),
    ("claude export", trees.is_claude, lambda value, _: trees.read_claude(value)),
    ("arena battle", pairs.is_battle, lambda value, _: pairs.read_battle(value)),
    ("preference pair", pairs.is_pair, lambda value, _: pairs.read_pair(value)),
    ("openai messages", lambda value: _has_turns(value, "messages"), None),
    ("sharegpt", lambda value: _has_turns(value, *_TURN_KEYS), None),
    ("alpaca", _is_alpaca, None),
    ("prompt and completion", _is_completion, None),
    ("transcript", _is_transcript, None),
    ("bare prompt", _is_prompt, None),
    ("list of turns", is_turn_list, None),
)
