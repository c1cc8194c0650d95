"""Conversations that branch: OASST's message trees, ChatGPT's and Open WebUI's exports. Paths become conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.inputs.fields import BadMessage, Fields, Imported, has_text, identity_of, source_of, system_messages
from chaku.data.inputs.turns import ROLES, read_turns

Paths = Literal["best", "all"]
_MAX_PATHS = 1000
"""Of one tree: regenerated answers multiply."""


def is_oasst(value: Any) -> bool:
    """Whether a record is a tree of messages with replies."""
    root = value.get("prompt", value) if isinstance(value, dict) else None
    return isinstance(root, dict) and "replies" in root


def read_oasst(value: dict[str, Any], paths: Paths) -> Imported:
    """Walk a tree from its prompt. "best" follows the best rank; "all" takes every path that ends with an answer."""
    record, root = Fields(value), value.get("prompt", value)
    record.used.update(_TREE_KEYS)
    identity = str(value.get("message_tree_id") or root.get("message_id") or "")
    source = {key: root[key] for key in ("lang",) if isinstance(root.get(key), str)}
    lead = system_messages(record)
    every = list(_paths(root))
    taken = every if paths == "all" else [_best(root)]
    unused: Counter[str] = Counter()
    conversations = [
        Conversation(identity, (*lead, *(_tree_message(node, unused) for node in path)), source=source)
        for path in taken
    ]  # fmt: skip
    unused.update(record.left_over())
    return Imported("message tree", conversations, len(every) - len(taken), unused)


_TREE_KEYS = frozenset(
    {
        "message_tree_id", "tree_state", "prompt", "message_id", "parent_id", "user_id", "created_date", "text", "role",
        "lang", "review_count", "review_result", "deleted", "synthetic", "model_name", "emojis", "rank", "replies",
        "labels", "detoxify",
    }
)  # fmt: skip
"""What OpenAssistant's trees say of themselves and of each message, in their own words."""


def _tree_message(node: Mapping[str, Any], unused: Counter[str]) -> Message:
    fields = Fields(node)
    fields.used.update(_TREE_KEYS)
    unused.update(f"turn.{key}" for key in fields.left_over())
    return Message(_role(node), fields.text("text"))


def _role(node: Mapping[str, Any]) -> Role:
    role = str(node.get("role", "")).lower()
    if role not in ROLES:
        raise BadMessage(f"the speaker is {role[:40]!r}, known are prompter and assistant")
    return ROLES[role]


def _replies(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    alive = [reply for reply in node.get("replies") or () if isinstance(reply, dict) and not reply.get("deleted")]
    return sorted(alive, key=lambda reply: reply["rank"] if isinstance(reply.get("rank"), int) else len(alive))


def _paths(root: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], ...]]:
    """Paths from the root to each answer without an answer below it; the prompt alone where there is none."""
    found = False
    stack: list[tuple[Mapping[str, Any], ...]] = [(root,)]
    while stack:
        path = stack.pop()
        replies = _replies(path[-1])
        if _role(path[-1]) is Role.ASSISTANT and not any(_replies(reply) for reply in replies):
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
    if len(path) > 1 and _role(path[-1]) is not Role.ASSISTANT:
        path.pop()
    return tuple(path)


def is_chatgpt(value: Any) -> bool:
    """Whether a record is one conversation of ChatGPT's own export."""
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def read_chatgpt(value: dict[str, Any], paths: Paths) -> Imported:
    """ChatGPT's conversations.json. "best" is the branch that was open last, "all" takes every branch.

    What the page did not show (hidden system messages, steps of tools) is left out and counted.
    """
    record = Fields(value)
    mapping = record.get("mapping")
    unused: Counter[str] = Counter()
    parents = {key: node.get("parent") for key, node in mapping.items() if isinstance(node, dict)}
    branches = _branches(parents, record.get("current_node"), paths)
    record.used.update(("safe_urls", "conversation_template_id", "gizmo_id", "default_model_slug", "memory_scope"))
    identity, source = identity_of(record), source_of(record)
    conversations = [
        Conversation(identity, tuple(_shown(mapping, branch, unused)), source=source) for branch in branches.taken
    ]
    unused.update(record.left_over())
    return Imported("chatgpt export", conversations, branches.num_left, unused)


def _shown(mapping: Mapping[str, Any], branch: list[str], unused: Counter[str]) -> Iterator[Message]:
    for key in branch:
        node = mapping[key]
        message = node.get("message") if isinstance(node, dict) else None
        if not isinstance(message, dict):
            continue
        author, content = message.get("author") or {}, message.get("content") or {}
        metadata = message.get("metadata") or {}
        if not (isinstance(author, dict) and isinstance(content, dict) and isinstance(metadata, dict)):
            raise BadMessage("author, content or metadata of a message is not an object")
        role = ROLES.get(str(author.get("role")).lower())
        is_hidden = metadata.get("is_visually_hidden_from_conversation") or message.get("weight") == 0
        is_step = role is Role.TOOL or message.get("recipient") not in (None, "all")
        kind = content.get("content_type")
        if role is None or is_hidden or is_step or kind not in ("text", "multimodal_text"):
            if has_text([content.get("parts"), content.get("text")]):
                unused[f"hidden {author.get('role')} message ({kind})"] += 1
            continue
        parts = content.get("parts") or []
        if not all(isinstance(part, str) for part in parts):
            raise BadMessage("a message holds images or files, and only text is trained on")
        text = "\n\n".join(parts)
        if text or role is not Role.SYSTEM:
            yield Message(role, text)


