"""Records of the formats that conversations are shared in, to Conversations; the format is recognised by its keys.

Known: ShareGPT, OpenAI messages, Alpaca, message trees (OASST), prompt and completion, bare prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from chaku.chat.messages import Conversation, Message, Role
from chaku.errors import InvalidRequest

_SHAREGPT_ROLES = {
    "human": Role.USER, "user": Role.USER, "prompter": Role.USER, "gpt": Role.ASSISTANT, "chatgpt": Role.ASSISTANT,
    "assistant": Role.ASSISTANT, "bing": Role.ASSISTANT, "bard": Role.ASSISTANT, "model": Role.ASSISTANT,
    "chatbot": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM, "tool": Role.TOOL,
    "function": Role.TOOL, "observation": Role.TOOL,
}  # fmt: skip

Paths = Literal["best", "all"]


class UnknownShape(Exception):
    """JSON of no conversation format that we know; the text names the keys that were found."""


class BadMessage(Exception):
    """The format is known, but a message can't be read; the text says why."""


class Imported:
    """What a record held: its format, its conversations (several from a tree), and the tree branches not taken."""

    __slots__ = ("conversations", "format", "num_branches_left")

    def __init__(self, format_name: str, conversations: Sequence[Conversation], num_branches_left: int = 0) -> None:
        self.format = format_name
        self.conversations = conversations
        self.num_branches_left = num_branches_left


def read(value: Any, paths: Paths) -> Imported:
    """Recognise a record and read it. Conversations carry the original id, or "". Raises UnknownShape, BadMessage."""
    for name, fits, reader in _SHAPES:
        if fits(value):
            try:
                if name == "message tree":
                    return _tree(value, paths)
                return Imported(name, [reader(value)])
            except (InvalidRequest, AttributeError, KeyError, TypeError) as error:
                raise BadMessage(str(error) or type(error).__name__) from None
    if isinstance(value, dict):
        raise UnknownShape(f"an object with the keys {', '.join(sorted(map(str, value))[:8]) or '(none)'}")
    raise UnknownShape(f"a {type(value).__name__}")


def _identity(value: Mapping[str, Any]) -> str:
    for key in ("id", "conversation_id", "question_id", "prompt_id", "uuid"):
        if isinstance(value.get(key), str | int):
            return str(value[key])
    return ""


def _source(value: Mapping[str, Any]) -> dict[str, Any]:
    """Facts worth keeping that are not messages."""
    kept = {key: value[key] for key in ("model", "category") if isinstance(value.get(key), str) and value[key]}
    given = value.get("source")
    return {**(given if isinstance(given, dict) else {"origin": given} if isinstance(given, str) else {}), **kept}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadMessage(f"a {type(value).__name__} where text belongs")
    return value


def _sharegpt(value: Mapping[str, Any]) -> Conversation:
    turns = value.get("conversations", value.get("conversation", value.get("items")))
    messages = [Message(Role.SYSTEM, value["system"])] if isinstance(value.get("system"), str) else []
    for turn in turns or ():
        speaker = str(turn.get("from", turn.get("role", ""))).lower()
        if speaker not in _SHAREGPT_ROLES:
            raise BadMessage(f"the speaker is {speaker!r}, known are {', '.join(sorted(_SHAREGPT_ROLES))}")
        text = next((turn[key] for key in ("value", "content", "text") if key in turn), None)
        messages.append(Message(_SHAREGPT_ROLES[speaker], _text(text)))
    return Conversation(_identity(value), tuple(messages), source=_source(value))


def _openai(value: Mapping[str, Any]) -> Conversation:
    messages = tuple(Message.from_json(message) for message in value["messages"])
    return Conversation(_identity(value), messages, tuple(value.get("tools") or ()), _source(value))


def _alpaca(value: Mapping[str, Any]) -> Conversation:
    prompt = _text(value["instruction"])
    if extra := _text(value.get("input")):
        prompt += f"\n\n{extra}"
    messages = [Message(Role.SYSTEM, value["system"])] if isinstance(value.get("system"), str) else []
    for asked, answered in value.get("history") or ():
        messages += [Message(Role.USER, _text(asked)), Message(Role.ASSISTANT, _text(answered))]
    messages += [Message(Role.USER, prompt), Message(Role.ASSISTANT, _text(value.get("output", value.get("response"))))]
    return Conversation(_identity(value), tuple(messages), source=_source(value))