class _Branches:
    def __init__(self, taken: list[list[str]], num_left: int) -> None:
        self.taken = taken
        self.num_left = num_left


def _branches(parents: Mapping[str, Any], current: Any, paths: Paths) -> _Branches:
    """Paths from a root to its leaves, in the order of the file. Raises BadMessage for circles and too many leaves."""
    inner = set(parents.values())
    leaves = [key for key in parents if key not in inner]
    if not leaves:
        raise BadMessage("the tree of messages has no end")
    if paths == "best":
        chosen = [current if current in parents else leaves[-1]]
    elif len(leaves) > _MAX_PATHS:
        raise BadMessage(f"the tree has {len(leaves):,} branches, at most {_MAX_PATHS:,} are taken")
    else:
        chosen = leaves
    taken = []
    for leaf in chosen:
        path: list[str] = []
        seen: set[str] = set()
        key: Any = leaf
        while key in parents:
            if key in seen:
                raise BadMessage("the tree of messages runs in a circle")
            seen.add(key)
            path.append(key)
            key = parents[key]
        taken.append(path[::-1])
    return _Branches(taken, len(leaves) - len(taken))


def is_webui(value: Any) -> bool:
    """Whether a record is a chat of Open WebUI's export."""
    return isinstance(value, dict) and isinstance(value.get("chat"), dict) and (
        isinstance(value["chat"].get("history"), dict) or isinstance(value["chat"].get("messages"), list)
    )  # fmt: skip


def read_webui(value: dict[str, Any], paths: Paths) -> Imported:
    """Open WebUI's chat export. "best" is the branch that was open last, "all" takes every branch."""
    record = Fields(value)
    chat = Fields(record.get("chat"))
    unused: Counter[str] = Counter()
    history = chat.get("history") or {}
    nodes = history.get("messages") if isinstance(history, dict) else None
    chat.used.update(("messages", "models", "title", "params", "tags", "files", "timestamp", "id"))
    identity, source = identity_of(record), source_of(record)
    system = chat.text("system")
    num_left = 0
    if isinstance(nodes, dict) and nodes:
        parents = {key: node.get("parentId") for key, node in nodes.items() if isinstance(node, dict)}
        branches = _branches(parents, history.get("currentId"), paths)
        turns, num_left = [[nodes[key] for key in branch] for branch in branches.taken], branches.num_left
    else:
        turns = [chat.value.get("messages") or []]
    conversations = []
    for branch in turns:
        if any(turn.get("files") for turn in branch):
            raise BadMessage("a message holds images or files, and only text is trained on")
        messages = read_turns([_webui_turn(turn) for turn in branch], unused)
        lead = [Message(Role.SYSTEM, system)] if system else []
        conversations.append(Conversation(identity, (*lead, *messages), source=source))
    unused.update(key for key in record.left_over() if key not in ("user_id", "meta", "share_id", "folder_id"))
    unused.update(f"chat.{key}" for key in chat.left_over())
    return Imported("open webui export", conversations, num_left, unused)


def _webui_turn(turn: Mapping[str, Any]) -> Fields:
    fields = Fields(turn)
    fields.used.update(
        ("id", "parentId", "childrenIds", "model", "modelName", "models", "timestamp", "userContext", "info", "usage",
         "done", "modelIdx", "lastSentence", "statusHistory", "followUps", "error", "annotation")
    )  # fmt: skip
    return fields


def is_claude(value: Any) -> bool:
    """Whether a record is one conversation of Claude's own export."""
    return isinstance(value, dict) and isinstance(value.get("chat_messages"), list)


def read_claude(value: dict[str, Any]) -> Imported:
    """Claude's conversations.json: attachments whose text was extracted stand before the message that brought them."""
    record = Fields(value)
    unused: Counter[str] = Counter()
    messages = [_claude_message(turn, unused) for turn in record.objects("chat_messages")]
    record.used.update(("account", "created_at", "updated_at"))
    identity = identity_of(record)
    title = record.text("name", "summary")
    record.used.update(("name", "summary"))
    source = {**source_of(record), **({"title": title} if title else {})}
    unused.update(record.left_over())
    return Imported("claude export", [Conversation(identity, tuple(messages), source=source)], unused=unused)


def _claude_message(turn: Fields, unused: Counter[str]) -> Message:
    turn.used.update(("uuid", "created_at", "updated_at", "parent_message_uuid", "content"))
    speaker = str(turn.get("sender", "role") or "").lower()
    if speaker not in ROLES:
        raise BadMessage(f"the speaker is {speaker[:40]!r}, known are human and assistant")
    pieces = []
    for item in turn.objects("attachments"):
        extracted = item.text("extracted_content")
        if not extracted:
            raise BadMessage("an attachment comes without its text")
        pieces.append(extracted)
    if turn.value.get("files") and not turn.value.get("attachments"):
        raise BadMessage("a message holds images or files, and only text is trained on")
    turn.used.add("files")
    blocks = [Fields(block) for block in turn.value.get("content") or () if isinstance(block, dict)]
    spoken = [block.text("text") for block in blocks if block.value.get("type") == "text"]
    unused.update(f"{block.value.get('type')} block" for block in blocks if block.value.get("type") != "text")
    text = "\n\n".join(spoken) if spoken else turn.text("text")
    turn.used.add("text")
    unused.update(f"turn.{key}" for key in turn.left_over())
    return replace(Message(ROLES[speaker], "\n\n".join([*pieces, text])))