def _completion(value: Mapping[str, Any]) -> Conversation:
    answer = next(value[key] for key in _ANSWER_KEYS if key in value)
    prompt = value["prompt"] if "prompt" in value else value["question"]
    messages = (Message(Role.USER, _text(prompt)), Message(Role.ASSISTANT, _text(answer)))
    return Conversation(_identity(value), messages, source=_source(value))


def _prompt(value: Any) -> Conversation:
    if isinstance(value, str):
        return Conversation("", (Message(Role.USER, value),))
    turns = value.get("turns")
    if turns is None:
        turns = [next(value[key] for key in ("prompt", "question", "text") if key in value)]
    messages = tuple(Message(Role.USER, _text(turn)) for turn in turns)
    return Conversation(_identity(value), messages, source=_source(value))


def _bare_list(value: Sequence[Any]) -> Conversation:
    return _sharegpt({"conversations": value}) if "from" in value[0] else _openai({"messages": value})


_ANSWER_KEYS = ("completion", "response", "answer", "output")


def _has(*keys: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(key in value for key in keys)


def _is_turn_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(
        isinstance(turn, dict) and ({"from", "value"} <= turn.keys() or {"role", "content"} <= turn.keys())
        for turn in value
    )  # fmt: skip


def _is_sharegpt(value: Any) -> bool:
    return isinstance(value, dict) and any(
        isinstance(value.get(key), list) for key in ("conversations", "conversation", "items")
    )


def _is_tree(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("prompt", value), dict) and "replies" in (
        value["prompt"] if isinstance(value.get("prompt"), dict) else value
    )  # fmt: skip


def _is_completion(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool({"prompt", "question"} & value.keys())
        and any(key in value for key in _ANSWER_KEYS)
    )


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, dict) and (
        isinstance(value.get("prompt"), str)
        or ("question_id" in value and bool({"turns", "text"} & value.keys()))
        or (isinstance(value.get("question"), str))
    )


_SHAPES: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Conversation]], ...] = (
    ("message tree", _is_tree, lambda value: Conversation("", ())),
    ("sharegpt", _is_sharegpt, _sharegpt),
    ("openai messages", lambda value: isinstance(value, dict) and isinstance(value.get("messages"), list), _openai),
    ("alpaca", lambda value: _has("instruction")(value) and ("output" in value or "response" in value), _alpaca),
    ("prompt and completion", _is_completion, _completion),
    ("bare prompt", _is_prompt, _prompt),
    ("list of turns", _is_turn_list, _bare_list),
)


def _tree(value: Mapping[str, Any], paths: Paths) -> Imported:
    """Walk a tree from its prompt. "best" follows the best rank; "all" takes every path that ends with an answer."""
    root = value.get("prompt", value)
    identity = str(value.get("message_tree_id") or root.get("message_id") or "")
    source = {key: root[key] for key in ("lang",) if isinstance(root.get(key), str)}
    every = list(_paths(root))
    taken = every if paths == "all" else [_best(root)]
    conversations = [
        Conversation(
            identity, tuple(Message(_tree_role(node), _text(node.get("text"))) for node in path), source=source
        )
        for path in taken
    ]
    return Imported("message tree", conversations, len(every) - len(taken))


def _tree_role(node: Mapping[str, Any]) -> Role:
    role = str(node.get("role", "")).lower()
    if role not in _SHAREGPT_ROLES:
        raise BadMessage(f"the speaker is {role!r}, known are prompter and assistant")
    return _SHAREGPT_ROLES[role]


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    alive = [reply for reply in node.get("replies") or () if not reply.get("deleted")]
    return sorted(alive, key=lambda reply: reply["rank"] if isinstance(reply.get("rank"), int) else len(alive))


def _paths(root: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], ...]]:
    """Paths from the root to each answer without an answer below it; the prompt alone where there is none."""
    found = False
    stack: list[tuple[Mapping[str, Any], ...]] = [(root,)]
    while stack:
        path = stack.pop()
        replies = _replies(path[-1])
        if _tree_role(path[-1]) is Role.ASSISTANT and not any(_replies(reply) for reply in replies):
            found = True
            yield path
        else:
            stack.extend((*path, reply) for reply in reversed(replies))
    if not found:
        yield (root,)


def _best(root: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Follow the best-ranked reply; of two of the same rank the first."""
    path = [root]
    while replies := _replies(path[-1]):
        path.append(replies[0])
    if len(path) > 1 and _tree_role(path[-1]) is not Role.ASSISTANT:
        path.pop()
    return tuple(path)
